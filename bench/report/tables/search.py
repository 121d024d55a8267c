"""The table of what a search chose: the winner of each arm, what the choice cost, and the search's own noise."""

from collections.abc import Sequence

from bench.report.notes import state_notes
from bench.report.runs import CellResults, Results
from bench.report.searches import find
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View

N_RESAMPLES = 10_000
COLUMNS = ("arm", "trials", "runs", "diverged", "winner", "its loss", "sd", "95 % interval", "same winner")


def search_table(view: View) -> Table | None:
    """One row per arm of a search, also beside an experiment whose cells it chose; None without a search."""
    searched = _search_of(view)
    if searched is None:
        return None
    rows = [_row(arm, cells) for arm, cells in searched.trials.items()]
    notes = [
        "winner: the trial with the lowest best sweep loss; in a search of two stages, of the three that were best on "
        "the first seed, the one with the lowest mean over three seeds. Diverged trials rank last, of equal ones the "
        "lower number wins. its loss: that loss in nats per token, of the runs that chose it: new seeds are worse on "
        "average.",
        "runs: what the choice cost: the runs with a record, diverged ones among them.",
        f"sd, 95 % interval, same winner: the search's own noise. An arm's trials are drawn again with replacement, as "
        f"many as there are, {N_RESAMPLES:,} times with a fixed seed, and a winner is chosen as before: the spread of "
        "its loss in nats per token, and, in a search of two stages, the share of draws with the same winner: "
        "with one stage it follows from the number of trials. A trial that was not in stage 2 has "
        "the loss of its one seed. This noise is in no interval of a comparison: those are over seeds of the winners.",
        *([] if searched is view.experiment else [f"The search is experiment {searched.name}."]),
        *state_notes(searched),
    ]
    return view.table("search", [dict(zip(COLUMNS, row, strict=True)) for row in rows], notes)


def _search_of(view: View) -> Results | None:
    """The experiment itself if it is a search, else the one whose records chose its cells."""
    if view.experiment.trials:
        return view.experiment
    chosen = {run_id for run_ids in (view.experiment.manifest.chosen_by or {}).values() for run_id in run_ids}
    every = (*view.store.experiments, *view.store.in_other_mode)
    return next((one for one in every if one.trials and chosen and chosen <= set(one.manifest.run_ids)), None)


def _row(arm: str, cells: Sequence[CellResults]) -> list[str]:
    found = find(cells)
    row = [arm, f"{len(cells)}", f"{found.n_runs}", f"{found.n_diverged}"]
    if found.winner is None:
        return [*row, *[NOTHING] * 5]
    noise = found.resampled(N_RESAMPLES)
    low, high = noise.interval
    sd = NOTHING if noise.sd is None else f"{noise.sd:.4f}"
    return [
        *row,
        found.winner.cell.label,
        f"{found.winner.mean:.4f}",
        sd,
        f"{low:.4f} to {high:.4f}",
        f"{100 * noise.same:.0f} %" if found.n_stages == 2 else NOTHING,
    ]
