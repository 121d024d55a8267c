"""From a store to the cells of its experiments, each with its records; refuses a mean over what must not be mixed."""

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.record import Cell, Manifest, Record
from bench.report.statistics import perplexity
from bench.standing import Proofs, proofs_of, standing
from bench.store import Store

if TYPE_CHECKING:
    import pandas as pd

FITTED = "fitted"  # stands for the seed of a model that has none
PROTOCOLS = ("sweep", "sampled", "strided")
SELECTIONS = ("best", "final", "cross_fitted")


class MixedRunsError(UserError):
    """Records that must not stand in one mean; the message names them and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class CellRuns:
    """A cell of an experiment and what the store holds of it: the records in the order of their seeds."""

    label: str
    expected: tuple[str, ...]  # seeds as text, or "fitted"
    records: tuple[Record, ...]  # whatever their status
    missing: tuple[str, ...]  # the seeds without a record
    group: str | None = None  # the arm that a tuning trial or a replicate belongs to

    @property
    def fitted(self) -> bool:
        """Whether the model is counted rather than trained, so that its number is exact."""
        return self.expected == (FITTED,)

    @cached_property
    def done(self) -> tuple[Record, ...]:
        """The records that measured something: those that a mean is over."""
        return tuple(record for record in self.records if record.status == "done" and record.result is not None)

    @property
    def n_results(self) -> int:
        """How many runs came to a result: done or diverged."""
        return len(self.done) + sum(record.status == "diverged" for record in self.records)

    @property
    def n_text(self) -> str:
        """`3`, `3 of 5`, or `exact` for a fitted model."""
        if len(self.done) < len(self.expected):
            return f"{len(self.done)} of {len(self.expected)}"
        return "exact" if self.fitted else str(len(self.done))

    @property
    def fates(self) -> str:
        """How many runs came to what, in words: `3 done, 1 diverged, 1 not run`; `not run` where none has a record."""
        if not self.records:
            return "not run"
        counts = Counter(_fate(record) for record in self.records)
        counts["not run"] = len(self.missing)
        first = counts.pop("done", 0)
        told = [("done", first), *sorted(counts.items())]
        return ", ".join(f"{n} {fate}" for fate, n in told if n)

    @property
    def shortfall(self) -> str | None:
        """What became of the runs that are not done, in words; None where all are done."""
        if len(self.done) == len(self.expected):
            return None
        fates: dict[str, list[str]] = defaultdict(list)
        for record in self.records:
            if (fate := _fate(record)) != "done":
                at = "" if record.stopped_at_step is None else f" at step {record.stopped_at_step}"
                fates[fate].append(f"{_seed_text(record)}{at}")
        if self.missing:
            fates["missing"] = list(self.missing)
        told = "; ".join(f"{fate}: {_seeds(seeds)}" for fate, seeds in sorted(fates.items()))
        return f"{len(self.done)} of {len(self.expected)} runs done ({told})"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment's cells, in the order of its manifest. `stale` holds the ids of runs that other sources made.

    `compared` holds the ids of those that stand only because another machine compared the sources.
    """

    manifest: Manifest
    cells: tuple[CellRuns, ...]
    stale: frozenset[str]
    compared: frozenset[str] = frozenset()

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
        """Whether a trained run has a record. A counted model has no mode, so it speaks for none."""
        return any(cell.records and not cell.fitted for cell in self.cells)

    @property
    def done(self) -> list[Record]:
        """The done records of all cells."""
        return [record for cell in self.cells for record in cell.done]

    def cell(self, label: str) -> CellRuns | None:
        """The cell of this label, if there is one."""
        return next((cell for cell in self.cells if cell.label == label), None)

    @property
    def reference(self) -> CellRuns | None:
        """The cell that differences are taken to, if there is one."""
        return None if self.manifest.reference is None else self.cell(self.manifest.reference)


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """A store as its experiments. `errors` name the files that could not be read; the rest stands without them.

    An experiment that was launched in both modes is in `experiments` in the one that claims are judged on: where the
    smallest trained arm has the most seeds with a result, `exact` where that is equal. `in_other_mode` holds the other.
    """

    experiments: tuple[Experiment, ...]
    errors: tuple[UserError, ...]
    n_unlisted: int  # records that belong to no experiment
    manifests_complete: bool  # whether every manifest could be read
    in_other_mode: tuple[Experiment, ...] = ()

    def experiment(self, name: str) -> Experiment | None:
        """The experiment of this name in its chosen mode, if there is one."""
        return next((experiment for experiment in self.experiments if experiment.name == name), None)

    def other(self, name: str) -> Experiment | None:
        """The experiment of this name in the mode that was not chosen, if a trained run of that mode has a record."""
        return next((one for one in self.in_other_mode if one.name == name and one.has_trained), None)

    def in_mode(self, mode: str) -> "Aggregate":
        """The same store with every experiment in `mode` where it has that one, else as it is."""
        here = {one.name: one for one in self.experiments}
        there = {one.name: one for one in self.in_other_mode if one.mode == mode and one.has_trained}
        return replace(
            self,
            experiments=tuple(there.get(one.name, one) for one in self.experiments),
            in_other_mode=tuple(here[one.name] if one.name in there else one for one in self.in_other_mode),
        )


