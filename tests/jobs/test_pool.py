"""The pool follows its queue with real processes' ends: what was killed for memory runs again, once."""

import dataclasses
import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.config import Run
from bench.experiments import smoke
from bench.process import PROGRESS_FILE, Progress
from bench.record import Status
from bench.store import Store
from jobs.attempt import WorkerProcess, progress_mark
from jobs.cache import CACHE_DIR_VARIABLE
from jobs.display import Display
from jobs.layout import LOG_FILE
from jobs.local import Ended, LocalPool
from jobs.meter import Meter
from jobs.slots import Slot
from tests.watched import record_run

GPU = [Slot(device="cuda", n_threads=1, runs_per_gpu=2, kind="nvidia-h200")] * 2
CPU = [Slot(device="cpu", n_threads=1)] * 2
Ending = Status | int  # the status of the record that a worker writes; or its exit code, without a record
OUT_OF_MEMORY = "torch.AcceleratorError: CUDA error: out of memory"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test, and a pool that hardly sleeps."""
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr("jobs.local.POLL_SECONDS", 0.001)


def stand_in(run: Run, folder: Path, poll: Callable[[], int | None] = lambda: None, **fields: Any) -> WorkerProcess:
    """An attempt whose process is none: `poll` says how it goes."""
    process: Any = SimpleNamespace(returncode=None, poll=poll, terminate=lambda: None, wait=lambda _=0: 0)
    return WorkerProcess(run=run, process=process, folder=folder, **{"log_start": 0, "progress_before": None, **fields})


def say(folder: Path, text: str) -> int:
    """Add to the log of a run; its size after that, in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("a") as log:
        log.write(f"{text}\n")
        return log.tell()


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Ending]]:
    """What becomes of each attempt of a run, by its name, in order; the last also of all that follow."""
    planned: dict[str, list[Ending]] = {}
    polls = itertools.count()

    def start(run: Run, _slot: Slot, store: Store, *_: object) -> WorkerProcess:
        folder = store.run_folder(run.run_id)
        some = planned.get(run.name, ["done"])
        ending = some.pop(0) if len(some) > 1 else some[0]
        said, ends_at = say(folder, f"{run.name} starts"), next(polls) + 3

        def poll() -> int | None:
            if next(polls) < ends_at:
                return None
            if isinstance(ending, int):
                if ending == 1:
                    say(folder, f"{OUT_OF_MEMORY}\nCompile with TORCH_USE_CUDA_DSA")
                process.returncode = ending
            elif run.run_id not in store.statuses():
                record_run(store, run, status=ending)
                process.returncode = 0
            return process.returncode

        attempt = stand_in(run, folder, poll, log_start=said, progress_before=progress_mark(folder))
        process = attempt.process
        return attempt

    monkeypatch.setattr("jobs.local.start_attempt", start)
    return planned


def test_a_second_run_of_a_shape_starts_once_the_first_has_said_that_it_trains(monkeypatch, tmp_path):
    events: list[str] = []

    def start(run: Run, _slot: Slot, store: Store, *_: object) -> WorkerProcess:
        folder, polls = store.run_folder(run.run_id), itertools.count(1)
        events.append(f"{run.name} starts")

        def poll() -> int | None:
            n_polls = next(polls)
            if n_polls == 10:
                events.append(f"{run.name} trains")
                Progress(folder).write("training", now=True, step=1)
            if n_polls == 60:
                events.append(f"{run.name} ends")
                record_run(store, run)
                process.returncode = 0
            return process.returncode

        folder.mkdir(parents=True, exist_ok=True)
        attempt = stand_in(run, folder, poll)
        process = attempt.process
        return attempt

    monkeypatch.setattr("jobs.local.start_attempt", start)
    first, second = (dataclasses.replace(run, mode="fast") for run in some_runs(2))
    pool = LocalPool(Store(tmp_path), GPU)
    assert set(statuses(pool.run([first, second], lambda *_: None)).values()) == {"done"}
    order = [f"{first.name} starts", f"{first.name} trains", f"{second.name} starts", f"{first.name} ends"]
    assert [one for one in events if one in order] == order
    assert 0 < (pool.meter.share() or 0) < 1


def some_runs(n_runs: int = 4) -> list[Run]:
    runs = [run for run in smoke().runs() if run.config.training is not None]
    return [dataclasses.replace(runs[0], seed=seed) for seed in range(1, n_runs + 1)]


def statuses(ended: list[Ended]) -> dict[str, str | None]:
    assert len({one.run.run_id for one in ended}) == len(ended), "a run ended twice"
    return {one.run.name: one.status for one in ended}


@pytest.mark.fault("F24")
@pytest.mark.parametrize("ending", [-signal.SIGKILL, "oom", 1])
def test_a_run_killed_for_memory_on_a_shared_gpu_runs_again_and_none_is_lost(ending, endings, tmp_path, capsys):
    """By the kernel, by torch in a record, or by the driver before there could be one."""
    endings["k_operators-s1"] = [ending, "done"]
    store, most = Store(tmp_path / "store"), []
    ended = LocalPool(store, GPU).run(some_runs(), lambda active, _: most.append(len(active)))
    assert statuses(ended) == dict.fromkeys((run.name for run in some_runs()), "done")
    said = "k_operators-s1: out of memory, queued again; at most 1 run on this GPU from now on"
    assert said in capsys.readouterr().out
    assert max(most) == 2
    assert max(most[most.index(1) :]) == 1  # once one of the two had ended


