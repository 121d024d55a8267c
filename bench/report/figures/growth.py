"""The growth figure, from what `make bench` measured: what a longer context costs in time and memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes

from bench.report.figures.drawing import (
    Drawn,
    context_axis,
    figure_of,
    finished,
    legend,
    log_ticks,
    note,
    our_style,
    plain,
)
from bench.report.figures.looks import HOLLOW, INK, line_style
from bench.report.notes import machine_text
from bench.store import Measurements, NotRun, Timed

ALONE = "recurrence alone"
BACKENDS = ("chunked", "mask", "block", "recurrent", "fla")


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One model with one backend, by context."""

    label: str
    line_style: dict[str, Any]
    timed: tuple[Timed, ...]
    not_run: tuple[NotRun, ...]


@our_style()
def growth_figure(measured: Measurements) -> Drawn:
    """Time on the left, memory on the right, a line for each model and backend of the growth phase."""
    lines = _lines(measured)
    figure, (time, memory) = figure_of(2, 2, row=2.9, around=0.9, width=7.2)
    for line in lines:
        _draw_time(time, line)
        _draw_memory(memory, line)
    points = [point for line in lines for point in (*(one.facts for one in line.timed), *line.not_run)]
    contexts = sorted({point.context for point in points})
    _finish(time, "time", "µs per token", contexts)
    _finish(memory, "peak memory", "MiB", contexts)
    looks, labels = [line.line_style for line in lines], [line.label for line in lines]
    if any(line.not_run for line in lines):
        looks.append({"color": INK, "marker": "o", "linestyle": "none", **HOLLOW})
        labels.append("does not fit: predicted")
    legend(figure, looks, labels, ncols=3)
    caption = _caption(measured, lines)
    note(figure, caption)
    return finished(
        figure,
        name=f"growth-{measured.slug}",
        title="What a token costs as the context grows",
        caption=caption,
        alt="Time per token and peak memory against the context, a line for each form of the recurrence.",
    )


def _lines(measured: Measurements) -> list[_Line]:
    """In the order of their looks."""
    timed = [one for one in measured.timed if one.facts.phase == "growth"]
    not_run = [point for point in measured.not_run if point.phase == "growth"]
    found = {(point.model, point.backend) for point in (*not_run, *(one.facts for one in timed))}
    fixed = [(ALONE, backend) for backend in BACKENDS]  # so that they line_style alike on every device
    keys = fixed + sorted(found - set(fixed))
    return [
        _Line(
            label=plain(", ".join(filter(None, key))),
            line_style=line_style(index),
            timed=tuple(one for one in timed if (one.facts.model, one.facts.backend) == key),
            not_run=tuple(point for point in not_run if (point.model, point.backend) == key),
        )
        for index, key in enumerate(keys)
        if key in found
    ]


def _draw_time(axes: Axes, line: _Line) -> None:
    """Medians, with bars from the fastest round to the slowest."""
    contexts = [one.facts.context for one in line.timed]
    least, medians, most = (
        [1e6 * getattr(one.stats, which) / one.facts.n_tokens for one in line.timed]
        for which in ("min", "median", "max")
    )
    axes.plot(contexts, medians, **line.line_style)
    axes.vlines(contexts, least, most, colors=line.line_style["color"], linewidth=0.9)
    for ends in (least, most):
        axes.plot(contexts, ends, color=line.line_style["color"], marker="_", linestyle="none", markeredgewidth=0.9)


def _draw_memory(axes: Axes, line: _Line) -> None:
    """The measured memory; hollow: predictions for points that were not run."""
    known = [(one.facts.context, one.facts.peak_bytes) for one in line.timed if one.facts.peak_bytes]  # log of 0: none
    axes.plot([context for context, _ in known], [taken / 2**20 for _, taken in known], **line.line_style)
    axes.plot(
        [point.context for point in line.not_run],
        [point.predicted_bytes / 2**20 for point in line.not_run],
        **line.line_style | HOLLOW | {"linestyle": "none"},
    )


def _finish(axes: Axes, title: str, unit: str, contexts: Sequence[int]) -> None:
    """Titles and units; plain numbers at 1, 2 and 5 of each decade, and one of these at either end of the axis."""
    context_axis(axes, title, contexts)
    axes.set_xlim(contexts[0] / 2**0.3, contexts[-1] * 2**0.3)
    axes.set_xlabel("context T (tokens)")
    axes.set_ylabel(unit)
    axes.set_yscale("log")
    low, high = (bound if math.isfinite(bound) else 1.0 for bound in axes.dataLim.intervaly)  # infinite: no data
    axes.set_ylim(_rounded(low / 1.1, up=False), _rounded(high * 1.1, up=True))
    log_ticks(axes.yaxis)


def _rounded(value: float, *, up: bool) -> float:
    """The next 1, 2 or 5 of a decade that is not below `value`, or not above it."""
    decade = 10.0 ** math.floor(math.log10(value))
    if up:
        return min(step * decade for step in (1, 2, 5, 10) if step == 10 or step * decade >= value)
    return max(step * decade for step in (1, 2, 5) if step == 1 or step * decade <= value)


def _caption(measured: Measurements, lines: Sequence[_Line]) -> str:
    timed = [one for line in lines for one in line.timed]
    n_tokens = _range({one.facts.n_tokens for one in timed})
    n_rounds = _range({one.stats.rounds for one in timed})
    precisions = ", ".join(sorted({plain(one.facts.dtype) for one in timed}))
    return (
        f"Forward and backward pass of {n_tokens} tokens in {precisions}; median of n = {n_rounds} rounds, bars from "
        f"minimum to maximum.\n{plain(machine_text(replace(measured, timed=tuple(timed))))}"
    )


def _range(numbers: set[int]) -> str:
    """`3`, or `2 to 5`."""
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)}))
