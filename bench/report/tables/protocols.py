"""The table of protocols: the perplexities of the same runs by the two other protocols."""

from bench.report.notes import MEAN_OF_EXP, protocol_legend, state_notes
from bench.report.table import Table
from bench.report.tables.view import View, mean_sd, published_perplexity


def protocols_table(view: View) -> Table | None:
    """One row per arm; None for a search or folds, or if no run is done."""
    experiment = view.experiment
    if experiment.trials or experiment.folds or not experiment.done:
        return None
    keys = [(protocol, selection) for protocol in ("sampled", "strided") for selection in ("best", "final")]
    rows = []
    for cell in view.cells:
        means = {", ".join(key): mean_sd(cell, view.summaries.get((cell.label, *key))) for key in keys}
        beside = [figure for figure in view.published_beside[cell.label] if figure.protocol != "sweep"]
        rows.append(view.arm(cell) | means | {"published": published_perplexity(beside)})
    notes = [
        "Validation perplexity of the same runs by two other protocols, mean ± sample standard deviation over n "
        "distinct seeds. best: with the weights of the lowest sweep loss; final: after the last step.",
        MEAN_OF_EXP,
        *protocol_legend(experiment, "sampled"),
        *protocol_legend(experiment, "strided"),
        *state_notes(experiment),
    ]
    return view.table("protocols", rows, notes)
