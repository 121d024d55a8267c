"""One screen about one run: its state, its last progress, the end of its log, the likely cause, the next command."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import NO_MEMORY, typed
from bench.lease import Holder, read_holder
from bench.process import read_progress
from bench.record import Record
from bench.store import Store
from jobs.layout import CANCEL_FILE, CAUSE_FILE, JOBS_FOLDER, LAUNCHER_GONE, LOG_FILE
from jobs.slurm.scheduler import SchedulerError, TaskState, tasks_by_run
from jobs.status import at_work

N_LOG_LINES = 12
FAILED_STATES = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL")


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What is known of a run, from its record, its folder and the scheduler."""

    record: Record | None
    holder: Holder | None  # of the last lease
    alive: bool
    cancelled: bool
    progress: dict[str, Any]
    task: TaskState | None
    scheduler_error: str | None
    error: str | None  # the class of our own error that ended the last attempt
    log: list[str]  # its last lines


OUT_OF_MEMORY = "out of memory: raise mem, or pack fewer runs"
GPU_NOT_USABLE = "the node's GPU or driver is not usable"
ERROR_CAUSES = {  # our own errors, by the class that the worker noted
    "EditedSources": "the sources were edited while the run waited",
    "RunIsTaken": "another process worked on the run",
    "LeaseLost": "another process worked on the run",
    "CorpusError": "the corpus is missing or altered there",
    "DownloadError": "the corpus is missing or altered there",
    "CheckpointError": "its checkpoint cannot be used: the log's last line says why",
    "DeviceError": GPU_NOT_USABLE,
    "ConfigError": "its config or options do not fit this machine: the log's last line says why",
    LAUNCHER_GONE: "its launcher was killed; the state was saved",
}
STATUS_CAUSES = {"oom": OUT_OF_MEMORY, "diverged": "training diverged: a number is not finite"}
# what torch, Python or the system write in logs and errors -> what it means and what helps; the first match counts
CAUSES: tuple[tuple[str | re.Pattern[str], str], ...] = (
    (NO_MEMORY, OUT_OF_MEMORY),
    (r"No space left|EDQUOT|Disk quota|EFBIG|File too large", "the disk or a quota is full: `jobs gc` makes room"),
    (r"ModuleNotFoundError|No module named", "the node's Python lacks a package: see the profile's `python`"),
    (r"devices are busy or unavailable", "the GPU takes one process at a time: use --runs-per-gpu 1"),
    (r"CUDA (error|driver|initialization)", GPU_NOT_USABLE),
    (r"Traceback", "the program failed: the log's last line names the error"),
)
SCHEDULER_CAUSES = {
    "OUT_OF_MEMORY": "SLURM killed it for using more memory than asked for: raise mem",
    "TIMEOUT": "it ran into its time limit too many times: raise timeout_min",
    "NODE_FAIL": "its node failed",
    "CANCELLED": "it was cancelled with scancel, or by the site",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "it was preempted and not requeued",
    "FAILED": "its job failed: the job's log may say more",
}


