"""Training curves: the validation perplexity of the first arm of each family over the steps, and what was published."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from bench.report import arms
from bench.report.families import headline
from bench.report.figures import drawing
from bench.report.figures.looks import HOLLOW, of_family
from bench.report.notes import number
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, Results
from bench.report.series import Series, over_seeds, validation_nats
from bench.report.statistics import perplexity

NEAR = 1.4  # upper end of the axis, relative to the lowest perplexity: what is above it is the start of training


@dataclass(frozen=True, kw_only=True)
class _Curve:
    family: str
    cell: CellResults
    series: Series

    @property
    def look(self) -> dict[str, Any]:
        return of_family(self.family) | {"linestyle": "-"}

    @property
    def best(self) -> tuple[int, float]:
        """The step of the lowest mean, and that mean."""
        lowest = min(self.series.middle)
        return self.series.steps[self.series.middle.index(lowest)], lowest


def curves(experiment: Results, published: Published) -> list[drawing.Drawn]:
    """At most one figure; none for fewer than two families."""
    found = [(family, cell, _series(cell)) for family, cell in headline(experiment).items()]
    lines = [_Curve(family=family, cell=cell, series=series) for family, cell, series in found if series is not None]
    if len(lines) < 2:
        return []
    beside = {
        line.family: published.beside(experiment.name, line.cell.done[0].corpus.name, line.cell.label) for line in lines
    }
    few = arms.seeds_text((line.series.n for line in lines), "band: minimum to maximum")
    figure = drawing.new_figure(3.3 + 0.17 * -(-len(lines) // 2))
    cut = _draw(figure.subplots(), lines, beside)
    drawing.legend(figure, [line.look for line in lines], [line.family for line in lines])
    drawing.note(figure, f"{few}; hollow: the best step" + ("\ndotted: as published" if any(beside.values()) else ""))
    return [
        drawing.drawn_of(
            experiment,
            "curves",
            figure,
            [line.cell for line in lines],
            title="validation perplexity while training",
            caption=(
                f"Sweep perplexity of the validation text at each evaluation. Lines: {few}. Hollow: the step where "
                f"the mean is lowest ({'; '.join(_best_text(line) for line in lines)}); lines that then rise overfit."
                + (f" Above {cut:.3g}, where training starts, nothing is drawn." if cut else "")
                + _as_published([one for figures in beside.values() for one in figures])
            ),
            alt=f"Curves of validation perplexity over training steps for {', '.join(line.family for line in lines)}.",
        )
    ]


def _series(cell: CellResults) -> Series | None:
    """None where there is no curve: a single evaluation is a point, and infinite ones have no place."""
    series = over_seeds(
        {step: perplexity(nats) for step, nats in validation_nats(record).items()} for record in cell.done
    )
    return series if series is not None and len(series.steps) > 1 and math.isfinite(min(series.middle)) else None


def _draw(axes: Axes, lines: Sequence[_Curve], beside: dict[str, list[Figure]]) -> float | None:
    """Draws all; the perplexity above which values are left out, if there are any."""
    for line in lines:
        drawing.draw_series(axes, line.series, line.look | {"marker": ""})
        axes.plot(*([one] for one in line.best), **line.look | HOLLOW | {"markersize": 8, "linestyle": "none"})
    drawing.step_axis(axes, "")
    axes.set_ylabel("perplexity (log scale)")
    axes.set_yscale("log")
    drawing.log_ticks(axes.yaxis, (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.25, 4.5, 4.75, 5, 5.5, 6, 7, 8, 9))
    _draw_published(axes, [(figure, line.look["color"]) for line in lines for figure in beside[line.family]])
    lowest = min(line.best[1] for line in lines)
    least = min([lowest, *(figure.perplexity for figures in beside.values() for figure in figures)])
    ends = [high for line in lines if math.isfinite(high := line.series.high[-1])]  # where overfitting shows
    most = max(high for line in lines for high in line.series.high)
    top = min(most, max([NEAR * lowest, *(1.03 * end for end in ends)]))
    axes.set_ylim(least / 1.025, top * 1.01)
    return top if top < most else None


def _draw_published(axes: Axes, figures: Sequence[tuple[Figure, str]]) -> None:
    """A dotted line for each, with its words on the right, where the lines that overfit are higher."""
    in_order = sorted(figures, key=lambda one: one[0].perplexity)
    for i, (figure, color) in enumerate(in_order):
        axes.axhline(figure.perplexity, color=color, linestyle=":", linewidth=1.2)
        text = f"published {figure.perplexity:g} ({figure.protocol})"
        side = "top" if i == 0 and len(in_order) > 1 else "bottom"
        place: dict[str, Any] = {"va": side, "ha": "right", "transform": axes.get_yaxis_transform()}
        axes.text(1, figure.perplexity, text, color=color, fontsize=8, **place)


def _best_text(line: _Curve) -> str:
    return f"{line.family} {number(line.best[1])} at {line.best[0]:,}"


def _as_published(figures: Sequence[Figure]) -> str:
    texts = [f"{one.system} {one.perplexity} ({one.protocol}, {one.selection}; {one.n_text})" for one in figures]
    return f" Dotted, in the colour of the arm: as published, {'; '.join(texts)}." if texts else ""
