"""Stores made without training, and their tables, for tests of tables."""

from collections.abc import Callable
from pathlib import Path

from bench.record import Manifest, Record, to_bytes
from bench.report.output import make_tables
from bench.report.table import Table
from bench.store import Store
from tests.records import make_manifest, make_record, manifest_of

SEEDS = (42, 69, 420, 666, 2137)
DISTINCT = ((4.41 + 4.40 + 4.43) / 3, 4.50, 4.43, 4.47, 4.36)  # the published runs, one value per seed


def five_seeds(label: str = "k_operators", **changes) -> list[Record]:
    """Five runs of one arm, with the published perplexities."""
    return [make_record(label, seed, value, **changes) for seed, value in zip(SEEDS, DISTINCT, strict=True)]


def make_store(root: Path, records: list[Record], *manifests: Manifest) -> Store:
    """A store of these records; by default their experiment is `laptop`."""
    store = Store(root)
    for record in records:
        store.write_record(record)
    for manifest in manifests or (manifest_of(records),):
        store.write_manifest(manifest)
    return store


def many_records(n_arms: int, n_seeds: int) -> list[Record]:
    """Records of real size."""
    originals = [make_record(seed=seed, perplexity=4 + seed / 10, real_size=True) for seed in range(n_seeds)]
    return [
        record.model_copy(update={"label": f"arm{arm}", "run_id": f"{arm * n_seeds + index:012x}"})
        for arm in range(n_arms)
        for index, record in enumerate(originals)
    ]


def write_without_sync(root: Path, records: list[Record], manifest: Manifest) -> Store:
    """A store of many records, faster than by `Store`, which waits for the disk after each."""
    store = Store(root)
    (root / "runs").mkdir(parents=True)
    for record in records:
        (root / "runs" / record.file_name).write_bytes(to_bytes(record))
    store.write_manifest(manifest)
    return store


def grouped(
    records: list[Record], group_of: Callable[[str], str], *, missing: tuple[str, ...] = (), **changes
) -> Manifest:
    """A manifest of one cell per label, each with its group; `missing`: labels whose only run is missing."""
    run_ids = {one.label: {str(one.seed): one.run_id} for one in records}
    run_ids |= {label: {"1000": f"{i:012x}"} for i, label in enumerate(missing)}
    return make_manifest(run_ids, groups={label: group_of(label) for label in run_ids}, **changes)


def table_of(store: Store, kind: str = "perplexity", experiment: str = "laptop", **options) -> Table:
    """The one table of a kind and an experiment."""
    tables = make_tables(store, **options).tables
    return next(table for table in tables if (table.experiment, table.kind) == (experiment, kind))


def kinds_of(store: Store, experiment: str = "laptop") -> list[str]:
    """The kinds of table that an experiment has."""
    return [table.kind for table in make_tables(store).tables if table.experiment == experiment]


def cells(table: Table, row: int | str = 0) -> dict[str, str]:
    """A row by column name; `row` is its number or the text of its first column."""
    found = table.rows[row] if isinstance(row, int) else next(each for each in table.rows if each[0] == row)
    return dict(zip(table.columns, found, strict=True))
