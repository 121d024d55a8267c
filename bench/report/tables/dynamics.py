"""The table of dynamics: what K-Operators' step size and its two paths do between the first step and the last."""

from collections.abc import Callable
from operator import itemgetter

from bench.report.arms import K_OPERATORS, config_of, trained
from bench.report.notes import state_notes
from bench.report.runs import CellResults
from bench.report.series import over_layers
from bench.report.statistics import summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, marked, n_of, plain_mean_sd

LEAST_EVALUATIONS = 3  # fewer show no course
Pick = Callable[[list[float]], float]
FIRST: Pick = itemgetter(0)
LAST: Pick = itemgetter(-1)
READINGS: tuple[tuple[str, str, Pick], ...] = (  # heading, reading, which of its values over the steps
    ("eta, first", "eta", FIRST),
    ("eta, last", "eta", LAST),
    ("refinement step, last", "refinement_step_ratio", LAST),
    ("recurrent share, first", "recurrent_share", FIRST),
    ("recurrent share, least", "recurrent_share", min),
    ("recurrent share, last", "recurrent_share", LAST),
    ("gate, last", "gate", LAST),
    ("alpha, last", "alpha", LAST),
)


def dynamics_table(view: View) -> Table | None:
    """Readings of each K-Operators arm; None where no arm has a course of them, and of a search."""
    cells = [] if view.trials else [cell for cell in trained(view.experiment) if _has_course(cell)]
    if not cells:
        return None
    rows = [
        [
            arm_label(view.experiment, cell),
            n_of(view.experiment, cell),
            *(_cell(cell, name, pick) for _, name, pick in READINGS),
        ]
        for cell in cells
    ]
    notes = [
        "Mean ± sample standard deviation over n seeds of a run's reading, which is itself a mean over layers or "
        "refinements. Read on fixed validation windows: first, before the first step; last, after the last; least, at "
        "the evaluation where it is least.",
        "eta: the step size of refinement. refinement step: its L2 norm over that of what it is added to. recurrent "
        "share: the norm of what the recurrent path adds, over the sum of both paths' norms. gate, alpha: the learned "
        "weights of the base path and of the recurrent path.",
        *state_notes(view.experiment),
    ]
    return view.table("dynamics", ("arm", "n", *(heading for heading, _, _ in READINGS)), 1, rows, notes)


def _has_course(cell: CellResults) -> bool:
    return config_of(cell).get("architecture") == K_OPERATORS and any(
        len(record.diagnostics.by_step) >= LEAST_EVALUATIONS for record in cell.done
    )


def _cell(cell: CellResults, name: str, pick: Pick) -> str:
    courses = [list(course.values()) for record in cell.done if (course := over_layers(record, name))]
    if not courses:
        return NOTHING
    return marked(plain_mean_sd(summarise([pick(course) for course in courses])), cell, len(courses))
