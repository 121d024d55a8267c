"""Which run starts next keeps the GPU at work: each step is compiled once, by one run, while others train."""

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from bench.config import Mode, Run
from bench.experiments import find_experiment
from jobs.forecast import Work, simulate
from jobs.queue import Queue
from jobs.slots import Slot
from tests.searching import Made

NINE = [Slot(device="cuda", n_threads=1, runs_per_gpu=9, kind="nvidia-h200")] * 9
TWO_GPUS = [Slot(device="cuda", n_threads=1, visible_gpu=gpu, runs_per_gpu=2, kind="h200") for gpu in "0101"]
ON_CPU = [Slot(device="cpu", n_threads=1)] * 2


def runs_of(name: str, n_seeds: int | None = None, labels: str = "", mode: Mode = "fast") -> list[Run]:
    """The runs of an experiment; of some arms, where labels are named."""
    runs = find_experiment(name, Made(mode=mode)).on(corpus=None, mode=mode, seeds=None).runs()
    if labels:
        runs = [run for run in runs if run.label in labels.split()]
    seeds = list(dict.fromkeys(run.seed for run in runs if run.seed is not None))[:n_seeds]
    return [run for run in runs if run.seed in (None, *seeds)]


def start_all(queue: Queue, now: float = 0.0) -> list[tuple[int, str]]:
    """Start whatever can start: slot and name of each."""
    started = []
    while (chosen := queue.start_next(now)) is not None:
        started.append((chosen[0], chosen[1].name))
    return started


def test_runs_of_one_shape_wait_for_the_first_to_compile_and_others_go_ahead():
    queue = Queue(runs_of("paper", 2, "k_operators nanogpt unigram"), NINE)
    assert start_all(queue) == [(0, "k_operators-s42"), (1, "nanogpt-s42"), (2, "unigram-fitted")]
    queue.has_compiled(1)
    assert start_all(queue) == [(3, "nanogpt-s69")]
    assert [run.name for run in queue.waiting] == ["k_operators-s69"]
    queue.has_compiled(0)
    assert start_all(queue) == [(4, "k_operators-s69")]


def test_the_next_run_of_a_shape_compiles_where_the_first_ended_before_it_had():
    queue = Queue(runs_of("paper", 3, "k_operators"), NINE)
    assert start_all(queue) == [(0, "k_operators-s42")]
    queue.end(0, 1.0, done=False)
    assert start_all(queue) == [(0, "k_operators-s69")]
    assert queue.active[0].compiles is not None
    queue.end(0, 2.0, done=True)  # so fast that nobody saw it train
    assert start_all(queue) == [(0, "k_operators-s420")]
    assert queue.active[0].compiles is None


def test_arms_that_differ_only_in_their_learning_rate_wait_for_one_another():
    queue = Queue(runs_of("stress", 1), NINE)
    assert [name for _, name in start_all(queue)] == ["refine-lr0.1-s42", "plain-lr0.1-s42", "frozen-lr0.1-s42"]


def test_at_most_a_third_of_the_slots_compile_at_a_time_so_that_the_others_can_train():
    queue = Queue(runs_of("ablation"), NINE)
    assert len(start_all(queue)) == 3
    queue.has_compiled(0)
    started = start_all(queue)  # one more shape, and the other seeds of the one that is compiled
    assert [name.rsplit("-", 1)[0] for _, name in started].count("k_operators") == 4
    assert sum(one.compiles is not None for one in queue.active.values()) == 3


def test_runs_that_compile_nothing_never_wait():
    exact = runs_of("paper", 10, "k_operators", "exact")
    assert len(start_all(Queue(exact, NINE))) == 9
    assert len(start_all(Queue(exact, ON_CPU))) == 2


def test_a_step_is_compiled_once_for_each_kind_of_gpu():
    mixed = [dataclasses.replace(slot, kind=f"kind-{slot.visible_gpu}") for slot in TWO_GPUS]
    queue = Queue(runs_of("paper", 4, "k_operators"), mixed)
    assert start_all(queue) == [(0, "k_operators-s42"), (1, "k_operators-s69")]
    queue.has_compiled(1)
    assert start_all(queue) == [(3, "k_operators-s420")]


