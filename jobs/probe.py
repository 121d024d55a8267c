"""A few timed steps of a run, in a process like a worker's: for runs without a known time.

`python -m jobs.probe` reads one run as JSON on stdin and prints the seconds of a step and of an evaluated token.
"""

import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a probe imports torch only when its life is tied to its parent's
    from bench.config import Run
    from jobs.slots import Slot

STEPS_SECONDS = 2.0  # of steps, at least
N_STEPS = 3  # at least, unless they are very slow
LIMIT_SECONDS = 20.0  # for a probe, from its start to its answer
LEAST_LIMIT_SECONDS = 5.0  # below which a probe is not worth a start: importing torch takes half of that
COMPILING_LIMIT_SECONDS = 150.0  # in `fast` mode, where compiling has taken 82 s
PARENT_CHECK_SECONDS = 0.2
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


def estimate_seconds(
    runs: "list[Run]", slots: "list[Slot]", data_dir: Path | None, until: float | None = None
) -> dict[str, float]:
    """Seconds each run will take, by run id: the steps of one run of each shape are timed, one after the other.

    Says beforehand what is timed. A probe that fails or takes too long estimates nothing: its runs are left out.
    No probe goes on after second `until` of the monotonic clock.
    """
    from bench.workload import shape_of
    from jobs.cost import run_seconds
    from jobs.speeds import this_platform

    slot = slots[0]
    platform = this_platform(slot.device, slot.n_threads, slot.runs_per_gpu)
    by_shape: dict[object, list[Run]] = {}
    for run in runs:
        by_shape.setdefault((shape_of(run.config), run.mode), []).append(run)
    seconds: dict[str, float] = {}
    for index, some in enumerate(by_shape.values(), 1):
        limit, label = COMPILING_LIMIT_SECONDS if some[0].mode == "fast" else LIMIT_SECONDS, some[0].label
        if until is not None and until - time.monotonic() < limit:
            limit = until - time.monotonic()
            if limit < LEAST_LIMIT_SECONDS:
                print(f"No time to time {label} before the deadline; what it takes stays unknown", flush=True)
                continue
        of = f"{index} of {len(by_shape)}"
        print(f"Timing a few steps of {label} on {slot.device}, for {limit:.0f} s at most ({of})", flush=True)
        answer = _ask(some[0], slot, data_dir, limit)
        if answer is None:
            print(f"{label} could not be timed within {limit:.0f} s; what it takes stays unknown", flush=True)
            continue
        step, token = (one * platform.runs_per_gpu for one in answer)  # runs that share a GPU take turns on it
        for run in some:
            seconds[run.run_id] = run_seconds(run, step, platform, token_seconds=token)
    return seconds


def _ask(run: "Run", slot: "Slot", data_dir: Path | None, limit: float) -> tuple[float, float] | None:
    """Seconds of a step and of an evaluated token, from a process of its own; None where it fails or takes too long."""
    from bench.config import to_json
    from bench.process import on_signals
    from jobs.cache import cache_environment

    command = [sys.executable, "-m", "jobs.probe", str(os.getpid()), slot.device, str(slot.n_threads)]
    gpu = {} if slot.visible_gpu is None else {"CUDA_VISIBLE_DEVICES": slot.visible_gpu}
    caches = cache_environment(slot.kind) if run.mode == "fast" else {}  # the step that it compiles serves the runs
    with (
        suppress(subprocess.TimeoutExpired, subprocess.CalledProcessError, ValueError, TypeError),
        on_signals(signal.default_int_handler, signal.SIGTERM),  # so that the launcher ends its probe before itself
    ):
        done = subprocess.run(
            [*command, str(data_dir or ""), str(limit / 2), str(STEPS_SECONDS)],
            input=json.dumps(to_json(run)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a probe that fails estimates nothing; the run itself will show why
            env={**os.environ, **gpu, **caches},
            encoding="utf-8",
            errors="replace",
            timeout=limit,
            start_new_session=True,  # so that Ctrl-C reaches only the launcher, which then kills it
            check=True,
        )
        step, token = json.loads(done.stdout)
        return step, token
    return None


def end_with(parent: int) -> None:
    """Kill this process as soon as its parent has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    threading.Thread(target=watch, daemon=True).start()  # at once where it has ended already


def pace(
    run: "Run", device_name: str, data_dir: Path | None, most: float = LIMIT_SECONDS, least: float = STEPS_SECONDS
) -> tuple[float, float]:
    """Seconds of a training step (median) and of an evaluated token.

    Times steps for `least` seconds, and starts no further one `most` seconds after the first.
    """
    import torch

    from bench.corpus import load_corpus
    from bench.evaluate import EVAL_BATCH, sweep_starts, window_losses
    from bench.train import Trainer

    device = torch.device(device_name)
    corpus = load_corpus(run.config.corpus, device, data_dir)
    trainer = Trainer(run, corpus, device)
    trainer.warm_up()
    steps: list[float] = []
    started = time.perf_counter()
    while len(steps) <= N_STEPS or sum(steps[1:]) < least:
        before = time.perf_counter()
        trainer.advance()[0].item()  # waits for the device
        steps.append(time.perf_counter() - before)
        if time.perf_counter() - started > most:
            break
    context = run.config.context
    starts = sweep_starts(corpus.val, context)[:EVAL_BATCH]
    before = time.perf_counter()
    window_losses(trainer.model, corpus.val, starts, context)  # its result is on the CPU: the device is done
    token = (time.perf_counter() - before) / (len(starts) * context)
    return statistics.median(steps[1:] or steps), token  # the first step also allocates


def main() -> None:
    """Answer on stdout."""
    parent, device, n_threads, data_dir, most, least = sys.argv[1:]
    end_with(int(parent))
    import torch

    from bench.config import read_run

    torch.set_num_threads(int(n_threads))
    run = read_run(json.loads(sys.stdin.read()))
    print(json.dumps(pace(run, device, Path(data_dir) if data_dir else None, float(most), float(least))))


if __name__ == "__main__":
    main()
