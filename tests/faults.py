"""Fault injection for tests: BENCH_FAULTS makes a fault happen in a run at a chosen step.

`BENCH_FAULTS="k_operators-s42:17:kill,transformer-s69:5:nan"` lists runs, the updates before which the faults happen,
and the faults. Each happens once per process, unless it resumed after the step. `execute` replaces `bench.run.execute`;
`python -m tests.faults MODULE ARGUMENTS` runs a command line with it, also in the workers that it launches.
"""

import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import bench.run
from bench import checkpoint
from bench.config import Run
from bench.record import Record
from bench.store import Store
from bench.train import Trainer

WORKER = ("-m", "tests.faults", "jobs.worker")  # replaces jobs.attempt.WORKER
execute_without_faults = bench.run.execute
VARIABLE = "BENCH_FAULTS"
SLOW_WRITE_SECONDS = 0.1
KILL_SECONDS = 0.15  # between SIGTERM and SIGKILL to a cancelled process


def planned(run_name: str) -> list[tuple[int, str]]:
    """(step, fault) of each fault that the environment plans for this run; none where the variable is unset."""
    parts = (part.rsplit(":", 2) for part in os.environ.get(VARIABLE, "").split(",") if part)
    return [(int(step), fault) for name, step, fault in parts if name == run_name]


def execute(run: Run, store: Store, settings: bench.run.Settings) -> Record:
    """`bench.run.execute`, with the faults that are planned for the run."""
    plan, folder, advance = planned(run.name), store.run_folder(run.run_id), Trainer.advance

    def advance_under_plan(trainer: Trainer) -> tuple[Tensor, Tensor]:
        for step, fault in plan:
            if step == trainer.step:
                print(f"{VARIABLE}: {fault} before step {step}", flush=True)
                FAULTS[fault](trainer, folder)
        return advance(trainer)

    with patch.object(Trainer, "advance", advance_under_plan):
        return execute_without_faults(run, store, settings)


@contextmanager
def before_update(step: int, action: Callable[[Trainer], object]) -> Iterator[None]:
    """Call `action` with the trainer before update `step`."""
    advance = Trainer.advance

    def act_and_advance(trainer: Trainer) -> Any:
        if trainer.step == step:
            action(trainer)
        return advance(trainer)

    with patch.object(Trainer, "advance", act_and_advance):
        yield


def stopping_at(step: int) -> AbstractContextManager[None]:
    """A run gets SIGTERM before update `step`."""
    return before_update(step, lambda _: signal.raise_signal(signal.SIGTERM))


def fill_with_nan(trainer: Trainer) -> None:
    """Make the first parameter NaN."""
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)


def kill(trainer: Trainer, folder: Path) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def cancel(trainer: Trainer, folder: Path) -> None:
    """Send SIGTERM to this process and kill it soon after, as scancel does, even if it is still saving."""
    timer = threading.Timer(KILL_SECONDS, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True  # a process that ends in time does not wait for it
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)


def poison(trainer: Trainer, folder: Path) -> None:
    """Make a weight NaN: one of the last layer, so that every prediction changes."""
    *_, last = trainer.model.parameters()
    with torch.no_grad():
        last.view(-1)[0] = float("nan")


def run_out_of_memory(trainer: Trainer, folder: Path) -> None:
    """Raise torch's error of a failed allocation."""
    raise torch.OutOfMemoryError(f"{VARIABLE}: out of memory")


def fill_disk(trainer: Trainer, folder: Path) -> None:
    """Limit files to half the size of a checkpoint: the next one fails midway, but a record fits."""
    size = checkpoint.paths(folder)[-1].stat().st_size  # there is one since step 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write fails instead of ending the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def slow_down(trainer: Trainer, folder: Path) -> None:
    """From now on delay every file that is written into the run's folder."""
    replace = Path.replace  # every file is renamed at the end, except the step curve

    def replace_slowly(path: Path, target: Path) -> Path:
        if target.parent == folder:
            time.sleep(SLOW_WRITE_SECONDS)
        return replace(path, target)

    Path.replace = replace_slowly  # type: ignore[method-assign,assignment]


FAULTS: dict[str, Callable[[Trainer, Path], None]] = {
    "kill": kill,
    "nan": poison,
    "disk_full": fill_disk,
    "oom": run_out_of_memory,
    "slow": slow_down,
    "cancel": cancel,
}


def main() -> None:
    """Run a command line under the plan."""
    bench.run.execute = execute
    if sys.argv[1] == "jobs":
        from jobs import attempt

        attempt.WORKER = WORKER
    runpy.run_module(sys.argv.pop(1), run_name="__main__")


if __name__ == "__main__":
    main()
