"""The table of parameters: the counts under three conventions, and by part of the model."""

from bench.record import Record
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, published_parameters, ratio

CONVENTIONS = {"total": "n_params", "without positions": "n_params_without_positions", "live": "n_live_params"}


def parameters_table(view: View) -> Table | None:
    """Parameter counts of every arm; None if there is no record."""
    experiment = view.experiment
    first = next((cell.records[0] for cell in experiment.cells[:1] if cell.records), None)
    if not any(cell.records for cell in experiment.cells):
        return None
    rows = [
        {
            "arm": arm_label(experiment, cell),
            **{convention: view.count(cell, column) for convention, column in CONVENTIONS.items()},
            "relative to first row": _ratios(cell.records[0], first) if cell.records and first else NOTHING,
            "published": published_parameters(view.published_beside[cell.label]),
            "by part": _parts(cell.records[0]) if cell.records else "not run",
        }
        for cell in view.cells
    ]
    notes = [
        "without positions: without the table of learned positions, as nanoGPT counts; live: without entries that "
        "never have an effect, such as those hidden by a causal mask; relative to first row: total / without "
        "positions / live, each over that of the first row. For a fitted model, its free probabilities are counted."
    ]
    return view.table("parameters", rows, notes)


def _parts(record: Record) -> str:
    return "; ".join(f"{part} {count:,}" for part, count in record.cost.parameters.parts.items()) or NOTHING


def _ratios(record: Record, first: Record) -> str:
    ours, theirs = record.cost.parameters, first.cost.parameters
    return " / ".join(ratio(getattr(ours, name), getattr(theirs, name)) for name in CONVENTIONS.values())
