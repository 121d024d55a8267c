"""What the tests on a real SLURM share: one cluster of two nodes for all of them."""

import os
from collections.abc import Iterator

import pytest

from tests.jobs.slurm.cluster import Cannot, Cluster, cluster


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; where SLURM cannot be had a test skips, but never in CI."""
    try:
        with cluster(tmp_path_factory.mktemp("slurm")) as started:
            yield started
    except Cannot as reason:
        if os.environ.get("CI"):
            pytest.fail(str(reason))
        pytest.skip(str(reason))
