"""Tests that count rearrangements of the values, and an interval that resamples the text: no distribution assumed."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

MOST_FLIPS = 2**20  # 20 pairs: 0.02 s
MOST_SPLITS = 200_000  # 10 against 10 has 184,756: 0.3 s


def sign_flip_p(differences: Sequence[float]) -> float:
    """Exact two-sided p-value of paired differences, under the hypothesis that each is as likely to be its negative.

    The share of all 2^n choices of signs that take the sum at least as far from 0. Its least value is 2 / 2^n: 0.0625
    for 5 pairs. ValueError beyond 20 pairs.
    """
    if 2 ** len(differences) > MOST_FLIPS:
        n_most = MOST_FLIPS.bit_length() - 1
        raise ValueError(f"{len(differences)} differences: every choice of signs is tried for at most {n_most}")
    import numpy as np

    sums = np.zeros(1)
    for difference in _finite(differences):
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.mean(np.abs(sums) >= abs(math.fsum(differences)) - _rounding(differences)))


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p-value of a difference of means, under the hypothesis that any value could be in either sample.

    Twice the share of all splits, into samples of these sizes, whose difference lies at least as far on the observed
    side, as scipy.stats.permutation_test counts. ValueError beyond 200,000 splits.
    """
    n_splits = math.comb(len(a) + len(b), len(a))
    if n_splits > MOST_SPLITS:
        raise ValueError(
            f"{len(a)} values against {len(b)} split in {n_splits:,} ways: every split is tried up to {MOST_SPLITS:,}"
        )
    import numpy as np

    values = np.array([*_finite(a), *_finite(b)])
    chosen = np.array(list(itertools.combinations(range(len(values)), len(a))), dtype=np.intp)
    sums = values[chosen].sum(axis=1)  # the total is fixed, so the sum of one sample orders the differences
    observed, rounding = math.fsum(a), _rounding(values)
    one_sided = min(float(np.mean(sums <= observed + rounding)), float(np.mean(sums >= observed - rounding)))
    return min(1.0, 2 * one_sided)


def block_bootstrap(
    differences_by_window: Sequence[float],
    *,
    block: int = 8,
    n_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """Percentile interval of the mean over windows, in the unit given: how it would vary with other text of this kind.

    Windows, in the order of the text, are drawn with replacement in runs of `block` neighbours (Künsch's moving
    blocks). A scene spans several windows, so neighbours are alike; drawn one by one they would pass for independent,
    and the interval would be too narrow. Eight windows of 256 characters are 2 kB, the middle of the sizes tried.
    Two models read the same windows: give their differences window by window, and the text's difficulty cancels.

    None where fewer than two blocks fit, or a value is infinite: too little text.
    """
    n = len(differences_by_window)
    if block < 1:
        raise ValueError(f"block={block} windows: a block holds at least 1")
    if n < max(2, 2 * block) or not all(map(math.isfinite, differences_by_window)):
        return None
    import numpy as np

    values = np.array(differences_by_window)
    n_blocks = math.ceil(n / block)
    starts = np.random.default_rng(seed).integers(0, n - block + 1, size=(n_resamples, n_blocks))
    n_last = n - (n_blocks - 1) * block  # the last block is cut, so that a resample has as many windows as the text
    totals = _block_sums(values, block)[starts[:, :-1]].sum(axis=1) + _block_sums(values, n_last)[starts[:, -1]]
    low, high = np.quantile(totals / n, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _block_sums(values: "Vector", length: int) -> "Vector":
    """The sum of each run of `length` neighbours, by where it starts."""
    import numpy as np

    return np.lib.stride_tricks.sliding_window_view(values, length).sum(axis=-1)


def _finite(values: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, values)):
        raise ValueError("an infinite value, or NaN, has no rearrangements that could be compared")
    return values


def _rounding(values: "Sequence[float] | Vector") -> float:
    """How far apart sums that are equal on paper may come out, so that a tie counts as one."""
    return 1e-12 * math.fsum(abs(value) for value in values)