@pytest.mark.parametrize("n_slots", [2, 3])
@pytest.mark.parametrize("ending", [-signal.SIGKILL, "oom", 1])
def test_runs_that_are_killed_for_memory_at_the_same_moment_all_run_again(ending, n_slots, endings, tmp_path):
    """Of those that die together none was alone on the GPU, also not the last one to be looked at."""
    runs = some_runs()
    for run in runs[:n_slots]:
        endings[run.name] = [ending, "done"]
    n_side_by_side: list[int] = []
    pool = LocalPool(Store(tmp_path / "store"), [dataclasses.replace(GPU[0], runs_per_gpu=n_slots)] * n_slots)
    ended = pool.run(runs, lambda active, _: n_side_by_side.append(len(active)))
    assert statuses(ended) == dict.fromkeys((run.name for run in runs), "done")
    assert n_side_by_side[0] == n_slots
    assert max(n_side_by_side[n_side_by_side.index(1) :]) == 1


def test_the_second_time_that_memory_runs_out_counts(endings, tmp_path):
    endings["k_operators-s1"] = ["oom"]
    endings["k_operators-s2"] = [-signal.SIGKILL]
    ended = LocalPool(Store(tmp_path / "store"), GPU).run(some_runs(), lambda *_: None)
    assert statuses(ended) == {
        "k_operators-s1": "oom",
        "k_operators-s2": None,
        "k_operators-s3": "done",
        "k_operators-s4": "done",
    }
    assert {one.reason for one in ended} == {"", "killed by SIGKILL"}


@pytest.mark.parametrize("slots", [CPU, GPU[:1]])
def test_on_the_cpu_or_alone_on_a_gpu_the_first_time_counts(slots, endings, tmp_path):
    endings["k_operators-s1"] = ["oom", "done"]
    ended = LocalPool(Store(tmp_path / "store"), slots).run(some_runs(2), lambda *_: None)
    assert statuses(ended) == {"k_operators-s1": "oom", "k_operators-s2": "done"}


def test_what_an_earlier_attempt_said_of_memory_does_not_count(endings, tmp_path):
    store, runs = Store(tmp_path / "store"), some_runs(2)
    endings["k_operators-s1"] = [2]
    say(store.run_folder(runs[0].run_id), OUT_OF_MEMORY)
    ended = LocalPool(store, GPU).run(runs, lambda *_: None)
    assert statuses(ended) == {"k_operators-s1": None, "k_operators-s2": "done"}


NO_MEMORY_LINES = [
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
    "torch.AcceleratorError: CUDA error: out of memory",
    "RuntimeError: CUDA driver error: out of memory",
    "RuntimeError: Triton Error [CUDA]: out of memory",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes",
    "MemoryError",
    "slurmstepd: error: Detected 1 oom_kill event: OUT_OF_MEMORY",
]
OTHER_LINES = [
    "OutOfResources: out of resource: shared memory, Required: 264192, Hardware limit: 232448",
    "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    "OSError: [Errno 28] No space left on device",
]


@pytest.mark.parametrize(
    ("line", "expected"), [*((line, True) for line in NO_MEMORY_LINES), *((line, False) for line in OTHER_LINES)]
)
def test_a_log_says_that_memory_ran_out_in_the_words_of_whatever_ran_out_of_it(line, expected, tmp_path):
    say(tmp_path, f"Traceback (most recent call last):\n{line}\nand more")
    attempt = stand_in(some_runs()[0], tmp_path)
    assert attempt.says_no_memory is expected


def test_a_worker_trains_once_it_has_said_so_itself_not_the_one_before_it(tmp_path):
    progress = Progress(tmp_path)
    progress.write("training", step=500)
    before = progress_mark(tmp_path)
    assert before is not None
    attempt = stand_in(some_runs()[0], tmp_path, progress_before=before)
    assert not attempt.trains()
    progress.write("training", now=True, step=501)
    assert attempt.trains()
    progress.write("done", now=True, step=600)
    assert not attempt.trains()
    (tmp_path / PROGRESS_FILE).unlink()
    assert not attempt.trains()


def test_the_share_of_time_that_a_gpu_trains_is_told_from_the_start_on():
    meter = Meter({"0", "1"}, clock=iter((0.0, 20.0, 30.0, 50.0, 60.0)).__next__)
    assert meter.share() is None
    for training in (set(), {"0"}, {"0", "1"}, {"1"}):
        meter.look(training)
    assert meter.share() == pytest.approx((20 + 2 * 10) / (2 * 60))
    on_cpu = Meter(set(), clock=iter((0.0, 100.0)).__next__)
    on_cpu.look(set())
    assert on_cpu.share() is None


def test_what_a_gpu_did_is_told_while_runs_execute_and_not_where_they_are_on_the_cpu(tmp_path, capsys):
    with Display(Store(tmp_path), 3, None, lambda: 0.834) as display:
        assert "GPU training 83% of the time" in str(display.table([]).renderables[1])
    assert "GPU training 83% of the time" in capsys.readouterr().out
    with Display(Store(tmp_path), 3, None) as display:
        assert "GPU" not in str(display.table([]).renderables[1])
    assert "GPU" not in capsys.readouterr().out