def find_traces(store: Store, run_id: str) -> Traces:
    """Collect the traces of a run."""
    folder = store.run_folder(run_id)
    record = next((one for one in store.records()[0] if one.run_id == run_id), None)
    task, scheduler_error = None, None
    try:
        task = tasks_by_run(store).get(run_id)
    except SchedulerError as error:
        scheduler_error = str(error)
    holder = at_work(store, [run_id]).get(run_id)
    log = tail(folder / LOG_FILE)
    if task is not None and (not log or task.state in FAILED_STATES):  # it may have failed before any run began
        jobs = (store.work_folder / JOBS_FOLDER).glob(f"kops-*/{task.job_id}_0_log.out")
        log += next((tail(path, N_LOG_LINES // 2) for path in jobs), [])
    return Traces(
        record=record,
        holder=holder or read_holder(folder),
        alive=holder is not None,
        cancelled=(folder / CANCEL_FILE).exists(),
        progress=read_progress(folder) or {},
        task=task,
        scheduler_error=scheduler_error,
        error=next(iter(tail(folder / CAUSE_FILE, 1)), None),
        log=log,
    )


def screen(found: Traces, name: str, state: str, experiment: str, store: Store) -> list[str]:
    """The screen, line by line."""
    lines = [f"{name}: {state}"]
    if found.holder is not None:
        sign = "alive now" if found.alive else "released" if found.holder.released else "no sign of life"
        where = f"process {found.holder.pid} on {found.holder.node}"
        job = f", job {found.holder.job_id}" if found.holder.job_id else ""
        lines.append(f"attempt {found.holder.attempt}: {where}{job}; heartbeat {found.holder.heartbeat}, {sign}")
    if found.progress:
        lines.append(_progress_line(found.progress))
    if found.task is not None:
        reason = f" ({found.task.reason})" if found.task.reason not in ("", "None") else ""
        lines.append(f"SLURM: job {found.task.job_id} {found.task.state}{reason}")
    if found.scheduler_error:
        lines.append(f"SLURM cannot be asked: {found.scheduler_error}")
    if found.record is not None and found.record.error:
        lines.append(f"record: {found.record.error}")
    lines += [f"  | {line}" for line in found.log]
    lines.append(f"likely cause: {cause(found, state)}")
    lines.append(f"next: {next_command(state, experiment, store, found)}")
    return lines


def cause(found: Traces, state: str) -> str:
    """The likeliest reason for the state, in words."""
    if state == "done":
        return "none, it is done"
    if state == "running":
        return "none, it is running"
    if found.cancelled:
        return "somebody cancelled it with `jobs cancel`"
    if state == "queued" and found.task is not None:
        waits = f"none, it waits for SLURM ({found.task.reason})"
        return waits if found.task.queued else "none, its job is running and will do it"
    if found.record is not None and found.record.status in STATUS_CAUSES:
        return STATUS_CAUSES[found.record.status]
    if found.error in ERROR_CAUSES:
        return ERROR_CAUSES[found.error]
    texts = [found.record.error or "" if found.record else "", *reversed(found.log)]
    for text, (pattern, meaning) in itertools.product(texts, CAUSES):
        if re.search(pattern, text):
            return meaning
    if found.task is not None and found.task.state in SCHEDULER_CAUSES:
        return SCHEDULER_CAUSES[found.task.state]
    if found.record is not None:
        return "the program failed with the error of its record"
    if state == "missing":
        return "it was never started"
    if found.holder is not None and found.holder.released:
        return "it was asked to stop, and saved its state"
    return "its process was killed, or its machine failed: no message was left"


def next_command(state: str, experiment: str, store: Store, found: Traces) -> str:
    """The next command to type."""
    if state == "done":
        return typed("bench", "table", store=store.root)
    if state in ("running", "queued"):
        return typed("jobs", "status", "--watch", store=store.root)
    if found.record is not None:
        return typed("jobs", "retry", found.record.run_id, store=store.root)
    return typed("jobs", "launch", "--experiment", *experiment.split(), store=store.root)


def tail(path: Path, n_lines: int = N_LOG_LINES) -> list[str]:
    """The last lines of a log, made printable; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 20_000, 0))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = text.strip().splitlines()[-n_lines:]
    return ["".join(char if char.isprintable() else "?" for char in line)[:300] for line in lines]


def _progress_line(progress: dict[str, Any]) -> str:
    words = [f"last word: {progress.get('state')}"]
    if progress.get("step") is not None:
        words.append(f"step {progress['step']} of {progress.get('n_steps') or '?'}")
    for key, what in (("train_nats", "training"), ("val_nats_per_token", "validation")):
        if progress.get(key) is not None:
            words.append(f"{what} {progress[key]:.4f} nats per token")
    return ", ".join(words)
