"""Makes and writes all tables and figures of a store: the same bytes from the same records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import StoreError, UserError, count, typed
from bench.files import write_atomically
from bench.record import Record
from bench.report.claims.error_rates import error_rates_table
from bench.report.claims.ledger import ledger_table
from bench.report.claims.verdicts import judge
from bench.report.figures import all_figures, is_figure
from bench.report.frame import as_csv
from bench.report.outside import Outside, all_runs, read_outside
from bench.report.published import PUBLISHED, Published, load_published
from bench.report.runs import Results, StoreResults, read_results
from bench.report.table import Table, markdown_text
from bench.report.tables import TABLES
from bench.report.tables.both_modes import in_both_modes
from bench.report.tables.contributed import contributed_table
from bench.report.tables.modes import modes_table
from bench.report.tables.published import published_table
from bench.report.tables.replications import replications_table
from bench.report.tables.throughput import throughput_table
from bench.report.tables.view import View
from bench.store import THROUGHPUT, Measurements, Store, ThroughputError

if TYPE_CHECKING:
    import pandas as pd

KINDS = (*TABLES, "modes", "published", "ledger", "error-rates")
SUFFIXES = ("md", "csv", "tex")
RELATIVE = ("differences", "relative-budgets")  # kinds of table relative to the reference arm
RUNS = "runs.csv"
KEPT = ("perplexity", "differences")  # kinds of table of an experiment that another design has superseded
NOT_AVERAGED = ("replications", "contributed")  # kinds of table of records that are in no mean


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of a store, notes on the store, and the files that could not be read."""

    tables: tuple[Table, ...]
    measurements: tuple[Measurements, ...]  # of throughput, for the figures
    results: StoreResults  # for the figures
    runs: "pd.DataFrame"  # one row per run
    published: Published
    notes: tuple[str, ...]
    errors: tuple[UserError, ...]
    complete: bool  # whether every manifest and every file of measurements could be read

    @property
    def exit_code(self) -> int:
        """1 if a file could not be read, else 0."""
        return 1 if self.errors else 0

    @property
    def text(self) -> str:
        """All tables and the notes as Markdown."""
        return self._markdown(self.tables)

    def select(self, experiment: str, kinds: tuple[str, ...] | None = None) -> str:
        """The tables of one experiment, of these kinds or of all, and the notes on the store."""
        of_it = (one for one in self.tables if one.experiment == experiment)
        return self._markdown([one for one in of_it if kinds is None or one.kind in kinds])

    def _markdown(self, tables: Sequence[Table]) -> str:
        notes = "".join(f"{markdown_text(note)}\n" for note in self.notes)
        return "\n".join([table.markdown() for table in tables] + ([notes] if notes else []))


def make_tables(store: Store, published_path: Path = PUBLISHED, compare: Store | None = None) -> Tables:
    """Every table of a store. With `compare`, perplexities of that store are shown next to those of the same arm."""
    published = load_published(published_path)
    ours = read_results(store)
    theirs = None if compare is None else read_results(compare)
    outside = read_outside(store, ours)
    tables = (*_tables(ours, published, theirs, outside), *map(throughput_table, ours.measurements))
    return Tables(
        tables=tuple(filter(None, tables)),
        measurements=ours.measurements,
        results=ours,
        runs=all_runs(ours, outside),
        published=published,
        notes=tuple(_notes(store, ours, outside, published)),
        errors=(*ours.errors, *outside.errors, *(() if theirs is None else theirs.errors)),
        complete=ours.manifests_complete and not any(isinstance(one, ThroughputError) for one in ours.errors),
    )