def test_a_run_killed_for_memory_goes_back_once_in_front_with_half_as_many_beside_it():
    queue = Queue(runs_of("noise") + runs_of("paper", 10, "k_operators"), NINE)
    start_all(queue)
    queue.has_compiled(0)
    assert len(start_all(queue)) == 8
    killed = queue.active[4].run
    assert queue.put_back(4, queue.n_active(None)) == 4
    assert queue.waiting[0] == killed
    for index in (0, 1, 2, 3):
        assert start_all(queue) == []  # more than four are still at work
        queue.end(index, 1.0, done=True)
    assert start_all(queue) == []
    queue.end(5, 1.0, done=True)
    [(index, name)] = start_all(queue)
    assert name == killed.name
    assert queue.n_active(None) == 4
    assert queue.put_back(index, queue.n_active(None)) is None  # the second time its outcome stands
    assert queue.end(index, 2.0, done=False) == killed


def test_only_the_gpu_whose_memory_ran_out_takes_fewer_runs():
    queue = Queue(runs_of("paper", 10, "k_operators", "exact"), TWO_GPUS)
    assert len(start_all(queue)) == 4
    assert queue.put_back(1, queue.n_active("1")) == 1
    queue.end(0, 1.0, done=True)
    assert [index for index, _ in start_all(queue)] == [0]  # slots 1 and 3 share the other
    assert (queue.n_active("0"), queue.n_active("1")) == (2, 1)


@pytest.mark.parametrize("n_active", [2, 1])  # when the second is looked at: at the same time, or a moment later
def test_of_two_runs_that_die_together_for_want_of_memory_none_was_alone(n_active):
    runs = runs_of("paper", 2, "k_operators", "exact")
    queue = Queue(runs, NINE)
    assert len(start_all(queue)) == 2
    assert (queue.put_back(0, 2), queue.put_back(1, n_active)) == (1, 1)
    assert sorted(run.name for run in queue.waiting) == sorted(run.name for run in runs)
    assert len(start_all(queue)) == 1


START, WARM = 12.0, 9.0  # seconds, as measured on an H200 with 16 cores; compiling took 41 to 82
GPU_SECONDS = {"k_operators": 12.0, "nanogpt": 35.0, "nanogpt_2023": 35.0}
MATCHED_GPU_SECONDS = 10.0  # 3,500 steps of 2.4 ms, and the sweeps
EXPERIMENTS = ("paper", "matched", "ablation", "stress")


def measured(compile_seconds: Callable[[], float]) -> Callable[[Run, bool], Work]:
    """What each run takes of a worker and of the GPU."""

    def work(run: Run, cold: bool) -> Work:
        if run.config.training is None:
            return Work(START, 0.0)
        seconds = 12.0 if run.config.architecture == "k_operators" else MATCHED_GPU_SECONDS
        return Work(START + (compile_seconds() if cold else WARM), GPU_SECONDS.get(run.label, seconds))

    return work


@pytest.mark.parametrize("compile_seconds", [[41.0], [82.0], [41.0, 82.0, 55.0, 68.0]])
def test_over_the_four_experiments_the_gpu_trains_more_than_four_fifths_of_the_time_and_paper_takes_20_minutes(
    compile_seconds,
):
    cycle = itertools.cycle(compile_seconds)
    found = {name: simulate(Queue(runs_of(name), NINE), measured(lambda: next(cycle))) for name in EXPERIMENTS}
    assert {name: len(one.ended_at) for name, one in found.items()} == {name: len(runs_of(name)) for name in found}
    assert sum(one.training_seconds for one in found.values()) > 0.8 * sum(one.seconds for one in found.values())
    assert found["paper"].seconds < 20 * 60


def test_compiling_anew_in_every_slot_would_leave_the_gpu_idle():
    """What the simulation says of the way it was: a cache a slot, so that each slot compiles, at the same time."""
    queue = Queue(runs_of("paper", 10, "k_operators", "exact"), NINE)  # a mode in which nobody waits
    compile_seconds = dict.fromkeys(range(len(NINE)), 82.0)

    def work(run: Run, _: bool) -> Work:
        index = next(index for index, one in queue.active.items() if one.run == run)
        return Work(START + compile_seconds.pop(index, WARM), 12.0)

    found = simulate(queue, work)
    assert found.training_seconds < 0.6 * found.seconds


def test_runs_that_share_a_gpu_share_its_time():
    runs = runs_of("paper", 3, "k_operators", "exact")
    found = simulate(Queue(runs, NINE), lambda *_: Work(10.0, 5.0))
    assert set(found.ended_at.values()) == {25.0}
    assert (found.seconds, found.training_seconds) == (25.0, 15.0)
    apart = simulate(Queue(runs, TWO_GPUS), lambda *_: Work(10.0, 5.0))
    assert sorted(apart.ended_at.values()) == [15.0, 20.0, 20.0]
    assert apart.training_seconds == 15.0  # of both GPUs
