"""The work of one task of a SLURM array: runs by id, from a store, with the same pool and worker as anywhere.

Everything else is on disk: the runs, their progress and which process works on them.
"""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from submitit.core.job_environment import JobEnvironment
from submitit.core.submission import process_job
from submitit.helpers import Checkpointable, DelayedSubmission

from bench.cli import pick_device
from bench.config import Run
from bench.errors import EXIT_FAILED, ConfigError, UserError
from bench.files import write_atomically
from bench.store import RUNS_DIR_VARIABLE, Store
from jobs.cost import measured_path, run_seconds
from jobs.local import CANCELLED, Ended, LocalPool
from jobs.slots import Slot, make_slots
from jobs.slurm.submission import Submission, read_submission
from jobs.speeds import Platform
from jobs.worker import find_run, note_cause

MAX_TIMEOUTS = 100  # starts of a task, after which submitit takes the next time-out for its last
ARRAY_VARIABLES = tuple(f"SLURM_ARRAY_{name}" for name in ("JOB_ID", "TASK_ID"))
ARRAY_VARIABLES += tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("COUNT", "MAX", "MIN", "STEP"))
SAVE_SECONDS = 60.0  # for workers to save when time is short; half of the warning that is usual


class RunsTask(Checkpointable):
    """Does some runs of a submission. Requeued unchanged when time is short: its runs save their own state."""

    pool: LocalPool | None = None  # while it works

    def __init__(self, folder: Path, run_ids: tuple[str, ...], store: Path) -> None:
        self.folder, self.run_ids, self.store = str(folder), run_ids, str(store)

    def __call__(self) -> dict[str, str]:
        """Bring the runs to their records; run id -> status. Runs that have a record are skipped."""
        submission, store = read_submission(Path(self.folder)), Store(Path(self.store))
        statuses = store.statuses()
        runs, refused = [], []
        for run_id in self.run_ids:
            if run_id in statuses:
                continue
            try:
                runs.append(find_run(run_id, store))
            except UserError as error:
                note_cause(run_id, store, type(error).__name__)
                refused.append(f"{run_id}: {error}")
        if submission.measures:
            if refused:
                raise RuntimeError("; ".join(refused))
            return {run.run_id: note_seconds(run, submission, store) for run in runs}
        self.pool = pool = LocalPool(
            store,
            task_slots(submission),
            data_dir=Path(submission.data_dir) if submission.data_dir else None,
            checkpoint_seconds=submission.checkpoint_seconds,
        )
        ended = pool.run(runs, say)
        lost = [f"{one.run.name}: {one.reason}" for one in ended if one.status is None and one.reason != CANCELLED]
        if refused or lost:
            raise RuntimeError("; ".join([*refused, *lost]))  # SLURM then shows the task as failed
        return {one.run.run_id: one.status or CANCELLED for one in ended}

    def checkpoint(self) -> DelayedSubmission:
        """Make every worker save and stop, then requeue: after that, SLURM soon kills the rest."""
        if self.pool is not None:
            self.pool.stop(SAVE_SECONDS)
        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pool"}


def task_slots(submission: Submission) -> list[Slot]:
    """One slot per concurrent run on each visible GPU, or on the CPUs. ConfigError without a GPU
    where one was planned for.
    """
    if submission.device == "cuda":
        pick_device("cuda")
        slots = make_slots("cuda", None, submission.runs_at_once)
        n_threads = max(submission.n_threads * submission.runs_at_once // len(slots), 1)
        return [replace(slot, n_threads=n_threads) for slot in slots]
    return [Slot(device="cpu", n_threads=submission.n_threads)] * submission.runs_at_once


def say(active: list[Run], ended: Ended | None) -> None:
    """A line for each end; the runs' own logs hold the rest."""
    if ended is not None:
        print(f"{ended.run.name}: {ended.status or ended.reason}; {len(active)} still running", flush=True)


def start(folder: Path) -> int:
    """Be the task that SLURM's environment names, of the submission in `folder`, under submitit's signal handlers.

    The plan on disk defines what to do. submitit's own pickle is rewritten from it, never trusted: so a launcher that
    died before it wrote one costs nothing, and a script that was submitted by hand works alike.
    """
    submission = read_submission(folder)
    if (here := Store(Path(submission.store)).work_folder).resolve() != folder.resolve().parent.parent:
        raise ConfigError(
            f"{folder}: on this node the runs of {submission.store} are in {here}: its links lead elsewhere here; "
            f"launch again with a store without links, or without {RUNS_DIR_VARIABLE}"
        )
    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")
    os.environ["SUBMITIT_FOLDER"] = str(folder)
    os.environ.pop("SLURM_CLUSTERS", None)  # which would send the requeue to another cluster
    index = task_index(submission)
    environment = JobEnvironment()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    delayed = DelayedSubmission(make_task(submission, index, folder))
    delayed.set_timeout(submission.timeout_min, max(MAX_TIMEOUTS - restarts, 0))
    pickle = environment.paths.submitted_pickle
    for stale in pickle.parent.glob(f"{environment.job_id}_*.save_tmp"):  # a kill's leavings, which submitit stops at
        stale.unlink(missing_ok=True)
    delayed.dump(pickle)
    print(f"{submission.name}, task {index}, start {restarts + 1}: {json.dumps(submission.tasks[index])}", flush=True)
    try:
        process_job(folder)
    except RuntimeError as error:
        print(f"error: {error}", flush=True)
        return EXIT_FAILED
    return 0


def task_index(submission: Submission) -> int:
    """Which task of a submission this process is. ConfigError where SLURM's environment names none of them.

    A submission of one task is no array: its variables are those of a job that it was submitted from, and are removed.
    """
    n_tasks = len(submission.tasks)
    if n_tasks == 1:
        for name in ARRAY_VARIABLES:
            os.environ.pop(name, None)
        return 0
    text = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) >= n_tasks:
        raise ConfigError(f"SLURM_ARRAY_TASK_ID={text!r}: the tasks of {submission.name} are 0 to {n_tasks - 1}")
    return int(text)


def make_task(submission: Submission, index: int, folder: Path) -> RunsTask:
    """Task `index` of the submission with its plan in `folder`."""
    return RunsTask(folder, submission.tasks[index], Path(submission.store))


def note_seconds(run: Run, submission: Submission, store: Store) -> str:
    """Time some steps of a run on this node, and store the estimate for the whole run; one line for the log."""
    import torch

    from jobs.probe import pace

    torch.set_num_threads(submission.n_threads)
    step, token = pace(run, submission.device, Path(submission.data_dir) if submission.data_dir else None)
    seconds = run_seconds(run, step, Platform(device=submission.device, n_threads=1), token_seconds=token)
    content = {"seconds": seconds, "n_threads": submission.n_threads}
    write_atomically(measured_path(store, run, submission.device), json.dumps(content).encode())
    return f"{run.name}: {seconds:.0f} s"
