"""Commands on runs: cancel, retry, and remove files that are no longer needed."""

import os
import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import checkpoint
from bench.errors import ConfigError, typed
from bench.files import write_atomically
from bench.lease import boot_id
from bench.repeat import run_of
from bench.store import RUN_ID, Store
from jobs.cache import unused
from jobs.grid import set_aside
from jobs.layout import CACHE_FOLDER, CANCEL_FILE
from jobs.slurm import scheduler
from jobs.slurm.commands import on
from jobs.slurm.scheduler import SchedulerError, tasks_by_run
from jobs.slurm.submission import submissions
from jobs.status import at_work

TEMPORARY = ".*.tmp"


def cancel_runs(store: Store, run_ids: list[str]) -> list[str]:
    """Cancel runs until they are launched again: running ones save their state and stop. Returns lines for the user.

    A SLURM task is cancelled where no other of its runs is still wanted.
    """
    ended = store.statuses()
    lines = [f"{one}: has its record ({ended[one]}); nothing to cancel" for one in run_ids if one in ended]
    wanted = [run_id for run_id in run_ids if run_id not in ended]
    for run_id in wanted:
        write_atomically(store.run_folder(run_id) / CANCEL_FILE, b"")
    holders = at_work(store, wanted)
    for run_id in wanted:
        holder = holders.get(run_id)
        if holder is not None and holder.boot == boot_id() and holder.job_id is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(holder.pid, signal.SIGTERM)
        where = f"running on {holder.node}, stops within seconds" if holder else "not running"
        lines.append(f"{run_id}: cancelled ({where})")
    for job_id, cluster in sorted(_tasks_without_wanted_runs(store, wanted), key=str):
        try:
            scheduler.ask("scancel", *on(cluster), job_id)
            lines.append(f"job {job_id}: cancelled, since all its runs are cancelled")
        except SchedulerError as error:  # it ended just now, or SLURM is away: the marks do
            lines.append(f"job {job_id}: {error}")
    return lines


def retry_runs(store: Store, run_ids: list[str]) -> None:
    """Put runs back among what is missing: their record, if any, is set aside, and a cancellation is lifted."""
    recorded = {one.run_id: one for one in store.records()[0]}
    done = [run_id for run_id in run_ids if run_id in recorded and recorded[run_id].status == "done"]
    if done:
        again = typed("bench", "rerun", next(iter(store.files_of(done[0]))))
        raise ConfigError(f"{', '.join(done)}: done, so there is nothing to retry; `{again}` repeats one")
    for run_id in run_ids:
        if run_id in recorded:
            set_aside(run_of(recorded[run_id]), store)
        (store.run_folder(run_id) / CANCEL_FILE).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that may go."""

    path: Path
    why: str
    n_files: int
    n_bytes: int


def leftovers(store: Store) -> list[Leftover]:
    """Files that are not needed any more: older checkpoints of runs that have their record, half-written files,
    compilers' caches that no launch has used for a month, and the files of submissions none of whose runs is missing.
    Nothing of a running run.
    """
    recorded = store.statuses()
    folders = [path for path in store.work_folder.glob("*") if path.is_dir() and RUN_ID.fullmatch(path.name)]
    busy = at_work(store, [path.name for path in folders])
    found = []
    for folder in folders:
        if folder.name in busy:
            continue
        found += [_measure(path, "half-written") for path in folder.glob(TEMPORARY)]
        if recorded.get(folder.name) == "done":  # a retry of any other may need the one before the last
            for path in checkpoint.paths(folder)[:-1]:  # the last also holds the best weights, for `sample`
                sidecar = path.with_suffix(".pt.sha256")
                found += [_measure(one, "older checkpoint of a finished run") for one in (path, sidecar)]
    earlier = submissions(store)
    try:
        known = scheduler.queue(scheduler.clusters_of(earlier))
        active = {name for (name, _), state in known.items() if state.active}
    except SchedulerError:
        active = {one.name for one in earlier}  # any of them may have a task queued or running
    for submission in earlier:
        finished = all(run_id in recorded for task in submission.tasks for run_id in task) or submission.measures
        if finished and submission.name not in active:
            found.append(_measure(submission.folder(store), "submission whose runs all have records"))
    if not busy and not active and (cache := store.work_folder / CACHE_FOLDER).is_dir():
        found.append(_measure(cache, "compilers' cache of an earlier version"))
    found += [_measure(path, "compilers' cache that is no longer used") for path in unused()]
    if not busy:
        found += [_measure(path, "half-written") for path in (store.root / "runs").glob(TEMPORARY)]
    return [one for one in found if one.n_files]


def remove(some: list[Leftover]) -> None:
    """Delete leftovers."""
    for one in some:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)


def summarize(some: list[Leftover]) -> list[str]:
    """A line a reason, with files and bytes, since quotas count both."""
    files: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    for one in some:
        files[one.why] += one.n_files
        n_bytes[one.why] += one.n_bytes
    return [f"{why}: {files[why]:,} files, {n_bytes[why] / 2**20:,.1f} MiB" for why in sorted(files)]


def _measure(path: Path, why: str) -> Leftover:
    n_files = n_bytes = 0
    for one in path.rglob("*") if path.is_dir() else [path]:
        with suppress(FileNotFoundError):  # it went by itself
            if one.is_file():
                n_files, n_bytes = n_files + 1, n_bytes + one.lstat().st_size
    return Leftover(path=path, why=why, n_files=n_files, n_bytes=n_bytes)


def _tasks_without_wanted_runs(store: Store, cancelled: list[str]) -> set[tuple[str, str | None]]:
    """The job ids, and clusters, of active tasks that hold one of `cancelled` and nothing that is still to be done."""
    try:
        tasks = tasks_by_run(store)
    except SchedulerError:
        return set()  # the mark in the run's folder will do
    recorded, wanted, touched = store.statuses(), set(), set()
    for run_id, task in tasks.items():
        if task.active:
            if run_id in cancelled:
                touched.add((task.job_id, task.cluster))
            elif run_id not in recorded and not (store.run_folder(run_id) / CANCEL_FILE).exists():
                wanted.add((task.job_id, task.cluster))
    return touched - wanted
