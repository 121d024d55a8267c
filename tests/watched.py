"""Submissions on disk and answers of SLURM, for tests of status and watching."""

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
    """A submission of some tasks, written to disk."""
    made = submission_of(store, *(tuple(run.run_id for run in task) for task in tasks), **changes)
    made.write(store)
    return made


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
