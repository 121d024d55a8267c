"""One worker process, seen from its launcher: how it is started, whether it trains, and the errors in its log."""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.config import Run
from bench.errors import NO_MEMORY
from bench.files import make_way
from bench.process import PROGRESS_FILE, read_progress
from bench.store import Store
from jobs.layout import LOG_FILE, RUN_FILE
from jobs.slots import Slot
from jobs.worker import write_run

WORKER: tuple[str, ...] = ("-m", "jobs.worker")  # arguments of Python
TRAINING_STATES = ("training", "evaluating", "measuring")  # of a progress file, once the step is compiled


@dataclass(frozen=True, kw_only=True)
class WorkerProcess:
    """A process that works on a run."""

    run: Run
    process: "subprocess.Popen[bytes]"
    folder: Path  # of the run
    log_start: int  # bytes that earlier attempts left in the log
    progress_before: tuple[int, int] | None  # the mark of the progress file that an earlier attempt left

    def trains(self) -> bool:
        """Whether this process has compiled the step, and trains or measures."""
        if progress_mark(self.folder) == self.progress_before:
            return False
        return (read_progress(self.folder) or {}).get("state") in TRAINING_STATES

    @property
    def log_lines(self) -> list[str]:
        """The output of this process; where its log cannot be read, a line with the reason."""
        try:
            with (self.folder / LOG_FILE).open("rb") as log:
                log.seek(self.log_start)
                return log.read().decode("utf-8", errors="replace").strip().splitlines()
        except OSError as error:
            return [f"no log: {error.strerror}"]

    @property
    def says_no_memory(self) -> bool:
        """Whether the log has an out-of-memory error, which may come before there is a record."""
        return any(NO_MEMORY.search(line) for line in self.log_lines)


def start_attempt(run: Run, slot: Slot, store: Store, options: list[str], caches: dict[str, str]) -> WorkerProcess:
    """Start a worker on a slot, with more `options` and the environment of its compilers' `caches`.

    A counted model is fitted on the CPU, also on a slot of a GPU.
    """
    folder = store.run_folder(run.run_id)
    if not (folder / RUN_FILE).exists():
        write_run(run, store)
    device = slot.device if run.config.training is not None else "cpu"
    command = [sys.executable, "-u", *WORKER, run.run_id, "--store", str(store.root)]
    command += ["--device", device, "--threads", str(slot.n_threads), "--parent", str(os.getpid())]
    command += ["--runs-per-gpu", str(slot.runs_per_gpu)]
    environment = {**os.environ, **caches, "PYTHONIOENCODING": "utf-8:replace"}  # a log is UTF-8, whatever the locale
    if slot.visible_gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = slot.visible_gpu
    before = progress_mark(folder)
    make_way(folder / LOG_FILE)
    with (folder / LOG_FILE).open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(  # in a session of its own, so that Ctrl-C reaches only the launcher
            [*command, *options], stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    return WorkerProcess(run=run, process=process, folder=folder, log_start=start, progress_before=before)


def progress_mark(folder: Path) -> tuple[int, int] | None:
    """A value that changes with each write of a run's progress file; None where there is none."""
    with suppress(OSError):
        found = (folder / PROGRESS_FILE).stat()
        return found.st_ino, found.st_mtime_ns
    return None
