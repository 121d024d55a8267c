"""Perplexity against the number of parameters, with published values."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.report.arms import config_of, model_of, principal, seeds_text, unfinished
from bench.report.figures.drawing import BARS, N_LOOKS, Drawn, drawn_of, legend, line_style, log_ticks, new_figure, note
from bench.report.published import Figure as PublishedFigure
from bench.report.published import Published
from bench.report.runs import CellResults, Results, sweep_nats
from bench.report.statistics import Summary, perplexity, summarise

# fields that make another model of the same architecture, whatever its size, and what an older record means by none
SHAPE_FREE = {"position": None, "bias": None, "norm": "layer", "mlp": "gelu"}
MODERN = {"position": "rotary", "norm": "rms", "mlp": "swiglu"}
LEAST_SPAN = 0.5  # of the axis, in natural logs: points set side by side must not line_style like other sizes
PUBLISHED_MARKERS = ("*", "p", "h", "d")
PUBLISHED = {"color": "black", "markerfacecolor": "white", "markersize": 9, "linestyle": "none"}


@dataclass(frozen=True, kw_only=True)
class _Point:
    """An arm: its parameters and its perplexity over seeds."""

    cell: CellResults
    n_params: int
    summary: Summary


def parameters(experiment: Results, published: Published) -> Iterator[Drawn]:
    """At most one figure; none where fewer than two models could be drawn."""
    points = [
        _Point(
            cell=cell,
            n_params=cell.done[0].cost.parameters.n_params,
            summary=summarise([perplexity(nats) for nats in sweep_nats(cell.done)]),
        )
        for cell in principal(experiment)
    ]
    others = _beside(experiment, published)
    if len(points) + len(others) < 2 or not points:
        return
    lines = _lines(points)
    few = seeds_text((point.summary.n for point in points), "bar: ± sample standard deviation")
    figure = _draw(lines, others)
    note(figure, few)
    yield drawn_of(
        experiment,
        "parameters",
        figure,
        title="perplexity against parameters",
        caption=(
            f"Best validation perplexity (sweep), {few}; against all parameters, tables of positions included; "
            "arms with equal numbers are drawn side by side. Of K-Operators only the full model.  "
            f"{_members(lines)}{_as_published(others)}{unfinished(point.cell for point in points)}"
        ),
        alt=f"Perplexity over the number of parameters for {', '.join(label for label, _ in lines)}.",
    )


def _beside(experiment: Results, published: Published) -> list[PublishedFigure]:
    """Published figures of arms that are here, where the experiment follows the published recipes; each once."""
    found = [
        figure
        for cell in principal(experiment)
        for figure in published.beside(experiment.name, cell.done[0].corpus.name, cell.label)
        if figure.n_params is not None
    ]
    return [figure for index, figure in enumerate(found) if figure not in found[:index]]


def _lines(points: Sequence[_Point]) -> list[tuple[str, list[_Point]]]:
    """A line an arm, or, where these are too many, a line through the sizes of each model."""
    if len(points) <= N_LOOKS:
        return [(point.cell.label, [point]) for point in points]
    kinds: dict[str, list[_Point]] = defaultdict(list)
    for point in points:
        kinds[_kind(point.cell)].append(point)
    return [(_kind_text(sized[0].cell), sorted(sized, key=lambda point: point.n_params)) for sized in kinds.values()]


def _kind(cell: CellResults) -> str:
    marks = {name: model_of(cell).get(name) or usual for name, usual in SHAPE_FREE.items()}
    return json.dumps([str(config_of(cell).get("architecture")), marks], sort_keys=True)


def _kind_text(cell: CellResults) -> str:
    architecture, position = str(config_of(cell).get("architecture")), model_of(cell).get("position")
    if architecture == "k_operators":
        return architecture
    if [model_of(cell).get(name) for name in MODERN] == list(MODERN.values()):
        return f"{architecture}, modern"
    words = [{"none": "no positions", "rotary": "rotary"}.get(str(position))]
    words += [{"rms": "RMSNorm"}.get(str(model_of(cell).get("norm")))]
    words += [{"swiglu": "SwiGLU", "gelu_tanh": "tanh GELU"}.get(str(model_of(cell).get("mlp")))]
    return ", ".join([architecture, *(word for word in words if word is not None)])


def _draw(lines: Sequence[tuple[str, list[_Point]]], others: Sequence[PublishedFigure]) -> Figure:
    n_rows = -(-(len(lines) + len(others)) // 2)
    figure = new_figure(3.0 + 0.17 * n_rows)
    axes = figure.subplots()
    ours = [[point.n_params for point in points] for _, points in lines]
    placed = _side_by_side([*ours, *([other.n_params or 1] for other in others)])
    looks: list[dict[str, Any]] = []
    for index, (_, points) in enumerate(lines):
        looks.append(line_style(index) | ({} if len(points) > 1 else {"linestyle": "none"}))
        means, spreads = [point.summary.mean for point in points], [point.summary.sd or 0.0 for point in points]
        axes.errorbar(next(placed), means, spreads, **BARS, **looks[-1])
    for index, other in enumerate(others):
        looks.append(PUBLISHED | {"marker": PUBLISHED_MARKERS[index % len(PUBLISHED_MARKERS)]})
        spread = None if other.perplexity_sd is None else [other.perplexity_sd]
        axes.errorbar(next(placed), [other.perplexity], spread, **BARS, **looks[-1])
    _finish(axes)
    legend(figure, looks, [label for label, _ in lines] + [_system(other) for other in others])
    return figure


def _side_by_side(lines: Sequence[Sequence[int]]) -> Iterator[list[float]]:
    """The x positions of each line's points; a point with the parameters of an earlier one is shifted right."""
    logs = [math.log(n_params) for line in lines for n_params in line]
    step = 0.02 * max(max(logs) - min(logs), LEAST_SPAN)
    taken: list[float] = []
    for line in lines:
        places = []
        for place in map(math.log, line):
            beside = sum(abs(place - other) < step for other in taken)
            places.append(math.exp(place + step * beside))
            taken.append(place)
        yield places


def _finish(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.1)
    low, high = axes.get_xlim()
    centre, reach = math.sqrt(low * high), math.sqrt(max(high / low, math.exp(LEAST_SPAN)))
    low, high = axes.set_xlim(centre / reach, centre * reach)
    log_ticks(axes.xaxis, (1, 2, 5) if high > 3 * low else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    axes.set_xlabel("parameters (log scale)")
    axes.set_ylabel("perplexity")


def _count(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _system(figure: PublishedFigure) -> str:
    """Short enough for a legend; the caption has it in full."""
    return f"{figure.system.split(',')[0]}, published"


def _members(lines: Sequence[tuple[str, list[_Point]]]) -> str:
    """The arms on a line of several sizes."""
    members = [
        f"{label}: {', '.join(f'{point.cell.label} ({point.n_params:,})' for point in points)}"
        for label, points in lines
        if len(points) > 1
    ]
    return f"Each line from its smallest arm: {'; '.join(members)}. " if members else ""


def _as_published(others: Sequence[PublishedFigure]) -> str:
    texts = [
        f"{one.system}, {one.perplexity}{'' if one.perplexity_sd is None else f' ± {one.perplexity_sd}'} "
        f"({one.protocol}, {one.selection}; {one.n_text}; {one.parameters_printed} parameters"
        f"{'' if one.counts_positions else ' without positions'})"
        for one in others
    ]
    return f"Hollow, as published: {'; '.join(texts)}." if texts else ""
