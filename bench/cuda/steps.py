"""The compiled training step of a model on a GPU: compared with the eager step, and its speed.

Compiling takes about a minute, so each check here runs in its own process, in parallel with the others.
"""

import math
import statistics
import time
from dataclasses import replace

import torch

from bench.config import Mode
from bench.corpus import load_corpus
from bench.cuda.numbers import Answer, Context, published_run
from bench.environment import synchronize
from bench.train import N_FIRST, Trainer

Steps = list[tuple[float, float]]  # loss in nats and gradient norm of each step

# Without dropout `fast` and `exact` differ only by rounding. On a CPU bfloat16 changes these losses by up to 2e-4 nats
# and the norms by up to 3e-3 of themselves; other dropout masks would change the losses by 7e-3 nats.
NATS_TOLERANCE = 1e-3
NORM_TOLERANCE = 2e-2  # of the norm
N_ROUNDS, N_STEPS = 6, 20  # of a timing; the first round is a warm-up


def compiled(context: Context, experiment: str, cell: str) -> Answer:
    """Compare the first steps of `fast` mode, compiled and recorded, with those of `exact`, both without dropout."""
    eager = steps_of(_trainer(context, experiment, cell, "exact", dropout=False))
    trainer = _trainer(context, experiment, cell, "fast", dropout=False)
    warm_up = _warm_up(trainer)
    compared = compare_steps(steps_of(trainer), eager)
    return replace(compared, text=f"{compared.text}; {warm_up.text}", values={**compared.values, **warm_up.values})


def steps_of(trainer: Trainer, n_steps: int = N_FIRST) -> Steps:
    """Loss and gradient norm of the next steps, read once at the end."""
    measured = [torch.stack(trainer.advance()) for _ in range(n_steps)]
    return [(nats, norm) for nats, norm in torch.stack(measured).tolist()]


def compare_steps(found: Steps, right: Steps) -> Answer:
    """Compare the compiled step's losses and norms with the eager step's, at the step where each differs most."""
    nats = [abs(ours[0] - exact[0]) for ours, exact in zip(found, right, strict=True)]
    norms = [abs(ours[1] - exact[1]) / exact[1] for ours, exact in zip(found, right, strict=True)]
    at, norm_at = (max(range(len(right)), key=lambda i, of=of: _nan_last(of[i])) for of in (nats, norms))  # type: ignore[misc]
    held = nats[at] <= NATS_TOLERANCE and norms[norm_at] <= NORM_TOLERANCE  # a NaN fails
    text = (
        f"at worst {found[at][0]:.5f} nats per token and {right[at][0]:.5f} eagerly at step {at} (allowed "
        f"{NATS_TOLERANCE:.0e}), gradient norm {found[norm_at][1]:.4f} and {right[norm_at][1]:.4f} at step {norm_at} "
        f"(allowed {NORM_TOLERANCE:.0%})"
    )
    values = {
        "compiled": found,
        "eager": right,
        "largest_difference_nats": nats[at],
        "largest_difference_norm": norms[norm_at],
    }
    return Answer(status="held" if held else "failed", text=text, values=values)


def prepare(context: Context, experiment: str, cell: str) -> Answer:
    """Compile and record a cell's published step, and keep it for `speed`."""
    trainer = _trainer(context, experiment, cell, "fast" if context.device.type == "cuda" else "exact")
    context.kept["trainer"] = trainer
    return _warm_up(trainer)


def speed(context: Context) -> Answer:
    """Time the step that `prepare` compiled: the median of rounds of steps, with nothing else on the device."""
    trainer: Trainer = context.kept["trainer"]
    n_tokens = trainer.training.batch_size * trainer.run.config.context
    rounds = []
    nats = torch.zeros(())
    for _ in range(N_ROUNDS):
        synchronize(context.device)
        started = time.perf_counter()
        for _ in range(N_STEPS):
            nats = trainer.advance()[0]
        synchronize(context.device)
        rounds.append((time.perf_counter() - started) / N_STEPS)
    seconds, last = statistics.median(rounds[1:]), nats.item()
    text = f"{1e3 * seconds:.3f} ms per step, {n_tokens / seconds:,.0f} tokens/s"
    values = {
        "seconds_per_step": seconds,
        "tokens_per_second": n_tokens / seconds,
        "rounds": rounds[1:],
        "n_tokens": n_tokens,
        "mode": trainer.run.mode,
        "last_nats": last,
    }
    if not math.isfinite(last):
        return Answer(status="failed", text=f"the loss of step {trainer.step - 1} is {last}; {text}", values=values)
    return Answer(status="held", text=text, values=values)


def _trainer(context: Context, experiment: str, cell: str, mode: Mode, *, dropout: bool = True) -> Trainer:
    corpus = load_corpus("synthetic", context.device)
    return Trainer(published_run(experiment, cell, mode, dropout=dropout), corpus, context.device)


def _warm_up(trainer: Trainer) -> Answer:
    started = time.monotonic()
    trainer.warm_up()
    seconds = time.monotonic() - started
    return Answer(status="held", text=f"compiled in {seconds:.0f} s", values={"compile_seconds": seconds})


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
