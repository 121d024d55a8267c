"""The time of a training step by kind of operation, from torch's profiler."""

import statistics
import time
from collections import Counter
from collections.abc import Callable

import torch

from bench.environment import synchronize
from bench.train import Trainer

N_STEPS = 3
KINDS = {  # torch's operators, without their namespace; the rest is "other"
    "matrix products": ("mm", "bmm", "addmm", "baddbmm", "addmv", "dot", "mv"),
    "attention": ("_scaled_dot_product", "_softmax"),
    "elementwise": (
        *("mul", "add", "sub", "div", "neg", "pow", "sqrt", "rsqrt", "where", "tril", "triu", "masked_fill", "ge"),
        *("addcmul", "sigmoid", "clamp", "le", "eq", "reciprocal", "log", "exp"),
    ),
    "activation (GELU)": ("gelu",),
    "norms and sums": ("sum", "mean", "linalg_vector_norm", "linalg_vecdot", "native_layer_norm", "_log_softmax"),
    "random words of dropout": ("random",),
    "copies": ("copy", "cat", "fill", "zero", "clone", "stack"),
    "optimizer": ("_fused_adamw", "_foreach"),
    "embedding": ("embedding", "index"),
}


def profile_step(trainer: Trainer) -> tuple[float, dict[str, float]]:
    """Median seconds of a step without the profiler, and seconds per step of each kind of operation with it."""
    trainer.warm_up()
    for _ in range(2):
        trainer.advance()
    seconds = statistics.median(_timed(trainer.advance, trainer.device) for _ in range(2 * N_STEPS + 1))
    activities = [torch.profiler.ProfilerActivity.CPU]
    cuda = trainer.device.type == "cuda"
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    _profiled(trainer, activities)  # discarded: the profiler's own first allocations take time
    profiler = _profiled(trainer, activities)
    by_kind: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total  # microseconds
        by_kind[kind_of(event.key)] += spent / 1e6 / N_STEPS
    return seconds, dict(by_kind.most_common())


def kind_of(operator: str) -> str:
    """The kind of an operator by its name in the profiler, such as aten::mul_ or aten::gelu_backward."""
    name = operator.removeprefix("aten::")
    for kind, operators in KINDS.items():
        if any(name in (one, f"{one}_", f"{one}_backward") or name.startswith(f"{one}_") for one in operators):
            return kind
    return "other"


def _profiled(trainer: Trainer, activities: list[torch.profiler.ProfilerActivity]) -> torch.profiler.profile:
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(N_STEPS):
            trainer.advance()
    return profiler


def _timed(action: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started
