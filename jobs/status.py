"""The state of each run of an experiment: from records first, then from leases, then from the scheduler."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.lease import Holder, living, read_holder
from bench.process import read_progress
from bench.record import NO_SEED, Manifest, Record, run_name
from bench.store import Store
from jobs.layout import CANCEL_FILE
from jobs.slurm.scheduler import SchedulerError, TaskState, tasks_by_run

ENDED_AS = {"CANCELLED": "cancelled", "TIMEOUT": "timeout", "DEADLINE": "timeout"}  # SLURM's word -> ours


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run: the status of its record, or running, queued, cancelled, timeout, interrupted or missing."""

    name: str
    run_id: str
    state: str
    recorded: bool  # whether it has its record
    step: int | None
    n_steps: int | None
    nats_per_token: float | None  # best of the sweeps so far where recorded, else the last
    attempt: int | None = None  # how many processes have worked on it
    seconds_left: float | None = None
    node: str = ""


def states(store: Store, manifest: Manifest, records: list[Record]) -> list[RunState]:
    """The state of every run of an experiment, in its order."""
    by_id = {one.run_id: one for one in records}
    names = {
        run_id: run_name(cell.label, None if seed == NO_SEED else int(seed))
        for cell in manifest.cells
        for seed, run_id in cell.run_ids.items()
    }
    unrecorded = [run_id for run_id in names if run_id not in by_id]
    holders = at_work(store, unrecorded)
    tasks: dict[str, TaskState] = {}
    with suppress(SchedulerError):  # records and leases suffice
        tasks = tasks_by_run(store) if unrecorded else {}
    return [
        _recorded(name, by_id[run_id])
        if run_id in by_id
        else _unrecorded(name, run_id, store, holders.get(run_id), tasks.get(run_id))
        for run_id, name in names.items()
    ]


def at_work(store: Store, run_ids: Iterable[str]) -> dict[str, Holder]:
    """Run id -> who works on it, for those that a living process works on."""
    folders = {store.run_folder(run_id): run_id for run_id in run_ids}
    return {folders[folder]: holder for folder, holder in living(folders).items()}


def _recorded(name: str, recorded: Record) -> RunState:
    return RunState(
        name=name,
        run_id=recorded.run_id,
        state=recorded.status,
        recorded=True,
        step=recorded.curve[-1].step if recorded.curve else recorded.stopped_at_step,
        n_steps=(recorded.config.get("training") or {}).get("n_steps"),
        nats_per_token=min((one.val_nats_per_token for one in recorded.curve), default=None),
        attempt=len(recorded.attempts) or None,
    )


def _unrecorded(name: str, run_id: str, store: Store, holder: Holder | None, task: TaskState | None) -> RunState:
    folder = store.run_folder(run_id)
    values = read_progress(folder) or {}
    last = holder or read_holder(folder)
    return RunState(
        name=name,
        run_id=run_id,
        state=_state(folder, holder, task, begun=bool(values)),
        recorded=False,
        step=values.get("step"),
        n_steps=values.get("n_steps"),
        nats_per_token=values.get("val_nats_per_token"),
        attempt=last.attempt if last else None,
        seconds_left=values.get("seconds_left") if holder else None,
        node=holder.node if holder else task.node if task and task.active else "",
    )


def _state(folder: Path, holder: Holder | None, task: TaskState | None, *, begun: bool) -> str:
    if holder is not None:
        return "running"
    if (folder / CANCEL_FILE).exists():
        return "cancelled"
    if task is not None and task.active:
        return "queued"
    if task is not None and task.state in ENDED_AS:
        return ENDED_AS[task.state]
    return "interrupted" if begun else "missing"
