"""Tables and figures of a store: the same cells as Markdown, CSV and LaTeX, the same bytes from the same records."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tabulate import tabulate

from bench.aggregate import Aggregate, CellRuns, Experiment, aggregate, measurements, protocol_of
from bench.errors import StoreError, UserError
from bench.files import write_atomically
from bench.legends import (
    STALE,
    corpus_of,
    count,
    floor_notes,
    machine_notes,
    number,
    packed_notes,
    protocol_legend,
    state_notes,
)
from bench.published import Figure, Published, load_published
from bench.record import Record
from bench.render import NOTHING, Table, clean, markdown_text
from bench.statistics import Summary, mean, perplexity, summarise
from bench.store import Store
from bench.throughput import FOLDER, Measurements, read_throughput, throughput_table

PUBLISHED = Path(__file__).resolve().parent.parent / "results" / "published.toml"
KINDS = ("perplexity", "protocols", "parameters", "cost")

Summaries = dict[tuple[str, str, str], Summary]  # by label, protocol, selection


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables of a store, notes on the store as a whole, and what could not be read."""

    tables: tuple[Table, ...]
    measurements: tuple[Measurements, ...]  # of throughput, for the figures
    notes: tuple[str, ...]
    errors: tuple[UserError, ...]
    complete: bool  # whether every manifest and every file of measurements could be read

    @property
    def exit_code(self) -> int:
        """1 where a record could not be read, though the rest is here."""
        return 1 if self.errors else 0

    @property
    def text(self) -> str:
        """All tables as Markdown, as printed."""
        return self._markdown(self.tables)

    def select(self, kinds: tuple[str, ...], experiment: str) -> str:
        """The tables of these kinds of one experiment, and the notes on the store."""
        return self._markdown([one for one in self.tables if one.kind in kinds and one.experiment == experiment])

    def _markdown(self, tables: Sequence[Table]) -> str:
        notes = "".join(f"{markdown_text(note)}\n" for note in self.notes)
        return "\n".join([table.markdown() for table in tables] + ([notes] if notes else []))


def make_tables(store: Store, published_path: Path = PUBLISHED, compare: Store | None = None) -> Tables:
    """Every table of a store. With `compare`, the value of that store stands beside each perplexity of the same arm."""
    published = load_published(published_path)
    ours = aggregate(store)
    theirs = None if compare is None else aggregate(compare)
    tables = [table for experiment in ours.experiments for table in _tables_of(experiment, published, theirs)]
    measurements, unread = read_throughput(store.root)
    notes = []
    if ours.n_unlisted:
        notes.append(f"{count(ours.n_unlisted, 'record')} of this store belong to no experiment and are in no table.")
    if not tables:
        notes.append(f"No experiment in {store.root}: start one with: python -m jobs launch --experiment NAME")
    return Tables(
        tables=(*tables, *map(throughput_table, measurements)),
        measurements=tuple(measurements),
        notes=tuple(notes),
        errors=(*ours.errors, *(() if theirs is None else theirs.errors), *unread),
        complete=ours.manifests_complete and not unread,
    )


def write_tables(store: Store, tables: Tables) -> list[Path]:
    """Write tables and figures where bytes differ, remove those that nothing makes any more; the paths touched."""
    contents = {
        store.root / "tables" / f"{table.name}.{suffix}": text.encode()
        for table in tables.tables
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex()))
    } | _figures(store, tables.measurements)
    touched = []
    try:
        for path, content in contents.items():
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
                touched.append(path)
        for path in _made_before(store.root) if tables.complete else ():
            if path not in contents:
                path.unlink()
                touched.append(path)
    except OSError as error:
        raise StoreError(f"tables cannot be written to {store.root}: {error.strerror}; name another --store") from error
    return touched


