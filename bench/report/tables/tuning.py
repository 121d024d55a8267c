"""The table of a search: every trial with its settings and result."""

import math
from collections.abc import Iterator, Sequence

from bench.dotted import dotted, value_text
from bench.report.notes import machines, number, protocol_legend
from bench.report.runs import CellResults
from bench.report.searches import Found, find
from bench.report.table import NOTHING, Table
from bench.report.tables.view import TRIAL, View, arm_label, partial, trial_perplexity

RATE = "training.learning_rate"  # the first setting that a reader looks for


def tuning_table(view: View) -> Table | None:
    """One row per trial, by arm in the order of the manifest; None if the experiment is not a search."""
    trials = view.experiment.trials
    searched = {group: _searched(cells) for group, cells in trials.items()}
    keys = sorted({key for found in searched.values() for key in found}, key=lambda key: (key != RATE, key))
    found_by_arm = {group: find(cells) for group, cells in trials.items()}
    two_stages = any(found.n_stages == 2 for found in found_by_arm.values())
    rows = [
        {"arm": group, TRIAL: arm_label(view.experiment, cell)}
        | {"sweep, best": best, "rank in its arm": rank}
        | ({"stage 2, mean loss": _stage_2(cell, found_by_arm[group])} if two_stages else {})
        | {_column(key, keys): _setting(cell, key) if key in searched[group] else NOTHING for key in keys}
        | {"outcome": _outcome(cell)}
        for group, cells in trials.items()
        for cell, best, rank in _ranked(cells)
    ]
    notes = [
        f"One run per trial{', three of the best three' if two_stages else ''}. sweep, best: validation perplexity at "
        "the evaluation with the lowest sweep loss, on the first seed. A setting is shown if the trials of its arm "
        "differ in it; all other settings are equal, or stand at their default in records that lack them.",
        "rank in its arm: among the done trials, 1 is the lowest perplexity.",
        *(["stage 2, mean loss: of the best three, over three seeds, in nats per token."] if two_stages else []),
        *protocol_legend(view.experiment, "sweep"),
        *machines(view.experiment),
    ]
    return view.table("tuning", rows, notes)


def _ranked(cells: Sequence[CellResults]) -> Iterator[tuple[CellResults, str, str]]:
    """Each trial with its perplexity and its rank among those that are done, `1 of 20`."""
    found = [trial_perplexity(cell) for cell in cells]
    ordered = sorted(value for value in found if value is not None)
    for cell, value in zip(cells, found, strict=True):
        rank = NOTHING if value is None else f"{ordered.index(value) + 1} of {len(ordered)}"
        yield cell, NOTHING if value is None else number(value), rank


def _searched(cells: Sequence[CellResults]) -> set[str]:
    """The dotted keys in which the trials of an arm differ, of records that have them: older ones had the default."""
    configs = [dotted(cell.records[0].config) for cell in cells if cell.records]
    keys = {key for config in configs for key in config}
    return {key for key in keys if len({value_text(config[key]) for config in configs if key in config}) > 1}


def _stage_2(cell: CellResults, found: Found) -> str:
    """The mean loss of a finalist over its seeds, with a mark for the winner; `diverged` if one did."""
    trial = next(one for one in found.trials if one.cell is cell)
    if len(cell.expected) == 1 or not trial.nats:
        return NOTHING
    mean = f"{trial.mean:.4f}" if math.isfinite(trial.mean) else "diverged"
    return f"{partial(mean, len(trial.nats), len(cell.expected))}{', wins' if trial is found.winner else ''}"


def _column(key: str, keys: Sequence[str]) -> str:
    """The last word of a dotted key; the complete key if another key ends with the same word."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _setting(cell: CellResults, key: str) -> str:
    fields = dotted(cell.records[0].config) if cell.records else {}
    if key not in fields:
        return NOTHING
    return f"{fields[key]:.4g}" if isinstance(fields[key], float) else value_text(fields[key])


def _outcome(cell: CellResults) -> str:
    if not cell.records:
        return cell.statuses
    record = cell.records[0]
    if len(cell.expected) > 1:
        return cell.statuses
    return record.status if record.stopped_at_step is None else f"{record.status} at step {record.stopped_at_step}"