def aggregate(store: Store) -> Aggregate:
    """Every experiment of a store with its records. MixedRunsError where a mean would mix what must not be mixed."""
    with _without_garbage_collection():
        records, record_errors = store.records()
    manifests, manifest_errors = store.manifests()
    rechecks, recheck_errors = store.rechecks()
    by_run_id: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_run_id[record.run_id].append(record)
    _refuse_ambiguous_names(manifests)
    listed = {run_id for manifest in manifests for cell in manifest.cells for run_id in cell.run_ids.values()}
    proofs, in_modes = proofs_of(rechecks), defaultdict[str, list[Experiment]](list)
    for manifest in sorted(manifests, key=_order):
        in_modes[manifest.name].append(_experiment(manifest, by_run_id, proofs))
    chosen = {name: _chosen_mode(found) for name, found in in_modes.items()}
    return Aggregate(
        experiments=tuple(chosen.values()),
        in_other_mode=tuple(one for name, found in in_modes.items() for one in found if one is not chosen[name]),
        errors=(*record_errors, *manifest_errors, *recheck_errors),
        n_unlisted=sum(run_id not in listed for run_id in by_run_id),
        manifests_complete=not manifest_errors,
    )


def measurements(experiment: Experiment) -> "pd.DataFrame":
    """One row for each number that a done run reports: label, seed, protocol, selection, nats and perplexity."""
    import pandas as pd

    columns = ["label", "seed", "protocol", "selection", "val_nats_per_token", "perplexity"]
    rows = [
        (cell.label, _seed_text(record), protocol, selection, nats, perplexity(nats))
        for cell in experiment.cells
        for record in cell.done
        for protocol in PROTOCOLS
        for selection in SELECTIONS
        if (nats := _nats(record, protocol, selection)) is not None
    ]
    return pd.DataFrame(rows, columns=columns)


def protocol_of(record: Record) -> tuple[int, int, int, int, int]:
    """What two done records must share to be measured alike: protocol version, context, predictions a protocol."""
    assert record.result is not None
    results = (record.result.sweep, record.result.sampled, record.result.strided)
    sweep, sampled, strided = (result.best.n_tokens for result in results)
    return record.protocol_version, int(record.config.get("context", 0)), sweep, sampled, strided


def _nats(record: Record, protocol: str, selection: str) -> float | None:
    measured = getattr(getattr(record.result, protocol), selection)
    return None if measured is None else measured.nats_per_token


def _experiment(manifest: Manifest, by_run_id: dict[str, list[Record]], proofs: Proofs) -> Experiment:
    twice = [label for label, count in Counter(cell.label for cell in manifest.cells).items() if count > 1]
    if twice:
        raise MixedRunsError(f"experiment {manifest.name}: two cells are labelled {twice[0]!r}; launch it again")
    cells = tuple(_cell(manifest.name, cell, by_run_id) for cell in manifest.cells)
    if manifest.shared_gpu:
        cells = tuple(replace(cell, records=tuple(one.as_packed() for one in cell.records)) for cell in cells)
    standings = {record.run_id: standing(record, proofs) for cell in cells for record in cell.records}
    return Experiment(
        manifest=manifest,
        cells=cells,
        stale=frozenset(run_id for run_id, why in standings.items() if why is None),
        compared=frozenset(run_id for run_id, why in standings.items() if why == "sources compared"),
    )


def _chosen_mode(found: Sequence[Experiment]) -> Experiment:
    """The mode whose smallest trained arm has the most seeds with a result; `exact` where both have as many.

    A seed that diverged is a result too, so that no outcome decides where a claim is judged. An arm that has run in
    neither mode is left out: a grid that was cut short would otherwise always count as no seed.
    """
    n_results = [{cell.label: cell.n_results for cell in one.cells if not cell.fitted} for one in found]
    run = {label for counts in n_results for label, n in counts.items() if n}

    def weight(place: int) -> tuple[int, bool, bool]:
        n_seeds = [n_results[place].get(label, 0) for label in run]
        return min(n_seeds, default=0), any(n_seeds), found[place].mode == "exact"

    return found[max(range(len(found)), key=weight)]


