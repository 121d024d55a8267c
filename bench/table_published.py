"""The table of published figures: each with ours beside it, under the same protocol and selection, or without."""

from bench.aggregate import Aggregate, CellRuns, Experiment
from bench.legends import corpus_of, protocol_legend, state_notes
from bench.published import Figure, Published
from bench.render import NOTHING, Table
from bench.statistics import Summary
from bench.views import common, figure_text, marked, mean_sd, n_of, signed, summaries_of

COLUMNS = (
    "system",
    "protocol",
    "our arm",
    "parameters",
    "published",
    "its n",
    "ours",
    "our n",
    "ours less published",
    "our mode",
)


def published_table(store: Aggregate, published: Published) -> Table:
    """Every published figure, whether or not an arm of ours stands beside it and whether or not that has run."""
    experiment = store.experiment(published.experiment)
    summaries = {} if experiment is None else summaries_of(experiment)
    rows = [
        _row(figure, label, experiment, summaries, published.corpus)
        for figure in published.figure
        for label in (figure.arms or (None,))
    ]
    return Table(
        experiment=published.experiment,
        kind="published",
        intro="What others published, with what this suite measured beside it.",
        columns=COLUMNS,
        n_left=3,
        rows=tuple(rows),
        notes=(
            "Validation perplexity. protocol: how the published figure was measured; ours beside it was measured the "
            f"same way, on the same text ({published.corpus}), in experiment {published.experiment}: mean ± sample "
            "standard deviation over n distinct seeds. ours less published: of the means.",
            *(_remark(figure) for figure in published.figure),
            *([] if experiment is None else protocol_legend(experiment, "sweep")),
            *([] if experiment is None else protocol_legend(experiment, "sampled")),
            *([] if experiment is None else state_notes(experiment)),
        ),
    )


def _row(
    figure: Figure,
    label: str | None,
    experiment: Experiment | None,
    summaries: dict[tuple[str, str, str], Summary],
    corpus: str,
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
        *_ours(figure, label, experiment, cell, ours, corpus),
    )


def _ours(
    figure: Figure,
    label: str | None,
    experiment: Experiment | None,
    cell: CellRuns | None,
    summary: Summary | None,
    corpus: str,
) -> tuple[str, str, str, str]:
    """Our value, its n, the difference and the mode."""
    if label is None:
        return "no arm of ours", NOTHING, NOTHING, NOTHING
    if experiment is None or cell is None:
        return "not run", NOTHING, NOTHING, NOTHING
    if corpus_of(experiment, cell) != corpus:
        return "on another text", NOTHING, NOTHING, NOTHING
    n, mode = n_of(experiment, cell), common(record.mode for record in cell.records)
    if summary is None:
        return cell.fates, n, NOTHING, mode
    return mean_sd(cell, summary), n, marked(signed(summary.mean - figure.perplexity, 3), cell), mode


def _remark(figure: Figure) -> str:
    remark = "" if figure.remark is None else f"; {figure.remark}"
    return f"{figure.system}: {figure.source}{remark}."
