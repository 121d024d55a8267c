"""What a few numbers say together: mean, spread, interval. Pure functions on sequences of floats."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A mean with its n; spread and interval are None where n or an infinite value gives none."""

    n: int
    mean: float
    sd: float | None  # sample standard deviation, n - 1
    interval: tuple[float, float] | None  # Student's t, 95 %


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
    """Arithmetic mean, the same in any order of the values."""
    if not values:
        raise ValueError("no values have no mean")
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.inf


def sample_sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1); None below two values or where one is infinite."""
    if len(values) < 2:
        return None
    centre = mean(values)
    if math.isinf(centre):
        return None
    sd = math.sqrt(sum(sorted((value - centre) * (value - centre) for value in values)) / (len(values) - 1))
    return sd if math.isfinite(sd) else None


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of the mean; None where there is no standard deviation."""
    sd = sample_sd(values)
    if sd is None:
        return None
    from scipy.special import stdtrit  # the quantile alone; scipy.stats takes a second to import

    half_width = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * sd / math.sqrt(len(values))
    return mean(values) - half_width, mean(values) + half_width
