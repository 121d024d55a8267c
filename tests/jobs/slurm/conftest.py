"""No site says anything where none is asked; and one cluster of two nodes for all tests on a real SLURM."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store import Store
from tests.debian import Cannot, skip_unless_ci
from tests.jobs.slurm.cluster import Cluster, cluster
from tests.jobs.slurm.stand_in import write_programs
from tests.sites import forget_site


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; where SLURM cannot be had a test skips, but never in CI."""
    try:
        with cluster(tmp_path_factory.mktemp("slurm")) as started:
            yield started
    except Cannot as reason:
        skip_unless_ci(reason)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that has nothing yet."""
    return Store(tmp_path / "store")


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds stand-ins and nothing else; the folder in which they write down what they are given."""
    write_programs(tmp_path / "programs", tmp_path / "taken")
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return tmp_path / "taken"


@pytest.fixture(autouse=True)
def no_site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on this machine says anything about a site, but for tests on a real one."""
    if request.node.get_closest_marker("slurm") is None:
        forget_site(monkeypatch, tmp_path)
