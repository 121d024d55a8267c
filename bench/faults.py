"""Faults to order: BENCH_FAULTS makes a run meet, at a chosen step, what a machine may do to it. For tests alone.

`BENCH_FAULTS="k_operators-s42:17:kill,transformer-s69:5:nan"` names runs, the updates before which they are struck, and
the faults. Each strikes a process once: one that resumed beyond the step does not meet it, one that resumed at it or
before it does.
"""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench import checkpoint, files
from bench.errors import ConfigError
from bench.train import Trainer

VARIABLE = "BENCH_FAULTS"
SLOW_WRITE_SECONDS = 0.1
KILL_SECONDS = 0.15  # from the signal that asks a cancelled process to stop to the one that does not ask


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A fault that is to strike a run before its update `step`, counted from 0."""

    run_name: str
    step: int
    fault: str


def read_plan(text: str) -> list[Planned]:
    """The faults that BENCH_FAULTS asks for. ConfigError names the part that is none."""
    plan = []
    for part in text.split(",") if text.strip() else ():
        name, step, fault = ["", "", "", *part.strip().rsplit(":", 2)][-3:]
        if not name or not step.isdecimal() or fault not in FAULTS:
            raise ConfigError(
                f"{VARIABLE}: {part.strip()!r} is not RUN:STEP:FAULT, such as k_operators-s42:17:kill; "
                f"the faults are {', '.join(FAULTS)}"
            )
        plan.append(Planned(run_name=name, step=int(step), fault=fault))
    return plan


def planned(run_name: str) -> list[Planned]:
    """The faults that the environment asks for this run; none where the variable is unset."""
    return [one for one in read_plan(os.environ.get(VARIABLE, "")) if one.run_name == run_name]


def strike(faults: list[Planned], trainer: Trainer, folder: Path) -> None:
    """Let those of `faults` that are due before the trainer's next update happen to the run of `folder`."""
    for one in faults:
        if one.step == trainer.step:  # which a process passes once
            print(f"{VARIABLE}: {one.fault} before step {one.step}", flush=True)
            FAULTS[one.fault](trainer, folder)


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
    write = files._write_temporary  # all of them pass there; a line of the step curve waits for no disk

    def write_slowly(path: Path, content: bytes, *, durable: bool) -> Path:
        if path.parent == folder:
            time.sleep(SLOW_WRITE_SECONDS)
        return write(path, content, durable=durable)

    files._write_temporary = write_slowly


FAULTS: dict[str, Callable[[Trainer, Path], None]] = {
    "kill": kill,
    "nan": poison,
    "disk_full": fill_disk,
    "oom": run_out_of_memory,
    "slow": slow_down,
    "cancel": cancel,
}
