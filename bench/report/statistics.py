"""Statistics of a few numbers: mean, spread, difference, confidence. Pure functions on sequences of floats.

The spread of fewer than two values, or with an infinite value, is None, and so is what depends on it; never NaN.
Equal values have a spread of 0, an interval of width 0, and a p-value of 0 or 1. scipy.special is imported where it is
used; scipy.stats, which the tests compare with, takes longer to import than the tables take to make.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.report.student import Difference, square

# Losses closer than this, in nats per token, are called equivalent. Fixed before the runs: at a perplexity of 4.4 it is
# 0.09, about the published gap under test (4.43 against 4.35), and less than twice the standard deviation between the
# published seeds (0.054), so that ten seeds per arm are enough.
MARGIN_NATS = 0.02


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean with its n; spread and interval are None for n = 1 or an infinite value."""

    n: int
    mean: float
    sd: float | None  # sample standard deviation, n - 1
    interval: tuple[float, float] | None  # Student's t, 95 %


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference of means with its two-sided t interval and p-value; None for n = 1 or an infinite value."""

    n_a: int
    n_b: int  # equal to n_a if paired; 0 if b is a given number
    difference: float  # mean of a minus mean of b
    interval: tuple[float, float] | None
    p_value: float | None


Verdict = Literal["equivalent", "non-inferior", "worse", "better", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A difference of losses (below 0: a is better) relative to a margin, at 5 %, by its 90 % t interval.

    equivalent    the interval is within both margins               better   it is below the lower margin
    non-inferior  it is below the upper margin (non_inferiority)    worse    it is above the upper margin
    undecided     it crosses a margin that is tested, or there is no interval
    Whether there is a difference at all is tested by `welch` and `paired_t`.
    """

    difference: float
    margin: float
    interval_90: tuple[float, float] | None
    p_value: float | None  # of the null hypothesis that the difference is not within the margin, or not below it
    verdict: Verdict


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and 95 % t-interval of at least one value."""
    return Summary(n=len(values), mean=mean(values), sd=sample_sd(values), interval=t_interval(values))


def perplexity(nats_per_token: float) -> float:
    """exp of a mean cross-entropy in nats; infinite if it is too large for a float."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, the same for any order of the values, and never outside their range. ValueError if empty."""
    if not values:
        raise ValueError("mean of an empty list")
    try:
        rounded = math.fsum(values) / len(values)
    except OverflowError:
        return math.inf
    if math.isnan(rounded):
        raise ValueError("mean of values with NaN")
    return min(max(rounded, min(values)), max(values))  # five times 1.602 would give its neighbour


def sample_sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None for fewer than two values or an infinite one."""
    if len(values) < 2 or not math.isfinite(squares := _squares(values)):
        return None
    return math.sqrt(squares / (len(values) - 1))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None without a standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(confidence)


def upper_bound(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """One-sided t bound: the mean is below it with this confidence. None without a standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(2 * confidence - 1)[1]


