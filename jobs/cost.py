"""How long runs take, without training: for the announcements of launches and the time limits of jobs."""

import hashlib
import heapq
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.config import Mode, Run, to_json
from bench.store import Store
from bench.workload import Shape, n_evaluated_tokens, shape_of, step_flops
from jobs.layout import MEASURED_FOLDER
from jobs.speeds import Platform, Speed, benchmarked_speeds, nearest, of_shape, preferred, recorded_speeds

UNTRAINED_SECONDS = 5.0  # a worker's start, which is all that a fitted model costs
# Of a worker before its first step: Python, torch, the corpus; on a GPU also its context and the kernels from the
# cache (12 s and 9 s on an H200 with 16 cores). There, runs that compiled took 136 s and later ones of the same slot
# 71 s; compiling and recording the step took 41 to 82 s, six processes at a time.
START_SECONDS = {"cpu": 4.0, "cuda": 20.0}
COMPILE_SECONDS = 60.0  # more for the first run of a shape in `fast` mode; the others find what it compiled
# Seconds of a token in evaluation, over those in training: 0.26 to 0.32 on a CPU. In `fast` mode the training step is
# compiled and in bf16, and evaluation is neither: 1.5 to 2.5 on an H200.
EVALUATION_SHARE: dict[Mode, float] = {"exact": 0.3, "fast": 2.0}
# Small kernels cannot fill a GPU: on an H200, nanoGPT's step has eight times the FLOPs of the matched Transformer's and
# takes 2.4 times as long.
SHRINKING_EXPONENT = 0.4  # of the FLOPs, where a step is scaled down


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds from a run's start to its record, and in words what they come from."""

    seconds: float
    source: str


def known_estimates(
    runs: Iterable[Run], stores: Sequence[Store], platform: Platform, *, longest: bool = False, scaled: bool = True
) -> dict[str, Estimate]:
    """The seconds of each run on a platform, by run id, where they are known; nothing is trained or timed.

    In this order: what `--measure` noted, records and benchmarks of the same shape, and, where `scaled`, FLOPs at the
    speed of the nearest of those. Of several, those made on such a machine come first, then those that shared a GPU
    with as many runs or none; others are an upper estimate.
    `longest` takes the slowest of several records, for time limits.
    """
    runs = list(runs)
    speeds = recorded_speeds(stores, platform.device, {run.mode for run in runs}) + benchmarked_speeds(stores, platform)
    # other programs may have shared a GPU, and a record does not know of them; that only lengthens a run
    shortest: Callable[[list[float]], float] = min if platform.device == "cuda" else statistics.median
    pick = max if longest else shortest
    found: dict[str, Estimate] = {}
    compiled: set[Shape] = set()
    for run in runs:
        if run.config.training is None:
            found[run.run_id] = Estimate(seconds=UNTRAINED_SECONDS, source="a fitted model")
        elif (noted := _noted(run, stores, platform.device)) is not None:
            source = f"measured with --measure{_turns(platform)}"
            found[run.run_id] = Estimate(seconds=noted * platform.runs_per_gpu, source=source)
        elif (step := _step(run, speeds, platform, pick, scaled)) is not None:
            compiles = run.mode == "fast" and shape_of(run.config) not in compiled
            compiled.add(shape_of(run.config))
            seconds = run_seconds(run, step.seconds, platform, compiles=compiles)
            found[run.run_id] = Estimate(seconds=seconds, source=step.source)
    return found


def run_seconds(
    run: Run, step_seconds: float, platform: Platform, *, compiles: bool = False, token_seconds: float | None = None
) -> float:
    """Seconds of a complete run: its start, its steps, its evaluations.

    `token_seconds` are those of one token in evaluation; where they were not timed, a share of those in training.
    """
    training = run.config.training
    assert training is not None
    if token_seconds is None:
        token_seconds = EVALUATION_SHARE[run.mode] * step_seconds / (training.batch_size * run.config.context)
    start = START_SECONDS[platform.device] + (COMPILE_SECONDS if compiles else 0.0)
    return start + training.n_steps * step_seconds + n_evaluated_tokens(run.config) * token_seconds


def schedule_seconds(seconds: list[float], n_slots: int) -> float:
    """When the last run ends if each free slot takes the next one."""
    free_at = [0.0] * n_slots
    for one in seconds:
        heapq.heapreplace(free_at, free_at[0] + one)
    return max(free_at)


def _step(
    run: Run, speeds: list[Speed], platform: Platform, pick: Callable[[list[float]], float], scaled: bool
) -> Estimate | None:
    """The seconds of one training step of a run on a platform; None where nothing is known."""
    ratio = 1.0
    if some := preferred(of_shape(speeds, run.config, run.mode), platform):
        same = any(one.config == run.config for one in some)
        what = "throughput" if some[0].config is None else "records" if same else "records of the same shape"
    elif scaled and (some := nearest(speeds, run.config, run.mode, platform)):
        ratio = step_flops(run.config) / some[0].step_flops
        if platform.device == "cuda" and ratio < 1:
            ratio **= SHRINKING_EXPONENT
        what = f"scaled by FLOPs from {statistics.mode(one.label for one in some)}"
    else:
        return None
    seconds = ratio * pick([one.seconds_at(platform) for one in some])
    return Estimate(seconds=seconds, source=what + _where(some[0], platform))


def _where(speed: Speed, platform: Platform) -> str:
    """In words, what of a measurement differs from a platform."""
    words = ""
    if platform.name is not None and not speed.made_at(platform):
        threads = f", {speed.n_threads} thread{'s' if speed.n_threads > 1 else ''}" if platform.device == "cpu" else ""
        words = f" on {speed.device_name}{threads}"
    if not speed.alike(platform):
        return f"{words}, shared GPU: at most"
    return words + (_turns(platform) if speed.runs_per_gpu == 1 else "")


def _turns(platform: Platform) -> str:
    """A text that the time of a run by itself was multiplied."""
    return f", times {platform.runs_per_gpu} that share the GPU" if platform.runs_per_gpu > 1 else ""


def measured_path(store: Store, run: Run, device: str) -> Path:
    """The file with the measured seconds of a run."""
    content = json.dumps([to_json(run.config), run.mode], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    return store.work_folder / MEASURED_FOLDER / f"{device}-{key}.json"


def _noted(run: Run, stores: Iterable[Store], device: str) -> float | None:
    """Seconds of the complete run as stored by `note_seconds` in the first store that has any."""
    for store in stores:
        with suppress(
            OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError
        ):  # none there, or cut
            seconds = float(json.loads(measured_path(store, run, device).read_bytes())["seconds"])
            if math.isfinite(seconds) and seconds > 0:
                return seconds
    return None
