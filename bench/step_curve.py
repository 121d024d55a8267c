"""The step curve: training loss and gradient norm of every step, in a file of the run's folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from bench.files import write_atomically

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
    """Keep only the steps before `first` in a step curve: a resumed run repeats the others."""
    path = folder / STEPS_FILE
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"}\n") and json.loads(line)["step"] < first]
        write_atomically(path, b"".join(kept))
