"""A difference whose error follows Student's t: interval and p-values; power, and the seeds needed for it."""

import math
from dataclasses import dataclass

MAX_SEEDS = 1000  # per arm; more cannot be afforded


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference whose error follows Student's t."""

    difference: float
    standard_error: float
    degrees_of_freedom: float

    @staticmethod
    def of(difference: float, *samples: tuple[float, int]) -> "Difference":
        """From (standard deviation, n) of each sample, with the degrees of freedom of Welch and Satterthwaite."""
        errors = [sd / math.sqrt(n) for sd, n in samples]
        error = math.hypot(*errors)
        if error == 0:
            df = sum(n - 1 for _, n in samples)
            return Difference(difference=difference, standard_error=0.0, degrees_of_freedom=df)
        shares = [square(one / error) for one in errors]  # the variance itself may be too large for a float
        inverse = sum(square(share) / (n - 1) for share, (_, n) in zip(shares, samples, strict=True))
        return Difference(difference=difference, standard_error=error, degrees_of_freedom=1 / inverse)

    def t(self, value: float) -> float:
        """(difference - value) / standard error; infinite if the standard error is 0."""
        gap = self.difference - value
        if gap == 0:
            return 0.0
        return gap / self.standard_error if self.standard_error else math.copysign(math.inf, gap)

    def p_below(self, value: float) -> float:
        """One-sided p-value of the null hypothesis that the difference is not below a value."""
        from scipy.special import stdtr

        return float(stdtr(self.degrees_of_freedom, self.t(value)))

    def p_above(self, value: float) -> float:
        """One-sided p-value of the null hypothesis that the difference is not above a value."""
        from scipy.special import stdtr

        return float(stdtr(self.degrees_of_freedom, -self.t(value)))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Student's t interval, two-sided."""
        from scipy.special import stdtrit

        half_width = float(stdtrit(self.degrees_of_freedom, (1 + confidence) / 2)) * self.standard_error
        return self.difference - half_width, self.difference + half_width


def welch_power(n: int, difference: float, sd_a: float, sd_b: float, alpha: float = 0.05) -> float:
    """Power of Welch's two-sided test with n values per arm, if this difference and these spreads are the true ones.

    The statistic has a noncentral t distribution, with the degrees of freedom of Welch and Satterthwaite.
    """
    estimate = Difference.of(difference, (sd_a, n), (sd_b, n))
    noncentrality = min(abs(estimate.t(0)), 1e6)  # power is 1 there; above 1e9 scipy gives NaN
    from scipy.special import nctdtr, stdtrit

    df = estimate.degrees_of_freedom
    critical = float(stdtrit(df, 1 - alpha / 2))
    found = float(nctdtr(df, -noncentrality, -critical))  # P(t > critical), mirrored, since scipy has the lower tail
    wrong_sign = float(nctdtr(df, noncentrality, -critical)) if noncentrality < 7 else 0.0  # < 1e-11 above 7, then NaN
    return found + wrong_sign


def seeds_needed(difference: float, sd_a: float, sd_b: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Lowest number of seeds per arm with this power of Welch's two-sided test; None: above 1000, or no difference."""
    if not all(map(math.isfinite, (difference, sd_a, sd_b))) or difference == 0:
        return None
    enough = (n for n in range(2, MAX_SEEDS + 1) if welch_power(n, difference, sd_a, sd_b, alpha) >= power)
    return next(enough, None)


def square(value: float) -> float:
    """value * value, which gives infinity where value**2 raises OverflowError."""
    return value * value
