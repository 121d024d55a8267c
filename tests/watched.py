"""Submissions and checkpoints on disk and answers of SLURM, for tests of status and watching."""

from pathlib import Path
from typing import Any

import pytest

from bench import checkpoint
from bench.config import Run
from bench.process import read_progress
from bench.record import Record
from bench.store import Store
from jobs.slurm import scheduler
from jobs.slurm.scheduler import SchedulerError
from jobs.slurm.submission import Submission
from jobs.status import states
from tests.records import make_record
from tests.tiny import submission_of


def no_slurm(command: str) -> str:
    raise SchedulerError(f"{command}: not here")


def submitted(store: Store, tasks: list[list[Run]], **changes: object) -> Submission:
    """A submission of some tasks, written to disk."""
    made = submission_of(store, *(tuple(run.run_id for run in task) for task in tasks), **changes)
    made.write(store)
    return made


def record_run(store: Store, run: Run, **changes: Any) -> Path:
    """Write a record of a run, by default of one that is done; return its path."""
    return store.write_record(make_record(run.label, run.seed, run_id=run.run_id, mode=run.mode, **changes))


def leave_checkpoints(store: Store, run: Run, *steps: int) -> None:
    """Leave files with the names of a run's checkpoints at these steps."""
    store.run_folder(run.run_id).mkdir(parents=True, exist_ok=True)
    for step in steps:
        (store.run_folder(run.run_id) / f"checkpoint-{step:08d}.pt").write_bytes(b"x" * 1000)


def newest_step(store: Store, run: Run) -> int:
    """The step of the newest checkpoint of a run."""
    return checkpoint.step_of(checkpoint.paths(store.run_folder(run.run_id))[-1])


def steps_done(store: Store, run: Run) -> int:
    """The step in the progress file of a run; 0 where there is none."""
    return (read_progress(store.run_folder(run.run_id)) or {}).get("step") or 0


def assert_equal_bits(recorded: Record, clean: Record) -> None:
    """Two records of finished runs hold the same measurements, bit for bit."""
    assert (recorded.status, recorded.result) == ("done", clean.result)
    assert (recorded.curve, recorded.diagnostics) == (clean.curve, clean.diagnostics)


def slurm_says(monkeypatch: pytest.MonkeyPatch, *lines: str, accounts: str | None = None) -> list[tuple[str, ...]]:
    """Make `squeue` print these lines and `sacct` that text; return the list of commands, filled as they are called."""
    asked: list[tuple[str, ...]] = []

    def ask(*command: str) -> str:
        asked.append(command)
        if command[0] == "squeue":
            return "\n".join(lines)
        if command[0] == "sacct" and accounts is not None:
            return accounts
        if command[0] == "scancel":
            return ""
        return no_slurm(command[0])

    monkeypatch.setattr(scheduler, "ask", ask)
    return asked


def state_of(store: Store, run: Run) -> str:
    """The state of a run in `status`."""
    found = states(store, store.manifests()[0][0], store.records()[0])
    return next(one.state for one in found if one.run_id == run.run_id)
