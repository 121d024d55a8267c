"""Fault injection: BENCH_FAULTS lets a fault happen to a run at a chosen step.

`BENCH_FAULTS="k_operators-s42:17:kill,transformer-s69:5:nan"` names runs, the updates before which they are struck, and
the faults. Each strikes a process once: one that resumed beyond the step does not meet it, one that resumed at it or
before it does. `execute` stands in for `bench.run.execute`; `python -m tests.faults MODULE ARGUMENTS` runs a command
line with it, and workers that it launches do so too.
"""

import os
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

WORKER = ("-m", "tests.faults", "jobs.worker")  # takes the place of jobs.attempt.WORKER
execute_unharmed = bench.run.execute
VARIABLE = "BENCH_FAULTS"
SLOW_WRITE_SECONDS = 0.1
KILL_SECONDS = 0.15  # from the signal that asks a cancelled process to stop to the one that does not ask


def planned(run_name: str) -> list[tuple[int, str]]:
    """(step, fault) of each fault that the environment asks for this run; none where the variable is unset."""
    parts = (part.rsplit(":", 2) for part in os.environ.get(VARIABLE, "").split(",") if part)
    return [(int(step), fault) for name, step, fault in parts if name == run_name]


def execute(run: Run, store: Store, settings: bench.run.Settings) -> Record:
    """`bench.run.execute`, with the faults that are planned for the run."""
    plan, folder, advance = planned(run.name), store.run_folder(run.run_id), Trainer.advance

    def advance_under_plan(trainer: Trainer) -> tuple[Tensor, Tensor]:
        for step, fault in plan:
            if step == trainer.step:  # which a process passes once
                print(f"{VARIABLE}: {fault} before step {step}", flush=True)
                FAULTS[fault](trainer, folder)
        return advance(trainer)

    with patch.object(Trainer, "advance", advance_under_plan):
        return execute_unharmed(run, store, settings)


@contextmanager
def stopping_at(step: int) -> Iterator[None]:
    """A run is asked to stop during update `step`."""
    advance = Trainer.advance

    def stop(trainer: Trainer) -> Any:
        if trainer.step == step:
            signal.raise_signal(signal.SIGTERM)
        return advance(trainer)

    with patch.object(Trainer, "advance", stop):
        yield


def kill(trainer: Trainer, folder: Path) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def cancel(trainer: Trainer, folder: Path) -> None:
    """Ask this process to stop and kill it soon after, as scancel does, however far it came with saving."""
    timer = threading.Timer(KILL_SECONDS, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True  # a process that is done in time is not held up for it
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)


def poison(trainer: Trainer, folder: Path) -> None:
    """Make a weight NaN: one of the last layer, which every prediction rests on."""
    *_, last = trainer.model.parameters()
    with torch.no_grad():
        last.view(-1)[0] = float("nan")


def run_out_of_memory(trainer: Trainer, folder: Path) -> None:
    """Fail as torch does where an allocation does not fit."""
    raise torch.OutOfMemoryError(f"{VARIABLE}: out of memory")


def fill_disk(trainer: Trainer, folder: Path) -> None:
    """Leave room for files up to half a checkpoint: the next one fails midway, though a record still fits."""
    size = checkpoint.paths(folder)[-1].stat().st_size  # there is one since step 0
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails rather than end the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def slow_down(trainer: Trainer, folder: Path) -> None:
    """From now on hold up every file that is written into the run's folder."""
    replace = Path.replace  # all of them pass there; a line of the step curve waits for no disk

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
