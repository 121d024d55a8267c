"""The evidence for rules: the final runs of an arm, in the order of their seeds, and their measurements.

A rule names experiments and labels as at the preprint's size. A `Place` maps them to another experiment, such as
`laptop-all`: the same rule then gives a result there, which decides nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from bench.record import Record
from bench.report.runs import CellResults, Results, StoreResults

Reading = Callable[[Record], float]


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
    },
)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """The runs of one label. Empty where nothing was launched."""

    label: str
    cell: CellResults | None

    @cached_property
    def done(self) -> dict[int | None, Record]:
        """Those that measured something, by seed."""
        return {} if self.cell is None else {record.seed: record for record in self.cell.done}

    @property
    def n_diverged(self) -> int:
        """How many diverged."""
        return 0 if self.cell is None else sum(record.status == "diverged" for record in self.cell.records)

    @property
    def n_expected(self) -> int:
        """How many were launched."""
        return 0 if self.cell is None else len(self.cell.expected)

    @property
    def n_open(self) -> int:
        """How many have no result yet."""
        return self.n_expected - len(self.done) - self.n_diverged

    @property
    def state(self) -> str:
        """`k_operators: 3 of 10 seeds`, and how many diverged."""
        of = "" if len(self.done) == self.n_expected else f" of {self.n_expected}"
        diverged = f", {self.n_diverged} diverged" if self.n_diverged else ""
        return f"{self.label}: {len(self.done)}{of} seeds{diverged}" if self.n_expected else f"{self.label}: not run"

    def values(self, reading: Reading) -> list[float]:
        """A reading of each done run."""
        return [reading(record) for record in self.done.values()]


class Evidence:
    """A store, for the rules."""

    def __init__(self, aggregate: StoreResults, place: Place = JUDGED) -> None:
        self.aggregate, self.place = aggregate, place

    def experiment(self, name: str) -> Results | None:
        """The experiment, if it was launched."""
        return self.aggregate.experiment(self.place.experiments.get(name, name))

    def arm(self, experiment: str, label: str) -> Arm:
        """The runs of a label."""
        label = self.place.labels.get(label, label)
        found = self.experiment(experiment)
        return Arm(label=label, cell=None if found is None else found.cell(label))

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


def rise_when_permuted(record: Record) -> float:
    """By how many nats per token the loss rises when the first half of each window is put in a random order."""
    assert record.result is not None
    permuted = record.result.permuted
    assert permuted is not None
    return permuted.nats_per_token_permuted - permuted.nats_per_token


def by_layer(record: Record, name: str, *, first: bool = False) -> list[float]:
    """A reading of the model, one number per layer, at the last evaluation or the first; empty where there is none."""
    steps = sorted(record.diagnostics.by_step)
    if not steps:
        return []
    taken = record.diagnostics.by_step[steps[0] if first else steps[-1]]
    if name == "median gamma":
        values: Sequence[Sequence[float]] = taken.get("gamma_quantiles") or taken.get("gamma_min_median_max") or ()
        return [levels[len(levels) // 2] for levels in values]
    return list(taken.get(name) or ())
