"""The step curve: training loss and gradient norm of every step, in a file of the run's folder."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from bench.errors import count
from bench.files import make_way, write_atomically

STEPS_FILE = "steps.jsonl"  # one JSON object per step: step, train_nats, grad_norm


class Diverged(Exception):
    """A loss or a gradient is not finite."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


class StepCurve:
    """Appends to an open file. Values stay on the device until `read`, since reading waits for it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unread: list[tuple[int, Tensor, Tensor]] = []

    @property
    def n_unread(self) -> int:
        """Steps added since the last `read`."""
        return len(self._unread)

    def add(self, step: int, nats: Tensor, norm: Tensor) -> None:
        """Add the loss and the gradient norm of a step, both scalars on the device."""
        self._unread.append((step, nats, norm))

    def read(self) -> Iterator[tuple[int, float, float]]:
        """Write the steps since the last read to the file, and yield step, loss and norm of each.

        Diverged at the first that is not finite.
        """
        if not self._unread:
            return
        values = torch.stack([torch.stack((nats, norm)) for _, nats, norm in self._unread]).tolist()
        for (step, _, _), (nats, norm) in zip(self._unread, values, strict=True):
            if not (abs(nats) < float("inf") and norm < float("inf")):  # false for NaN, too
                raise Diverged(step, f"loss {nats}, gradient norm {norm}")
            self._file.write(json.dumps({"step": step, "train_nats": nats, "grad_norm": norm}) + "\n")
            yield step, nats, norm
        self._file.flush()
        self._unread.clear()


def drop_steps(folder: Path, first: int) -> None:
    """Keep only the steps before `first` in a step curve: a resumed run repeats the others.

    Lines that cannot be read, as after a power cut, are dropped with a line in the log: no number depends on the file.
    """
    path = folder / STEPS_FILE
    make_way(path)
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        steps = [_step_of(line) for line in lines]
        if n_unread := steps.count(None):
            print(f"dropped {count(n_unread, 'line')} of {STEPS_FILE} that cannot be read", flush=True)
        kept = [line for line, step in zip(lines, steps, strict=True) if step is not None and step < first]
        write_atomically(path, b"".join(kept))


def _step_of(line: bytes) -> int | None:
    """The step of a line; None where this suite did not write it, or only a part of it."""
    if not line.endswith(b"}\n"):
        return None
    with suppress(ValueError, RecursionError):
        values = json.loads(line)
        step = values.get("step") if isinstance(values, dict) else None
        return step if type(step) is int else None
    return None