def lower_bound(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """One-sided t bound: the mean is above it with this confidence. None without a standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(2 * confidence - 1)[0]


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Welch's t-test of two samples whose spreads may differ; needs two values in each."""
    return _comparison(len(a), len(b), _difference(mean(a), mean(b)), _of_difference(a, b), confidence)


def paired_t(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Student's t-test of the paired differences a - b: the same seeds, in the same order."""
    differences = _differences(a, b)
    return _comparison(len(a), len(b), mean(differences), _of_mean(differences), confidence)


def one_sample(a: Sequence[float], value: float, confidence: float = 0.95) -> Comparison:
    """Student's t-test of a sample against a number without error, such as a published one."""
    differences = _differences(a, [value] * len(a))
    return _comparison(len(a), 0, mean(differences), _of_mean(differences), confidence)


def tost(a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float = MARGIN_NATS) -> Equivalence:
    """Two one-sided t-tests (TOST): is the difference of losses within the margin on both sides?"""
    return _equivalence(a, b, paired=paired, margin=margin, both_sides=True)


def non_inferiority(
    a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float = MARGIN_NATS
) -> Equivalence:
    """One one-sided t-test: is a better than b, or worse by less than the margin?"""
    return _equivalence(a, b, paired=paired, margin=margin, both_sides=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's method (1979), in the order given: it bounds the family-wise error rate.

    The smallest is multiplied by their number n, the next by n - 1, and so on; none is below the one before it.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for n_smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - n_smaller) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def anova_p(groups: Sequence[Sequence[float]]) -> float | None:
    """One-way analysis of variance: p-value of the null hypothesis that all groups have the same mean.

    None if it cannot be tested: fewer than two groups, an empty group, no group of two values, an infinite value.
    """
    values = [value for group in groups for value in group]
    df_between, df_within = len(groups) - 1, len(values) - len(groups)
    if df_between < 1 or df_within < 1 or not all(groups) or not all(map(math.isfinite, values)):
        return None
    from scipy.special import fdtrc

    within = sum(_squares(group) for group in groups)
    between = sum(len(group) * square(mean(group) - mean(values)) for group in groups)
    if not math.isfinite(within + between):
        return None
    if within == 0:
        return 1.0 if between == 0 else 0.0
    return float(fdtrc(df_between, df_within, between / within * df_within / df_between))


def _of_mean(values: Sequence[float]) -> Difference | None:
    sd = sample_sd(values)
    return None if sd is None else Difference.of(mean(values), (sd, len(values)))


def _of_difference(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    sd_a, sd_b = sample_sd(a), sample_sd(b)
    if sd_a is None or sd_b is None:
        return None
    return Difference.of(mean(a) - mean(b), (sd_a, len(a)), (sd_b, len(b)))


def _comparison(n_a: int, n_b: int, difference: float, estimate: Difference | None, confidence: float) -> Comparison:
    interval = None if estimate is None else estimate.interval(confidence)
    p_value = None if estimate is None else 2 * min(estimate.p_below(0), estimate.p_above(0))
    return Comparison(n_a=n_a, n_b=n_b, difference=difference, interval=interval, p_value=p_value)


def _equivalence(
    a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float, both_sides: bool
) -> Equivalence:
    estimate = _of_mean(_differences(a, b)) if paired else _of_difference(a, b)
    if estimate is None:
        difference = mean(_differences(a, b)) if paired else _difference(mean(a), mean(b))
        return Equivalence(difference=difference, margin=margin, interval_90=None, p_value=None, verdict="undecided")
    interval = estimate.interval(0.9)
    p_value = max(estimate.p_below(margin), estimate.p_above(-margin) if both_sides else 0.0)
    return Equivalence(
        difference=estimate.difference,
        margin=margin,
        interval_90=interval,
        p_value=p_value,
        verdict=_verdict(*interval, margin, both_sides),
    )


def _verdict(low: float, high: float, margin: float, both_sides: bool) -> Verdict:
    if low > margin:
        return "worse"
    if high < -margin:
        return "better"
    if high < margin and (low > -margin or not both_sides):
        return "equivalent" if both_sides else "non-inferior"
    return "undecided"


def _differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [_difference(one, other) for one, other in zip(a, b, strict=True)]


def _difference(a: float, b: float) -> float:
    if math.isinf(a) and a == b:
        raise ValueError("difference of two infinite values")
    return a - b


def _squares(values: Sequence[float]) -> float:
    """Sum of squared deviations from the mean, the same for any order; infinite if a value or the sum is."""
    centre = mean(values)
    return math.inf if math.isinf(centre) else sum(sorted(square(value - centre) for value in values))


def expected_best(values: Sequence[float], n: int, k: int) -> float | None:
    """Expected lowest value of k of n trials, over all subsets of size k; None if a subset may have no value.

    `values` are those of the trials that have one; the other n - len(values) count as worse than any value.
    """
    if not 1 <= k <= n or n - len(values) >= k:
        return None
    ordered = sorted(values)
    return math.fsum(math.comb(n - i, k - 1) * value for i, value in enumerate(ordered, start=1)) / math.comb(n, k)
