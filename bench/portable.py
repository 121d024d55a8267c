"""The first losses of a run under settings that give the same bits on every x86 CPU with AVX2.

`recheck` repeats them where the machine is unlike that of the run. Tried with torch 2.13.0 on AMD EPYC of family 23
(AVX2) and of family 26 (AVX-512): K-Operators, Transformer and LSTM have equal parameters after 20 steps; without the
settings they do not. A step takes 1.7 to 2.1 times as long.
"""

import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.child import Child, ChildEnded
from bench.config import Run, to_json
from bench.recheck.workers import start_child
from bench.sources import ROOT
from bench.train import N_FIRST
from bench.workload import step_flops

SETTINGS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}
MIN_STEPS = 200  # a shorter run is repeated sooner than it is proved
MAX_FLOPS = 3e12  # of all these steps: one to three minutes on one core


def is_portable() -> bool:
    """Whether this machine can have the same bits: an x86 CPU."""
    return platform.machine() in ("x86_64", "AMD64")


def n_portable_steps(run: Run) -> int:
    """How many first losses of a run are taken: 20, fewer of a large model, none of a short run or a fitted model."""
    if run.config.training is None or run.config.training.n_steps < MIN_STEPS or not is_portable():
        return 0
    return max(1, min(N_FIRST, int(MAX_FLOPS / step_flops(run.config))))


@contextmanager
def portable_losses(run: Run, data_dir: Path | None) -> Iterator[Callable[[], list[float]]]:
    """Take the losses beside the run, in a process of its own, since torch reads the settings when it is loaded.

    Yields a function that waits for them: nats per token; empty where none are taken or the process fails.
    """
    n_steps = n_portable_steps(run)
    if not n_steps:
        yield list
        return
    question = {
        "run": to_json(run),
        "device": "cpu",
        "n_threads": 1,
        "n_steps": n_steps,
        "data_dir": str(data_dir.resolve()) if data_dir else None,
    }
    child = start_child(ROOT, SETTINGS)
    with ThreadPoolExecutor(max_workers=1) as pool:
        asked = pool.submit(_ask, child, question)

        def losses() -> list[float]:
            try:
                answer = asked.result()
            except ChildEnded as error:
                answer = {"error": error}
            if "error" in answer:
                print(f"no portable losses: {answer['error']}", flush=True)
            return list(answer.get("first_train_nats", []))

        try:
            yield losses
        finally:
            child.kill()  # so that the thread ends
    child.end()


def _ask(child: Child, question: dict[str, Any]) -> dict[str, Any]:
    """The answer of a process, which then ends: the run may go on for hours."""
    try:
        return child.ask(question)
    finally:
        child.kill()
