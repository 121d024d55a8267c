"""Reads a store: its experiments, their cells and the records of each cell. Refuses runs that must not be mixed."""

import gc
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.corpora import CORPORA
from bench.errors import UserError
from bench.record import Manifest, ManifestCell, Record
from bench.report.frame import frame_of, record_row, status_of
from bench.report.mixing import FITTED, MixedRunsError, refuse_ambiguous_names, refuse_mixed_runs, seed_text
from bench.sources import Proofs, proofs_of, standing
from bench.store import Measurements, Store

if TYPE_CHECKING:
    import pandas as pd

FOLDS = frozenset(name for name, facts in CORPORA.items() if facts.fold is not None)


@dataclass(frozen=True, kw_only=True)
class CellResults:
    """A cell of an experiment with its records, in the order of their seeds."""

    label: str
    expected: tuple[str, ...]  # seeds as text, or "fitted"
    records: tuple[Record, ...]  # of any status
    missing: tuple[str, ...]  # the seeds without a record
    group: str | None = None  # the arm that a trial or a replicate belongs to

    @property
    def fitted(self) -> bool:
        """Whether the model is fitted by counting, not trained, so that its loss is exact."""
        return self.expected == (FITTED,)

    @cached_property
    def done(self) -> tuple[Record, ...]:
        """The records with a result: those that means are taken over."""
        return tuple(record for record in self.records if record.status == "done" and record.result is not None)

    @property
    def n_results(self) -> int:
        """Number of runs that are done or diverged."""
        return len(self.done) + sum(record.status == "diverged" for record in self.records)

    @property
    def n_text(self) -> str:
        """`3`, `3 of 5`, or `exact` for a fitted model."""
        return "exact" if self.fitted and self.done else of_expected(len(self.done), len(self.expected))

    @property
    def statuses(self) -> str:
        """Number of runs by status: `3 done, 1 diverged, 1 not run`; `not run` if there is no record."""
        if not self.records:
            return "not run"
        counts = Counter(map(status_of, self.records)) + Counter({"not run": len(self.missing)})
        in_order = sorted(counts, key=lambda status: (status != "done", status))
        return ", ".join(f"{counts[status]} {status}" for status in in_order)

    @property
    def shortfall(self) -> str | None:
        """The runs that are not done, with status and seed: `3 of 5 runs done (...)`; None if all are done."""
        if len(self.done) == len(self.expected):
            return None
        seeds = defaultdict(list, {"missing": list(self.missing)} if self.missing else {})
        for record in self.records:
            at = "" if record.stopped_at_step is None else f" at step {record.stopped_at_step}"
            seeds[status_of(record)].append(f"{seed_text(record)}{at}")
        seeds.pop("done", None)
        not_done = "; ".join(f"{status}: {_seeds(found)}" for status, found in sorted(seeds.items()))
        return f"{len(self.done)} of {len(self.expected)} runs done ({not_done})"


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of an experiment: its cells, in the order of its manifest."""

    manifest: Manifest
    cells: tuple[CellResults, ...]
    stale: frozenset[str]  # ids of runs made from other sources than the current ones
    compared: frozenset[str] = frozenset()  # ids of runs proved only by comparing sources on another machine

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.manifest.name

    @property
    def mode(self) -> str:
        """The mode of its trained runs."""
        return self.manifest.mode

    @property
    def has_trained(self) -> bool:
        """Whether a trained run has a record. Fitted models have no mode, so they do not count."""
        return any(cell.records and not cell.fitted for cell in self.cells)

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """One row per run; the columns are in bench/report/frame.py."""
        return frame_of(self.rows())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the frame, by cell: runs with a record by seed, then runs without."""
        for cell in self.cells:
            known = {"experiment": self.name, "mode": self.mode, "arm": cell.label, "group": cell.group}
            for record in cell.records:
                yield {**known, **record_row(record), "sources": self.sources_of(record), "origin": "runs"}
            for seed in cell.missing:
                yield {**known, "seed": seed, "status": "not run"}

    def sources_of(self, record: Record) -> str:
        """The sources of a record: `current` (or proved equal), `compared` (on another machine) or `other`."""
        if record.run_id in self.stale:
            return "other"
        return "compared" if record.run_id in self.compared else "current"

    @property
    def done(self) -> list[Record]:
        """The done records of all cells."""
        return [record for cell in self.cells for record in cell.done]

    def cell(self, label: str) -> CellResults | None:
        """The cell with this label; None if there is none."""
        return next((cell for cell in self.cells if cell.label == label), None)

    @property
    def reference(self) -> CellResults | None:
        """The reference arm, which differences are taken to; None if there is none."""
        return None if self.manifest.reference is None else self.cell(self.manifest.reference)

    @cached_property
    def trials(self) -> dict[str, list[CellResults]]:
        """The trials of a search, by arm: the groups of cells whose configs differ, on one text."""
        return self._groups("trials")

    @cached_property
    def replicates(self) -> dict[str, list[CellResults]]:
        """Cells that repeat an arm, by arm: the groups of cells whose configs are equal."""
        return self._groups("replicates")

    @cached_property
    def folds(self) -> dict[str, list[CellResults]]:
        """An arm's cells on the folds of a text, by arm: all groups of an experiment with a record of a fold."""
        return self._groups("folds")

    def _groups(self, kind: str) -> dict[str, list[CellResults]]:
        groups: dict[str, list[CellResults]] = defaultdict(list)
        for cell in self.cells:
            if cell.group is not None:
                groups[cell.group].append(cell)
        on_folds = any(record.corpus.name in FOLDS for cell in self.cells for record in cell.records)
        return {group: cells for group, cells in groups.items() if kind == ("folds" if on_folds else _kind_of(cells))}


