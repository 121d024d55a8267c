"""Figures from what `make bench` measured: the same bytes from the same numbers, and readable without colour."""

import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from bench.render import clean
from bench.throughput import Measurements, NotRun, Point, Timed, machine_text

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the letters as drawn, also where the font is missing
    "svg.hashsalt": "k-operators-bench",  # without it the ids of the elements are random
    "text.parse_math": False,  # a $ in a name is a $
}
PNG_DPI = 160
ALONE = "recurrence alone"
LOOKS = (  # of colour, marker and dashes: first for ALONE with each of BACKENDS, then for whatever else was measured
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", "--"),
    ("#009e73", "^", "-."),
    ("#8c5a99", "D", ":"),
    ("#9a6b00", "v", (0, (6, 1.5, 1, 1.5, 1, 1.5))),
    ("#000000", "X", (0, (8, 2))),
    ("#56727f", "P", (0, (3, 1))),
)
BACKENDS = ("chunked", "mask", "block", "recurrent", "fla")


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One model with one backend, by context."""

    label: str
    look: dict[str, Any]
    timed: tuple[Timed, ...]
    not_run: tuple[NotRun, ...]

    @property
    def points(self) -> list[Point]:
        """Run or not."""
        return [*(one.facts for one in self.timed), *self.not_run]


def growth_figure(measured: Measurements) -> dict[str, bytes]:
    """What a token costs in time and what a batch costs in memory against the context: the files "svg" and "png"."""
    with matplotlib.style.context("default"), mpl.rc_context(STYLE):  # whatever the user's own settings
        figure = draw_growth(measured)
        # neither a date nor the version of matplotlib
        svg = _bytes(figure, "svg", metadata={"Date": None, "Creator": None})
        # run lengths alone: what a search for longer repeats finds may differ from one build of zlib to the next
        run_lengths = {"compress_type": zlib.Z_RLE}
        png = _bytes(figure, "png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs=run_lengths)
    return {"svg": svg, "png": png}


def _bytes(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def draw_growth(measured: Measurements) -> Figure:
    """Time on the left, memory on the right, a line for each model and backend of the growth phase."""
    lines = _lines(measured)
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for line in lines:
        _draw_time(time, line)
        _draw_memory(memory, line)
    contexts = sorted({point.context for line in lines for point in line.points})
    _finish(time, "time", "µs per token", contexts)
    _finish(memory, "peak memory", "MiB", contexts)
    samples = [Line2D([], [], **line.look) for line in lines]
    labels = [line.label for line in lines]
    if any(line.not_run for line in lines):
        samples.append(Line2D([], [], color="0.3", marker="o", markerfacecolor="white", linestyle="none"))
        labels.append("does not fit: predicted")
    figure.legend(samples, labels, loc="outside upper center", ncols=3, handlelength=4.5)
    figure.supxlabel(_caption(measured, lines), fontsize=7, color="0.3")
    return figure


def _lines(measured: Measurements) -> list[_Line]:
    """In the order of their looks."""
    timed = [one for one in measured.timed if one.facts.phase == "growth"]
    not_run = [point for point in measured.not_run if point.phase == "growth"]
    found = {(point.model, point.backend) for point in (*not_run, *(one.facts for one in timed))}
    fixed = [(ALONE, backend) for backend in BACKENDS]  # so that they look alike on every device
    keys = fixed + sorted(found - set(fixed))
    return [
        _Line(
            label=_plain(", ".join(filter(None, key))),
            look=_look(index),
            timed=tuple(one for one in timed if (one.facts.model, one.facts.backend) == key),
            not_run=tuple(point for point in not_run if (point.model, point.backend) == key),
        )
        for index, key in enumerate(keys)
        if key in found
    ]


def _look(index: int) -> dict[str, Any]:
    color, marker, dashes = LOOKS[index % len(LOOKS)]
    return {"color": color, "marker": marker, "linestyle": dashes}


def _draw_time(axes: Axes, line: _Line) -> None:
    """Medians, with bars from the least round to the most."""
    contexts = [one.facts.context for one in line.timed]
    least, medians, most = (
        [1e6 * getattr(one.stats, which) / one.facts.n_tokens for one in line.timed]
        for which in ("min", "median", "max")
    )
    axes.plot(contexts, medians, **line.look)
    axes.vlines(contexts, least, most, colors=line.look["color"], linewidth=0.9)
    for ends in (least, most):
        axes.plot(contexts, ends, color=line.look["color"], marker="_", linestyle="none", markeredgewidth=0.9)


def _draw_memory(axes: Axes, line: _Line) -> None:
    """What was taken; hollow, what was predicted for points that were not run."""
    known = [(one.facts.context, one.facts.peak_bytes) for one in line.timed if one.facts.peak_bytes]  # log of 0: none
    axes.plot([context for context, _ in known], [taken / 2**20 for _, taken in known], **line.look)
    axes.plot(
        [point.context for point in line.not_run],
        [point.predicted_bytes / 2**20 for point in line.not_run],
        **line.look | {"linestyle": "none", "markerfacecolor": "white"},
    )


def _finish(axes: Axes, title: str, unit: str, contexts: Sequence[int]) -> None:
    """Titles and units; plain numbers at 1, 2 and 5 of each decade, and one of these at either end of the axis."""
    axes.set_title(title, loc="left")
    axes.set_xlabel("context T (tokens)")
    axes.set_ylabel(unit)
    axes.set_xscale("log", base=2)
    axes.set_xlim(contexts[0] / 2**0.3, contexts[-1] * 2**0.3)
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.set_yscale("log")
    low, high = (bound if math.isfinite(bound) else 1.0 for bound in axes.dataLim.intervaly)  # infinite: no data
    axes.set_ylim(_round_below(low / 1.1), _round_above(high * 1.1))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _round_below(value: float) -> float:
    """The largest 1, 2 or 5 of a decade that is not above `value`."""
    decade = 10.0 ** math.floor(math.log10(value))
    return max(step * decade for step in (1, 2, 5) if step == 1 or step * decade <= value)


def _round_above(value: float) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    return min(step * decade for step in (1, 2, 5, 10) if step == 10 or step * decade >= value)


def _caption(measured: Measurements, lines: Sequence[_Line]) -> str:
    timed = [one for line in lines for one in line.timed]
    n_tokens = _range({one.facts.n_tokens for one in timed})
    n_rounds = _range({one.stats.rounds for one in timed})
    precisions = ", ".join(sorted({_plain(one.facts.dtype) for one in timed}))
    return (
        f"Forward and backward pass of {n_tokens} tokens in {precisions}; median of n = {n_rounds} rounds, bars from "
        f"the least to the most.\n{_plain(machine_text(replace(measured, timed=tuple(timed))))}"
    )


def _range(numbers: set[int]) -> str:
    """`3`, or `2 to 5`."""
    return " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)}))


def _plain(text: str) -> str:
    """On one line, in letters that the font has."""
    return clean(text).encode("latin-1", "replace").decode("latin-1")