def explain(store: Store, experiment_name: str, label: str) -> str:
    """The runs behind one cell of a table, as plain text. UserError lists what there is where the cell is not."""
    found = aggregate(store)
    experiment = found.experiment(experiment_name)
    if experiment is None:
        known = ", ".join(each.name for each in found.experiments) or "none"
        raise UserError(f"no experiment {experiment_name!r} in {store.root}; there are: {known}")
    cell = experiment.cell(label)
    if cell is None:
        known = ", ".join(each.label for each in experiment.cells) or "none"
        raise UserError(f"no arm {label!r} in experiment {experiment_name}; there are: {known}")
    columns = ["run", "seed", "status", "sweep best", "at step", "sweep final", "commit", "sources"]
    rows = [[clean(text) for text in _explained(record, experiment)] for record in cell.records]
    rows += [["", seed, "missing", *[""] * 5] for seed in cell.missing]
    table = tabulate(rows, columns, tablefmt="simple", disable_numparse=True)
    files = "".join(f"\n  {store.root / 'runs' / record.file_name}" for record in cell.records)
    note = "" if cell.shortfall is None else f"{clean(cell.shortfall)}.\n"
    remake = f"Remake one with `python -m bench rerun RECORD`:{files}\n" if files else ""
    return f"{clean(experiment.name)}/{clean(label)}, perplexity by run\n\n{table}\n\n{note}{remake}"


def _explained(record: Record, experiment: Experiment) -> list[str]:
    seed = "fitted" if record.seed is None else str(record.seed)
    commit = (record.sources.commit or "unknown")[:12] + (" (dirty)" if record.sources.dirty else "")
    sources = "other" if record.run_id in experiment.stale else "current"
    if record.result is None:
        at = "" if record.stopped_at_step is None else f" at {record.stopped_at_step}"
        return [record.run_id, seed, record.status + at, "", "", "", commit, sources]
    best, final = record.result.sweep.best, record.result.sweep.final
    numbers = [number(perplexity(best.nats_per_token)), str(best.step), number(perplexity(final.nats_per_token))]
    return [record.run_id, seed, record.status, *numbers, commit, sources]


# --- the four tables of an experiment ---


def _tables_of(experiment: Experiment, published: Published, committed: Aggregate | None) -> list[Table]:
    summaries = _summaries(experiment)
    beside = {
        cell.label: published.beside(experiment.name, corpus_of(experiment, cell), cell.label)
        for cell in experiment.cells
    }
    reference = None if committed is None else committed.experiment(experiment.name)
    return [
        _perplexity_table(experiment, summaries, beside, reference, compare=committed is not None),
        _protocols_table(experiment, summaries, beside),
        _parameters_table(experiment, beside),
        _cost_table(experiment),
    ]


def _perplexity_table(
    experiment: Experiment,
    summaries: Summaries,
    beside: dict[str, list[Figure]],
    committed: Experiment | None,
    *,
    compare: bool,
) -> Table:
    committed_summaries = {} if committed is None else _summaries(committed)
    rows = []
    for cell in experiment.cells:
        best = summaries.get((cell.label, "sweep", "best"))
        row = [
            _arm(experiment, cell),
            _common(record.mode for record in cell.records),
            _count_of(cell, lambda record: record.cost.parameters.n_params),
            _n(experiment, cell),
            _mean_sd(best),
            _interval(best),
            _mean_sd(summaries.get((cell.label, "sweep", "final"))),
            _mean_sd(summaries.get((cell.label, "sweep", "cross_fitted"))),
            _published_perplexity(beside[cell.label]),
        ]
        if compare:
            row.append(_committed(cell, committed, committed_summaries))
        rows.append(tuple(row))
    columns = ["arm", "mode", "parameters", "n", "sweep, best", "95 % interval of sweep, best", "sweep, final"]
    columns += ["sweep, cross-fitted", "published", *(["committed (sweep, best)"] if compare else [])]
    notes = [
        "A number is a validation perplexity, exp(mean cross-entropy in nats): the mean over n distinct seeds "
        "± the sample standard deviation (n - 1) between them. The interval is Student's t.",
        *protocol_legend(experiment, "sweep"),
        "best: at the evaluation with the least sweep loss, chosen on the text it is reported on, so optimistic, and "
        "as published numbers are taken; final: after the last step; cross-fitted: the step is chosen on one half of "
        "the text and scored on the other, both ways, averaged.",
        *floor_notes(experiment),
        *state_notes(experiment),
        *machine_notes(experiment),
    ]
    return _table(experiment, "perplexity", columns, 2, rows, notes)


