"""A local pool: one worker process a run, one a GPU or `--runs-per-gpu N`, else `--workers N` that share the CPU."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.config import Run
from bench.errors import ConfigError
from bench.lease import job_id
from bench.store import Store
from jobs.layout import CACHE_FOLDER, CANCEL_FILE, LOG_FILE, RUN_FILE
from jobs.worker import write_run

POLL_SECONDS = 0.2
CANCEL_POLL_SECONDS = 1.0
CANCELLED = "cancelled; launching it again takes it up"
STOP_SECONDS = 120.0  # for workers to save their state


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place where one run at a time executes."""

    device: str
    n_threads: int
    visible_gpu: str | None = None  # CUDA_VISIBLE_DEVICES of its workers
    runs_per_gpu: int = 1  # slots on the same GPU, this one included


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended: the status of the record it left, or why there is none."""

    run: Run
    status: str | None
    reason: str


def make_slots(device: str | None, n_workers: int | None, runs_per_gpu: int | None = None) -> list[Slot]:
    """Where there are GPUs, one slot on each, or `runs_per_gpu` on each, or `n_workers` dealt out to them in turn.

    Else `n_workers` (by default one a core, at most two) on the CPU; ConfigError for `runs_per_gpu`.
    """
    import torch

    if runs_per_gpu is not None and n_workers is not None:
        raise ConfigError("--workers and --runs-per-gpu both say how many runs go side by side; give one of them")
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device != "cpu" and torch.cuda.is_available():
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        n_gpus = torch.cuda.device_count()
        gpus = named if len(named) == n_gpus else [str(index) for index in range(n_gpus)]
        n_workers = n_workers or n_gpus * (runs_per_gpu or 1)
        threads = max(n_cores // n_workers, 1)
        dealt = [gpus[index % n_gpus] for index in range(n_workers)]
        n_runs = Counter(dealt)
        return [Slot(device="cuda", n_threads=threads, visible_gpu=gpu, runs_per_gpu=n_runs[gpu]) for gpu in dealt]
    if runs_per_gpu is not None:
        raise ConfigError("--runs-per-gpu: these runs are on the CPU; use --workers")
    n_workers = n_workers or min(n_cores, 2)
    return [Slot(device="cpu", n_threads=max(n_cores // n_workers, 1)) for _ in range(n_workers)]


class LocalPool:
    """Does runs on slots, goes on past those that fail, and leaves nothing behind when stopped."""

    def __init__(
        self, store: Store, slots: list[Slot], *, data_dir: Path | None = None, checkpoint_seconds: float = 60.0
    ) -> None:
        self.store, self.slots = store, slots
        self.options = ["--checkpoint-seconds", str(checkpoint_seconds)]
        if data_dir is not None:
            self.options += ["--data-dir", str(data_dir)]
        self.working: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}  # by slot
        self._looked_at = 0.0  # for cancelled runs

    def run(self, runs: list[Run], tell: Callable[[list[Run], Ended | None], None]) -> list[Ended]:
        """Do `runs` in order; `tell(active runs, one that just ended)` several times a second. KeyboardInterrupt on
        SIGINT or SIGTERM, after every worker has saved its state.
        """
        waiting, ended = list(runs), []
        with sigterm_as_interrupt():
            try:
                while waiting or self.working:
                    for index in range(len(self.slots)):
                        while index not in self.working and waiting:
                            run = waiting.pop(0)
                            if self.is_cancelled(run):
                                ended.append(Ended(run=run, status=None, reason=CANCELLED))
                                tell([run for run, _ in self.working.values()], ended[-1])
                            else:
                                self.start(index, run)
                    tell([run for run, _ in self.working.values()], None)
                    time.sleep(POLL_SECONDS)
                    self.stop_cancelled()
                    for index, (run, worker) in list(self.working.items()):
                        if worker.poll() is not None:
                            del self.working[index]
                            ended.append(self.outcome(run, worker.returncode))
                            tell([run for run, _ in self.working.values()], ended[-1])
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it asks for what is being done, and would cut it short
                self.stop()
        return ended

    def is_cancelled(self, run: Run) -> bool:
        """Whether somebody asked, with `python -m jobs cancel`, that this run be left alone."""
        return (self.store.run_folder(run.run_id) / CANCEL_FILE).exists()

    def stop_cancelled(self) -> None:
        """Ask the workers of cancelled runs to save and stop."""
        if time.monotonic() - self._looked_at < CANCEL_POLL_SECONDS:
            return
        self._looked_at = time.monotonic()
        for run, worker in self.working.values():
            if worker.poll() is None and self.is_cancelled(run):
                worker.terminate()

    def start(self, index: int, run: Run) -> None:
        """Begin a run on a free slot."""
        slot = self.slots[index]
        folder = self.store.run_folder(run.run_id)
        if not (folder / RUN_FILE).exists():
            write_run(run, self.store)
        command = [sys.executable, "-u", "-m", "jobs.worker", run.run_id, "--store", str(self.store.root)]
        command += ["--device", slot.device, "--threads", str(slot.n_threads), "--parent", str(os.getpid())]
        command += ["--runs-per-gpu", str(slot.runs_per_gpu)]
        # a slot's own, since runs side by side that share a compiler's cache have been seen to race
        cache = self.store.work_folder / CACHE_FOLDER / f"{job_id() or f'local-{os.getpid()}'}-{index}"
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(cache.absolute() / "inductor"),
            "TRITON_CACHE_DIR": str(cache.absolute() / "triton"),
        }
        if slot.visible_gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.visible_gpu
        with (folder / LOG_FILE).open("ab") as log:
            worker = subprocess.Popen(  # in a session of its own, so that Ctrl-C reaches only the launcher
                [*command, *self.options], stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        self.working[index] = run, worker

    def outcome(self, run: Run, returncode: int) -> Ended:
        """What a worker that has ended left behind."""
        status = self.store.statuses().get(run.run_id)
        if status is not None:
            return Ended(run=run, status=status, reason="")
        if self.is_cancelled(run):
            return Ended(run=run, status=None, reason=CANCELLED)
        if returncode < 0:
            return Ended(run=run, status=None, reason=f"killed by {signal.Signals(-returncode).name}")
        return Ended(run=run, status=None, reason=last_line(self.store.run_folder(run.run_id) / LOG_FILE))

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask every worker to save and stop; kill those that do not within `seconds`."""
        for _, worker in self.working.values():
            if worker.poll() is None:
                worker.terminate()
        deadline = time.monotonic() + seconds
        for _, worker in self.working.values():
            try:
                worker.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self.working.clear()


def last_line(log: Path) -> str:
    """The last line of a log, which names the reason when a worker fails."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"no log: {error.strerror}"
    return lines[-1][:300] if lines else "the log is empty"


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt, as SIGINT does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
