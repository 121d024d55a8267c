"""What a search chose, recomputed from its records: ranks, winner, and how both change when trials are resampled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.record import Record
from bench.report.runs import CellResults

N_FINALISTS = 3  # of a search in two stages, as in bench/experiments/search.py; a test compares the winners


@dataclass(frozen=True)
class Trial:
    """A trial, and its loss by seed in nats per token: infinite if it diverged. Runs without a result are left out."""

    cell: CellResults
    nats: dict[str, float]

    @property
    def first(self) -> float | None:
        """The loss on the seed of stage 1; None while it has no result."""
        return self.nats.get(self.cell.expected[0])

    @property
    def mean(self) -> float:
        """The mean loss over the seeds with a result."""
        return math.fsum(self.nats.values()) / len(self.nats)


@dataclass(frozen=True)
class Resampled:
    """How the winner changes when an arm's trials are drawn again with replacement."""

    sd: float | None  # of the winner's loss in nats per token; None if some draws have no trial that did not diverge
    interval: tuple[float, float]  # 2.5 % and 97.5 % quantiles of that loss
    same: float  # share of the draws that choose the same winner


@dataclass(frozen=True)
class Found:
    """The search of one arm."""

    trials: tuple[Trial, ...]  # by number
    n_stages: int

    @property
    def complete(self) -> bool:
        """Whether each trial has a result on the seed of stage 1, and each finalist on all its seeds."""
        ended = all(trial.first is not None for trial in self.trials)
        return ended and all(len(trial.nats) >= 2 * self.n_stages - 1 for trial in self.finalists)

    @cached_property
    def ranked(self) -> list[Trial]:
        """The trials with a result, by their loss on the seed of stage 1; of equal ones the lower number first."""
        ended = [(trial.first, i) for i, trial in enumerate(self.trials) if trial.first is not None]
        return [self.trials[i] for _, i in sorted(ended)]

    @property
    def finalists(self) -> list[Trial]:
        """The trials that go on to stage 2; of a search in one stage the best one."""
        return self.ranked[: N_FINALISTS if self.n_stages == 2 else 1]

    @property
    def winner(self) -> Trial | None:
        """The finalist with the lowest mean loss; None while the search is incomplete."""
        in_order = [trial for trial in self.trials if trial in self.finalists]
        return min(in_order, key=lambda trial: trial.mean) if self.complete else None

    @property
    def n_runs(self) -> int:
        """Number of runs with a record."""
        return sum(len(trial.cell.records) for trial in self.trials)

    @property
    def n_diverged(self) -> int:
        """Number of runs that diverged."""
        return sum(nats == math.inf for trial in self.trials for nats in trial.nats.values())

    def resampled(self, n_resamples: int = 10_000, seed: int = 0) -> Resampled:
        """A bootstrap over the trials of a complete search: draw as many with replacement, and choose as before.

        A trial that was not in stage 2 has the loss of its one seed there.
        """
        import numpy as np

        n, order = len(self.trials), [self.trials.index(trial) for trial in self.ranked]
        drawn = np.zeros((n_resamples, n), dtype=bool)
        picks = np.random.default_rng(seed).integers(0, n, size=(n_resamples, n))
        np.put_along_axis(drawn, picks, True, axis=1)
        by_rank = drawn[:, order]
        goes_on = np.zeros_like(drawn)
        goes_on[:, order] = by_rank & (by_rank.cumsum(axis=1) <= (N_FINALISTS if self.n_stages == 2 else 1))
        means = np.array([trial.mean for trial in self.trials])
        # a diverged trial that goes on is behind all others that do, and before those that do not; ties by number
        values = np.where(goes_on, np.minimum(means, np.finfo(float).max), np.inf)
        chosen = values.argmin(axis=1)
        losses = means[chosen]
        low, high = np.quantile(losses, (0.025, 0.975), method="inverted_cdf")
        winner = self.winner
        return Resampled(
            sd=float(losses.std(ddof=1)) if np.isfinite(losses).all() else None,
            interval=(float(low), float(high)),
            same=float(np.mean([winner is not None and self.trials[i] is winner for i in chosen])),
        )


def find(cells: Sequence[CellResults]) -> Found:
    """The search of one arm from its cells."""
    trials = tuple(Trial(cell, _losses(cell.records)) for cell in cells)
    return Found(trials, n_stages=2 if any(len(cell.expected) > 1 for cell in cells) else 1)


def _losses(records: Sequence[Record]) -> dict[str, float]:
    found = {str(one.seed): math.inf if one.status == "diverged" else one.nats() for one in records}
    return {seed: nats for seed, nats in found.items() if nats is not None}
