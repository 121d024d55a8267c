"""Forest plots: by how many nats each arm is worse or better than the one it is held against, with intervals."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from bench.report.arms import config_of
from bench.report.contrasts import Contrast, Question, contrasts
from bench.report.families import arm_names, family_of
from bench.report.figures.drawing import Drawn, drawn_of, new_figure, note, short
from bench.report.figures.looks import INK, of_family
from bench.report.published import Published
from bench.report.runs import Results
from bench.report.statistics import MARGIN_NATS, Comparison

LONGEST_LABEL = 26  # letters: it takes its room from the plot
FEWEST = 2  # of rows: one difference is a sentence

Row = tuple[Contrast, Comparison]


def differences(experiment: Results, published: Published) -> list[Drawn]:
    """At most one figure: models against the reference of the experiment."""
    return _forest(experiment, ("primary", "baselines"), "differences", "models")


def ablation(experiment: Results, published: Published) -> list[Drawn]:
    """At most one figure: variants of K-Operators against the full model."""
    return _forest(experiment, ("ablation",), "ablation", "variants of K-Operators")


def _rows(experiment: Results, questions: Sequence[Question]) -> list[Row]:
    """The comparisons of these questions that were made."""
    return [
        (one, one.comparison)
        for one in contrasts(experiment)
        if one.question in questions and one.comparison is not None
    ]


def _forest(experiment: Results, questions: Sequence[Question], kind: str, what: str) -> list[Drawn]:
    rows = sorted(_rows(experiment, questions), key=lambda row: row[1].difference)
    if len(rows) < FEWEST:
        return []
    reference, arms = rows[0][0].reference, [contrast.arm for contrast, _ in rows]
    names = arm_names(experiment)
    figure = new_figure(1.45 + 0.23 * len(rows))
    _draw(figure.subplots(), rows, names)
    note(figure, f"bar: 95 % interval; shaded: within ±{MARGIN_NATS:g} nats")
    return [
        drawn_of(
            experiment,
            kind,
            figure,
            [reference, *arms],
            title=f"{what} against {names[reference.label]}",
            caption=(
                f"Best validation loss (sweep) less that of {names[reference.label]}, in nats per token: right of the "
                f"line is worse. Bars: 95 % t intervals of Welch, not corrected for their number. "
                f"n: seeds of each arm. Shaded: the margin of ±{MARGIN_NATS:g} nats within which arms "
                "count as equivalent."
            ),
            alt=f"Differences in validation loss to {names[reference.label]} with intervals for "
            f"{', '.join(names[arm.label] for arm in arms)}.",
        )
    ]


def _draw(axes: Axes, rows: Sequence[Row], names: dict[str, str]) -> None:
    heights = range(len(rows), 0, -1)  # the best on top
    axes.axvspan(-MARGIN_NATS, MARGIN_NATS, color=INK, alpha=0.18, linewidth=0, zorder=0)
    axes.axvline(0, color=INK, linewidth=1)
    for height, (contrast, comparison) in zip(heights, rows, strict=True):
        look = of_family(family_of(config_of(contrast.arm))) | {"linestyle": "-"}
        if comparison.interval is not None:
            axes.plot(comparison.interval, [height, height], **look | {"marker": "|", "markersize": 6})
        axes.plot([comparison.difference], [height], **look | {"linestyle": "none", "markersize": 5})
    axes.set_yticks(list(heights), [short(names[contrast.arm.label], LONGEST_LABEL) for contrast, _ in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    axes.grid(visible=False, axis="y")
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(list(heights), [_n(comparison) for _, comparison in rows], fontsize=8)
    counts.tick_params(length=0)
    counts.spines["right"].set_visible(False)
    reference = names[rows[0][0].reference.label]
    axes.set_xlabel(f"difference to {short(reference, LONGEST_LABEL)}\nin nats per token (right: worse)")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.5 * MARGIN_NATS), max(high, 1.5 * MARGIN_NATS))


def _n(comparison: Comparison) -> str:
    one, other = comparison.n_a, comparison.n_b
    return f"n = {one}" if one == other else f"n = {one}, {other}"
