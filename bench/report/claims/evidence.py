"""The evidence for rules: the final runs of an arm, in the order of their seeds, and their measurements.

A rule names experiments and labels as at the preprint's size. A `Place` maps them to another experiment, such as
`laptop-all`: the same rule then gives a result there, which decides nothing.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from bench.record import Record
from bench.report.runs import CellResults, Results, StoreResults
from bench.report.statistics import mean

Reading = Callable[[Record], float]
PLANNED_SEEDS = (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)  # fixed before any run


@dataclass(frozen=True, kw_only=True)
class Place:
    """The experiments, and the labels within them, that are used in place of those that a rule names."""

    experiments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


JUDGED = Place()
AT_LAPTOP_SIZE = Place(
    experiments=dict.fromkeys(("matched", "ablation", "stress"), "laptop-all")
    | {"paper": "laptop-all", "tuning": "laptop-tuning"},
    labels={
        "transformer-params": "transformer",
        "transformer_none-params": "transformer_none",
        "refine-lr1": "k_operators",
        "plain-lr1": "refine-0",
        "frozen-lr1": "refine-1-frozen",
        "transformer_rotary-params": "transformer_rotary",
        "modern-params": "modern",
    },
)


class Planned(NamedTuple):
    """An arm and the number of seeds that it is judged on, the first of PLANNED_SEEDS: more runs change no verdict."""

    experiment: str
    label: str
    n_seeds: int


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one label at its planned seeds. Empty where nothing was launched."""

    label: str
    cell: CellResults | None
    n_planned: int

    @cached_property
    def records(self) -> list[Record]:
        """The records at planned seeds."""
        seeds = PLANNED_SEEDS[: self.n_planned]
        return [] if self.cell is None else [one for one in self.cell.records if one.seed in seeds]

    @cached_property
    def done(self) -> dict[int | None, Record]:
        """Those that measured something, by seed."""
        return {one.seed: one for one in self.records if one.status == "done" and one.result is not None}

    @property
    def n_diverged(self) -> int:
        """How many diverged."""
        return sum(one.status == "diverged" for one in self.records)

    @property
    def n_in(self) -> int:
        """How many have a result: they are done or diverged."""
        return len(self.done) + self.n_diverged

    @property
    def state(self) -> str:
        """`k_operators 3 of 10 seeds`, and how many diverged."""
        of = "" if self.n_in == self.n_planned else f" of {self.n_planned}"
        diverged = f", {self.n_diverged} diverged" if self.n_diverged else ""
        return f"{self.label} {self.n_in}{of} seeds{diverged}"

    def values(self, reading: Reading) -> list[float]:
        """A reading of each done run."""
        return [reading(record) for record in self.done.values()]


class Evidence:
    """A store, for the rules."""

    def __init__(self, results: StoreResults, place: Place = JUDGED) -> None:
        self.results, self.place = results, place

    def experiment(self, name: str) -> Results | None:
        """The experiment, if it was launched."""
        return self.results.experiment(self.place.experiments.get(name, name))

    def arm(self, experiment: str, label: str, n_seeds: int = len(PLANNED_SEEDS)) -> Arm:
        """The runs of a label at its planned seeds; at another place, at the seeds that were launched there."""
        label = self.place.labels.get(label, label)
        found = self.experiment(experiment)
        cell = None if found is None else found.cell(label)
        if self.place is not JUDGED:
            n_seeds = 0 if cell is None else len(cell.expected)
        return Arm(label=label, cell=cell, n_planned=n_seeds)

    def modes(self, experiments: Iterable[str]) -> str | None:
        """The modes that these experiments ran in."""
        found = [one.manifest.mode for name in experiments if (one := self.experiment(name)) is not None]
        return " and ".join(dict.fromkeys(found)) or None


def pairs(a: Arm, b: Arm, reading: Reading) -> tuple[list[float], list[float]]:
    """A reading at each seed that is done in both arms."""
    common = [seed for seed in a.done if seed in b.done]
    return [reading(a.done[seed]) for seed in common], [reading(b.done[seed]) for seed in common]


def sweep_best(record: Record) -> float:
    """Nats per token: the sweep's best evaluation, as K-Operators were published."""
    assert record.result is not None
    return record.result.sweep.best.nats_per_token


def sampled_best(record: Record) -> float:
    """Nats per token: random batches at the best evaluation, as nanoGPT was published."""
    assert record.result is not None
    return record.result.sampled.best.nats_per_token


def rise_at_a_distance(record: Record) -> float | None:
    """By how many nats per token the loss rises when the first half of each window is put in a random order, without
    the first quarter of the positions that are scored, which lie nearest to it; None where it was not measured.
    """
    rise = None if record.result is None else record.result.permuted_rise
    return mean(rise[len(rise) // 4 :]) if rise else None


def knockout_cost(record: Record, part: str) -> float | None:
    """By how many nats per token the loss rises without a part of the model; None where it was not measured."""
    knockouts = None if record.result is None else record.result.knockouts
    return None if knockouts is None else cost_of(knockouts.nats_per_token, part)


def cost_of(nats: Mapping[str, float | None], part: str) -> float | None:
    """The loss without a part, less that of the complete model on the same windows."""
    without, complete = nats.get(part), nats.get("none")
    return None if without is None or complete is None else without - complete


def knockout_costs(record: Record, path: str) -> tuple[float, float] | None:
    """The cost of knocking out a path at the first evaluation after step 0, and at the last."""
    costs = [
        cost
        for step, readings in sorted(record.diagnostics.by_step.items())
        if step and (cost := cost_of(readings.get("knockout_nats") or {}, path)) is not None
    ]
    return (costs[0], costs[-1]) if costs else None


def measured(arm: Arm, reading: Callable[[Record], float | None]) -> list[float]:
    """A reading of each done run; empty where one of them lacks it."""
    values = [reading(record) for record in arm.done.values()]
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else []


def by_layer(record: Record, name: str, *, first: bool = False) -> list[float]:
    """A reading of the model, one number per layer, at the last evaluation or the first; empty where there is none.

    Derived ones: `median gamma`; `half-life`, log2 of the tokens after which a median channel has lost half; `weight
    share`, alpha over the sum of alpha and the gate.
    """
    steps = sorted(record.diagnostics.by_step)
    if not steps:
        return []
    taken = record.diagnostics.by_step[steps[0] if first else steps[-1]]
    if name in ("median gamma", "half-life"):
        levels = taken.get("gamma_quantiles") or taken.get("gamma_min_median_max") or ()
        medians = [layer[len(layer) // 2] for layer in levels]
        return medians if name == "median gamma" else [_log_half_life(gamma) for gamma in medians]
    if name == "weight share":
        weights = zip(taken.get("alpha") or (), taken.get("gate") or (), strict=False)
        return [alpha / (alpha + gate) for alpha, gate in weights]
    return list(taken.get(name) or ())


def _log_half_life(gamma: float) -> float:
    return math.log2(math.log(0.5) / math.log(min(gamma, 1 - 1e-9)))