def _cell(experiment: str, cell: Cell, by_run_id: dict[str, list[Record]]) -> CellRuns:
    where, run_ids = f"experiment {experiment}, arm {cell.label}", cell.run_ids
    for run_id in run_ids.values():
        if len(by_run_id.get(run_id, ())) > 1:
            labels = ", ".join(sorted(record.file_name for record in by_run_id[run_id]))
            raise MixedRunsError(
                f"{where}: run {run_id} has more than one record ({labels}); keep one of them in runs/"
            )
    found = [(seed, by_run_id[run_id][0]) for seed, run_id in run_ids.items() if run_id in by_run_id]
    records = sorted((record for _, record in found), key=lambda record: (record.seed or 0, record.run_id))
    _refuse_duplicate_seeds(where, records)
    for seed, record in found:
        if seed != _seed_text(record):
            raise MixedRunsError(
                f"{where}: the manifest lists {record.file_name} as seed {seed}; launch it again to renew it"
            )
    _refuse_mixed(where, records, "modes", lambda record: record.mode)
    _refuse_mixed(where, records, "corpora", lambda record: f"{record.corpus.name} ({record.corpus.sha256[:12]})")
    _refuse_mixed(where, [r for r in records if r.result is not None], "protocols", _protocol_text)
    _refuse_mixed_configs(where, records)
    return CellRuns(
        label=cell.label,
        group=cell.group,
        expected=tuple(sorted(run_ids, key=_seed_key)),
        records=tuple(records),
        missing=tuple(sorted((seed for seed, run_id in run_ids.items() if run_id not in by_run_id), key=_seed_key)),
    )


def _refuse_duplicate_seeds(where: str, records: Sequence[Record]) -> None:
    for record in records:
        same = [other for other in records if other.seed == record.seed]
        if len(same) > 1:
            raise MixedRunsError(
                f"{where}: {len(same)} records of seed {_seed_text(record)} would count as {len(same)} seeds "
                f"({_names(same)}); launch the experiment again with distinct seeds"
            )


def _refuse_mixed(where: str, records: Sequence[Record], what: str, kind: Callable[[Record], str]) -> None:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[kind(record)].append(record)
    if len(groups) > 1:
        told = "; ".join(f"{key}: {_names(group)}" for key, group in sorted(groups.items()))
        raise MixedRunsError(
            f"{where}: one mean cannot mix {what} ({told}); launch the experiment again with one of them"
        )


def _refuse_mixed_configs(where: str, records: Sequence[Record]) -> None:
    """Runs of a cell differ only in seed. A field that an older record lacks is no difference: it had its default."""
    for record in records[1:]:
        key = _difference(records[0].config, record.config)
        if key is not None:
            raise MixedRunsError(
                f"{where}: one mean cannot mix configs: {_names([records[0], record])} differ in {key}; "
                "launch the experiment again to renew its manifest"
            )


def _difference(one: dict[str, Any], other: dict[str, Any], path: str = "") -> str | None:
    for key in sorted(one.keys() & other.keys()):
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            inner = _difference(one[key], other[key], f"{path}{key}.")
            if inner is not None:
                return inner
        elif one[key] != other[key]:
            return f"{path}{key}"
    return None


def _refuse_ambiguous_names(manifests: Sequence[Manifest]) -> None:
    """A name becomes a file name, so it must be plain, and there must be one of it in each mode."""
    for manifest in manifests:
        if not manifest.name.replace("-", "").replace("_", "").isalnum():
            raise MixedRunsError(f"experiment {manifest.name!r}: a name is letters, digits, '-' and '_'; rename it")
    counts = Counter((manifest.name, manifest.mode) for manifest in manifests)
    twice = [f"are named {name} and of mode {mode}" for (name, mode), count in counts.items() if count > 1]
    if twice:
        raise MixedRunsError(f"two manifests in experiments/ {twice[0]}; keep one of them")


def _protocol_text(record: Record) -> str:
    _, context, sweep, sampled, strided = protocol_of(record)
    return f"context {context} with {sweep} sweep, {sampled} sampled and {strided} strided predictions"


def _order(manifest: Manifest) -> tuple[int, str, str]:
    first = ("paper", "matched")
    return (first.index(manifest.name) if manifest.name in first else len(first)), manifest.name, manifest.mode


def _fate(record: Record) -> str:
    if record.status != "done":
        return record.status
    return "done" if record.result is not None else "without a result"


def _seed_text(record: Record) -> str:
    return FITTED if record.seed is None else str(record.seed)


def _seed_key(seed: str) -> tuple[int, str]:
    return (int(seed) if seed.isdecimal() else -1), seed


def _seeds(texts: Sequence[str]) -> str:
    """`seed 42`, `seeds 42, 69`, or nothing but the word for a fitted model."""
    if list(texts) == [FITTED]:
        return "the fitted model"
    return f"seed{'s' if len(texts) > 1 else ''} {', '.join(texts)}"


def _names(records: Sequence[Record]) -> str:
    return ", ".join(sorted(record.file_name for record in records))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Reading makes a million objects and no cycle: looking for cycles meanwhile takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
