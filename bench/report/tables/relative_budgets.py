"""The table of relative budgets: every arm on the axes of budgets, over the reference arm."""

from bench.report.notes import state_notes
from bench.report.runs import CellResults
from bench.report.statistics import mean
from bench.report.table import NOTHING, Table
from bench.report.tables.budgets import AXIS_NOTES, Axis, axis_rows, axis_values
from bench.report.tables.view import View, marked, ratio


def relative_budgets_table(view: View) -> Table | None:
    """The budgets of each arm over those of the reference arm, or of the first arm if there is none."""
    reference = view.experiment.reference or next(iter(view.experiment.cells), None)
    if reference is None:
        return None
    rows = axis_rows(view, lambda cell, axis: _relative(view, cell, reference, axis))
    notes = [
        f"Each number of the table of budgets over that of {reference.label} ({reference.statuses}); 1.00: matched.",
        *AXIS_NOTES,
        "–: no run, or measured on more than one machine or with more than one number of threads.",
        *state_notes(view.experiment),
    ]
    return view.table("relative-budgets", rows, notes)


def _relative(view: View, cell: CellResults, reference: CellResults, axis: Axis) -> str:
    ours, theirs = axis_values(view, cell, axis), axis_values(view, reference, axis)
    if not ours or not theirs or (axis.measured and not _on_one_machine(cell, reference)):
        return NOTHING
    aggregate = max if axis.maximum else mean
    text = ratio(aggregate(ours), aggregate(theirs))
    if not axis.measured:
        return text
    if len(theirs) < len(reference.expected) and cell is not reference:
        text += f" (reference: {len(theirs)} of {len(reference.expected)})"
    return marked(text, cell, len(ours))


def _on_one_machine(cell: CellResults, reference: CellResults) -> bool:
    """Whether all runs of both arms ran on one kind of machine: a mixture is not the same mixture elsewhere."""
    return len(_machines(cell) | _machines(reference)) == 1


def _machines(cell: CellResults) -> set[tuple[object, ...]]:
    """The devices and thread counts of the runs of an arm, on which measured times and bytes depend."""
    machines = (record.environment for record in cell.records)
    return {(one.device_name, one.n_threads, one.packages.get("torch")) for one in machines}
