"""The search of a recipe: twenty points, the same for every family, in two stages; the records of a store choose."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from bench.config import Mode, RunConfig
from bench.errors import ConfigError, count, typed
from bench.experiments.grid import TUNING_SEED, Cell
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, changed, dropout_fields
from bench.record import FINAL_STATUSES, Record, run_name
from bench.store import Store

N_TRIALS = 20
N_FINALISTS = 3
STAGE_2_SEEDS = (TUNING_SEED + 1, TUNING_SEED + 2)
RATES = (3e-4, 3e-2)  # of the learning rate
DROPOUTS = (0.0, 0.05, 0.1, 0.2, 0.3)  # one rate at every site
N_SHOWN = 3  # names of missing runs in a message

# The published K-Operators have four rates: 0.08, 0.10, 0.05 and 0.15. An architecture without their sites gets the one
# of DROPOUTS that is nearest to their mean, 0.095; it is also the rate of their feed-forward layers.
ONE_FOR_FOUR = 0.1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a published recipe that a trial takes together; rates and warm-up are relative."""

    schedule: str
    warmup: float  # share of the steps
    floor: float  # last learning rate over the highest
    betas: tuple[float, float]
    weight_decay: float


def recipe_of(config: RunConfig) -> Recipe:
    """The recipe of a published config."""
    training = config.training
    assert training is not None
    return Recipe(
        schedule=training.schedule,
        warmup=training.warmup_steps / training.n_steps,
        floor=training.final_learning_rate / training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )


RECIPES = {"nanogpt": recipe_of(NANOGPT), "k_operators": recipe_of(K_OPERATORS_PAPER)}


@dataclass(frozen=True, kw_only=True)
class Point:
    """The settings of a trial."""

    recipe: str  # a key of RECIPES
    learning_rate: float
    dropout: float
    published_rates: bool = False  # K-Operators keep their four published dropout rates


@cache
def points() -> tuple[Point, ...]:
    """The points of the search: nanoGPT's recipe, K-Operators' published one, then 18 of a Halton sequence.

    Its bases are 2, 3 and 5: the recipes alternate, and the nine points of each have one learning rate in each ninth of
    the logarithmic range. Not scrambled and rounded to three digits, so that no version of scipy changes a run.
    """
    from scipy.stats import qmc

    halton = qmc.Halton(d=3, scramble=False)
    halton.fast_forward(1)  # the first point is a corner of the space
    low, high = RATES
    return (
        Point(recipe="nanogpt", learning_rate=1e-3, dropout=0.2),
        Point(recipe="k_operators", learning_rate=1e-2, dropout=ONE_FOR_FOUR, published_rates=True),
        *(
            Point(
                recipe=list(RECIPES)[int(2 * recipe)],
                learning_rate=float(f"{low * (high / low) ** rate:.3g}"),
                dropout=DROPOUTS[int(len(DROPOUTS) * dropout + 1e-9)],  # 3 / 5 may be rounded down
            )
            for recipe, rate, dropout in halton.random(N_TRIALS - 2)
        ),
    )


def with_point(config: RunConfig, point: Point) -> RunConfig:
    """`config` with the settings of a point."""
    assert config.training is not None
    recipe = RECIPES[point.recipe]
    dropout = dict.fromkeys(dropout_fields(config.model), point.dropout)
    if point.published_rates:
        dropout |= {name: getattr(K_OPERATORS_PAPER.model, name, rate) for name, rate in dropout.items()}
    return changed(
        config,
        model=dropout,
        schedule=recipe.schedule,
        warmup_steps=round(recipe.warmup * config.training.n_steps),
        learning_rate=point.learning_rate,
        final_learning_rate=float(f"{point.learning_rate * recipe.floor:.6g}"),
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )


class Recorded:
    """The records of a store in one mode, on which choices are based. Without a store there are none."""

    def __init__(self, store: Store | None = None, mode: Mode = "exact") -> None:
        self.store, self.mode = store, mode

    @cached_property
    def _records(self) -> dict[str, Record]:
        return {} if self.store is None else {one.run_id: one for one in self.store.records()[0]}

    def status(self, cell: Cell, seed: int) -> str:
        """The status of a run's record; `missing` where it has none."""
        found = self._records.get(cell.run(seed, self.mode).run_id)
        return "missing" if found is None else found.status

    def nats(self, cell: Cell, seed: int) -> float | None:
        """The best sweep loss of a run, in nats per token: infinite if it diverged, None while it has no result."""
        found = self._records.get(cell.run(seed, self.mode).run_id)
        if found is None or found.status not in FINAL_STATUSES:
            return None
        return math.inf if found.status == "diverged" else found.nats()


