"""The windows of each step: a pure function of (seed, step), in integer arithmetic that is equal on CPU and CUDA.

Every model sees the same batches at the same seed, and a resumed run needs no sampler state. The generator is
counter-based: SplitMix64's output function (Steele, Lea, Flood 2014) over a keyed counter, on wrapping int64.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

# independent random streams of one seed
STREAMS = {"init": 0, "batches": 1, "dropout": 2, "sampled": 3, "generation": 4, "permuted": 5}
_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_ROWS = 1 << 20  # counters reserved per step
CACHED_TOKENS = 4096  # processed at once on a CPU: activations of more exceed its cache and take up to twice the time


def stream_seed(seed: int, stream: str, step: int = 0) -> int:
    """A 63-bit seed for torch, a function of (seed, stream, step)."""
    key = _key(seed, stream)
    return int(_mix(torch.tensor(_signed(key + _GOLDEN * step)))) & (2**63 - 1)


def window_starts(
    seed: int, stream: str, step: int | Tensor, n_windows: int, n_starts: int, device: torch.device
) -> Tensor:
    """Starts (n_windows,) int64 of a step's windows, uniform over 0..n_starts-1, with replacement.

    `step` may be a tensor () int64 on the device, with the same result, so that a CUDA graph can draw its own batches.
    """
    counters = torch.arange(n_windows, dtype=torch.int64, device=device) + step * _ROWS
    words = _mix(counters * _signed(_GOLDEN) + _signed(_key(seed, stream)))
    return (words & (2**63 - 1)) % n_starts


def windows(tokens: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (n, context) int64: the windows of `tokens` at `starts`, and the same shifted by one."""
    positions = starts[:, None] + torch.arange(context + 1, device=starts.device)
    cut = tokens[positions].long()
    return cut[:, :-1], cut[:, 1:]


def train_batch(
    tokens: Tensor, seed: int, step: int | Tensor, batch_size: int, context: int, cuts: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """The batch of one step: inputs and targets (batch_size, context), at starts 0..n-context-1.

    `cuts` are positions where a separate text starts, in ascending order: no window crosses one.
    """
    n_starts = len(tokens) - context * (1 + len(cuts))
    starts = window_starts(seed, "batches", step, batch_size, n_starts, tokens.device)
    for cut in cuts:
        starts = starts + context * (starts >= cut - context)
    return windows(tokens, starts, context)


def rows_at_once(batch_size: int, context: int, device: torch.device) -> int:
    """Number of windows in one forward pass: the whole batch, but on a CPU at most CACHED_TOKENS tokens.

    It depends on nothing else, since another number of rows rounds differently.
    """
    return batch_size if device.type == "cuda" else min(batch_size, max(1, CACHED_TOKENS // context))


@cache
def _key(seed: int, stream: str) -> int:
    """64 bits that are different for each pair of seed and stream."""
    return int(_mix(_mix(torch.tensor(_signed(seed * 256 + STREAMS[stream] + _GOLDEN)))))


def _mix(words: Tensor) -> Tensor:
    """SplitMix64's output function on int64 read as 64 bits; products wrap, shifts are logical."""
    for shift, factor in _FACTORS:
        words = (words ^ _shift_right(words, shift)) * _signed(factor)
    return words ^ _shift_right(words, _LAST_SHIFT)


def _shift_right(words: Tensor, n_bits: int) -> Tensor:
    return (words >> n_bits) & ((1 << (64 - n_bits)) - 1)


def _signed(word: int) -> int:
    """The int64 with the lowest 64 bits of `word`."""
    word &= 2**64 - 1
    return word - 2**64 if word >= 2**63 else word