def write_tables(store: Store, tables: Tables) -> list[Path]:
    """Write the tables, figures and runs.csv that changed, and delete those no longer made; returns their paths.

    StoreError if the store cannot be written.
    """
    contents = {
        store.root / "tables" / f"{table.name}.{suffix}": text.encode()
        for table in tables.tables
        for suffix, text in zip(SUFFIXES, (table.markdown(), table.csv(), table.latex()), strict=True)
    }
    for name, image in all_figures(tables.results, tables.measurements, tables.published).items():
        contents[store.root / "figures" / name] = image
    if tables.results.experiments and tables.complete:
        contents[store.root / RUNS] = as_csv(tables.runs).encode()
    touched = []
    try:
        for path, content in contents.items():
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
                touched.append(path)
        for path in _existing(store.root) if tables.complete else ():
            if path not in contents:
                path.unlink()
                touched.append(path)
    except OSError as error:
        raise StoreError(f"tables cannot be written to {store.root}: {error.strerror}; name another --store") from error
    return touched


def _tables(
    ours: StoreResults, published: Published, theirs: StoreResults | None, outside: Outside
) -> Iterator[Table | None]:
    """Tables by experiment; published values and the ledger, if there is an experiment; records that are in no mean."""
    for experiment in ours.experiments:
        second = tuple(one.record for one in outside.replications if one.experiment == experiment.name)
        yield from _tables_of(experiment, ours, published, theirs, second)
    if ours.experiments:
        yield published_table(ours, published)
        yield ledger_table(judge(ours, published))
        yield error_rates_table()
    for experiment in ours.experiments:
        yield replications_table(experiment.name, outside.replications)
        yield contributed_table(experiment.name, outside.contributions)


def _tables_of(
    experiment: Results,
    ours: StoreResults,
    published: Published,
    theirs: StoreResults | None,
    replications: tuple[Record, ...],
) -> Iterator[Table | None]:
    """The tables of an experiment by kind; if it ran in both modes, each table has both."""
    modes = [one for one in (experiment, ours.other(experiment.name)) if one is not None]
    views = [
        View(
            experiment=one,
            store=ours.in_mode(one.mode),
            published=published,
            committed=theirs,
            replications=tuple(record for record in replications if record.mode == one.mode),
        )
        for one in modes
    ]
    kinds = KEPT if experiment.manifest.superseded else TABLES
    for kind in kinds:
        make = TABLES[kind]
        made = [
            make(view) if view is views[0] or kind not in RELATIVE or _has_reference(view) else None for view in views
        ]
        yield made[0] if len(made) == 1 else in_both_modes(made[0], made[1], (modes[0], modes[1]))
    if len(views) == 2:
        yield modes_table(views[0], views[1])


def _has_reference(view: View) -> bool:
    """Whether the reference arm, if there is one, has a run in the mode of this view."""
    return view.experiment.reference is None or bool(view.experiment.reference.records)


def _notes(store: Store, ours: StoreResults, outside: Outside, published: Published) -> Iterator[str]:
    for folder, n in outside.n_unlisted.items():
        if n:
            belong = "belongs" if n == 1 else "belong"
            yield f"{count(n, 'record')} in {folder}/ {belong} to no experiment of this store: in no table."
    if ours.n_unlisted:
        yield f"{count(ours.n_unlisted, 'record')} of this store belong to no experiment and are in no table."
    if not ours.experiments:
        yield f"No experiment in {store.root}: start one with: {launch('laptop', store)}"
        return
    needed = dict.fromkeys([published.experiment, *(name for claim in published.claim for name in claim.experiments)])
    not_run = [name for name in needed if ours.experiment(name) is None]
    if not_run:
        yield f"Not run: {', '.join(not_run)}. Start one with: {launch(not_run[0], store)}"


def launch(experiment: str, store: Store) -> str:
    """The command that launches an experiment into a store."""
    return typed("jobs", "launch", "--experiment", experiment, store=store.root)


def _existing(root: Path) -> list[Path]:
    """The files of tables and figures in a store, recognised by their names."""
    endings = tuple(f"-{kind}.{suffix}" for kind in (*KINDS, *NOT_AVERAGED) for suffix in SUFFIXES)
    tables = [path for path in (root / "tables").glob("*") if path.name.endswith(endings)]
    throughput = [path for suffix in SUFFIXES for path in (root / "tables").glob(f"{THROUGHPUT}-*.{suffix}")]
    figures = [path for path in (root / "figures").glob("*") if is_figure(path)]
    return sorted({*tables, *throughput, *figures})
