"""The best-of-k table: the expected perplexity of the best of k trials of a search."""

from collections.abc import Sequence

from bench.report.notes import number, state_notes
from bench.report.runs import CellResults, of_expected
from bench.report.statistics import expected_best
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, partial, trial_perplexity


def best_of_k_table(view: View) -> Table | None:
    """The expected best of k trials, by arm; None if no trial is done."""
    trials = view.experiment.trials
    if not any(map(_done, trials.values())):
        return None
    longest = max(map(len, trials.values()))
    curves = {group: _curve(cells, longest) for group, cells in trials.items()}
    rows = [{"k": f"{k}"} | {group: curve[k - 1] for group, curve in curves.items()} for k in range(1, longest + 1)]
    notes = [
        "Expected validation perplexity (sweep, best) of the best of k trials drawn without replacement from an arm's "
        "n: the mean over all subsets of size k, sum over i of C(n - i, k - 1) / C(n, k) × the i-th lowest perplexity. "
        "For trials drawn at random it is what k new ones would give; it decreases with k.",
        "A trial that ended without a number counts in n as worse than all others: with k or more of them, some subset "
        "has no best, so there is no expectation. A trial that has not run is not counted.",
        f"Trials: {'; '.join(_counts(group, cells) for group, cells in trials.items())}.",
        *state_notes(view.experiment),
    ]
    return view.table("best-of-k", rows, notes)


def _curve(cells: Sequence[CellResults], longest: int) -> list[str]:
    """The column of an arm, from k = 1."""
    values, n = _done(cells), _n_ended(cells)
    expected = [expected_best(values, n, k) for k in range(1, longest + 1)]
    return [NOTHING if value is None else partial(number(value), n, len(cells)) for value in expected]


def _done(cells: Sequence[CellResults]) -> list[float]:
    return [found for cell in cells if (found := trial_perplexity(cell)) is not None]


def _n_ended(cells: Sequence[CellResults]) -> int:
    return sum(bool(cell.records) for cell in cells)


def _counts(group: str, cells: Sequence[CellResults]) -> str:
    n_done, n = len(_done(cells)), _n_ended(cells)
    text = f"{group} {of_expected(n, len(cells))}"
    return text if n_done == n else f"{text}, {n - n_done} without a number"
