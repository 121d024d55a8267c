"""The table of budgets: every arm on all axes on which arms may be matched."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.report.notes import machine_notes, packed_notes, state_notes
from bench.report.runs import CellResults
from bench.report.statistics import summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, common, marked, n_of


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


def budgets_table(view: View) -> Table | None:
    """Every arm on all axes; None for a search, or if there is no record."""
    if not has_budgets(view):
        return None
    rows = [
        (arm_label(view.experiment, cell), n_of(view.experiment, cell), *(_on_axis(view, cell, axis) for axis in AXES))
        for cell in view.experiment.cells
    ]
    notes = [
        *axis_notes(),
        *packed_notes(view.experiment),
        *state_notes(view.experiment),
        *machine_notes(view.experiment),
    ]
    return view.table("budgets", ["arm", "n", *(axis.name for axis in AXES)], 1, rows, notes)


def has_budgets(view: View) -> bool:
    """Whether an arm has a record and the experiment is not a search."""
    return not view.experiment.trials and any(cell.records for cell in view.experiment.cells)


def axis_notes() -> list[str]:
    """Notes that define the axes."""
    return [
        "live: without entries that never have an effect; without positions: without the table of learned positions. "
        "forward MACs: multiply-adds of one forward pass; training FLOPs: 3 × forward × 2 × training tokens; state: "
        "what decoding keeps of one text at the end of its window; activation: what the backward pass keeps of one "
        "window; both in float32. All these are counted by a formula for each model.",
        "seconds per step (mean ± sample standard deviation) and peak bytes (maximum over runs) are measured: compare "
        "them only on one machine.",
    ]


def values_on(view: View, cell: CellResults, axis: Axis) -> list[float]:
    """The values of an axis over the runs of a cell."""
    return view.column(cell, axis.column, done=axis.done)


def _on_axis(view: View, cell: CellResults, axis: Axis) -> str:
    if not cell.records and axis is AXES[0]:
        return cell.statuses
    values = values_on(view, cell, axis)
    if not values:
        return NOTHING
    if not axis.measured:
        return common(map(axis.text, values))
    found = summarise(values)
    if axis.maximum:
        return marked(axis.text(max(values)), cell, len(values))
    return marked(axis.text(found.mean) + ("" if found.sd is None else f" ± {found.sd:.2g}"), cell, len(values))