def _protocols_table(experiment: Experiment, summaries: Summaries, beside: dict[str, list[Figure]]) -> Table:
    keys = [(protocol, selection) for protocol in ("sampled", "strided") for selection in ("best", "final")]
    rows = [
        (
            _arm(experiment, cell),
            _n(experiment, cell),
            *(_mean_sd(summaries.get((cell.label, *key))) for key in keys),
            _published_perplexity([figure for figure in beside[cell.label] if figure.protocol != "sweep"]),
        )
        for cell in experiment.cells
    ]
    columns = ["arm", "n", *(f"{protocol}, {selection}" for protocol, selection in keys), "published"]
    notes = [
        "Validation perplexity of the same runs under two further protocols, mean ± sample standard deviation over "
        "n distinct seeds. best: of the weights with the least sweep loss; final: after the last step.",
        *protocol_legend(experiment, "sampled"),
        *protocol_legend(experiment, "strided"),
        *state_notes(experiment),
    ]
    return _table(experiment, "protocols", columns, 1, rows, notes)


def _parameters_table(experiment: Experiment, beside: dict[str, list[Figure]]) -> Table:
    first = next((cell.records[0] for cell in experiment.cells[:1] if cell.records), None)
    rows = [
        (
            _arm(experiment, cell),
            _count_of(cell, lambda record: record.cost.parameters.n_params),
            _count_of(cell, lambda record: record.cost.parameters.n_params_without_positions),
            _count_of(cell, lambda record: record.cost.parameters.n_live_params),
            _ratios(cell.records[0], first) if cell.records and first else NOTHING,
            _published_parameters(beside[cell.label]),
            _parts(cell.records[0]) if cell.records else NOTHING,
        )
        for cell in experiment.cells
    ]
    columns = ["arm", "total", "without positions", "live", "relative to first row", "published", "by part"]
    notes = [
        "without positions: less the table of learned positions, as nanoGPT counts itself; live: less the entries "
        "that can never act, such as those a causal mask hides; relative to first row: total / without positions / "
        "live, each over the first row's. A fitted model counts its free probabilities.",
    ]
    return _table(experiment, "parameters", columns, 1, rows, notes)


def _cost_table(experiment: Experiment) -> Table:
    rows = []
    for cell in experiment.cells:
        if cell.fitted:
            continue
        costs = [record.cost for record in cell.done]
        timed = [record.cost for record in cell.done if not record.packed]
        seconds = summarise([cost.train_seconds for cost in timed]) if timed else None
        speeds = [cost.tokens_per_second for cost in timed if cost.tokens_per_second is not None]
        rows.append(
            (
                _arm(experiment, cell),
                _n(experiment, cell),
                NOTHING if seconds is None else _seconds(seconds),
                f"{mean(speeds):,.0f}" if speeds else NOTHING,
                f"{max(cost.peak_bytes for cost in costs) / 2**20:,.0f}" if costs else NOTHING,
                _common(f"{cost.n_train_tokens:,}" for cost in costs),
                _common(f"{cost.train_flops:.3g}" for cost in costs),
            )
        )
    columns = ["arm", "n", "train seconds", "tokens/s", "peak MiB", "train tokens", "train FLOPs"]
    notes = [
        "train seconds: mean ± sample standard deviation, without evaluation and set-up; tokens/s: mean; peak MiB: "
        "the most that any of the runs held; train FLOPs: 3 × forward, from each model's closed form.",
        *packed_notes(experiment),
        *machine_notes(experiment),
    ]
    return _table(experiment, "cost", columns, 1, rows, notes)


