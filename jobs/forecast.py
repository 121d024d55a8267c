"""A simulation of a launch without starting anything: the queue of the pool, on a simulated clock."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.config import Run
from bench.errors import count
from bench.experiments.grid import Experiment
from jobs.cost import COMPILE_SECONDS, START_SECONDS
from jobs.deadline import Deadline
from jobs.queue import Queue
from jobs.slots import Slot


@dataclass
class Work:
    """The rest of a run: seconds before its first step, and seconds on its GPU without other runs."""

    start: float
    device: float  # no time at all for a run on the CPU


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """How a launch went on the counted clock."""

    ended_at: dict[Run, float]  # second; without those that a deadline cut or kept from starting
    seconds: float  # when the last run ended or was stopped
    training_seconds: float  # in which at least one run trained, summed over the GPUs


def simulate(queue: Queue, work: Callable[[Run, bool], Work]) -> Forecast:
    """Follow a queue from second 0 to its end. `work(run, cold)` gives what each run takes.

    Runs that train on one GPU share its time equally. A run that shares nothing, on the CPU, is all `start`.
    """
    left: dict[int, Work] = {}
    ended: dict[Run, float] = {}
    now = trained = 0.0
    stop_at = queue.deadline.stop_at if queue.deadline else float("inf")
    while True:
        while (started := queue.start_next(now)) is not None:
            index, run = started
            left[index] = work(run, queue.active[index].compiles is not None)
        if not left or now >= stop_at:
            return Forecast(ended_at=ended, seconds=now, training_seconds=trained)
        rates = _rates(queue, left)
        seconds = min((one.start or one.device / rates[index]) for index, one in left.items())
        seconds = min(seconds, stop_at - now)
        trained += seconds * len({queue.slots[index].visible_gpu for index, one in left.items() if not one.start})
        now += seconds
        for index, one in list(left.items()):
            if one.start:
                one.start = _less(one.start, seconds)
                if not one.start:
                    queue.has_compiled(index)
            else:
                one.device = _less(one.device, seconds * rates[index])
            if not one.start and not one.device:
                del left[index]
                ended[queue.end(index, now, done=True)] = now


def _less(left: float, spent: float) -> float:
    return left - spent if left - spent > 1e-9 else 0.0  # the rest is rounding


def _rates(queue: Queue, left: dict[int, Work]) -> dict[int, float]:
    """The share of its GPU that each run gets once it trains."""
    gpus = {index: queue.slots[index].visible_gpu for index in left}
    training = [gpus[index] for index, one in left.items() if not one.start]
    return {index: 1 / max(training.count(gpu), 1) for index, gpu in gpus.items()}


def expected_cells(
    experiment: Experiment, runs: list[Run], slots: list[Slot], deadline: Deadline, now: float
) -> list[str]:
    """A line per cell: how many of the runs that are to be done will probably end before the deadline.

    `now` is on the deadline's clock. A cell with a run whose time the deadline does not know is not forecast.
    """

    def work(run: Run, cold: bool) -> Work:
        seconds = deadline.expected(run)  # in its slot, all slots being busy
        assert seconds is not None
        if slots[0].device == "cpu" or run.config.training is None:
            return Work(seconds, 0.0)
        start = START_SECONDS["cuda"] + (COMPILE_SECONDS if cold else 0.0)
        return Work(start, max(seconds - start, 0.0) / slots[0].runs_per_gpu)

    known = [run for run in runs if run in deadline.known]
    pretended = Deadline(deadline.seconds, deadline.started - now)  # the simulation begins at second 0
    pretended.known, pretended.left, pretended.start_seconds = deadline.known, deadline.left, deadline.start_seconds
    ended = simulate(Queue(known, slots, pretended), work).ended_at
    lines = []
    for cell in experiment.cells:
        mine = [run for run in runs if run.label == cell.label]
        if mine and all(run in deadline.known for run in mine):
            lines.append(f"{cell.label}: {sum(run in ended for run in mine)} of {len(mine)}")
        elif mine:
            lines.append(f"{cell.label}: {count(len(mine), 'run')}, whose time is not known")
    return lines
