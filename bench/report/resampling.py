"""An exact permutation test, and a bootstrap interval over the text: no distribution is assumed."""

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

Interval = tuple[float, float]  # its lower and its upper end
MAX_SPLITS = 200_000  # 10 against 10 has 184,756: 0.3 s


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Exact two-sided p-value of a difference of means; null hypothesis: any value could be in either sample.

    Twice the share of all splits, into samples of these sizes, whose difference is at least as large on the observed
    side, as in scipy.stats.permutation_test. ValueError for more than 200,000 splits.
    """
    n_splits = math.comb(len(a) + len(b), len(a))
    if n_splits > MAX_SPLITS:
        raise ValueError(f"{len(a)} values against {len(b)} have {n_splits:,} splits: at most {MAX_SPLITS:,} are tried")
    import numpy as np

    values = np.array([*_finite(a), *_finite(b)])
    chosen = np.array(list(itertools.combinations(range(len(values)), len(a))), dtype=np.intp)
    sums = values[chosen].sum(axis=1)  # the total is fixed, so one sum gives the order of the differences
    observed, rounding = math.fsum(a), _rounding(values)
    one_sided = min(float(np.mean(sums <= observed + rounding)), float(np.mean(sums >= observed - rounding)))
    return min(1.0, 2 * one_sided)


def block_bootstrap(
    *parts: Sequence[float],
    block: int = 8,
    n_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Percentile interval of the mean over windows, in the unit given: how it would vary with other text of this kind.

    Blocks of `block` neighbouring windows, in the order of the text, are drawn with replacement (Künsch's moving
    blocks). A scene has several windows, so neighbours are alike: windows drawn one by one would be treated as
    independent, and the interval would be too narrow. Both models read the same windows, so the difficulty of the text
    cancels in differences by window. Each of the `parts` of a text keeps its length and is resampled by itself: no
    block crosses from one into the next.

    None if there is no part, one has fewer than two blocks, or a value is infinite. ValueError if block < 1.
    """
    if block < 1:
        raise ValueError(f"block={block} windows: a block has at least 1")
    if not parts or not all(len(part) >= max(2, 2 * block) and all(map(math.isfinite, part)) for part in parts):
        return None
    import numpy as np

    rng = np.random.default_rng(seed)
    totals = sum(_resampled_sums(np.array(part), block, n_resamples, rng) for part in parts)
    low, high = np.quantile(totals / sum(map(len, parts)), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _resampled_sums(values: "Vector", block: int, n_resamples: int, rng: "np.random.Generator") -> "Vector":
    """The sum of each of `n_resamples` texts made of blocks, all as long as `values`."""
    n = len(values)
    n_blocks = math.ceil(n / block)
    starts = rng.integers(0, n - block + 1, size=(n_resamples, n_blocks))
    n_last = n - (n_blocks - 1) * block  # the last block is cut to give n windows
    return _block_sums(values, block)[starts[:, :-1]].sum(axis=1) + _block_sums(values, n_last)[starts[:, -1]]


def _block_sums(values: "Vector", length: int) -> "Vector":
    """The sum of every block of `length` neighbours, by its start."""
    import numpy as np

    return np.lib.stride_tricks.sliding_window_view(values, length).sum(axis=-1)


def _finite(values: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, values)):
        raise ValueError("an exact test needs finite values: one is infinite or NaN")
    return values


def _rounding(values: "Sequence[float] | Vector") -> float:
    """The rounding error of sums that are equal in exact arithmetic, so that ties count as ties."""
    return 1e-12 * math.fsum(abs(value) for value in values)
