"""Forest plots: by how many nats each arm is worse or better than the one it is held against, with intervals."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from bench.report.arms import unfinished
from bench.report.contrasts import Contrast, Question, contrasts
from bench.report.figures.drawing import Drawn, drawn_of, line_style, new_figure, note, short
from bench.report.published import Published
from bench.report.runs import CellResults, Results
from bench.report.statistics import MARGIN_NATS, Comparison

LONGEST_LABEL = 24  # letters: it takes its room from the plot

Row = tuple[Contrast, Comparison]


def differences(experiment: Results, published: Published) -> list[Drawn]:
    """At most one figure: models against the reference or, without any, what `ablation` would show."""
    rows = model_rows(experiment)
    if not rows or experiment.reference is None:
        return variants_figure(experiment, "differences")
    return [_drawn(experiment, rows, experiment.reference, "differences", "models")]


def model_rows(experiment: Results) -> list[Row]:
    """The models that can be compared with the experiment's reference."""
    return _rows(experiment, ("primary", "baselines"))


def variants_figure(experiment: Results, kind: str) -> list[Drawn]:
    """The variants of K-Operators against the full model; at most one figure."""
    rows = _rows(experiment, ("ablation",))
    return [_drawn(experiment, rows, rows[0][0].reference, kind, "variants of K-Operators")] if rows else []


def _rows(experiment: Results, questions: Sequence[Question]) -> list[Row]:
    """The comparisons of these questions that were made."""
    return [
        (one, one.comparison)
        for one in contrasts(experiment)
        if one.question in questions and one.comparison is not None
    ]


def _drawn(experiment: Results, rows: Sequence[Row], reference: CellResults, kind: str, what: str) -> Drawn:
    arms = [contrast.arm for contrast, _ in rows]
    figure = new_figure(1.45 + 0.23 * len(rows))
    _draw(figure.subplots(), rows, reference.label)
    note(figure, f"bar: 95 % interval; shaded: within ±{MARGIN_NATS:g} nats")
    return drawn_of(
        experiment,
        kind,
        figure,
        title=f"{what} against {reference.label}",
        caption=(
            f"Best validation loss (sweep) less that of {reference.label}, in nats per token: right of the line is "
            f"worse. Bars: 95 % t intervals of Welch, not corrected for their number. "
            f"n: seeds of each arm. Shaded: the margin of ±{MARGIN_NATS:g} nats within which arms "
            f"count as equivalent.{unfinished([reference, *arms])}"
        ),
        alt=f"Differences in validation loss to {reference.label} with intervals for "
        f"{', '.join(arm.label for arm in arms)}.",
    )


def _draw(axes: Axes, rows: Sequence[Row], reference: str) -> None:
    heights = range(len(rows), 0, -1)  # the first on top
    axes.axvspan(-MARGIN_NATS, MARGIN_NATS, color="0.88", linewidth=0, zorder=0)
    axes.axvline(0, color="0.3", linewidth=1)
    color = line_style(0)["color"]
    for height, (_, comparison) in zip(heights, rows, strict=True):
        if comparison.interval is not None:
            axes.plot(comparison.interval, [height, height], color=color, marker="|", markersize=6)
        axes.plot([comparison.difference], [height], marker="o", markersize=5, linestyle="none", color=color)
    axes.set_yticks(list(heights), [short(contrast.arm.label, LONGEST_LABEL) for contrast, _ in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.grid(visible=False, axis="y")
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(list(heights), [_n(comparison) for _, comparison in rows], fontsize=8)
    counts.tick_params(length=0)
    counts.spines["right"].set_visible(False)
    axes.set_xlabel(f"difference to {short(reference, LONGEST_LABEL)}\nin nats per token (right: worse)")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.5 * MARGIN_NATS), max(high, 1.5 * MARGIN_NATS))


def _n(comparison: Comparison) -> str:
    one, other = comparison.n_a, comparison.n_b
    return f"n = {one}" if one == other else f"n = {one}, {other}"
