"""The table of published figures: each next to ours by the same protocol and selection."""

from collections.abc import Sequence

from bench.report.notes import corpus_of, protocol_legend, state_notes
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, Results, StoreResults
from bench.report.statistics import Summary
from bench.report.table import NOTHING, Table
from bench.report.tables.both_modes import merged_notes
from bench.report.tables.view import Summaries, figure_text, marked, mean_sd, mode_of, n_of, signed, summaries_of

COLUMNS = (
    "system",
    "protocol",
    "our arm",
    "parameters",
    "published",
    "its n",
    "ours",
    "our n",
    "ours minus published",
    "our mode",
)


def published_table(store: StoreResults, published: Published) -> Table:
    """Every published figure, also if we have no arm for it or the arm has not run."""
    experiment, other = store.experiment(published.experiment), store.other(published.experiment)
    modes = [(one, summaries_of(one)) for one in (experiment, other) if one is not None]
    rows = [
        _row(figure, label, one, summaries, published.corpus)
        for figure in published.figure
        for label in (figure.arms or (None,))
        for one, summaries in _with_runs(label, modes)
    ]
    return Table(
        experiment=published.experiment,
        kind="published",
        intro="Published values next to those of this suite.",
        columns=COLUMNS,
        n_left=3,
        rows=tuple(rows),
        notes=(
            "Validation perplexity. protocol: how the published figure was measured; ours was measured in the same "
            f"way, on the same text ({published.corpus}), in experiment {published.experiment}: mean ± sample "
            "standard deviation over n distinct seeds. ours minus published: of the means.",
            *(_remark(figure) for figure in published.figure),
            *_notes(experiment, other),
        ),
    )


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
) -> tuple[str, ...]:
    cell = None if label is None or experiment is None else experiment.cell(label)
    ours = summaries.get((label or "", figure.protocol, figure.selection))
    return (
        figure.system,
        f"{figure.protocol}, {figure.selection}",
        label or NOTHING,
        figure.parameters_printed or NOTHING,
        figure_text(figure),
        figure.n_text.removeprefix("n ").removeprefix("= "),
        *_ours(figure, experiment, cell, ours, corpus),
    )


def _ours(
    figure: Figure, experiment: Results | None, cell: CellResults | None, summary: Summary | None, corpus: str
) -> tuple[str, str, str, str]:
    """Our value, its n, the difference and the mode."""
    if not figure.arms:
        return "no arm of ours", NOTHING, NOTHING, NOTHING
    if experiment is None or cell is None:
        return "not run", NOTHING, NOTHING, NOTHING
    if corpus_of(experiment, cell) != corpus:
        return "on another text", NOTHING, NOTHING, NOTHING
    n, mode = n_of(experiment, cell), mode_of(cell)
    if summary is None:
        return cell.statuses, n, NOTHING, mode
    return mean_sd(cell, summary), n, marked(signed(summary.mean - figure.perplexity, 3), cell), mode


def _remark(figure: Figure) -> str:
    remark = "" if figure.remark is None else f"; {figure.remark}"
    return f"{figure.system}: {figure.source}{remark}."
