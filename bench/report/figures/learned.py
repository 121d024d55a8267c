"""What K-Operators learn: both paths' weights, the share of recurrence, half-lives, and the base kernels."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.errors import count
from bench.record import Record
from bench.report.arms import full_model
from bench.report.figures import drawing
from bench.report.figures.looks import INK, of_layers
from bench.report.published import Published
from bench.report.runs import CellResults, Results
from bench.report.series import Readings, gamma_quantile, n_layers, number, of_layer

NEAREST_TO_1 = 1e-6  # of 1 - gamma: float32 rounds what is closer
FEWEST_EVALUATIONS = 3  # below it there is no course to show
KERNELS = "kernel_by_distance"
N_COLUMNS = 3


def half_life(record: Record, layer: int) -> Readings:
    """Tokens after which the memory of the layer's median channel is halved, by step."""
    median = gamma_quantile(record, layer, 2)
    return {step: math.log(2) / -math.log(min(g, 1 - NEAREST_TO_1)) for step, g in median.items() if g > 0}


PANELS: tuple[tuple[str, str, Callable[[Record, int], Readings]], ...] = (  # title, what it is, how it is read
    ("gate of the base", "the learned weight of the base path", lambda one, layer: of_layer(one, "gate", layer)),
    ("alpha of recurrence", "the learned weight of the other", lambda one, layer: of_layer(one, "alpha", layer)),
    (
        "share of recurrence",
        "the L2 norm of what the recurrent path adds, over the sum of both paths' norms, at fixed validation windows",
        lambda one, layer: of_layer(one, "recurrent_share", layer),
    ),
    ("half-life (tokens)", "after so many tokens the memory of the median channel is halved", half_life),
)


def learned(experiment: Results, published: Published) -> Iterator[drawing.Drawn]:
    """A panel for each reading, with a thin line for each seed and layer of the full model."""
    full = _over_time(experiment)
    layers = range(0 if full is None else n_layers(full.done, "gate", "alpha", "recurrent_share", "gamma_quantiles"))
    panels = [
        (title, meaning, lines)
        for title, meaning, read in PANELS
        if full is not None
        and any(lines := [[readings for one in full.done if (readings := read(one, layer))] for layer in layers])
    ]
    if full is None or not panels:
        return
    figure, grid = drawing.figure_of(len(panels), 2, row=1.8, around=0.9)
    for axes, (title, _, lines) in zip(grid, panels, strict=True):
        for color, of_seeds in zip(of_layers(len(layers)), lines, strict=True):
            for readings in of_seeds:
                axes.plot(list(readings), list(readings.values()), color=color, linewidth=0.8, alpha=0.8)
        drawing.step_axis(axes, title)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=drawing.ROUND))
        if title.startswith("half-life"):
            axes.set_yscale("log")
            drawing.log_ticks(axes.yaxis)
    _legend_of_layers(figure, len(layers))
    drawing.note(figure, f"n = {count(len(full.done), 'seed')}, a line for each seed and layer")
    yield drawing.drawn_of(
        experiment,
        "learned",
        figure,
        [full],
        title="what K-Operators learn",
        caption=(
            f"Over the steps, n = {count(len(full.done), 'seed')}, a line for each seed and layer, coloured by layer. "
            + " ".join(f"{title.capitalize()}: {meaning}." for title, meaning, _ in panels)
        ),
        alt=f"Lines of {', '.join(title for title, _, _ in panels)} over training steps, by layer and seed.",
    )


def kernels(experiment: Results, published: Published) -> Iterator[drawing.Drawn]:
    """A panel for each base kernel of the full model: its mean by distance, at the first and the last evaluation."""
    full = _over_time(experiment)
    runs = [] if full is None else [ends for one in full.done if all(ends := _kernels(one))]
    if full is None or not runs:
        return
    n = max(len(last) for _, last in runs)
    figure, grid = drawing.figure_of(n, min(n, N_COLUMNS if n != 4 else 2), row=1.6, around=0.9)
    for layer, (axes, color) in enumerate(zip(grid, of_layers(n), strict=True)):
        looks: tuple[dict[str, Any], ...] = ({"color": INK, "linestyle": ":"}, {"color": color})
        for ends in runs:
            for rows, look in zip(ends, looks, strict=True):
                for by_distance in rows[layer : layer + 1]:
                    axes.plot(range(1, len(by_distance) + 1), by_distance, **look, linewidth=0.9)
        axes.set_title(f"layer {layer + 1}", loc="left")
        axes.set_xscale("log")
        drawing.log_ticks(axes.xaxis, (1,))
        axes.axhline(0, color=INK, linewidth=0.6)
    grid[0].set_ylabel("mean weight")
    grid[-1].set_xlabel("distance + 1 (tokens)")
    drawing.legend(
        figure, [{"color": INK, "linestyle": style} for style in (":", "-")], ["before training", "after it"]
    )
    drawing.note(figure, f"n = {count(len(runs), 'seed')}, a line for each")
    yield drawing.drawn_of(
        experiment,
        "kernels",
        figure,
        [full],
        title="the base kernels by distance",
        caption=(
            f"The mean of each layer's base kernel over the pairs of positions at a distance, at the "
            f"first evaluation (dotted) and at the last; n = {count(len(runs), 'seed')}, a line for each."
        ),
        alt=f"Mean weight of the base kernel against the distance for each of {n} layers, before and after training.",
    )


def _over_time(experiment: Results) -> CellResults | None:
    """The full model, where one of its runs was evaluated often enough."""
    full = full_model(experiment)
    return full if full and any(len(record.curve) >= FEWEST_EVALUATIONS for record in full.done) else None


def _kernels(record: Record) -> tuple[list[list[float]], list[list[float]]]:
    """The means of each base kernel by distance, at the first and the last evaluation; empty if not recorded."""
    steps = sorted(record.diagnostics.by_step)
    first, last = [record.diagnostics.by_step[at].get(KERNELS) for at in (steps[0], steps[-1])] if steps else ((), ())
    return _rows(first), _rows(last)


def _rows(kernels: object) -> list[list[float]]:
    rows = [list(map(number, row)) for row in kernels if isinstance(row, list)] if isinstance(kernels, list) else []
    return [[one for one in row if one is not None] for row in rows if row and None not in row]


def _legend_of_layers(figure: Figure, n: int) -> None:
    looks = [{"color": color} for color in of_layers(n)]
    drawing.legend(figure, looks, [f"layer {layer + 1}" for layer in range(n)], ncols=4)
