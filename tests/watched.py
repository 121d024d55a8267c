"""Submissions on disk and what SLURM says of them, for tests of who watches runs."""

import pytest

from bench.config import Run
from bench.store import Store
from jobs.slurm import scheduler
from jobs.slurm.scheduler import SchedulerError
from jobs.slurm.submission import Submission
from jobs.status import states
from tests.tiny import submission_of


def no_slurm(command: str) -> str:
    raise SchedulerError(f"{command}: not here")


def submitted(store: Store, tasks: list[list[Run]], **changes: object) -> Submission:
    """A submission of some tasks, as it lies on disk."""
    made = submission_of(store, *(tuple(run.run_id for run in task) for task in tasks), **changes)
    made.write(store)
    return made


def slurm_says(monkeypatch: pytest.MonkeyPatch, *lines: str, accounts: str | None = None) -> list[tuple[str, ...]]:
    """Have `squeue` answer these lines and `sacct` that text; the commands that are asked come into the list."""
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
    """The state that a run is shown with."""
    found = states(store, store.manifests()[0][0], store.records()[0])
    return next(one.state for one in found if one.run_id == run.run_id)
