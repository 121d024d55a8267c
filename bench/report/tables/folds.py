"""The table of folds: the loss of each arm over the ten folds of a text, and its difference to the reference arm."""

import math
from collections.abc import Sequence

from bench.corpora import N_FOLDS
from bench.report.notes import state_notes
from bench.report.runs import CellResults, of_expected, sweep_nats
from bench.report.statistics import mean, paired_t, sample_sd
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, n_of, p_text, partial, signed, signed_interval

OVERLAP = math.sqrt(1 + N_FOLDS / (N_FOLDS - 1))  # Nadeau and Bengio: variance 1/n + test/train in place of 1/n
Losses = dict[str, float]  # of one arm, by fold


def folds_table(view: View) -> Table | None:
    """One row per arm; None if the cells are not of several folds."""
    folds = view.experiment.folds
    if not folds:
        return None
    reference = view.experiment.manifest.reference
    theirs = _losses(folds.get(reference or "", ()))
    rows = [
        [arm, *_summary(view, arm, cells), *_difference(_losses(cells), {} if arm == reference else theirs, len(cells))]
        for arm, cells in folds.items()
    ]
    columns = ["arm", "folds done", "loss", f"difference to {reference}", "95 % interval", "p"]
    return view.table("folds", [dict(zip(columns, row, strict=True)) for row in rows], _notes(view))


def _notes(view: View) -> list[str]:
    return [
        f"The text in {N_FOLDS} tenths, cut at blank lines: each arm trains on nine, as separate texts on either side "
        "of the tenth that is held out, and is scored on that one. loss: sweep (best), in nats per token, mean ± "
        f"sample standard deviation (n - 1) over the folds. Of several seeds of a fold their mean "
        "counts; each fold is in the table of perplexities.",
        "The recipe of each arm was tuned on the last tenth, not anew on each fold: fold 9 is the text that chose it.",
        "difference: paired by fold; interval and two-sided p of Student's t over the differences. Ten folds are ten "
        "texts, but any two training texts share eight ninths, so the differences are not independent and the interval "
        f"is too narrow: by the correction of Nadeau and Bengio (2003) it would be {OVERLAP:.2f} times as wide for "
        f"{N_FOLDS} folds.",
        "best: the step is chosen on the tenth that is scored, as in the other tables, so optimistic.",
        *state_notes(view.experiment),
    ]


def _summary(view: View, arm: str, cells: Sequence[CellResults]) -> list[str]:
    """The number of folds done and the mean loss over them."""
    values = list(_losses(cells).values())
    all_runs = CellResults(
        label=arm,
        expected=tuple(cell.label for cell in cells),
        records=tuple(record for cell in cells for record in cell.records),
        missing=tuple(cell.label for cell in cells if not cell.records),
    )
    marks = n_of(view.experiment, all_runs).removeprefix(all_runs.n_text)
    done = of_expected(len(values), len(cells)) + marks
    if not values:
        return [done, all_runs.statuses]
    sd = sample_sd(values)
    text = f"{mean(values):.4f}" + ("" if sd is None else f" ± {sd:.4f}")
    return [done, partial(text, len(values), len(cells))]


def _losses(cells: Sequence[CellResults]) -> Losses:
    """The sweep loss by fold, of each fold with a done run; the mean over seeds if there are several."""
    return {cell.done[0].corpus.name: mean(sweep_nats(cell.done)) for cell in cells if cell.done}


def _difference(ours: Losses, theirs: Losses, n_expected: int) -> list[str]:
    """Difference, interval and p over the folds that both arms have done."""
    common = [fold for fold in ours if fold in theirs]
    if not common:
        return [NOTHING] * 3
    found = paired_t([ours[fold] for fold in common], [theirs[fold] for fold in common])
    texts = signed(found.difference), signed_interval(found.interval), p_text(found.p_value)
    return [partial(text, len(common), n_expected) for text in texts]
