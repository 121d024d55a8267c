"""The table of relative budgets: the budgets of each arm over those of the reference arm."""

from bench.report.notes import state_notes
from bench.report.runs import CellResults
from bench.report.statistics import mean
from bench.report.table import NOTHING, Table
from bench.report.tables.budgets import AXES, Axis, axis_notes, has_budgets, values_on
from bench.report.tables.view import View, arm_label, marked, n_of, ratio


def relative_budgets_table(view: View) -> Table | None:
    """The budgets of each arm over those of the reference arm, or of the first arm if there is none."""
    if not has_budgets(view):
        return None
    experiment = view.experiment
    reference = experiment.reference or experiment.cells[0]
    rows = [
        (
            arm_label(experiment, cell),
            n_of(experiment, cell),
            *(_relative(view, cell, reference, axis) for axis in AXES),
        )
        for cell in experiment.cells
    ]
    notes = [
        f"Each number of the table of budgets over that of {reference.label} ({reference.statuses}); 1.00: matched.",
        *axis_notes(),
        *state_notes(experiment),
    ]
    return view.table("relative-budgets", ["arm", "n", *(axis.name for axis in AXES)], 1, rows, notes)


def _relative(view: View, cell: CellResults, reference: CellResults, axis: Axis) -> str:
    ours, theirs = values_on(view, cell, axis), values_on(view, reference, axis)
    if not ours or not theirs:
        return NOTHING
    aggregate = max if axis.maximum else mean
    text = ratio(aggregate(ours), aggregate(theirs))
    if not axis.measured:
        return text
    if len(theirs) < len(reference.expected) and cell is not reference:
        text += f" (reference: {len(theirs)} of {len(reference.expected)})"
    return marked(text, cell, len(ours))