@dataclass(frozen=True, kw_only=True)
class StoreResults:
    """The results of all experiments of a store. `errors` name the files that could not be read.

    If an experiment was launched in both modes, `experiments` has the mode that claims are judged on: the one whose
    smallest trained arm has more seeds with a result, `exact` if both have as many. `in_other_mode` has the other.
    """

    experiments: tuple[Results, ...]
    errors: tuple[UserError, ...]
    n_unlisted: int  # records that belong to no experiment
    manifests_complete: bool  # whether every manifest could be read
    in_other_mode: tuple[Results, ...] = ()
    measurements: tuple[Measurements, ...] = ()  # of throughput, by device

    def experiment(self, name: str) -> Results | None:
        """The experiment with this name in its chosen mode; None if there is none."""
        return next((experiment for experiment in self.experiments if experiment.name == name), None)

    def other(self, name: str) -> Results | None:
        """The experiment in the mode that was not chosen; None if no trained run of that mode has a record."""
        return next((one for one in self.in_other_mode if one.name == name and one.has_trained), None)

    def in_mode(self, mode: str) -> "StoreResults":
        """The same store with `mode` as the chosen mode of every experiment that ran in it."""
        here = {one.name: one for one in self.experiments}
        there = {one.name: one for one in self.in_other_mode if one.mode == mode and one.has_trained}
        return replace(
            self,
            experiments=tuple(there.get(one.name, one) for one in self.experiments),
            in_other_mode=tuple(here[one.name] if one.name in there else one for one in self.in_other_mode),
        )


def read_results(store: Store) -> StoreResults:
    """All experiments of a store. MixedRunsError if a cell has runs that must not be in one mean."""
    was_enabled = gc.isenabled()
    gc.disable()  # reading makes a million objects and no reference cycle: the collector would take a third of the time
    try:
        records, record_errors = store.records()
    finally:
        if was_enabled:
            gc.enable()
    manifests, manifest_errors = store.manifests()
    rechecks, recheck_errors = store.rechecks()
    measurements, unread = store.measurements()
    by_run_id: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_run_id[record.run_id].append(record)
    refuse_ambiguous_names(manifests)
    _refuse_second_records(store, manifests, by_run_id)
    listed = {run_id for manifest in manifests for run_id in manifest.run_ids}
    proofs, in_modes = proofs_of(rechecks), defaultdict[str, list[Results]](list)
    for manifest in sorted(manifests, key=_order):
        in_modes[manifest.name].append(_experiment(manifest, by_run_id, proofs))
    chosen = {name: _chosen_mode(found) for name, found in in_modes.items()}
    return StoreResults(
        experiments=tuple(chosen.values()),
        in_other_mode=tuple(one for name, found in in_modes.items() for one in found if one is not chosen[name]),
        measurements=tuple(measurements),
        errors=(*record_errors, *manifest_errors, *recheck_errors, *unread),
        n_unlisted=sum(run_id not in listed for run_id in by_run_id),
        manifests_complete=not manifest_errors,
    )


