"""The three protocols of validation loss, and the choice of the step that is reported.

    sweep     consecutive non-overlapping windows over the whole validation text (K-Operators' protocol)
    sampled   random windows, 64 per batch (nanoGPT's protocol)
    strided   windows that overlap by half, only the second half scored: every prediction has context

All in float32 without dropout, in batches of fixed size; none uses the random numbers of training.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.batches import rows_at_once, stream_seed, window_starts, windows

EVAL_BATCH = 64  # most windows per batch; fixed, since another batch size may round differently
SAMPLED_WINDOWS = 64  # windows per batch of `sampled`, as in nanoGPT


def window_losses(model: nn.Module, tokens: Tensor, starts: Tensor, context: int, skip: int = 0) -> Tensor:
    """Mean loss in nats of each window (n,), float64 on the CPU, over its positions from `skip` on."""
    return _window_means(token_losses(model, tokens, starts, context, skip))


@torch.no_grad()
def token_losses(
    model: nn.Module,
    tokens: Tensor,
    starts: Tensor,
    context: int,
    skip: int = 0,
    disturb: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """Losses in nats of each window's positions from `skip` on, (b, T - skip) float64, by batch.

    `disturb` maps the input token ids (B, T) to others; the targets stay.
    """
    was_training, precision = model.training, torch.get_float32_matmul_precision()
    model.eval()
    torch.set_float32_matmul_precision("highest")  # training in `fast` mode allows TF32
    try:
        losses = []
        for some in starts.split(rows_at_once(EVAL_BATCH, context, tokens.device)):
            x, y = windows(tokens, some, context)
            logits = model(x if disturb is None else disturb(x))[:, skip:].float()
            losses.append(cross_entropy(logits.transpose(1, 2), y[:, skip:], reduction="none").double())
    finally:
        model.train(was_training)
        torch.set_float32_matmul_precision(precision)
    return losses


def _window_means(losses: list[Tensor]) -> Tensor:
    return torch.cat([batch.mean(1) for batch in losses]).cpu()


def sweep(model: nn.Module, val: Tensor, context: int) -> Tensor:
    """Mean loss in nats of each consecutive window (n,), n = the number of whole windows with all targets."""
    return window_losses(model, val, sweep_starts(val, context), context)


def sweep_starts(val: Tensor, context: int) -> Tensor:
    """Starts (n,) of the consecutive windows; ValueError where there are fewer than two."""
    n_windows = (len(val) - 1) // context
    if n_windows < 2:
        raise ValueError(f"a validation text of {len(val)} tokens is too short for two windows of {context}")
    return torch.arange(n_windows, device=val.device) * context


def sampled(model: nn.Module, val: Tensor, context: int, seed: int, n_batches: int) -> tuple[float, int]:
    """Mean loss in nats over `n_batches` random batches of 64 windows, by `seed`, and the number of predictions."""
    starts = [
        window_starts(seed, "sampled", batch, SAMPLED_WINDOWS, len(val) - context, val.device)
        for batch in range(n_batches)
    ]
    losses = window_losses(model, val, torch.cat(starts), context)
    return losses.mean().item(), len(losses) * context


def strided(model: nn.Module, val: Tensor, context: int) -> tuple[float, int]:
    """Mean loss in nats over the second halves of windows that overlap by half, and the number of predictions."""
    half = context // 2
    step = context - half
    starts = torch.arange((len(val) - 1 - half) // step, device=val.device) * step
    losses = window_losses(model, val, starts, context, skip=half)
    return losses.mean().item(), len(losses) * step


def permuted(model: nn.Module, val: Tensor, context: int) -> tuple[float, float, int, list[float]]:
    """Mean loss in nats over the second halves of the sweep's windows, the same with the first halves in random order,
    the number of predictions, and the mean rise at each scored position (context - context // 2), rounded to 6
    decimals. Each row of a batch has one order, the same in every run on a kind of device (batches are larger on CUDA),
    so that losses can be paired.
    """
    half = context // 2
    starts = sweep_starts(val, context)
    generator = torch.Generator().manual_seed(stream_seed(0, "permuted"))
    orders = torch.rand(EVAL_BATCH, half, generator=generator).argsort(1).to(val.device)

    def shuffled(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :half] = x[:, :half].gather(1, orders[: len(x)])
        return x

    plain = token_losses(model, val, starts, context, skip=half)
    disturbed = token_losses(model, val, starts, context, skip=half, disturb=shuffled)
    rise = (torch.cat(disturbed) - torch.cat(plain)).mean(0)
    means = _window_means(plain).mean().item(), _window_means(disturbed).mean().item()
    return *means, len(starts) * (context - half), [round(value, 6) for value in rise.tolist()]


Replacements = list[tuple[Tensor, Tensor]]  # parameters, and the values that they have for a while
KNOCKOUT_EVERY = 4  # knock-outs are scored on every fourth window, so that they cost little


def knockout_losses(
    model: nn.Module, val: Tensor, context: int, knockouts: dict[str, Replacements]
) -> tuple[dict[str, float | None], int]:
    """Mean loss in nats without each part, of every fourth window of the sweep, and the number of predictions.

    `none` is the complete model on the same windows; None in place of a loss that is not finite.
    """
    starts = sweep_starts(val, context)[::KNOCKOUT_EVERY]
    losses: dict[str, float | None] = {}
    for name, replacements in {"none": [], **knockouts}.items():
        with replaced(replacements):
            nats = window_losses(model, val, starts, context).mean().item()
        losses[name] = nats if math.isfinite(nats) else None
    return losses, len(starts) * context


@contextmanager
def replaced(replacements: Replacements) -> Iterator[None]:
    """Give parameters other values for a while; their own, bit for bit, afterwards."""
    before = [parameter.detach().clone() for parameter, _ in replacements]
    with torch.no_grad():
        for parameter, value in replacements:
            parameter.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), value in zip(replacements, before, strict=True):
                parameter.copy_(value)


def half_sums(losses: Tensor, context: int) -> tuple[tuple[float, int], tuple[float, int]]:
    """(sum of nats, predictions) of the first ceil(n/2) windows and of the rest."""
    middle = -(-len(losses) // 2)
    first, second = losses[:middle], losses[middle:]
    return (first.sum().item() * context, len(first) * context), (second.sum().item() * context, len(second) * context)


def best_step(losses: dict[int, float]) -> int:
    """The step with the lowest loss, the earliest of equals."""
    return min(losses, key=lambda step: (losses[step], step))
