"""Compares a GPU with the CPU: batches, the recurrence, evaluation, and exact repetition of training.

Each check takes a `Context` and returns an `Answer`, whose text has both values where they differ.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.batches import train_batch, window_starts
from bench.config import Mode, Run
from bench.corpus import Corpus, load_corpus
from bench.evaluate import sweep_starts, window_losses
from bench.experiments import find_experiment
from bench.experiments.recipes import with_dropout
from bench.train import Trainer, parameters_sha256
from models import SequenceModel, build
from models.decay import chunked, read_memory

Status = Literal["held", "failed", "not tried"]
CPU = torch.device("cpu")
SEED = 42
N_STEPS, RESUMED_AT = 12, 5


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of a check: one line of text, and its numbers as JSON values."""

    status: Status
    text: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Context:
    """The device of a check, and the results of earlier checks in the same process."""

    device: torch.device
    kept: dict[str, Any] = field(default_factory=dict)


def published_run(experiment: str, cell: str, mode: Mode, *, dropout: bool = True) -> Run:
    """A cell's run of seed 42 on the synthetic corpus, which every machine has, with or without dropout."""
    config = next(one.config for one in find_experiment(experiment).cells if one.label == cell)
    if not dropout:
        config = replace(config, model=with_dropout(config.model, 0.0))
    return Run(label=cell, config=replace(config, corpus="synthetic"), seed=SEED, mode=mode)


# batches --------------------------------------------------------------------------------------------------------------


def batches(context: Context) -> Answer:
    """Training batches and the windows of `sampled` are equal integers on the device and on the CPU."""
    return compare_batches(*(load_corpus("synthetic", device) for device in (context.device, CPU)))


def compare_batches(there: Corpus, here: Corpus) -> Answer:
    """Batches of 64 windows of 256 from two copies of a corpus, and starts of 64 sampled windows."""
    steps = (0, 1, 2_999, 10**6)
    for step in steps:
        both = (train_batch(one.train, SEED, step, 64, 256)[0].cpu() for one in (there, here))
        if difference := _first_difference(*both):
            return Answer(status="failed", text=f"step {step} reads different tokens: {difference}")
    n_starts = len(here.val) - 256
    both = (window_starts(69, "sampled", 7, 64, n_starts, one.val.device).cpu() for one in (there, here))
    if difference := _first_difference(*both):
        return Answer(status="failed", text=f"`sampled` reads different windows: {difference}")
    return Answer(status="held", text=f"{len(steps)} training batches and one of `sampled` are equal to the CPU's")


def _first_difference(found: Tensor, right: Tensor) -> str:
    """The first place where two tensors of integers differ, with both values; empty where none does."""
    places = (found != right).nonzero()
    if not len(places):
        return ""
    place = tuple(places[0].tolist())
    return f"{found[place].item()} at {place}, and {right[place].item()} on the CPU"


# the recurrence -------------------------------------------------------------------------------------------------------

RANK, WIDTH = 32, 128  # the paper's
DECAYS = {"paper": (0.9925, 0.99925), "bound": (0.85, 0.9), "fast": (0.05, 0.45)}  # smallest and largest gamma
LENGTHS = (2, 63, 65, 257)
BOUNDED = "bounded"  # `chunked` with the lower bound of gamma, as the model calls it
LOW_PRECISION_FORMS = ("mask", "chunked", BOUNDED, "fla")  # those that multiply in bfloat16 under autocast


def memory_case(length: int, decays: str) -> list[Tensor]:
    """q, k (2, T, r), n (2, T, d), gamma (r,) on the CPU: float64 that float32 holds exactly."""
    generator = torch.Generator().manual_seed(length)
    q, k = (normalize(torch.randn(2, length, RANK, generator=generator), dim=-1) for _ in range(2))
    n = torch.randn(2, length, WIDTH, generator=generator)
    return [one.double() for one in (q, k, n, torch.linspace(*DECAYS[decays], RANK))]


