"""Each arm of an experiment against its reference arm: the difference with intervals, tests and a verdict."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from bench.record import Record
from bench.report.mixing import measured_alike
from bench.report.over_text import NO_WINDOWS, OverText, over_text
from bench.report.resampling import sign_flip_p
from bench.report.runs import CellResults, Results, of_expected, sweep_nats
from bench.report.statistics import MARGIN_NATS, Comparison, Equivalence, holm, mean, paired_t, sample_sd, tost, welch
from bench.report.student import seeds_needed

MIN_PAIRS_FOR_CORRELATION = 5  # of three pairs it is noise
MIN_PAIRS_FOR_SIGN_FLIP = 6  # with 5 pairs the lowest possible p is 0.0625, above 5 %
POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An arm minus the reference arm, in nats per token at the best evaluation of the sweep.

    `ours` and `theirs` hold the runs compared: if paired, those of the common seeds, in the same order. If the arms
    cannot be compared they are empty, and `why_not` is the reason.
    """

    arm: CellResults
    reference: CellResults
    paired: bool
    ours: tuple[Record, ...] = ()
    theirs: tuple[Record, ...] = ()
    why_not: str | None = None
    primary: bool = False  # the comparison whose p-value is not adjusted
    holm_p: float | None = None  # adjusted p-value of the other comparisons

    @cached_property
    def _nats(self) -> tuple[list[float], list[float]]:
        return sweep_nats(self.ours), sweep_nats(self.theirs)

    @cached_property
    def comparison(self) -> Comparison | None:
        """Paired t-test or Welch's; None if an arm has no run."""
        ours, theirs = self._nats
        if not ours or not theirs:
            return None
        return paired_t(ours, theirs) if self.paired else welch(ours, theirs)

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of the comparison; None without one."""
        return None if self.comparison is None else self.comparison.p_value

    @cached_property
    def equivalence(self) -> Equivalence | None:
        """Two one-sided tests at the margin fixed before the runs."""
        if self.comparison is None or self.comparison.interval is None:
            return None
        return tost(*self._nats, paired=self.paired, margin=MARGIN_NATS)

    @cached_property
    def sign_flip_p(self) -> float | None:
        """Exact two-sided p-value; None with too few pairs."""
        if not self.paired or len(self.ours) < MIN_PAIRS_FOR_SIGN_FLIP:
            return None
        return sign_flip_p([one - other for one, other in zip(*self._nats, strict=True)])

    @cached_property
    def over_text(self) -> OverText:
        """95 % intervals over the text: bootstrap over blocks of windows, each averaged over the runs first."""
        ours, theirs = window_means(self.ours), window_means(self.theirs)
        if not ours or len(ours) != len(theirs):
            return NO_WINDOWS
        by_window = [one - other for one, other in zip(ours, theirs, strict=True)]
        first = self.ours[0]
        return over_text(by_window, context=int(first.config["context"]), corpus=first.corpus.name)

    @property
    def distinguishable(self) -> bool | None:
        """Whether the 95 % interval over seeds excludes 0; None without an interval."""
        if self.comparison is None or self.comparison.interval is None:
            return None
        low, high = self.comparison.interval
        return not low <= 0 <= high

    @property
    def equivalent(self) -> bool:
        """Whether the difference is within the margin, tested at 5 %."""
        return self.equivalence is not None and self.equivalence.verdict == "equivalent"

    @property
    def verdict(self) -> str:
        """The result for the arm in words, or why there is none."""
        if self.comparison is None:
            return self.why_not or ""
        if self.distinguishable is None:
            return "too few seeds to tell"
        words = "not distinguishable"
        if self.distinguishable:
            words = "better" if self.comparison.difference < 0 else "worse"
            if self.holm_p is not None and self.holm_p >= ALPHA:
                words += ", but not after Holm"
        return f"{words}; equivalent within {MARGIN_NATS}" if self.equivalent else words

    @property
    def n_text(self) -> str:
        """`5 pairs` or `5 against 3`, with the expected number where runs are missing."""
        if self.paired:
            expected = len(set(self.arm.expected) & set(self.reference.expected))
            return f"{of_expected(len(self.ours), expected)} pairs"
        sides = (of_expected(len(cell.done), len(cell.expected)) for cell in (self.arm, self.reference))
        return " against ".join(sides)

    @property
    def partial(self) -> bool:
        """Whether an expected run of either arm is not done."""
        return any(len(cell.done) < len(cell.expected) for cell in (self.arm, self.reference))

    @property
    def correlation(self) -> float | None:
        """Of the losses of both arms at common seeds; None with fewer than five pairs or without a spread."""
        ours, theirs = self._nats
        if not self.paired or len(ours) < MIN_PAIRS_FOR_CORRELATION or 0.0 in (sample_sd(ours), sample_sd(theirs)):
            return None
        return statistics.correlation(ours, theirs)

    @property
    def seeds_line(self) -> str | None:
        """`gap 0.08, sd 0.046 and 0.050: 8 seeds per arm`, for 80 % power at the measured gap and spreads.

        None where the comparison is decided.
        """
        if self.distinguishable or self.equivalent:
            return None
        ours, theirs = self._nats
        sds = sample_sd(ours), sample_sd(theirs)
        if self.comparison is None or sds[0] is None or sds[1] is None or not self.comparison.difference:
            return None
        needed = seeds_needed(abs(self.comparison.difference), sds[0], sds[1], power=POWER, alpha=ALPHA)
        needed_text = "more than 1,000 seeds" if needed is None else f"{needed:,} seed{'s' if needed != 1 else ''}"
        gap, *spreads = (f"{value:.4f}" for value in (abs(self.comparison.difference), sds[0], sds[1]))
        return f"gap {gap}, sd {' and '.join(spreads)}: {needed_text} per arm (you have {min(len(ours), len(theirs))})"


def contrasts(experiment: Results) -> tuple[Contrast, ...]:
    """Every other trained arm against the reference arm, in the order of the manifest; empty without a reference.

    The first arm is the primary comparison, unless it is the reference; the p-values of all others are adjusted.
    """
    reference = experiment.reference
    if reference is None:
        return ()
    trained = [cell for cell in experiment.cells if not cell.fitted]
    found = [_contrast(cell, reference) for cell in trained if cell is not reference]
    found = [replace(one, primary=one.arm is trained[0]) for one in found]
    p_values = {one.arm.label: p for one in found if not one.primary and (p := one.p_value) is not None}
    by_label = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return tuple(replace(one, holm_p=by_label.get(one.arm.label)) for one in found)


def window_means(records: Sequence[Record]) -> list[float]:
    """The loss of each window at each run's best step, averaged over runs; empty if a run has no losses by window."""
    results = [record.result for record in records if record.result is not None]
    by_run = [windows for one in results if (windows := one.window_nats.get(one.sweep.best.step))]
    if not by_run or len(by_run) < len(records) or len({len(windows) for windows in by_run}) > 1:
        return []
    return [mean(values) for values in zip(*by_run, strict=True)]


def _contrast(arm: CellResults, reference: CellResults) -> Contrast:
    why_not = _why_not(arm, reference)
    if why_not is not None:
        return Contrast(arm=arm, reference=reference, paired=False, why_not=why_not)
    ours, theirs = of_common_seeds(arm, reference)
    if len(ours) >= 2:  # the same seed draws the same batches for every model
        return Contrast(arm=arm, reference=reference, paired=True, ours=ours, theirs=theirs)
    return Contrast(arm=arm, reference=reference, paired=False, ours=arm.done, theirs=reference.done)


def of_common_seeds(one: CellResults, other: CellResults) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """The done runs of both cells at the seeds that are done in both, in the same order."""
    theirs = {record.seed: record for record in other.done}
    ours = tuple(record for record in one.done if record.seed in theirs)
    return ours, tuple(theirs[record.seed] for record in ours)


def _why_not(arm: CellResults, reference: CellResults) -> str | None:
    if not arm.done:
        return arm.statuses
    if not reference.done:
        return f"reference: {reference.statuses}"
    one, other = arm.done[0], reference.done[0]
    if one.mode != other.mode:
        return f"not compared: modes {one.mode} and {other.mode}"
    return None if measured_alike(one, other) else "not compared: measured differently"
