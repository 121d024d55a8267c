"""The table of cost: time, speed, memory and FLOPs of training."""

from bench.report.notes import machines, packed_notes, state_notes
from bench.report.runs import CellResults
from bench.report.statistics import mean, summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, common, marked


def cost_table(view: View) -> Table | None:
    """One row per trained arm; None if there is none, or no run is done."""
    rows = [_row(view, cell) for cell in view.cells if not cell.fitted]
    if not view.experiment.done:
        return None
    notes = [
        "train seconds: mean ± sample standard deviation, without evaluation and set-up; tokens/s: mean; peak MiB: "
        "maximum over runs; train FLOPs: 3 × forward, counted by a formula for each model.",
        *packed_notes(view.experiment),
        *state_notes(view.experiment),
        *machines(view.experiment),
    ]
    return view.table("cost", rows, notes)


def _row(view: View, cell: CellResults) -> dict[str, str]:
    def values(column: str, *, alone: bool = False) -> list[float]:
        return view.column(cell, column, done=True, alone=alone)

    seconds, speeds = values("train_seconds", alone=True), values("tokens_per_second", alone=True)
    peaks = values("peak_bytes")
    return view.arm(cell) | {
        "train seconds": _seconds(cell, seconds) if peaks else cell.statuses,
        "tokens/s": marked(f"{mean(speeds):,.0f}", cell, len(speeds)) if speeds else NOTHING,
        "peak MiB": marked(f"{max(peaks) / 2**20:,.0f}", cell) if peaks else NOTHING,
        "train tokens": common(f"{n:,}" for n in values("n_train_tokens")),
        "train FLOPs": common(f"{n:.3g}" for n in values("train_flops")),
    }


def _seconds(cell: CellResults, seconds: list[float]) -> str:
    if not seconds:
        return NOTHING
    found = summarise(seconds)
    spread = "" if found.sd is None else f" ± {found.sd:,.1f}"
    return marked(f"{found.mean:,.1f}{spread}", cell, len(seconds))