def reads_and_gradients(form: str, inputs: list[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """The reads, then the gradients of a fixed weighted sum of them, as float64 on the CPU."""
    moved = [one.to(device, dtype).requires_grad_() for one in inputs]
    q, k, n, gamma = moved
    if form == BOUNDED:
        reads = chunked(q, k, n, gamma, gamma_min=inputs[3].min().item())
    else:
        reads = read_memory(q, k, n, gamma, form)
    weights = torch.randn(reads.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [reads, *torch.autograd.grad((reads.to(dtype) * weights.to(device, dtype)).sum(), moved)]
    return [one.detach().cpu().double() for one in found]


@cache
def right_reads_and_gradients(length: int, decays: str) -> tuple[Tensor, ...]:
    """Those of the definition in float64 on the CPU."""
    return tuple(reads_and_gradients("recurrent", memory_case(length, decays), CPU, torch.float64))


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The largest |found - right| / |right|. Gamma's gradient is a difference of sums, so it is less precise."""

    other: float
    gamma: float


FLOAT32 = Tolerance(other=1e-4, gamma=1e-3)  # far above float32's rounding, and below that of TF32, 3e-4
BFLOAT16 = Tolerance(other=2e-2, gamma=1e-1)  # its unit is 2^-8: sums of products are good to a few times that


def worst_error(found: list[Tensor], right: tuple[Tensor, ...], tolerance: Tolerance) -> tuple[float, str]:
    """The largest error as a share of its tolerance, and its tensor with both norms, as text."""
    worst, text = 0.0, ""
    for name, ours, exact in zip(("reads", "dq", "dk", "dn", "dgamma"), found, right, strict=True):
        error = ((ours - exact).norm() / exact.norm()).item()
        allowed = tolerance.gamma if name == "dgamma" else tolerance.other
        share = math.inf if math.isnan(error) else error / allowed
        if share > worst:
            worst = share
            text = f"{name} off by {error:.1e} of its norm (allowed {allowed:.0e}; norms {ours.norm():.6g} and "
            text += f"{exact.norm():.6g})"
    return worst, text


def recurrence(context: Context, form: str) -> Answer:
    """A form of the recurrence against its definition in float64: values and gradients, at awkward lengths."""
    torch.use_deterministic_algorithms(False)  # the published `block` sums in an order that CUDA does not fix
    torch.set_float32_matmul_precision("highest")
    cases = [(length, decays, False) for decays in form_decays(form) for length in LENGTHS]
    if form in LOW_PRECISION_FORMS:
        cases += [(256, decays, True) for decays in ("paper", "bound")]
    errors = []
    for length, decays, low in cases:
        with torch.autocast(context.device.type, torch.bfloat16, enabled=low):
            found = reads_and_gradients(form, memory_case(length, decays), context.device, torch.float32)
        share, text = worst_error(found, right_reads_and_gradients(length, decays), BFLOAT16 if low else FLOAT32)
        errors.append((share, f"{text}, length {length}, decays {decays!r}{', bfloat16' if low else ''}"))
    share, text = max(errors)
    values = {"n_cases": len(cases), "worst_share_of_tolerance": share}
    return Answer(status="held" if share <= 1 else "failed", text=f"at worst {text}", values=values)


def form_decays(form: str) -> tuple[str, ...]:
    """The decays at which a form must hold: `block` is published to overflow at fast ones."""
    return ("paper", "bound") if form == "block" else tuple(DECAYS)


# evaluation -----------------------------------------------------------------------------------------------------------

N_WINDOWS = 8
EVALUATION_TOLERANCE = 1e-6  # nats; float32 against float64 gives 5e-8 on a CPU, TF32 from 3e-6 on


def evaluation(context: Context, experiment: str, cell: str) -> Answer:
    """A model trained for some steps on the device has the same losses there and on the CPU."""
    corpus = load_corpus("synthetic", context.device)
    trainer = Trainer(published_run(experiment, cell, "exact"), corpus, context.device)
    losses_of(trainer, N_STEPS)
    twin = build(trainer.run.config.model)
    twin.load_state_dict({name: value.cpu() for name, value in trainer.model.state_dict().items()})
    return compare_evaluation(trainer.model, twin, corpus.val, trainer.run.config.context)


def compare_evaluation(there: SequenceModel, here: SequenceModel, val: Tensor, context: int) -> Answer:
    """Compare the losses of some windows of the sweep, of a model on the device of `val` and of one on the CPU."""
    starts = sweep_starts(val, context)[:N_WINDOWS]
    found = window_losses(there, val, starts, context)
    right = window_losses(here, val.cpu(), starts.cpu(), context)
    worst = int((found - right).abs().argmax())
    both = f"{found[worst]:.8f} nats per token, and {right[worst]:.8f} on the CPU (window {worst} of {len(starts)}"
    difference = (found - right).abs().max().item()
    return Answer(
        status="held" if difference <= EVALUATION_TOLERANCE else "failed",  # a NaN fails
        text=f"at worst {both}, allowed {EVALUATION_TOLERANCE:.0e})",
        values={"largest_difference_nats": difference},
    )


# exact mode -----------------------------------------------------------------------------------------------------------


def exact(context: Context, experiment: str, cell: str) -> Answer:
    """Training in exact mode gives equal bits twice, and after a checkpoint."""
    corpus = load_corpus("synthetic", context.device)
    run = published_run(experiment, cell, "exact")
    return compare_trainings(lambda: Trainer(run, corpus, context.device))


def compare_trainings(make_trainer: Callable[[], Trainer]) -> Answer:
    """Compare losses and parameters of a training, of its repetition, and of one that resumes from a saved state."""
    first, again, before = make_trainer(), make_trainer(), make_trainer()
    right = losses_of(first, N_STEPS)
    begun = losses_of(before, RESUMED_AT)
    resumed = make_trainer()
    resumed.load_state(as_loaded(before.state()))
    others = {
        "again": (losses_of(again, N_STEPS), again),
        f"resumed at step {RESUMED_AT}": (begun + losses_of(resumed, N_STEPS - RESUMED_AT), resumed),
    }
    for name, (found, trainer) in others.items():
        for step, (ours, theirs) in enumerate(zip(found, right, strict=True)):
            if ours != theirs:
                text = f"{name}, the loss of step {step} is {ours!r}, at first {theirs!r}"
                return Answer(status="failed", text=text)
        hashes = [parameters_sha256(one.model)[:12] for one in (trainer, first)]
        if hashes[0] != hashes[1]:
            text = f"{name}, the parameters after {N_STEPS} steps hash to {hashes[0]}, at first to {hashes[1]}"
            return Answer(status="failed", text=text)
    text = f"{N_STEPS} losses and all parameters have equal bits, again and resumed at step {RESUMED_AT}"
    return Answer(status="held", text=text, values={"train_nats": right})


def losses_of(trainer: Trainer, n_steps: int) -> list[float]:
    """Losses of the next steps, read once at the end."""
    return torch.stack([trainer.advance()[0] for _ in range(n_steps)]).tolist()


def as_loaded(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer's state as loaded from a checkpoint: new tensors, on the CPU."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
    return loaded
