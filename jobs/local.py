"""A local pool: one worker process per run, as many at a time as there are slots."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.config import Run
from bench.process import on_signals
from bench.store import Store
from jobs.attempt import WorkerProcess, start_attempt
from jobs.cache import cache_environment
from jobs.deadline import Deadline
from jobs.grid import set_aside
from jobs.layout import CANCEL_FILE
from jobs.meter import Meter
from jobs.queue import Queue
from jobs.slots import Slot

POLL_SECONDS = 0.2
CANCEL_POLL_SECONDS = 1.0
CANCELLED = "cancelled; launching it again takes it up"
OUT_OF_TIME = "the deadline came first"
STOP_SECONDS = 120.0  # for workers to save their state


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a worker ended: the status of the record it left, or why there is none."""

    run: Run
    status: str | None = None
    reason: str = ""

    @property
    def cut(self) -> bool:
        """Whether a deadline left it to another launch."""
        return self.reason == OUT_OF_TIME


class LocalPool:
    """Does runs on slots, continues after failed ones, and leaves no process when stopped."""

    def __init__(
        self,
        store: Store,
        slots: list[Slot],
        *,
        data_dir: Path | None = None,
        checkpoint_seconds: float = 60.0,
        deadline: Deadline | None = None,
    ) -> None:
        self.store, self.slots, self.deadline = store, slots, deadline
        self.options = ["--checkpoint-seconds", str(checkpoint_seconds)]
        if data_dir is not None:
            self.options += ["--data-dir", str(data_dir)]
        self.caches = {slot.kind: cache_environment(slot.kind) for slot in slots if slot.device == "cuda"}
        self.working: dict[int, WorkerProcess] = {}  # by slot
        self._looked_at = 0.0  # for cancelled runs
        self.meter = Meter({slot.visible_gpu for slot in slots if slot.device == "cuda"})

    def run(self, runs: list[Run], tell: Callable[[list[Run], Ended | None], None]) -> list[Ended]:
        """Do `runs`; `tell(active runs, one that just ended)` several times a second. What a deadline cuts short has
        saved its state. KeyboardInterrupt on SIGINT or SIGTERM, after every worker has saved its state.
        """
        queue, ended = Queue(runs, self.slots, self.deadline), []

        def note(one: Ended) -> None:
            ended.append(one)
            tell([worker.run for worker in self.working.values()], one)

        with on_signals(signal.default_int_handler, signal.SIGTERM):  # which raises KeyboardInterrupt
            try:
                while not self.time_is_up():
                    self.start_what_can(queue, note)
                    if not self.working:
                        break
                    tell([worker.run for worker in self.working.values()], None)
                    time.sleep(POLL_SECONDS)
                    self.stop_cancelled()
                    self.look(queue)
                    self.collect(queue, note)
                if self.deadline is not None:
                    ended += self.cut(queue, note)
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it asks for what is being done, and would cut it short
                self.stop()
        return ended

    def time_is_up(self) -> bool:
        """Whether running runs must save now."""
        return self.deadline is not None and time.monotonic() >= self.deadline.stop_at

    def start_what_can(self, queue: Queue, note: Callable[[Ended], None]) -> None:
        """Start runs from the queue on the free slots."""
        while (chosen := queue.start_next(time.monotonic())) is not None:
            index, run = chosen
            if self.is_cancelled(run):
                queue.end(index, time.monotonic(), done=False)
                note(Ended(run=run, reason=CANCELLED))
            else:
                self.start(index, run)

    def look(self, queue: Queue) -> None:
        """Tell the queue which shapes are compiled by now, and the meter which GPUs train."""
        training = {index for index, worker in self.working.items() if worker.trains()}
        for index in training:
            queue.has_compiled(index)
        self.meter.look({self.slots[index].visible_gpu for index in training})

    def collect(self, queue: Queue, note: Callable[[Ended], None]) -> None:
        """Collect the workers that have ended. A run killed for memory goes back to the queue, once."""
        over = [index for index, worker in self.working.items() if worker.process.poll() is not None]
        # counted before any of them is removed, since they were running side by side
        n_active = {index: queue.n_active(self.slots[index].visible_gpu) for index in over}
        for index in over:
            worker = self.working.pop(index)
            one = self.outcome(worker)
            most = queue.put_back(index, n_active[index]) if lacked_memory(one, worker) else None
            if most is None:
                queue.end(index, time.monotonic(), done=one.status == "done")
                note(one)
                continue
            set_aside(worker.run, self.store)  # a record that says `oom`, where it came to write one
            at_most = f"at most {most} {'run' if most == 1 else 'runs'} on this GPU from now on"
            print(f"{worker.run.name}: out of memory, queued again; {at_most}", flush=True)

    def cut(self, queue: Queue, note: Callable[[Ended], None]) -> list[Ended]:
        """At the deadline: every worker saves its state. Runs without a record are left for another launch."""
        assert self.deadline is not None
        runs = [worker.run for worker in self.working.values()]
        self.stop(self.deadline.stop_seconds)
        statuses = self.store.statuses()
        for run in runs:
            if run.run_id in statuses:  # it came to its end meanwhile
                note(Ended(run=run, status=statuses[run.run_id]))
        left = [run for run in [*runs, *queue.waiting] if run not in runs or run.run_id not in statuses]
        return [Ended(run=run, reason=OUT_OF_TIME) for run in left]

    def is_cancelled(self, run: Run) -> bool:
        """Whether this run was cancelled with `python -m jobs cancel`."""
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
        """Start a run on a free slot."""
        slot = self.slots[index]
        self.working[index] = start_attempt(run, slot, self.store, self.options, self.caches.get(slot.kind, {}))

    def outcome(self, worker: WorkerProcess) -> Ended:
        """The result of a worker that has ended."""
        run, returncode = worker.run, worker.process.returncode
        if (status := self.store.statuses().get(run.run_id)) is not None:
            return Ended(run=run, status=status)
        if self.is_cancelled(run):
            return Ended(run=run, reason=CANCELLED)
        if returncode < 0:
            return Ended(run=run, reason=f"killed by {signal.Signals(-returncode).name}")
        return Ended(run=run, reason=["the log is empty", *worker.log_lines][-1][:300])

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


def lacked_memory(one: Ended, worker: WorkerProcess) -> bool:
    """Whether a run ended since memory ran out: by its own error, or killed by the kernel."""
    if one.status is not None or one.reason == CANCELLED:
        return one.status == "oom"
    return worker.process.returncode == -signal.SIGKILL or worker.says_no_memory
