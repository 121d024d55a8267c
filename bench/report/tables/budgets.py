"""The table of budgets: every arm on all axes on which arms may be matched."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.report.notes import machines, packed_notes, state_notes
from bench.report.runs import CellResults
from bench.report.statistics import summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, common, marked


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A quantity that may be held equal between arms: a column of the frame and of the table."""

    name: str
    column: str
    text: Callable[[float], str] = "{:,.0f}".format
    done: bool = False  # only over done runs: others ended early
    measured: bool = False  # on a machine, so runs differ; the others are counted
    maximum: bool = False  # over the runs, instead of the mean


AXES = (
    Axis(name="parameters", column="n_params"),
    Axis(name="live", column="n_live_params"),
    Axis(name="without positions", column="n_params_without_positions"),
    Axis(name="training tokens", column="n_train_tokens", done=True),
    Axis(name="forward MACs per token", column="forward_macs_per_token"),
    Axis(name="training FLOPs", column="train_flops", text="{:.4g}".format, done=True),
    Axis(name="state bytes", column="state_bytes"),
    Axis(name="activation bytes", column="activation_bytes"),
    Axis(name="seconds per step", column="seconds_per_step", text="{:.4g}".format, measured=True),
    Axis(name="peak bytes", column="peak_bytes", done=True, measured=True, maximum=True),
)
AXIS_NOTES = (
    "live: without entries that never have an effect; without positions: without the table of learned positions. "
    "forward MACs: multiply-adds of one forward pass; training FLOPs: 3 × forward × 2 × training tokens; state: "
    "what decoding keeps of one text at the end of its window; activation: what the backward pass keeps of one "
    "window; both in float32. All these are counted by a formula for each model.",
    "seconds per step (mean ± sample standard deviation) and peak bytes (maximum over runs) are measured: compare "
    "them only on one machine.",
)


def budgets_table(view: View) -> Table | None:
    """Every arm on all axes; None for a search, or if there is no record."""
    rows = axis_rows(view, lambda cell, axis: _on_axis(view, cell, axis))
    one = view.experiment
    return view.table("budgets", rows, [*AXIS_NOTES, *packed_notes(one), *state_notes(one), *machines(one)])


def axis_rows(view: View, text: Callable[[CellResults, Axis], str]) -> list[dict[str, str]]:
    """A row per arm; none for a search or folds, or if no arm has a record."""
    cells = view.cells
    if view.experiment.trials or view.experiment.folds or not any(cell.records for cell in cells):
        return []
    return [view.arm(cell) | {axis.name: text(cell, axis) for axis in AXES} for cell in cells]


def axis_values(view: View, cell: CellResults, axis: Axis) -> list[float]:
    """The values of the runs of an arm on an axis."""
    return view.column(cell, axis.column, done=axis.done)


def _on_axis(view: View, cell: CellResults, axis: Axis) -> str:
    if not cell.records and axis is AXES[0]:
        return cell.statuses
    values = axis_values(view, cell, axis)
    if not values:
        return NOTHING
    if not axis.measured:
        return common(map(axis.text, values))
    found = summarise(values)
    if axis.maximum:
        return marked(axis.text(max(values)), cell, len(values))
    return marked(axis.text(found.mean) + ("" if found.sd is None else f" ± {found.sd:.2g}"), cell, len(values))
