"""The table of perplexities: every arm with its size, validation perplexity and difference to the reference arm."""

from collections import defaultdict

from bench.report.contrasts import Contrast
from bench.report.mixing import measured_alike
from bench.report.notes import MEAN_OF_EXP, floor_notes, machines, protocol_legend, state_notes
from bench.report.table import NOTHING, Table
from bench.report.tables.view import (
    MODE,
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


def perplexity_table(view: View) -> Table | None:
    """One row per arm, also for arms that have not run."""
    experiment = view.experiment
    differences = _differences(view)
    committed = None if view.committed is None else _committed(view)
    rows = []
    for cell in view.cells:
        best = view.summaries.get((cell.label, "sweep", "best"))
        row = {
            "arm": arm_label(experiment, cell),
            MODE: mode_of(cell),
            "parameters": view.count(cell, "n_params"),
            "n": n_of(experiment, cell),
            "sweep, best": cell.statuses if best is None else mean_sd(cell, best),
            "95 % interval of sweep, best": interval(cell, best),
            "sweep, final": mean_sd(cell, view.summaries.get((cell.label, "sweep", "final"))),
            "sweep, cross-fitted": mean_sd(cell, view.summaries.get((cell.label, "sweep", "cross_fitted"))),
        }
        row |= {column: texts.get(cell.label, NOTHING) for column, texts in differences.items()}
        row["published"] = published_perplexity(view.published_beside[cell.label])
        if committed is not None:
            row["committed (sweep, best)"] = committed.get(cell.label, NOTHING)
        rows.append(row)
    notes = [
        "A number is a validation perplexity, exp(mean cross-entropy in nats): the mean over n distinct seeds "
        "± the sample standard deviation (n - 1) between them. The interval is Student's t.",
        MEAN_OF_EXP,
        *protocol_legend(experiment, "sweep"),
        "best: at the evaluation with the lowest sweep loss, chosen on the text that it is reported on, so optimistic; "
        "published numbers are of this kind. final: after the last step. cross-fitted: the step is chosen on one half "
        "of the text and scored on the other, in both directions, averaged.",
        *difference_notes(view),
        *floor_notes(experiment),
        *state_notes(experiment),
        *machines(experiment),
    ]
    return view.table("perplexity", rows, notes)


def _differences(view: View) -> dict[str, dict[str, str]]:
    """A column for each arm that others stand against, with its texts by label."""
    columns: dict[str, dict[str, str]] = defaultdict(dict)
    for one in view.contrasts:
        reference = one.reference.label
        columns[f"difference to {reference}"] |= {reference: "reference", one.arm.label: difference_text(one)}
    return columns


def difference_text(contrast: Contrast) -> str:
    """The difference in nats per token with p-value and verdict; `–` if the arms cannot be compared."""
    if contrast.comparison is None:
        return NOTHING
    text, p = signed(contrast.comparison.difference), contrast.p_value
    if p is not None:
        text += f", p {'' if p < 0.001 else '= '}{p_text(p)}"
    text += f"; {contrast.verdict}"
    return f"{text} ({contrast.n_text})" if contrast.partial else text


def difference_notes(view: View) -> list[str]:
    """Notes on the column of differences, and on the seeds needed by the primary comparison."""
    if not view.contrasts:
        return []
    notes = [
        "difference: of the mean sweep loss (best), in nats per token, lower is better; p is of Welch's two-sided "
        "t-test, not adjusted. Intervals and tests: "
        f"{view.experiment.name}-differences."
    ]
    primary = next((one for one in view.contrasts if one.primary), None)
    if primary is not None and primary.p_value is not None and primary.seeds_line is not None:
        notes.append(f"For 80 % power (Welch, two-sided, 5 %): {primary.arm.label}, {primary.seeds_line}.")
    return notes


def _committed(view: View) -> dict[str, str]:
    """The values of the same experiment in another store, by label: in our mode, else in the other mode.

    An arm that was measured on another text than ours, or by other protocols, is left out.
    """
    assert view.committed is not None
    name, in_our_mode = view.experiment.name, view.committed.in_mode(view.experiment.mode)
    values: dict[str, str] = {}
    for experiment in filter(None, (in_our_mode.other(name), in_our_mode.experiment(name))):
        summaries = summaries_of(experiment)
        for cell in experiment.cells:
            summary = summaries.get((cell.label, "sweep", "best"))
            ours = view.experiment.cell(cell.label)
            if summary is not None and (ours is None or not ours.done or measured_alike(ours.done[0], cell.done[0])):
                mode = common(record.mode for record in cell.done)
                n_text = "exact" if cell.fitted else f"n = {cell.n_text}, {mode}"
                values[cell.label] = f"{plain_mean_sd(summary)} ({n_text})"
    return values
