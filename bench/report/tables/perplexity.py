"""The table of perplexities: every arm with its size, its loss, and its difference to the reference arm."""

from bench.report.contrasts import Contrast, p_value
from bench.report.mixing import protocol_of
from bench.report.notes import floor_notes, machine_notes, protocol_legend, state_notes
from bench.report.runs import CellResults, Results, StoreResults
from bench.report.table import NOTHING, Table
from bench.report.tables.view import (
    MODE,
    Summaries,
    View,
    arm_label,
    common,
    interval,
    mean_sd,
    mode_of,
    n_of,
    p_text,
    plain_mean_sd,
    published_perplexity,
    signed,
    summaries_of,
)

DIFFERENCE = "difference to"  # begins the heading of a column that ends with the reference arm


def perplexity_table(view: View) -> Table:
    """Every arm with its size, its validation perplexity, and the difference to the reference arm."""
    experiment = view.experiment
    differences = {one.arm.label: difference_text(one) for one in view.contrasts}
    if differences and experiment.manifest.reference is not None:
        differences[experiment.manifest.reference] = "reference"
    committed = None if view.committed is None else _Committed(view, view.committed)
    rows = []
    for cell in experiment.cells:
        best = view.summaries.get((cell.label, "sweep", "best"))
        rows.append(
            [
                arm_label(experiment, cell),
                mode_of(cell),
                view.count(cell, "n_params"),
                n_of(experiment, cell),
                cell.statuses if best is None else mean_sd(cell, best),
                interval(cell, best),
                mean_sd(cell, view.summaries.get((cell.label, "sweep", "final"))),
                mean_sd(cell, view.summaries.get((cell.label, "sweep", "cross_fitted"))),
                *([differences.get(cell.label, NOTHING)] if differences else []),
                published_perplexity(view.published_beside[cell.label]),
                *([] if committed is None else [committed.beside(cell)]),
            ]
        )
    columns = ["arm", MODE, "parameters", "n", "sweep, best", "95 % interval of sweep, best", "sweep, final"]
    columns += ["sweep, cross-fitted", *([f"{DIFFERENCE} {experiment.manifest.reference}"] if differences else [])]
    columns += ["published", *([] if committed is None else ["committed (sweep, best)"])]
    notes = [
        "A number is a validation perplexity, exp(mean cross-entropy in nats): the mean over n distinct seeds "
        "± the sample standard deviation (n - 1) between them. The interval is Student's t.",
        *protocol_legend(experiment, "sweep"),
        "best: at the evaluation with the lowest sweep loss, chosen on the text it is reported on, so optimistic, and "
        "as published numbers are taken; final: after the last step; cross-fitted: the step is chosen on one half of "
        "the text and scored on the other, both ways, averaged.",
        *difference_notes(view),
        *floor_notes(experiment),
        *state_notes(experiment),
        *machine_notes(experiment),
    ]
    return view.table("perplexity", columns, 2, rows, notes)


def difference_text(contrast: Contrast) -> str:
    """The difference in nats per token with its p-value, or the reason why there is none."""
    if contrast.comparison is None:
        return NOTHING
    text = signed(contrast.comparison.difference)
    if contrast.comparison.p_value is not None:
        text += f", p {'' if contrast.comparison.p_value < 0.001 else '= '}{p_text(contrast.comparison.p_value)}"
    text += f"; {contrast.verdict}"
    return f"{text} ({contrast.n_text})" if contrast.partial else text


def difference_notes(view: View) -> list[str]:
    """The notes on the column of differences, and the seeds that its primary comparison would need."""
    if not view.contrasts:
        return []
    name = view.experiment.name
    meaning = (
        f"{DIFFERENCE} {view.experiment.manifest.reference}: of the mean sweep loss (best), in nats per token, less is "
        f"better; p is of the two-sided t-test, not adjusted. Intervals and tests: {name}-differences."
    )
    primary = next((one for one in view.contrasts if one.primary), None)
    if primary is None or p_value(primary) is None or primary.seeds_line is None:
        return [meaning]
    return [meaning, f"For 80 % power (Welch, two-sided, 5 %): {primary.arm.label}, {primary.seeds_line}."]


class _Committed:
    """The same experiment in another store, shown next to ours: in our mode, else in the other."""

    def __init__(self, view: View, committed: StoreResults) -> None:
        name, in_our_mode = view.experiment.name, committed.in_mode(view.experiment.mode)
        found = (in_our_mode.experiment(name), in_our_mode.other(name))
        self._known = [(one, summaries_of(one)) for one in found if one is not None]

    def beside(self, cell: CellResults) -> str:
        """The value of the same label with its mode, unless it was measured on other text or otherwise."""
        texts = (self._of(experiment, summaries, cell) for experiment, summaries in self._known)
        return next((text for text in texts if text != NOTHING), NOTHING)

    def _of(self, experiment: Results, summaries: Summaries, cell: CellResults) -> str:
        other, summary = experiment.cell(cell.label), summaries.get((cell.label, "sweep", "best"))
        if other is None or summary is None:
            return NOTHING
        if cell.done:
            ours, theirs = cell.done[0], other.done[0]
            if ours.corpus.sha256 != theirs.corpus.sha256 or protocol_of(ours) != protocol_of(theirs):
                return NOTHING
        mode = common(record.mode for record in other.done)
        n_text = "exact" if other.fitted else f"n = {other.n_text}, {mode}"
        return f"{plain_mean_sd(summary)} ({n_text})"
