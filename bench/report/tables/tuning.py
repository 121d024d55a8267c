"""The tables of a search: every trial with what it tried, and what the best of k trials would have been."""

from collections.abc import Sequence
from math import comb, fsum

from bench.dotted import dotted, value_text
from bench.record import Record
from bench.report.notes import machine_notes, number, protocol_legend, state_notes
from bench.report.runs import CellRuns
from bench.report.statistics import perplexity
from bench.report.table import NOTHING, Table
from bench.report.tables.view import TRIAL, View, arm


def tuning_table(view: View) -> Table | None:
    """All trials, one a row, arm by arm as the manifest has them; None where nothing was searched."""
    if not view.trials:
        return None
    searched = {group: _searched(cells) for group, cells in view.trials.items()}
    keys = sorted({key for found in searched.values() for key in found})
    rows = []
    for group, cells in view.trials.items():
        ranks = _ranks(cells)
        for cell in cells:
            fields = dotted(cell.records[0].config) if cell.records else {}
            found = _perplexity(cell)
            rows.append(
                [
                    group,
                    arm(view.experiment, cell),
                    *(_setting(fields[key]) if key in fields and key in searched[group] else NOTHING for key in keys),
                    NOTHING if found is None else number(found),
                    ranks.get(cell.label, NOTHING),
                    _outcome(cell),
                ]
            )
    columns = ["arm", TRIAL, *(_column(key, keys) for key in keys), "sweep, best", "rank in its arm", "outcome"]
    notes = [
        "One run a trial. sweep, best: validation perplexity at the evaluation with the least sweep loss. A setting is "
        "shown where the trials of its arm differ in it; the rest of their configs is equal.",
        "rank in its arm: among the trials that are done, 1 is the least perplexity.",
        *protocol_legend(view.experiment, "sweep"),
        *machine_notes(view.experiment),
    ]
    return view.table("tuning", columns, 2, rows, notes)


def best_of_k_table(view: View) -> Table | None:
    """The expected best of k trials of each arm; None where no arm has a trial that is done."""
    arms = {group: _done(cells) for group, cells in view.trials.items()}
    if not any(arms.values()):
        return None
    longest = max(len(cells) for cells in view.trials.values())
    curves = {group: _curve(cells, longest) for group, cells in view.trials.items()}
    rows = [[f"{k}", *(curves[group][k - 1] for group in curves)] for k in range(1, longest + 1)]
    counts = "; ".join(_counts(group, cells) for group, cells in view.trials.items())
    notes = [
        "Expected validation perplexity (sweep, best) of the best of k trials drawn without replacement from an arm's "
        "n: the mean over all subsets of k, sum over i of C(n - i, k - 1) / C(n, k) × the i-th least perplexity. It is "
        "unbiased for k fresh trials, and falls as k grows.",
        "A trial that ended without a number counts in n as worse than any: with as many of those as k or more, there "
        "is a subset without a best, and no expectation. A trial that has not run does not count.",
        f"Trials: {counts}.",
        *state_notes(view.experiment),
    ]
    return view.table("best-of-k", ["k", *curves], 0, rows, notes)


def expected_best(values: Sequence[float], n: int, k: int) -> float | None:
    """Mean over all subsets of k of n trials of the least value in it; None where a subset has none.

    `values` are those of the trials that gave one; the other n - len(values) are worse than any.
    """
    if not 1 <= k <= n or n - len(values) >= k:
        return None
    ordered = sorted(values)
    return fsum(comb(n - i, k - 1) * value for i, value in enumerate(ordered, start=1)) / comb(n, k)


def _curve(cells: Sequence[CellRuns], longest: int) -> list[str]:
    """The cells of an arm's column, from k = 1."""
    values, n = _done(cells), _n_ended(cells)
    expected = [expected_best(values, n, k) for k in range(1, longest + 1)]
    partly = "" if n == len(cells) else f" ({n} of {len(cells)})"
    return [NOTHING if value is None else f"{number(value)}{partly}" for value in expected]


def _done(cells: Sequence[CellRuns]) -> list[float]:
    return [found for cell in cells if (found := _perplexity(cell)) is not None]


def _n_ended(cells: Sequence[CellRuns]) -> int:
    return sum(bool(cell.records) for cell in cells)


def _counts(group: str, cells: Sequence[CellRuns]) -> str:
    n_done, n = len(_done(cells)), _n_ended(cells)
    told = f"{group} {n} of {len(cells)}" if n < len(cells) else f"{group} {n}"
    return told if n_done == n else f"{told}, {n - n_done} without a number"


def _perplexity(cell: CellRuns) -> float | None:
    """Of the trial's first done run: a trial has one."""
    result = cell.done[0].result if cell.done else None
    return None if result is None else perplexity(result.sweep.best.nats_per_token)


def _ranks(cells: Sequence[CellRuns]) -> dict[str, str]:
    """`1 of 20`: the place of each trial among those that are done."""
    found = {cell.label: value for cell in cells if (value := _perplexity(cell)) is not None}
    ordered = sorted(found.values())
    return {label: f"{ordered.index(value) + 1} of {len(ordered)}" for label, value in found.items()}


def _searched(cells: Sequence[CellRuns]) -> set[str]:
    """The dotted keys in which an arm's trials differ."""
    configs = [dotted(cell.records[0].config) for cell in cells if cell.records]
    keys = {key for config in configs for key in config}
    return {key for key in keys if len({value_text(config.get(key)) for config in configs}) > 1}


def _column(key: str, keys: Sequence[str]) -> str:
    """The last word of a dotted key, where no other key ends with it."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _setting(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)


def _outcome(cell: CellRuns) -> str:
    if not cell.records:
        return cell.fates
    return _told(cell.records[0])


def _told(record: Record) -> str:
    at = "" if record.stopped_at_step is None else f" at step {record.stopped_at_step}"
    return f"{record.status}{at}"