@dataclass(frozen=True)
class Search:
    """The search for the recipe of one family: its trials, and what the records choose."""

    trials: tuple[Cell, ...]  # by number, on the seed of stage 1
    recorded: Recorded

    @cached_property
    def finalists(self) -> tuple[int, ...]:
        """The numbers of the three trials with the lowest loss, best first; none while stage 1 is incomplete."""
        return self._ranked(range(len(self.trials)), (TUNING_SEED,))[:N_FINALISTS]

    @cached_property
    def winner(self) -> int | None:
        """The number of the finalist with the lowest mean loss over three seeds; None while stage 2 is incomplete."""
        return next(iter(self._ranked(self.finalists, (TUNING_SEED, *STAGE_2_SEEDS))), None)

    def _ranked(self, numbers: Iterable[int], seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Trials by mean loss over the seeds: diverged last, equal ones by number; none while a loss is missing."""
        losses = {i: [self.recorded.nats(self.trials[i], seed) for seed in seeds] for i in numbers}
        means = {i: math.fsum(nats for nats in found if nats is not None) / len(seeds) for i, found in losses.items()}
        complete = not any(nats is None for found in losses.values() for nats in found)
        return tuple(sorted(means, key=lambda i: (means[i], i))) if complete else ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The trials; a finalist has the seeds of both stages."""
        return tuple(
            replace(cell, seeds=(*cell.seeds, *STAGE_2_SEEDS)) if i in self.finalists else cell
            for i, cell in enumerate(self.trials)
        )

    @property
    def awaited(self) -> tuple[str, ...]:
        """The runs without a result, by name and with their status, of the stage that is incomplete."""
        return tuple(
            f"{run_name(cell.label, seed)} ({self.recorded.status(cell, seed)})"
            for cell in self.cells
            for seed in cell.seeds
            if seed is not None and self.recorded.nats(cell, seed) is None
        )

    def run_ids(self, stage: int) -> tuple[str, ...]:
        """The runs whose records choose at the end of a stage: all trials, then with the seeds of the finalists."""
        cells = self.trials if stage == 1 else self.cells
        return tuple(
            cell.run(seed, self.recorded.mode).run_id for cell in cells for seed in cell.seeds if seed is not None
        )


def search(family: str, config: RunConfig, recorded: Recorded) -> Search:
    """The search of a family, from the config whose recipe is to be found."""
    return Search(
        tuple(
            Cell(label=f"{family}-t{i:02d}", config=with_point(config, point), seeds=(TUNING_SEED,), group=family)
            for i, point in enumerate(points())
        ),
        recorded,
    )


def refuse_incomplete(searches: Mapping[str, Search], recorded: Recorded, experiment: str) -> None:
    """ConfigError with what is missing and the next command, unless the search of each family has its winner.

    `experiment` is the search's name.
    """
    awaited = {family: one.awaited for family, one in searches.items() if one.winner is None}
    if not awaited:
        return
    stages = (
        f"{family} lacks {count(len(names), 'run')} of stage {2 if searches[family].finalists else 1}"
        for family, names in awaited.items()
    )
    names = [name for found in awaited.values() for name in found]
    words = ["launch", "--experiment", experiment]
    words += ["--retry", "failed"] if not all(name.endswith("(missing)") for name in names) else []
    command = typed("jobs", *words, store=None if recorded.store is None else recorded.store.root)
    raise ConfigError(
        f"the winners of {experiment} in mode {recorded.mode} are needed, and {'; '.join(stages)}: {shown(names)}. "
        f"Next: {command}"
    )


def shown(names: Sequence[str]) -> str:
    """The first names, and the number of the others; of awaited runs, those that were tried come first."""
    more = len(names) - N_SHOWN
    ordered = sorted(names, key=lambda name: name.endswith("(missing)"))
    return ", ".join(ordered[:N_SHOWN]) + (f" and {more} more" if more > 0 else "")
