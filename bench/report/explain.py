"""The runs of one arm, the differences of its config to another arm's, and the commands that repeat the runs."""

from tabulate import tabulate

from bench.dotted import config_differences
from bench.errors import UserError, clean, typed
from bench.record import Record
from bench.report.mixing import seed_text
from bench.report.notes import number
from bench.report.runs import CellResults, Results, read_results
from bench.report.statistics import perplexity
from bench.store import Store


def explain(store: Store, experiment_name: str, label: str) -> str:
    """The runs of one arm in each mode, as plain text. UserError for an unknown name lists the known ones."""
    found = read_results(store)
    experiment = found.experiment(experiment_name)
    if experiment is None:
        known = ", ".join(each.name for each in found.experiments) or "none"
        raise UserError(f"no experiment {experiment_name!r} in {store.root}; there are: {known}")
    modes = [one for one in (experiment, found.other(experiment_name)) if one is not None]
    cells = [(one, cell) for one in modes if (cell := one.cell(label)) is not None]
    if not cells:
        known = ", ".join(dict.fromkeys(cell.label for one in modes for cell in one.cells)) or "none"
        raise UserError(f"no arm {label!r} in experiment {experiment_name}; there are: {known}")
    if cells[0][1].fitted:  # the same run in every mode
        modes, cells = modes[:1], cells[:1]
    parts = [f"{clean(experiment.name)}/{clean(label)}, perplexity by run"]
    for one, cell in cells:
        mode = f"mode {one.mode}:\n\n" if len(modes) > 1 else ""
        parts.append(mode + _runs(one, cell) + ("" if cell.shortfall is None else f"\n\n{clean(cell.shortfall)}."))
    configured = next(((one, cell) for one, cell in cells if cell.records), cells[0])
    parts.append(_against_neighbour(*configured))
    parts += [_remake(store, one, cell, name_mode=len(modes) > 1) for one, cell in cells]
    return "\n\n".join(parts) + "\n"


def neighbour(experiment: Results, cell: CellResults) -> CellResults | None:
    """The arm to compare with: the reference arm, else the one before, else the one after."""
    index = experiment.cells.index(cell)
    others = (experiment.reference, *experiment.cells[max(index - 1, 0) : index + 2])
    return next((other for other in others if other is not None and other is not cell), None)


def _runs(experiment: Results, cell: CellResults) -> str:
    columns = ["run", "seed", "status", "sweep best", "at step", "sweep final", "commit", "sources"]
    rows = [[clean(text) for text in _run(record, experiment)] for record in cell.records]
    rows += [["", seed, "missing", *[""] * 5] for seed in cell.missing]
    return tabulate(rows, columns, tablefmt="simple", disable_numparse=True)


def _run(record: Record, experiment: Results) -> list[str]:
    commit = (record.sources.commit or "unknown")[:12] + (" (dirty)" if record.sources.dirty else "")
    seed, sources = seed_text(record), experiment.sources_of(record)
    if record.result is None:
        at = "" if record.stopped_at_step is None else f" at {record.stopped_at_step}"
        return [record.run_id, seed, record.status + at, "", "", "", commit, sources]
    best, final = record.result.sweep.best, record.result.sweep.final
    numbers = [number(perplexity(best.nats_per_token)), str(best.step), number(perplexity(final.nats_per_token))]
    return [record.run_id, seed, record.status, *numbers, commit, sources]


def _against_neighbour(experiment: Results, cell: CellResults) -> str:
    other = neighbour(experiment, cell)
    if other is None:
        return "The only arm of its experiment: there is no config to compare with."
    name = clean(other.label)
    if not cell.records or not other.records:
        missing = clean((other if cell.records else cell).label)
        return f"{missing} has no record, so its config cannot be compared with {name}'s."
    rows = [[*map(clean, row)] for row in config_differences(cell.records[0].config, other.records[0].config)]
    if not rows:
        return f"Its config is equal to that of {name}."
    table = tabulate(rows, ["field", clean(cell.label), name], tablefmt="simple", disable_numparse=True)
    return f"The fields in which its config differs from that of {name}:\n\n{table}"


def _remake(store: Store, experiment: Results, cell: CellResults, *, name_mode: bool) -> str:
    words = ["launch", "--experiment", experiment.name, "-k", cell.label]
    words += ["--mode", experiment.mode] if name_mode else []
    of = f" in mode {experiment.mode}" if name_mode else ""
    lines = [
        f"Train the missing runs{of} (-k selects every run whose name contains these words):",
        f"  {clean(typed('jobs', *words, store=store.root))}",
    ]
    if cell.records:
        lines.append("Repeat one run, and compare:")
    for record in cell.records:
        path = store.root / "runs" / record.file_name
        lines.append(f"  {clean(typed('bench', 'rerun', path))}")
    return "\n".join(lines)
