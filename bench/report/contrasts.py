"""Each arm of an experiment against a reference arm: the difference with intervals, tests and a verdict."""

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from bench.record import Record
from bench.report.arms import at_other_rates, full_model, variants
from bench.report.mixing import measured_alike
from bench.report.over_text import NO_WINDOWS, OverText, over_text
from bench.report.resampling import MAX_SPLITS, permutation_p
from bench.report.runs import CellResults, Results, of_expected, sweep_nats
from bench.report.statistics import MARGIN_NATS, Comparison, Equivalence, holm, mean, paired_t, sample_sd, tost, welch
from bench.report.student import seeds_needed

MIN_PAIRS_FOR_CORRELATION = 5  # of three pairs it is noise
POWER, ALPHA = 0.8, 0.05
Question = Literal["primary", "baselines", "ablation", "stress"]  # p-values of one question are adjusted together


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """An arm minus a reference arm, in nats per token at the best evaluation of the sweep, over all runs of both.

    Welch's test is the main one: between architectures the losses at common seeds are not correlated, so that pairing
    gains nothing and costs degrees of freedom. If the arms cannot be compared, `why_not` is the reason.
    """

    arm: CellResults
    reference: CellResults
    question: Question = "baselines"
    why_not: str | None = None
    holm_p: float | None = None  # of the comparison, adjusted within its question; None for the primary one
    holm_p_equivalence: float | None = None

    @cached_property
    def _nats(self) -> tuple[list[float], list[float]]:
        return sweep_nats(self.ours), sweep_nats(self.theirs)

    @cached_property
    def _paired_nats(self) -> tuple[list[float], list[float]]:
        if self.why_not is not None:
            return [], []
        ours, theirs = of_common_seeds(self.arm, self.reference)
        return sweep_nats(ours), sweep_nats(theirs)

    @property
    def ours(self) -> tuple[Record, ...]:
        """The runs of the arm; empty if it cannot be compared."""
        return self.arm.done if self.why_not is None else ()

    @property
    def theirs(self) -> tuple[Record, ...]:
        """The runs of the reference arm; empty if it cannot be compared."""
        return self.reference.done if self.why_not is None else ()

    @cached_property
    def comparison(self) -> Comparison | None:
        """Welch's t-test of all runs; None if an arm has no run."""
        ours, theirs = self._nats
        return welch(ours, theirs) if ours and theirs else None

    @cached_property
    def paired(self) -> Comparison | None:
        """The check: Student's t-test over the seeds in common; None for fewer than two."""
        ours, theirs = self._paired_nats
        return paired_t(ours, theirs) if len(ours) >= 2 else None

    @property
    def primary(self) -> bool:
        """Whether it is the comparison chosen beforehand, whose p-values are not adjusted."""
        return self.question == "primary"

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value of the comparison; None without one."""
        return None if self.comparison is None else self.comparison.p_value

    @cached_property
    def equivalence(self) -> Equivalence | None:
        """Two one-sided Welch tests at the margin fixed before the runs."""
        if self.comparison is None or self.comparison.interval is None:
            return None
        return tost(*self._nats, paired=False, margin=MARGIN_NATS)

    @cached_property
    def permutation_p(self) -> float | None:
        """Exact companion of Welch's p-value; None if it cannot reach 5 % with so few runs, or for too many."""
        ours, theirs = self._nats
        n_splits = math.comb(len(ours) + len(theirs), len(ours))
        finite = all(map(math.isfinite, (*ours, *theirs)))
        return permutation_p(ours, theirs) if finite and 2 / ALPHA <= n_splits <= MAX_SPLITS else None

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
        """Whether the difference is within the margin, tested at 5 %, adjusted within its question."""
        adjusted = self.holm_p_equivalence
        if self.equivalence is None or self.equivalence.verdict != "equivalent":
            return False
        return adjusted is None or adjusted < ALPHA

    @property
    def verdict(self) -> str:
        """The result for the arm in words, `so far` while planned runs are missing; or why there is none."""
        if self.comparison is None:
            return self.why_not or ""
        if self.distinguishable is None:
            return "too few seeds to tell"
        words = self._compared(self.comparison.difference)
        return f"so far {words}" if self.partial else words

    def _compared(self, difference: float) -> str:
        words = "not distinguishable"
        if self.distinguishable:
            words = "better" if difference < 0 else "worse"
            if self.holm_p is not None and self.holm_p >= ALPHA:
                words += ", but not after Holm"
        return f"{words}; equivalent within {MARGIN_NATS}" if self.equivalent else words

    @property
    def n_text(self) -> str:
        """`5 against 3`, with the expected number where runs are missing."""
        sides = (of_expected(len(cell.done), len(cell.expected)) for cell in (self.arm, self.reference))
        return " against ".join(sides)

    @property
    def partial(self) -> bool:
        """Whether an expected run of either arm is not done."""
        return any(len(cell.done) < len(cell.expected) for cell in (self.arm, self.reference))

    @property
    def correlation(self) -> float | None:
        """Of the losses of both arms at common seeds; None with fewer than five pairs or without a spread."""
        ours, theirs = self._paired_nats
        if len(ours) < MIN_PAIRS_FOR_CORRELATION or 0.0 in (sample_sd(ours), sample_sd(theirs)):
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
    """Every other trained arm against a reference arm, in the order of the manifest; empty without a reference.

    Variants of K-Operators are held against the full model, other arms against the reference of the experiment. The
    first arm is the primary comparison, unless it is the reference or a variant.
    """
    reference, full = experiment.reference, full_model(experiment)
    if reference is None:
        return ()
    trained = [cell for cell in experiment.cells if not cell.fitted]
    ablated, stressed = variants(experiment), at_other_rates(experiment)
    found = []
    for cell in trained:
        question: Question = "ablation" if cell in ablated else "stress" if cell in stressed else "baselines"
        against = full if full is not None and question != "baselines" else reference
        if cell is not reference:
            question = "primary" if cell is trained[0] and question == "baselines" else question
            found.append(Contrast(arm=cell, reference=against, question=question, why_not=_why_not(cell, against)))
    by_test = _adjusted(found, lambda one: one.p_value)
    by_equivalence = _adjusted(found, lambda one: None if one.equivalence is None else one.equivalence.p_value)
    return tuple(
        replace(one, holm_p=by_test.get(one.arm.label), holm_p_equivalence=by_equivalence.get(one.arm.label))
        for one in found
    )


def primary_contrast(experiment: Results) -> Contrast | None:
    """The primary comparison, where both arms have a run."""
    found = next((one for one in contrasts(experiment) if one.primary), None)
    return None if found is None or found.comparison is None else found


def _adjusted(found: Iterable[Contrast], p_value: Callable[[Contrast], float | None]) -> dict[str, float]:
    """The p-values by arm, adjusted by Holm within each question; the primary comparison has none."""
    by_question: dict[Question, dict[str, float]] = defaultdict(dict)
    for one in found:
        if not one.primary and (p := p_value(one)) is not None:
            by_question[one.question][one.arm.label] = p
    adjusted = (zip(known, holm(list(known.values())), strict=True) for known in by_question.values())
    return dict(itertools.chain.from_iterable(adjusted))


def window_means(records: Sequence[Record]) -> list[float]:
    """The loss of each window at each run's best step, averaged over runs; empty if a run has no losses by window."""
    results = [record.result for record in records if record.result is not None]
    by_run = [windows for one in results if (windows := one.window_nats.get(one.sweep.best.step))]
    if not by_run or len(by_run) < len(records) or len({len(windows) for windows in by_run}) > 1:
        return []
    return [mean(values) for values in zip(*by_run, strict=True)]


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