def _table(
    experiment: Experiment,
    kind: str,
    columns: Sequence[str],
    n_left: int,
    rows: Sequence[tuple[str, ...]],
    notes: Sequence[str],
) -> Table:
    return Table(
        experiment=experiment.name,
        kind=kind,
        intro=experiment.manifest.question,
        columns=tuple(columns),
        n_left=n_left,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _summaries(experiment: Experiment) -> Summaries:
    groups = measurements(experiment).groupby(["label", "protocol", "selection"])["perplexity"]
    return {cast(tuple[str, str, str], key): summarise(group.tolist()) for key, group in groups}


# --- cells ---


def _arm(experiment: Experiment, cell: CellRuns) -> str:
    corpus = corpus_of(experiment, cell)
    return f"{cell.label} (synthetic)" if corpus == "synthetic" else cell.label


def _n(experiment: Experiment, cell: CellRuns) -> str:
    stale = any(record.run_id in experiment.stale for record in cell.records)
    return f"{cell.n_text} {STALE}" if stale else cell.n_text


def _count_of(cell: CellRuns, count: Callable[[Record], int]) -> str:
    """A count that all records of a cell share, whatever became of them."""
    return _common(f"{count(record):,}" for record in cell.records)


def _common(texts: Iterable[str]) -> str:
    """The text that all share; all of them where they differ."""
    return " / ".join(sorted(set(texts))) or NOTHING


def _mean_sd(summary: Summary | None) -> str:
    if summary is None:
        return NOTHING
    sd = "" if summary.sd is None else f" ± {number(summary.sd, like=summary.mean)}"
    return number(summary.mean) + sd


def _interval(summary: Summary | None) -> str:
    if summary is None or summary.interval is None:
        return NOTHING
    low, high = summary.interval
    return f"{number(low, like=summary.mean)} to {number(high, like=summary.mean)}"


def _seconds(summary: Summary) -> str:
    return f"{summary.mean:,.1f}" + ("" if summary.sd is None else f" ± {summary.sd:,.1f}")


def _published_perplexity(figures: Sequence[Figure]) -> str:
    def told(figure: Figure) -> str:
        spread = "" if figure.perplexity_sd is None else f" ± {figure.perplexity_sd}"
        return f"{figure.perplexity}{spread} ({figure.protocol}, {figure.selection}; {figure.n_text})"

    return "; ".join(map(told, figures)) or NOTHING


def _published_parameters(figures: Sequence[Figure]) -> str:
    def told(figure: Figure) -> str:
        return f"{figure.parameters_printed}{'' if figure.counts_positions else ' without positions'}"

    return "; ".join(told(figure) for figure in figures if figure.parameters_printed is not None) or NOTHING


def _committed(cell: CellRuns, committed: Experiment | None, summaries: Summaries) -> str:
    """The committed value of the same experiment and label, unless it was measured on other text or otherwise."""
    other = None if committed is None else committed.cell(cell.label)
    summary = summaries.get((cell.label, "sweep", "best"))
    if other is None or summary is None:
        return NOTHING
    if cell.done:
        ours, theirs = cell.done[0], other.done[0]
        if ours.corpus.sha256 != theirs.corpus.sha256 or protocol_of(ours) != protocol_of(theirs):
            return NOTHING
    mode = _common(record.mode for record in other.done)
    told = "exact" if other.fitted else f"n = {other.n_text}, {mode}"
    return f"{_mean_sd(summary)} ({told})"


def _parts(record: Record) -> str:
    return "; ".join(f"{part} {count:,}" for part, count in record.cost.parameters.parts.items()) or NOTHING


def _ratios(record: Record, first: Record) -> str:
    one, other = record.cost.parameters, first.cost.parameters
    pairs = [
        (one.n_params, other.n_params),
        (one.n_params_without_positions, other.n_params_without_positions),
        (one.n_live_params, other.n_live_params),
    ]
    return " / ".join(_ratio(count, of) for count, of in pairs)


def _ratio(count: int, of: int) -> str:
    if not of:
        return NOTHING
    return f"{count / of:.2f}" if count >= 0.1 * of else f"{count / of:.2g}"


def _figures(store: Store, measurements: Sequence[Measurements]) -> dict[Path, bytes]:
    """Every figure of a store. Where there is nothing to draw, the drawing library is not even imported."""
    grown = [measured for measured in measurements if measured.grows]
    if not grown:
        return {}
    from bench.figures import growth_figure

    return {
        store.root / "figures" / f"growth-{measured.slug}.{suffix}": image
        for measured in grown
        for suffix, image in growth_figure(measured).items()
    }


def _made_before(root: Path) -> list[Path]:
    """The tables and figures that lie below a store's root, by the names that this file gives."""
    endings = tuple(f"-{kind}.{suffix}" for kind in KINDS for suffix in ("md", "csv", "tex"))
    tables = [path for path in (root / "tables").glob("*") if path.name.endswith(endings)]
    speeds = [path for suffix in ("md", "csv", "tex") for path in (root / "tables").glob(f"{FOLDER}-*.{suffix}")]
    figures = [path for suffix in ("svg", "png") for path in (root / "figures").glob(f"growth-*.{suffix}")]
    return sorted({*tables, *speeds, *figures})
