"""A local pool: one worker process a run, as many side by side as there are slots."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.config import Run
from bench.lease import job_id
from bench.store import Store
from jobs.attempt import Attempt, start_attempt
from jobs.layout import CACHE_FOLDER, CANCEL_FILE
from jobs.slots import Slot

POLL_SECONDS = 0.2
CANCEL_POLL_SECONDS = 1.0
CANCELLED = "cancelled; launching it again takes it up"
STOP_SECONDS = 120.0  # for workers to save their state


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended: the status of the record it left, or why there is none."""

    run: Run
    status: str | None
    reason: str


class LocalPool:
    """Does runs on slots, goes on past those that fail, and leaves nothing behind when stopped."""

    def __init__(
        self, store: Store, slots: list[Slot], *, data_dir: Path | None = None, checkpoint_seconds: float = 60.0
    ) -> None:
        self.store, self.slots = store, slots
        self.options = ["--checkpoint-seconds", str(checkpoint_seconds)]
        if data_dir is not None:
            self.options += ["--data-dir", str(data_dir)]
        self.working: dict[int, Attempt] = {}  # by slot
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
                                tell([worker.run for worker in self.working.values()], ended[-1])
                            else:
                                self.start(index, run)
                    tell([worker.run for worker in self.working.values()], None)
                    time.sleep(POLL_SECONDS)
                    self.stop_cancelled()
                    for index, worker in list(self.working.items()):
                        if worker.process.poll() is not None:
                            del self.working[index]
                            ended.append(self.outcome(worker))
                            tell([worker.run for worker in self.working.values()], ended[-1])
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
        for worker in self.working.values():
            if worker.process.poll() is None and self.is_cancelled(worker.run):
                worker.process.terminate()

    def start(self, index: int, run: Run) -> None:
        """Begin a run on a free slot."""
        slot = self.slots[index]
        # a slot's own, since runs side by side that share a compiler's cache have been seen to race
        cache = self.store.work_folder / CACHE_FOLDER / f"{job_id() or f'local-{os.getpid()}'}-{index}"
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": str(cache.absolute() / "inductor"),
            "TRITON_CACHE_DIR": str(cache.absolute() / "triton"),
        }
        self.working[index] = start_attempt(run, slot, self.store, self.options, caches)

    def outcome(self, worker: Attempt) -> Ended:
        """What a worker that has ended left behind."""
        run, returncode = worker.run, worker.process.returncode
        status = self.store.statuses().get(run.run_id)
        if status is not None:
            return Ended(run=run, status=status, reason="")
        if self.is_cancelled(run):
            return Ended(run=run, status=None, reason=CANCELLED)
        if returncode < 0:
            return Ended(run=run, status=None, reason=f"killed by {signal.Signals(-returncode).name}")
        return Ended(run=run, status=None, reason=worker.last_line)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask every worker to save and stop; kill those that do not within `seconds`."""
        for worker in self.working.values():
            if worker.process.poll() is None:
                worker.process.terminate()
        deadline = time.monotonic() + seconds
        for worker in self.working.values():
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.working.clear()


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
