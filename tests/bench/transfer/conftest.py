"""A store that nothing has come to yet."""

from pathlib import Path

import pytest

from bench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that has nothing yet."""
    return Store(tmp_path / "store")
