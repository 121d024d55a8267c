"""The table of published figures: each next to ours by the same protocol and selection."""

from collections.abc import Sequence

from bench.report.notes import MEAN_OF_EXP, corpus_of, protocol_legend, state_notes
from bench.report.published import Figure, Published
from bench.report.runs import Results, StoreResults
from bench.report.table import NOTHING, Table
from bench.report.tables.both_modes import merged_notes
from bench.report.tables.view import Summaries, figure_text, marked, mean_sd, mode_of, n_of, signed, summaries_of


def published_table(store: StoreResults, published: Published) -> Table | None:
    """Every published figure, also if we have no arm for it or the arm has not run."""
    experiment, other = store.experiment(published.experiment), store.other(published.experiment)
    modes = [(one, summaries_of(one)) for one in (experiment, other) if one is not None]
    rows = [
        _row(figure, label, one, summaries, published.corpus)
        for figure in published.figure
        for label in (figure.arms or (None,))
        for one, summaries in _with_runs(label, modes)
    ]
    notes = [
        "Validation perplexity. protocol: how the published figure was measured; ours was measured in the same "
        f"way, on the same text ({published.corpus}), in experiment {published.experiment}: mean ± sample "
        "standard deviation over n distinct seeds. ours minus published: of the means.",
        MEAN_OF_EXP,
        *(_remark(figure) for figure in published.figure),
        *_notes(experiment, other),
    ]
    intro = "Published values next to those of this suite."
    return Table.of(published.experiment, "published", intro, rows, notes)


def _notes(experiment: Results | None, other: Results | None) -> list[str]:
    """Notes on protocols and missing runs in each mode that has runs."""
    if experiment is None:
        return []
    both = [
        [*protocol_legend(one, "sweep"), *protocol_legend(one, "sampled"), *state_notes(one)]
        for one in (experiment, other)
        if one is not None
    ]
    return both[0] if other is None else merged_notes(both, (experiment, other))


def _with_runs(label: str | None, modes: Sequence[tuple[Results, Summaries]]) -> list[tuple[Results | None, Summaries]]:
    """The modes in which our arm has a record; only the first if it has none or is a counted model."""
    cells = [None if label is None else one.cell(label) for one, _ in modes]
    found = [mode for mode, cell in zip(modes, cells, strict=True) if cell is not None and cell.records]
    if any(cell is not None and cell.fitted for cell in cells):
        found = found[:1]
    return [*found] or [*modes[:1]] or [(None, {})]


def _row(
    figure: Figure, label: str | None, experiment: Results | None, summaries: Summaries, corpus: str
) -> dict[str, str]:
    """A published figure and ours: the value, its n, the difference and the mode, or why there is none."""
    cell = None if label is None or experiment is None else experiment.cell(label)
    ours = summaries.get((label or "", figure.protocol, figure.selection))
    row = {
        "system": figure.system,
        "protocol": f"{figure.protocol}, {figure.selection}",
        "our arm": label or NOTHING,
        "parameters": figure.parameters_printed or NOTHING,
        "published": figure_text(figure),
        "its n": figure.n_text.removeprefix("n ").removeprefix("= "),
        "ours": "not run" if figure.arms else "no arm of ours",
        **dict.fromkeys(("our n", "ours minus published", "our mode"), NOTHING),
    }
    if experiment is None or cell is None:
        return row
    if corpus_of(experiment, cell) != corpus:
        return row | {"ours": "on another text"}
    return row | {
        "ours": cell.statuses if ours is None else mean_sd(cell, ours),
        "our n": n_of(experiment, cell),
        "ours minus published": NOTHING if ours is None else marked(signed(ours.mean - figure.perplexity, 3), cell),
        "our mode": mode_of(cell),
    }


def _remark(figure: Figure) -> str:
    remark = "" if figure.remark is None else f"; {figure.remark}"
    return f"{figure.system}: {figure.source}{remark}."
