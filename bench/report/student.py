"""A difference whose error follows Student's t: its interval and tails, and how many seeds would tell it from 0."""

import math
from dataclasses import dataclass

MOST_SEEDS = 1000  # an arm that needs more is out of reach


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference whose error follows Student's t."""

    difference: float
    standard_error: float
    degrees_of_freedom: float

    @staticmethod
    def of(difference: float, *samples: tuple[float, int]) -> "Difference":
        """From the standard deviation and n of each sample, with Welch and Satterthwaite's degrees of freedom."""
        errors = [sd / math.sqrt(n) for sd, n in samples]
        error = math.hypot(*errors)
        if error == 0:
            return Difference(
                difference=difference, standard_error=0.0, degrees_of_freedom=sum(n - 1 for _, n in samples)
            )
        shares = [square(one / error) for one in errors]  # of the variance, which may itself be too large for a float
        inverse = sum(square(share) / (n - 1) for share, (_, n) in zip(shares, samples, strict=True))
        return Difference(difference=difference, standard_error=error, degrees_of_freedom=1 / inverse)

    def t(self, value: float) -> float:
        """By how many standard errors the difference exceeds a value; infinite where there is no error to count in."""
        gap = self.difference - value
        if gap == 0:
            return 0.0
        return gap / self.standard_error if self.standard_error else math.copysign(math.inf, gap)

    def p_below(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the difference is not below a value."""
        from scipy.special import stdtr

        return float(stdtr(self.degrees_of_freedom, self.t(value)))

    def p_above(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the difference is not above a value."""
        from scipy.special import stdtr

        return float(stdtr(self.degrees_of_freedom, -self.t(value)))

    def interval(self, confidence: float) -> tuple[float, float]:
        from scipy.special import stdtrit

        half_width = float(stdtrit(self.degrees_of_freedom, (1 + confidence) / 2)) * self.standard_error
        return self.difference - half_width, self.difference + half_width


def welch_power(n: int, difference: float, sd_a: float, sd_b: float, alpha: float = 0.05) -> float:
    """Probability that Welch's two-sided test of n values an arm finds this difference, were it and the spreads true.

    The statistic then has a noncentral t distribution, with Welch and Satterthwaite's degrees of freedom.
    """
    estimate = Difference.of(difference, (sd_a, n), (sd_b, n))
    noncentrality = min(abs(estimate.t(0)), 1e6)  # so many standard errors are certain to be found; beyond 1e9: NaN
    from scipy.special import nctdtr, stdtrit

    df = estimate.degrees_of_freedom
    critical = float(stdtrit(df, 1 - alpha / 2))
    found = float(nctdtr(df, -noncentrality, -critical))  # P(t > critical), mirrored: scipy gives the lower tail
    wrong_sign = float(nctdtr(df, noncentrality, -critical)) if noncentrality < 7 else 0.0  # below 1e-11, and soon NaN
    return found + wrong_sign


def seeds_needed(difference: float, sd_a: float, sd_b: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Fewest seeds per arm that give Welch's two-sided test this power; None: more than 1000, or no difference."""
    if not all(map(math.isfinite, (difference, sd_a, sd_b))) or difference == 0:
        return None
    enough = (n for n in range(2, MOST_SEEDS + 1) if welch_power(n, difference, sd_a, sd_b, alpha) >= power)
    return next(enough, None)


def square(value: float) -> float:
    """value**2, which is infinite rather than an error where a float cannot hold it."""
    return value * value
