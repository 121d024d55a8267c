"""Which run starts next, and on which slot: for the local pool and for its forecast.

It uses no process and no clock: its caller reports when a run has compiled and when one has ended.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from bench.config import Run
from bench.workload import shape_of
from jobs.deadline import Deadline
from jobs.slots import Slot

COMPILING_SHARE = 3  # at most one slot in so many compiles at a time, so that the others train meanwhile


@dataclass
class Active:
    """A run on a slot."""

    run: Run
    started_at: float  # seconds, by the clock that the queue is given
    compiles: Hashable | None  # the shape that it is the first to compile
    shared: bool = False  # whether others have been running on its GPU since it started


class Queue:
    """The waiting runs, in order, and the running ones, by slot.

    The first run of a shape compiles its step; further runs of that shape wait until it has, and find the step in the
    cache. Compiling the same step twice at a time would only make both slower.
    """

    def __init__(self, runs: list[Run], slots: list[Slot], deadline: Deadline | None = None) -> None:
        self.waiting, self.slots, self.deadline = list(runs), slots, deadline
        self.active: dict[int, Active] = {}
        self._compiled: set[Hashable] = set()
        self._most = Counter(slot.visible_gpu for slot in slots)  # runs on each GPU; None: on the CPU, or the only GPU
        self._put_back: set[Run] = set()
        self._most_compiling = max(len(slots) // COMPILING_SHARE, 2)

    def start_next(self, now: float) -> tuple[int, Run] | None:
        """A free slot and the run to start there, which counts as running from now on; None where nothing can start."""
        for index, slot in enumerate(self.slots):
            if index in self.active or self.n_active(slot.visible_gpu) >= self._most[slot.visible_gpu]:
                continue
            for run in self.waiting:
                key = step_key(run, slot)
                if (self.deadline is None or self.deadline.allows(run, now)) and self._may_compile(key):
                    self.waiting.remove(run)
                    self.active[index] = Active(run, now, key if key not in self._compiled else None)
                    if self.n_active(slot.visible_gpu) > 1:
                        for other in self.active:
                            self.active[other].shared |= self.slots[other].visible_gpu == slot.visible_gpu
                    return index, run
        return None

    def n_active(self, gpu: str | None) -> int:
        """How many runs are running on a GPU."""
        return sum(self.slots[index].visible_gpu == gpu for index in self.active)

    def has_compiled(self, index: int) -> None:
        """Note that the run on a slot trains: its shape need not be compiled again."""
        one = self.active[index]
        if one.compiles is not None:
            self._compiled.add(one.compiles)
            one.compiles = None

    def end(self, index: int, now: float, *, done: bool) -> Run:
        """Free a slot. `done`: the run came to its last step, so that its time tells what others like it take."""
        if done:
            self.has_compiled(index)
        one = self.active.pop(index)
        if done and self.deadline is not None and one.run not in self._put_back:  # which went on from a checkpoint
            self.deadline.learn(one.run, now - one.started_at)
        return one.run

    def put_back(self, index: int, n_active: int) -> int | None:
        """Put a run that was killed for memory back in front, with half as many on its GPU from now on, at least one.

        `n_active` runs were running on that GPU when it was killed, itself included. Returns how many may be from now
        on; None, and the outcome is final, where the run was by itself, on the CPU, or put back before.
        """
        gpu, run = self.slots[index].visible_gpu, self.active[index].run
        shared = self.active[index].shared  # not `n_active > 1`: of two that die together one ends a moment later
        if not shared or run in self._put_back or self.slots[index].device == "cpu":
            return None
        self._most[gpu] = max(min(self._most[gpu], n_active // 2), 1)
        self._put_back.add(run)
        self.waiting.insert(0, self.active.pop(index).run)
        return self._most[gpu]

    def _may_compile(self, key: Hashable | None) -> bool:
        """Whether a run needs no compiling, or may be the first to compile its shape now."""
        if key is None or key in self._compiled:
            return True
        compiling = [one.compiles for one in self.active.values() if one.compiles is not None]
        return key not in compiling and len(compiling) < self._most_compiling


def step_key(run: Run, slot: Slot) -> Hashable | None:
    """The settings that determine the compiled training step of a run; None where nothing is compiled.

    Rates, schedules, betas, decay and seeds are values that the step reads, so runs that differ in these share one.
    """
    if run.mode != "fast" or run.config.training is None:
        return None
    return slot.kind, shape_of(run.config)
