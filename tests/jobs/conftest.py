"""A store of runs that have not begun, an empty cache of compilers, and a SLURM that cannot be asked."""

from pathlib import Path

import pytest

from bench.config import Run
from bench.store import Store
from jobs.cache import CACHE_DIR_VARIABLE
from jobs.slurm import scheduler
from jobs.worker import write_run
from tests.records import make_manifest
from tests.tiny import tiny_runs
from tests.watched import no_slurm


@pytest.fixture
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SLURM is asked unless a test gives one."""
    monkeypatch.setattr(scheduler, "ask", lambda *command: no_slurm(command[0]))


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The compilers' cache of this test, which is not made yet."""
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def runs() -> list[Run]:
    """Three runs, of the arm `tiny`."""
    return tiny_runs(seeds=(42, 69, 420))


@pytest.fixture
def store(tmp_path: Path, runs: list[Run]) -> Store:
    """A store that knows of three runs, none of which has begun."""
    store = Store(tmp_path / "store")
    store.write_manifest(make_manifest(name="smoke", cells={"tiny": {str(run.seed): run.run_id for run in runs}}))
    for run in runs:
        write_run(run, store)
    return store
