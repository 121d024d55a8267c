"""The table of plays: the loss of each arm on each of the two plays of the validation text."""

from collections.abc import Sequence

from bench.record import Record
from bench.report.mixing import measured_alike
from bench.report.notes import protocol_legend, state_notes
from bench.report.plays import FIRST_LINE, PLAYS, nats_by_play
from bench.report.runs import CellResults
from bench.report.statistics import mean, sample_sd, welch
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, marked, n_of, partial, signed, signed_interval

HEADLINES = ("paper", "matched", "laptop-all")  # the experiments that have this table


def plays_table(view: View) -> Table | None:
    """One row per arm of a headline experiment; None for others, and if no run has its losses by window."""
    experiment = view.experiment
    if experiment.name not in HEADLINES or not any(map(nats_by_play, experiment.done)):
        return None
    rows = [
        [
            arm_label(experiment, cell),
            n_of(experiment, cell),
            *(_loss(cell, play) for play in range(len(PLAYS))),
            *(text for play in range(len(PLAYS)) for text in _difference(cell, experiment.reference, play)),
        ]
        for cell in view.cells
    ]
    columns = ["arm", "n", *PLAYS, *(f"{play}, {what}" for play in PLAYS for what in ("difference", "95 % interval"))]
    return view.table("plays", [dict(zip(columns, row, strict=True)) for row in rows], _notes(view))


def _notes(view: View) -> list[str]:
    reference = view.experiment.manifest.reference
    compared = f"difference: the arm minus {reference} on that play, with the interval of Welch's t-test; "
    return [
        "Sweep loss in nats per token at the best step of the whole validation text, by play: mean ± sample standard "
        "deviation (n - 1) over n seeds.",
        f"The validation text is most of {PLAYS[0]}, whose start is in the training text, and then {PLAYS[1]}, which "
        f"is not: its first line starts at character {FIRST_LINE:,}. The window with the end of one and the start of "
        "the other counts for neither.",
        *([] if reference is None else [f"{compared}–: fewer than two runs, or a counted model."]),
        *protocol_legend(view.experiment, "sweep"),
        *state_notes(view.experiment),
    ]


def _losses(cell: CellResults, play: int) -> list[float]:
    """The loss on a play of each done run that has losses by window."""
    return [found[play] for record in cell.done if (found := nats_by_play(record)) is not None]


def _loss(cell: CellResults, play: int) -> str:
    values = _losses(cell, play)
    if not values:
        return cell.statuses if not cell.done else NOTHING
    sd = sample_sd(values)
    return marked(f"{mean(values):.4f}" + ("" if sd is None else f" ± {sd:.4f}"), cell, len(values))


def _difference(cell: CellResults, reference: CellResults | None, play: int) -> tuple[str, str]:
    """The difference to the reference arm on a play, and its interval."""
    if reference is None or cell is reference or not _comparable(cell.done, reference.done):
        return NOTHING, NOTHING
    ours, theirs = _losses(cell, play), _losses(reference, play)
    if min(len(ours), len(theirs)) < 2:
        return NOTHING, NOTHING
    found, expected = welch(ours, theirs), len(cell.expected)
    texts = signed(found.difference), signed_interval(found.interval)
    return partial(texts[0], len(ours), expected), partial(texts[1], len(ours), expected)


def _comparable(ours: Sequence[Record], theirs: Sequence[Record]) -> bool:
    return bool(ours and theirs) and ours[0].mode == theirs[0].mode and measured_alike(ours[0], theirs[0])
