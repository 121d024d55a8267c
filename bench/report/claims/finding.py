"""What a rule finds, and how it says a difference: an interval, a margin, and the margin at which it would hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.report.claims.evidence import Evidence, Planned
from bench.report.published import Claim, Published
from bench.report.statistics import Comparison, lower_bound, mean, sample_sd, upper_bound
from bench.report.student import seeds_needed

Outcome = Literal["not started", "pending", "reproduced", "not reproduced", "inconclusive"]
BOUNDS = 0.9  # confidence of the interval whose ends are the two one-sided bounds at 95 %
BEFORE = "by the rule registered before the runs"
DECIDES_NOTHING = "chosen after the runs, decides nothing"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The number that decides a claim, with its interval; the claim holds where all of that is within `holds`."""

    what: str  # `K-Operators minus nanoGPT`
    value: float
    unit: str  # `nats`, or nothing
    n: str  # `10 and 5`
    interval: tuple[float, float] | None = None  # both one-sided 95 % bounds, or of C10 the 95 % interval
    holds: tuple[float | None, float | None] = (None, None)  # None: no bound on this side

    def __str__(self) -> str:
        """`−0.0003 nats`, or `9.36 times`."""
        return f"{signed(self.value) if self.unit in ('', 'nats') else f'{self.value:.3g}'} {self.unit}".strip()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule found in the runs there are: the outcome if these were all, and the numbers behind it.

    `registered` is the outcome by the rule that stood before the runs, where the rule has changed since.
    """

    outcome: Outcome
    numbers: tuple[str, ...]
    seeds_needed: int | None = None
    registered: Outcome | None = None
    effect: Effect | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule, and the arms whose planned seeds must all be in before it gives a verdict.

    Where `all_seeds`, a diverged seed rules out that the claim is reproduced.
    """

    read: Callable[[Claim, Evidence, Published], Finding | None]  # None: too little for any number
    arms: tuple[Planned, ...]
    all_seeds: bool = False
    measured: Callable[[Evidence], Sequence[object]] | None = None  # what `make bench-forms` must have measured too


def signed(value: float) -> str:
    """A number with its sign and four decimals."""
    return f"{value:+.4f}".replace("-", "−")


def between(low: float, high: float) -> str:
    """`−0.0200 to −0.0046`."""
    return f"{signed(low)} to {signed(high)}"


def effect_of(what: str, values: Sequence[float], **holds: float | None) -> Effect:
    """The effect whose values these are, one a run, in nats; it must be `above` or `below` these to hold."""
    low, high = lower_bound(values), upper_bound(values)
    return Effect(
        what=what,
        value=mean(values),
        unit="nats",
        n=f"{len(values)}",
        interval=None if low is None or high is None else (low, high),
        holds=(holds.get("above"), holds.get("below")),
    )


def with_bounds(what: str, values: Sequence[float], unit: str = " nats") -> str:
    """`what −0.0123 nats (bounds −0.0200 to −0.0046, n = 5)` of the mean of at least one value."""
    low, high = lower_bound(values), upper_bound(values)
    bounds = "no bounds" if low is None or high is None else f"bounds {between(low, high)}"
    return f"{what} {signed(mean(values))}{unit} ({bounds}, n = {len(values)})"


def equivalence(compared: Comparison, margin: float) -> Outcome:
    """Two one-sided tests: reproduced where the difference is surely within the margin, not where it is surely outside.

    `compared` is at a confidence of BOUNDS.
    """
    assert compared.interval is not None
    low, high = compared.interval
    if -margin < low and high < margin:
        return "reproduced"
    return "not reproduced" if low > margin or high < -margin else "inconclusive"


def non_inferiority(low: float, high: float, margin: float) -> Outcome:
    """One-sided: reproduced where the difference is surely below the margin, not where it is surely above."""
    if high < margin:
        return "reproduced"
    return "not reproduced" if low > margin else "inconclusive"


def critical(margin: float, least: float) -> str:
    """The margin, and the least at which the claim would hold."""
    return f"margin {margin:g}, critical margin {least:.4f}"


def more_seeds(
    outcome: Outcome, gap: float, ours: Sequence[float], theirs: Sequence[float] = (), alpha: float = 0.1
) -> int | None:
    """Seeds per arm for a power of 80 %, were gap and spread as measured; None where it is decided.

    `alpha` is that of the two-sided test: 0.1 where one side of 5 % decides.
    """
    sd_a, sd_b = sample_sd(ours), sample_sd(theirs) if len(theirs) > 1 else 0.0
    if outcome != "inconclusive" or not sd_a or sd_b is None:
        return None
    return seeds_needed(abs(gap), sd_a, sd_b, power=0.8, alpha=alpha)


def differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Pair by pair, a minus b."""
    return [one - other for one, other in zip(a, b, strict=True)]
