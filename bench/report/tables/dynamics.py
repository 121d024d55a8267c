"""The table of dynamics: the step size and the two paths of K-Operators between the first and the last step."""

from collections.abc import Callable
from operator import itemgetter

from bench.report.arms import K_OPERATORS, config_of, trained
from bench.report.notes import state_notes
from bench.report.runs import CellResults
from bench.report.series import over_layers
from bench.report.statistics import summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, marked, plain_mean_sd

MIN_EVALUATIONS = 3  # of a run, to be shown
Pick = Callable[[list[float]], float]
FIRST: Pick = itemgetter(0)
LAST: Pick = itemgetter(-1)
READINGS: tuple[tuple[str, str, Pick], ...] = (  # column, reading, which of its values over the steps
    ("eta, first", "eta", FIRST),
    ("eta, last", "eta", LAST),
    ("refinement step, last", "refinement_step_ratio", LAST),
    ("recurrent share, first", "recurrent_share", FIRST),
    ("recurrent share, minimum", "recurrent_share", min),
    ("recurrent share, last", "recurrent_share", LAST),
    ("gate, last", "gate", LAST),
    ("alpha, last", "alpha", LAST),
)


def dynamics_table(view: View) -> Table | None:
    """Readings of each K-Operators arm; None if no arm has enough of them, or for a search or folds."""
    grouped = view.experiment.trials or view.experiment.folds
    cells = [] if grouped else [cell for cell in trained(view.experiment) if _has_readings(cell)]
    rows = [view.arm(cell) | {column: _cell(cell, name, pick) for column, name, pick in READINGS} for cell in cells]
    notes = [
        "Mean ± sample standard deviation over n seeds; the reading of a run is a mean over layers or refinements. "
        "Read on fixed validation windows. first: before the first step; last: after the last; minimum: the lowest "
        "over all evaluations.",
        "eta: the step size of refinement. refinement step: its L2 norm over that of what it is added to. recurrent "
        "share: the norm of what the recurrent path adds, over the sum of the norms of both paths. gate, alpha: the "
        "learned weights of the base path and of the recurrent path.",
        *state_notes(view.experiment),
    ]
    return view.table("dynamics", rows, notes)


def _has_readings(cell: CellResults) -> bool:
    return config_of(cell).get("architecture") == K_OPERATORS and any(
        len(record.diagnostics.by_step) >= MIN_EVALUATIONS for record in cell.done
    )


def _cell(cell: CellResults, name: str, pick: Pick) -> str:
    values = [pick(list(by_step.values())) for record in cell.done if (by_step := over_layers(record, name))]
    return marked(plain_mean_sd(summarise(values)), cell, len(values)) if values else NOTHING
