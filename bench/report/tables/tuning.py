"""The table of a search: every trial with its settings and result."""

from collections.abc import Sequence

from bench.dotted import dotted, value_text
from bench.report.notes import machine_notes, number, protocol_legend
from bench.report.runs import CellResults
from bench.report.table import NOTHING, Table
from bench.report.tables.view import TRIAL, View, arm_label, trial_perplexity


def tuning_table(view: View) -> Table | None:
    """One row per trial, by arm in the order of the manifest; None if the experiment is not a search."""
    trials = view.experiment.trials
    if not trials:
        return None
    searched = {group: _searched(cells) for group, cells in trials.items()}
    keys = sorted({key for found in searched.values() for key in found})
    rows = []
    for group, cells in trials.items():
        ranks = _ranks(cells)
        for cell in cells:
            fields = dotted(cell.records[0].config) if cell.records else {}
            found = trial_perplexity(cell)
            rows.append(
                [
                    group,
                    arm_label(view.experiment, cell),
                    *(_setting(fields[key]) if key in fields and key in searched[group] else NOTHING for key in keys),
                    NOTHING if found is None else number(found),
                    ranks.get(cell.label, NOTHING),
                    _outcome(cell),
                ]
            )
    columns = ["arm", TRIAL, *(_column(key, keys) for key in keys), "sweep, best", "rank in its arm", "outcome"]
    notes = [
        "One run per trial. sweep, best: validation perplexity at the evaluation with the lowest sweep loss. A setting "
        "is shown if the trials of its arm differ in it; all other settings are equal.",
        "rank in its arm: among the done trials, 1 is the lowest perplexity.",
        *protocol_legend(view.experiment, "sweep"),
        *machine_notes(view.experiment),
    ]
    return view.table("tuning", columns, 2, rows, notes)


def _ranks(cells: Sequence[CellResults]) -> dict[str, str]:
    """`1 of 20`: the rank of each trial among those that are done."""
    found = {cell.label: value for cell in cells if (value := trial_perplexity(cell)) is not None}
    ordered = sorted(found.values())
    return {label: f"{ordered.index(value) + 1} of {len(ordered)}" for label, value in found.items()}


def _searched(cells: Sequence[CellResults]) -> set[str]:
    """The dotted keys in which the trials of an arm differ."""
    configs = [dotted(cell.records[0].config) for cell in cells if cell.records]
    keys = {key for config in configs for key in config}
    return {key for key in keys if len({value_text(config.get(key)) for config in configs}) > 1}


def _column(key: str, keys: Sequence[str]) -> str:
    """The last word of a dotted key; the complete key if another key ends with the same word."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)


def _outcome(cell: CellResults) -> str:
    if not cell.records:
        return cell.statuses
    record = cell.records[0]
    return record.status if record.stopped_at_step is None else f"{record.status} at step {record.stopped_at_step}"
