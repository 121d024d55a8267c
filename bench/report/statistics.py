"""Statistics of a few numbers: mean, spread, difference, confidence. Pure functions on sequences of floats.

Fewer than two values have no spread, and an infinite value has none either: what depends on it is None, never NaN.
Equal values have a spread of 0, an interval of width 0, and a p-value of 0 or 1. The tails come from scipy.special,
which is imported where it is used: scipy.stats, which the tests compare with, takes longer to import than the tables
to make.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.report.student import Difference, square

# Losses this close, in nats per token, may be called equivalent. Fixed before the runs: at a perplexity of 4.4 this is
# 0.09, about the published gap that is put to the test (4.43 against 4.35), and under twice the standard deviation
# between the published seeds (0.054), so that ten seeds per arm can tell.
MARGIN_NATS = 0.02


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean with its n; spread and interval are None where n or an infinite value gives none."""

    n: int
    mean: float
    sd: float | None  # sample standard deviation, n - 1
    interval: tuple[float, float] | None  # Student's t, 95 %


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference of means with its two-sided t interval and p-value; None where n or an infinite value gives none."""

    n_a: int
    n_b: int  # as many as n_a where paired; 0 where b is a given number
    difference: float  # mean of a less mean of b
    interval: tuple[float, float] | None
    p_value: float | None


Verdict = Literal["equivalent", "non-inferior", "worse", "better", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """A difference of losses (below 0: a is better) relative to a margin, at 5 %, by its 90 % t interval.

    equivalent    within the margin on both sides                better   below it: by more than the margin
    non-inferior  below the upper margin, by non_inferiority     worse    above it: by more than the margin
    undecided     the interval crosses a margin that matters, or there is none
    Whether there is a difference at all is tested by `welch` and `paired_t`.
    """

    difference: float
    margin: float
    interval_90: tuple[float, float] | None
    p_value: float | None  # of the hypothesis that the difference is not within the margin, or not below it
    verdict: Verdict


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and 95 % t-interval of at least one value."""
    return Summary(n=len(values), mean=mean(values), sd=sample_sd(values), interval=t_interval(values))


def perplexity(nats_per_token: float) -> float:
    """exp of a mean cross-entropy in nats; infinite where a float cannot hold it."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, the same in any order of the values, and never outside them."""
    if not values:
        raise ValueError("mean of an empty list")
    try:
        rounded = math.fsum(values) / len(values)
    except OverflowError:
        return math.inf
    if math.isnan(rounded):
        raise ValueError("NaN is not a measurement, and has no mean")
    return min(max(rounded, min(values)), max(values))  # five of 1.602 round to its neighbour


def sample_sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None below two values or where one is infinite."""
    if len(values) < 2 or not math.isfinite(squares := _squares(values)):
        return None
    return math.sqrt(squares / (len(values) - 1))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None where there is no standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(confidence)


def upper_bound(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """One-sided t bound: the mean is below it with this confidence. None where there is no standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(2 * confidence - 1)[1]


def lower_bound(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """One-sided t bound: the mean is above it with this confidence. None where there is no standard deviation."""
    estimate = _of_mean(values)
    return None if estimate is None else estimate.interval(2 * confidence - 1)[0]


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Welch's t-test of two samples whose spreads may differ; needs two values on each side."""
    return _comparison(len(a), len(b), _difference(mean(a), mean(b)), _of_difference(a, b), confidence)


def paired_t(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Comparison:
    """Student's t-test of the differences a - b, value by value: the same seeds, in the same order."""
    differences = _differences(a, b)
    return _comparison(len(a), len(b), mean(differences), _of_mean(differences), confidence)


def one_sample(a: Sequence[float], value: float, confidence: float = 0.95) -> Comparison:
    """Student's t-test of a sample against a number taken as exact, such as a published one."""
    differences = _differences(a, [value] * len(a))
    return _comparison(len(a), 0, mean(differences), _of_mean(differences), confidence)


def tost(a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float = MARGIN_NATS) -> Equivalence:
    """Two one-sided t-tests: is the difference of losses within the margin, on both sides?"""
    return _equivalence(a, b, paired=paired, margin=margin, both_sides=True)


def non_inferiority(
    a: Sequence[float], b: Sequence[float], *, paired: bool, margin: float = MARGIN_NATS
) -> Equivalence:
    """One one-sided t-test: is a worse than b by less than the margin, if at all?"""
    return _equivalence(a, b, paired=paired, margin=margin, both_sides=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given: below 0.05, the family errs in 5 % of cases (Holm 1979).

    The smallest is multiplied by how many there are, the next by one fewer, and so on; none falls below the one before.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for n_smaller, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - n_smaller) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def anova_p(groups: Sequence[Sequence[float]]) -> float | None:
    """One-way analysis of variance: p-value of the hypothesis that all groups have one mean.

    None where that cannot be tested: fewer than two groups, an empty one, no group of two values, an infinite value.
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
        raise ValueError("two infinite values have no difference")
    return a - b


def _squares(values: Sequence[float]) -> float:
    """Sum of squared deviations from the mean, the same in any order; infinite where a value or the sum is."""
    centre = mean(values)
    return math.inf if math.isinf(centre) else sum(sorted(square(value - centre) for value in values))


def expected_best(values: Sequence[float], n: int, k: int) -> float | None:
    """Mean over all subsets of k of n trials of the lowest value in it; None where a subset has none.

    `values` are those of the trials that gave one; the other n - len(values) are worse than any.
    """
    if not 1 <= k <= n or n - len(values) >= k:
        return None
    ordered = sorted(values)
    return math.fsum(math.comb(n - i, k - 1) * value for i, value in enumerate(ordered, start=1)) / math.comb(n, k)
