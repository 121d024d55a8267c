"""The table of results: the models of an experiment in plain names, the best first, and nothing of other questions."""

from collections import Counter

from bench.report.arms import learning_rate, principal
from bench.report.contrasts import Contrast
from bench.report.families import arm_name
from bench.report.notes import MEAN_OF_EXP, state_notes
from bench.report.runs import CellResults, sweep_nats
from bench.report.statistics import perplexity, summarise
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, View, mean_sd, mode_of, n_of, signed, signed_interval


def results_table(view: View) -> Table | None:
    """One row per model with a done run, sorted by perplexity; None for an experiment without a reference model."""
    models = principal(view.experiment)
    if view.experiment.reference not in models or len(models) < 2:
        return None
    counted = [cell for cell in view.experiment.cells if cell.fitted and cell.done]
    ranked = sorted((*models, *counted), key=lambda cell: (mean_perplexity(cell), cell.label))
    names = names_of(ranked)
    by_arm = {one.arm.label: one for one in view.contrasts}
    rows = [_row(view, cell, names[cell.label], by_arm.get(cell.label)) for cell in ranked]
    reference = view.experiment.reference
    assert reference is not None
    notes = [
        "perplexity: on the validation text at the best evaluation (sweep), mean ± sample standard deviation (n - 1) "
        "over n seeds; lower is better.",
        MEAN_OF_EXP,
        f"difference: of the mean loss to {names[reference.label]}, in nats per token, with Welch's 95 % interval, not "
        f"adjusted for the number of comparisons; all tests: {view.experiment.name}-differences.",
        *state_notes(view.experiment),
    ]
    return view.table("results", rows, notes)


def names_of(cells: list[CellResults]) -> dict[str, str]:
    """The plain name of each arm by its label; with the label where two arms would have one name."""
    names = {cell.label: arm_name(cell) for cell in cells}
    counts = Counter(names.values())
    return {label: name if counts[name] == 1 else f"{name} ({label})" for label, name in names.items()}


def mean_perplexity(cell: CellResults) -> float:
    """The mean over the done runs of an arm, of their best sweep."""
    return summarise([perplexity(nats) for nats in sweep_nats(cell.done)]).mean


def _row(view: View, cell: CellResults, name: str, contrast: Contrast | None) -> dict[str, str]:
    difference = "reference" if cell is view.experiment.reference else NOTHING
    between = NOTHING
    if contrast is not None and contrast.comparison is not None:
        partial = f" ({cell.n_text})" if contrast.partial else ""
        difference = signed(contrast.comparison.difference) + partial
        if contrast.comparison.interval is not None:
            between = signed_interval(contrast.comparison.interval) + partial
    rate = learning_rate(cell)
    return {
        "model": name,
        "perplexity": mean_sd(cell, view.summaries[cell.label, "sweep", "best"]),
        MODE: mode_of(cell),
        "n": n_of(view.experiment, cell),
        "difference": difference,
        "95 % interval": between,
        "parameters": view.count(cell, "n_params"),
        "learning rate": NOTHING if rate is None else f"{rate:g}",
        "arm": cell.label,
    }
