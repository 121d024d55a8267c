"""Records outside a store's own runs, in no mean: contributed ones, and replications."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.dotted import alike
from bench.errors import UserError
from bench.record import Record
from bench.report.frame import frame_of, record_row
from bench.report.mixing import FITTED
from bench.report.runs import StoreResults
from bench.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Replication:
    """A second record of a run, with the record that it repeats."""

    experiment: str
    label: str
    record: Record
    repeated: Record


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """A record that others made of an arm."""

    experiment: str
    label: str
    record: Record


@dataclass(frozen=True, kw_only=True)
class Outside:
    """All of both, by the experiments that they belong to, and how many belong to none, by folder."""

    replications: tuple[Replication, ...]
    contributions: tuple[Contribution, ...]
    n_unlisted: dict[str, int]
    errors: tuple[UserError, ...]


@dataclass(kw_only=True)
class _Arm:
    """An arm of an experiment in all its modes: the runs that it lists, and the records that there are of them."""

    experiment: str
    label: str
    run_ids: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)


def read_outside(store: Store, ours: StoreResults) -> Outside:
    """The records in `contributed/` and `replications/`. A record of several experiments is in each of them."""
    contributed, unread = store.records_in("contributed")
    repeated, unread_too = store.records_in("replications")
    arms = _arms(ours) if contributed or repeated else []
    contributions = [one for record in contributed for one in _contributions(record, arms)]
    replications = [one for record in repeated for one in _replications(record, contributed, arms)]
    return Outside(
        replications=tuple(replications),
        contributions=tuple(contributions),
        n_unlisted={
            "contributed": _n_lost(contributed, (one.record for one in contributions)),
            "replications": _n_lost(repeated, (one.record for one in replications)),
        },
        errors=(*unread, *unread_too),
    )


def all_runs(ours: StoreResults, outside: Outside) -> "pd.DataFrame":
    """Every run that a store's tables know: those that means are over, then replications and contributed ones."""
    rows, fitted = [], set()
    for results in (*ours.experiments, *ours.in_other_mode):
        for row in results.rows():
            key = row["experiment"], row["arm"]
            if row["seed"] != FITTED or key not in fitted:  # a fitted model is one run, whatever the mode
                rows.append(row)
            fitted |= {key} if row["seed"] == FITTED else set()
    for origin, found in (("replications", outside.replications), ("contributed", outside.contributions)):
        rows += [
            {"experiment": one.experiment, "arm": one.label, **record_row(one.record), "origin": origin}
            for one in found
        ]
    return frame_of(rows)


def _arms(ours: StoreResults) -> list[_Arm]:
    arms: dict[tuple[str, str], _Arm] = {}
    for experiment in (*ours.experiments, *ours.in_other_mode):
        listed = {cell.label: cell.run_ids.values() for cell in experiment.manifest.cells}
        for cell in experiment.cells:
            new = _Arm(experiment=experiment.name, label=cell.label)
            arm = arms.setdefault((experiment.name, cell.label), new)
            arm.run_ids.update(listed[cell.label])
            arm.records += cell.records
    return list(arms.values())


def _contributions(record: Record, arms: Iterable[_Arm]) -> Iterator[Contribution]:
    """The arms that a contributed record is of: those that list its run, or have one that differs in seed or mode."""
    for arm in arms:
        if record.run_id in arm.run_ids or any(_of_one_arm(record, other) for other in arm.records[:1]):
            yield Contribution(experiment=arm.experiment, label=arm.label, record=record)


def _replications(record: Record, contributed: Iterable[Record], arms: Iterable[_Arm]) -> Iterator[Replication]:
    """A second record with the first one of its run: ours, else the contributed one."""
    for arm in arms:
        first = next((one for one in (*arm.records, *contributed) if one.run_id == record.run_id), None)
        if record.run_id in arm.run_ids and first is not None:
            yield Replication(experiment=arm.experiment, label=arm.label, record=record, repeated=first)


def _of_one_arm(one: Record, other: Record) -> bool:
    """Whether two records have one label and differ in seed and mode at most.

    A field of the config that an older one lacks had its default, which is not known here: so the label must agree.
    """
    if (one.label, one.replicate, one.corpus.sha256) != (other.label, other.replicate, other.corpus.sha256):
        return False
    return alike(one.config, other.config)


def _n_lost(records: Iterable[Record], shown: Iterable[Record]) -> int:
    """How many of the records are not shown."""
    seen = {id(record) for record in shown}
    return sum(id(record) not in seen for record in records)