def _kind_of(cells: Sequence[CellResults]) -> str:
    """What the cells of a group are, by the configs of their records: trials of a search or replicates."""
    configs = [cell.records[0].config for cell in cells if cell.records]
    return "trials" if any(one != configs[0] for one in configs) else "replicates"


def of_expected(n: int, expected: int) -> str:
    """`5`, or `3 of 5` if some are missing."""
    return str(n) if n == expected else f"{n} of {expected}"


def sweep_nats(records: Iterable[Record], selection: str = "best") -> list[float]:
    """The sweep loss of each record that has one, in nats per token."""
    return [nats for record in records if (nats := record.nats("sweep", selection)) is not None]


def _experiment(manifest: Manifest, by_run_id: dict[str, list[Record]], proofs: Proofs) -> Results:
    twice = [label for label, count in Counter(cell.label for cell in manifest.cells).items() if count > 1]
    if twice:
        raise MixedRunsError(f"experiment {manifest.name}: two cells are labelled {twice[0]!r}; launch it again")
    cells = tuple(_cell(manifest.name, cell, by_run_id) for cell in manifest.cells)
    if manifest.shared_gpu:
        cells = tuple(replace(cell, records=tuple(one.as_packed() for one in cell.records)) for cell in cells)
    standings = {record.run_id: standing(record, proofs) for cell in cells for record in cell.records}
    return Results(
        manifest=manifest,
        cells=cells,
        stale=frozenset(run_id for run_id, why in standings.items() if why is None),
        compared=frozenset(run_id for run_id, why in standings.items() if why == "sources compared"),
    )


def _refuse_second_records(store: Store, manifests: list[Manifest], by_run_id: dict[str, list[Record]]) -> None:
    """MixedRunsError with the names of the files where a run of an experiment has two records that differ."""
    for name, cell in ((manifest.name, cell) for manifest in manifests for cell in manifest.cells):
        for run_id in cell.run_ids.values():
            if len(by_run_id.get(run_id, ())) > 1:
                files = ", ".join(path.name for path in store.files_of(run_id))
                raise MixedRunsError(
                    f"experiment {name}, arm {cell.label}: run {run_id} has more than one record, and they differ "
                    f"({files}); keep one in runs/"
                )


def _chosen_mode(found: Sequence[Results]) -> Results:
    """The mode whose smallest trained arm has more seeds with a result; `exact` if both have as many.

    A diverged seed counts as a result, so that no outcome decides on which mode a claim is judged. An arm without a run
    in either mode is left out: otherwise an unfinished grid would always count as 0 seeds.
    """
    n_results = [{cell.label: cell.n_results for cell in one.cells if not cell.fitted} for one in found]
    run = {label for counts in n_results for label, n in counts.items() if n}

    def weight(place: int) -> tuple[int, bool, bool]:
        n_seeds = [n_results[place].get(label, 0) for label in run]
        return min(n_seeds, default=0), any(n_seeds), found[place].mode == "exact"

    return found[max(range(len(found)), key=weight)]


def _cell(experiment: str, cell: ManifestCell, by_run_id: dict[str, list[Record]]) -> CellResults:
    where, run_ids = f"experiment {experiment}, arm {cell.label}", cell.run_ids
    found = [(seed, by_run_id[run_id][0]) for seed, run_id in run_ids.items() if run_id in by_run_id]
    records = sorted((record for _, record in found), key=lambda record: (record.seed or 0, record.run_id))
    refuse_mixed_runs(where, records)
    for seed, record in found:
        if seed != seed_text(record):
            raise MixedRunsError(f"{where}: the manifest lists {record.file_name} as seed {seed}; launch it again")
    return CellResults(
        label=cell.label,
        group=cell.group,
        expected=tuple(sorted(run_ids, key=_seed_key)),
        records=tuple(records),
        missing=tuple(sorted((seed for seed, run_id in run_ids.items() if run_id not in by_run_id), key=_seed_key)),
    )


def _order(manifest: Manifest) -> tuple[int, str, str]:
    first = ("paper", "matched")
    return (first.index(manifest.name) if manifest.name in first else len(first)), manifest.name, manifest.mode


def _seed_key(seed: str) -> tuple[int, str]:
    return (int(seed) if seed.isdecimal() else -1), seed


def _seeds(texts: Sequence[str]) -> str:
    """`seed 42`, `seeds 42, 69` or `the fitted model`."""
    if list(texts) == [FITTED]:
        return "the fitted model"
    return f"seed{'s' if len(texts) > 1 else ''} {', '.join(texts)}"
