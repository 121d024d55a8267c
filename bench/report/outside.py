"""Records that are in no mean: contributed records, and replications (second records of a run)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
class Contribution:
    """A record of an arm that others made."""

    experiment: str
    label: str
    record: Record


@dataclass(frozen=True, kw_only=True)
class Replication(Contribution):
    """A second record of a run, with the first record."""

    repeated: Record


@dataclass(frozen=True, kw_only=True)
class Outside:
    """All replications and contributions; `n_unlisted` counts by folder those that belong to no experiment."""

    replications: tuple[Replication, ...]
    contributions: tuple[Contribution, ...]
    n_unlisted: dict[str, int]
    errors: tuple[UserError, ...]


# the ids of the runs of an arm in all modes, and their records, by experiment and label
Arms = dict[tuple[str, str], tuple[set[str], list[Record]]]


def read_outside(store: Store, ours: StoreResults) -> Outside:
    """The records in `contributed/` and `replications/`. A record of several experiments is listed for each."""
    contributed, unread = store.records_in("contributed")
    repeated, unread_too = store.records_in("replications")
    arms = _arms(ours) if contributed or repeated else {}
    contributions = [one for record in contributed for one in _contributions(record, arms)]
    replications = [one for record in repeated for one in _replications(record, contributed, arms)]
    return Outside(
        replications=tuple(replications),
        contributions=tuple(contributions),
        n_unlisted={
            "contributed": _n_unlisted(contributed, contributions),
            "replications": _n_unlisted(repeated, replications),
        },
        errors=(*unread, *unread_too),
    )


def all_runs(ours: StoreResults, outside: Outside) -> "pd.DataFrame":
    """The frame of all runs of a store: those that means are taken over, then replications, then contributions."""
    rows, fitted = [], set()
    for results in (*ours.experiments, *ours.in_other_mode):
        for row in results.rows():
            key = row["experiment"], row["arm"]
            if row["seed"] != FITTED or key not in fitted:  # a fitted model is one run for both modes
                rows.append(row)
            fitted |= {key} if row["seed"] == FITTED else set()
    for origin, found in (("replications", outside.replications), ("contributed", outside.contributions)):
        for one in found:
            rows.append({"experiment": one.experiment, "arm": one.label, **record_row(one.record), "origin": origin})
    return frame_of(rows)


def _arms(ours: StoreResults) -> Arms:
    arms: Arms = defaultdict(lambda: (set(), []))
    for experiment in (*ours.experiments, *ours.in_other_mode):
        for listed, cell in zip(experiment.manifest.cells, experiment.cells, strict=True):
            run_ids, records = arms[experiment.name, cell.label]
            run_ids.update(listed.run_ids.values())
            records.extend(cell.records)
    return arms


def _contributions(record: Record, arms: Arms) -> Iterator[Contribution]:
    """The arms of a contributed record: those that list its run, or have a record that differs only in seed or mode."""
    for (experiment, label), (run_ids, records) in arms.items():
        if record.run_id in run_ids or any(_of_one_arm(record, other) for other in records[:1]):
            yield Contribution(experiment=experiment, label=label, record=record)


def _replications(record: Record, contributed: Iterable[Record], arms: Arms) -> Iterator[Replication]:
    """A second record with the first record of its run: ours, else a contributed one."""
    for (experiment, label), (run_ids, records) in arms.items():
        first = next((one for one in (*records, *contributed) if one.run_id == record.run_id), None)
        if record.run_id in run_ids and first is not None:
            yield Replication(experiment=experiment, label=label, record=record, repeated=first)


def _of_one_arm(one: Record, other: Record) -> bool:
    """Whether two records have one label and differ in seed and mode at most.

    A field of the config that an older one lacks had its default, which is not known here: so the label must agree.
    """
    same = (one.label, one.replicate, one.corpus.sha256) == (other.label, other.replicate, other.corpus.sha256)
    return same and alike(one.config, other.config)


def _n_unlisted(records: Iterable[Record], shown: Iterable[Contribution]) -> int:
    ids = {id(one.record) for one in shown}
    return sum(id(record) not in ids for record in records)
