"""`python -m bench.cuda.no_memory` is `python -m jobs`, except that each run of seed 42 runs out of memory.

`out_of_memory` launches it, to check that a pool continues. Before update 5 the worker requests more memory than any
device has, so the error comes from the real allocator.
"""

import importlib
import runpy
import sys
from typing import Any

import torch
from torch import Tensor

from bench.cuda.numbers import SEED
from bench.train import Trainer

STEP = 5
TOO_MANY_BYTES = 2**50  # also more than the address space of a process


def main() -> None:
    """Run `python -m jobs`, or the worker that it starts."""
    if sys.argv[1:2] == ["--worker"]:
        del sys.argv[1]
        advance = Trainer.advance

        def run_out(trainer: Trainer) -> tuple[Tensor, Tensor]:
            if (trainer.seed, trainer.step) == (SEED, STEP):
                torch.empty(TOO_MANY_BYTES, dtype=torch.uint8, device=trainer.device)
            return advance(trainer)

        Trainer.advance = run_out  # type: ignore[method-assign,assignment]
        runpy.run_module("jobs.worker", run_name="__main__")
    else:
        attempt: Any = importlib.import_module("jobs.attempt")
        attempt.WORKER = ("-m", "bench.cuda.no_memory", "--worker")
        runpy.run_module("jobs", run_name="__main__")


if __name__ == "__main__":
    main()
