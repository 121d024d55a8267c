"""The table of protocols: the perplexities of the same runs by the two other protocols."""

from bench.report.notes import protocol_legend, state_notes
from bench.report.table import Table
from bench.report.tables.view import View, arm_label, mean_sd, n_of, published_perplexity


def protocols_table(view: View) -> Table | None:
    """One row per arm; None for a search, or if no run is done."""
    experiment = view.experiment
    if experiment.trials or not experiment.done:
        return None
    keys = [(protocol, selection) for protocol in ("sampled", "strided") for selection in ("best", "final")]
    rows = [
        (
            arm_label(experiment, cell),
            n_of(experiment, cell),
            *(mean_sd(cell, view.summaries.get((cell.label, *key))) for key in keys),
            published_perplexity([each for each in view.published_beside[cell.label] if each.protocol != "sweep"]),
        )
        for cell in experiment.cells
    ]
    columns = ["arm", "n", *(f"{protocol}, {selection}" for protocol, selection in keys), "published"]
    notes = [
        "Validation perplexity of the same runs by two other protocols, mean ± sample standard deviation over n "
        "distinct seeds. best: with the weights of the lowest sweep loss; final: after the last step.",
        *protocol_legend(experiment, "sampled"),
        *protocol_legend(experiment, "strided"),
        *state_notes(experiment),
    ]
    return view.table("protocols", columns, 1, rows, notes)
