"""What became of each run of an experiment, read from the store alone: records first, then signs of life."""

import fcntl
from dataclasses import dataclass

from bench.process import read_progress
from bench.record import NO_SEED, Manifest, Record, run_name
from bench.store import Store


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run: a record's status, or running, interrupted, missing."""

    name: str
    run_id: str
    state: str
    step: int | None
    nats_per_token: float | None  # best so far, sweep

    @property
    def final(self) -> bool:
        """Whether the run has its record."""
        return self.state not in ("running", "interrupted", "missing")


def states(store: Store, manifest: Manifest, records: list[Record]) -> list[RunState]:
    """The state of every run of an experiment, in its order."""
    by_id = {one.run_id: one for one in records}
    found = []
    for cell in manifest.cells:
        for seed, run_id in cell.run_ids.items():
            name = run_name(cell.label, None if seed == NO_SEED else int(seed))
            found.append(_recorded(name, by_id[run_id]) if run_id in by_id else _unrecorded(name, run_id, store))
    return found


def is_locked(store: Store, run_id: str) -> bool:
    """Whether a living process works on a run."""
    try:
        with (store.run_folder(run_id) / "lock").open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _recorded(name: str, recorded: Record) -> RunState:
    nats = min((one.val_nats_per_token for one in recorded.curve), default=None)
    step = recorded.curve[-1].step if recorded.curve else recorded.stopped_at_step
    return RunState(name=name, run_id=recorded.run_id, state=recorded.status, step=step, nats_per_token=nats)


def _unrecorded(name: str, run_id: str, store: Store) -> RunState:
    progress = read_progress(store.run_folder(run_id))
    state = "running" if is_locked(store, run_id) else "interrupted" if progress else "missing"
    values = progress or {}
    return RunState(
        name=name, run_id=run_id, state=state, step=values.get("step"), nats_per_token=values.get("val_nats_per_token")
    )
