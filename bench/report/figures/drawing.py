"""What all figures share: style, axes, legends, and how they become files."""

import io
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.errors import clean
from bench.report.arms import unfinished, without
from bench.report.figures.looks import INK
from bench.report.runs import CellResults, Results
from bench.report.series import Series
from bench.report.statistics import mean

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",  # transparent: the page or GitHub is behind it, light or dark
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the letters as drawn, also where the font is missing
    "svg.hashsalt": "k-operators-bench",  # without it the ids of the elements are random
    "text.parse_math": False,  # a $ in a name is a $
}
WIDTH = 5.4  # inches: at 400 pixels a letter of 9 points is still 9 pixels high
WIDE = 7.4  # of the figures of a store, with letters of 10 points
NARROW = 4.2  # of a figure whose panels stand below each other
PNG_DPI = 160
BARS: dict[str, Any] = {"capsize": 3, "elinewidth": 1}
LEGEND: dict[str, Any] = {"loc": "outside upper center", "handlelength": 4}
N_TICKS, ROUND = 5, (1, 2, 2.5, 5, 10)
NOTE_LETTER = 0.062  # inches: the mean width of a letter of 8 points
LONGEST_LABEL = 34  # letters: two such side by side fill a legend


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure with its words. `name` is the stem of its files; `alt` describes the figure in a sentence."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure = field(repr=False)
    kind: str = ""  # of the figure of an experiment
    shown: frozenset[tuple[str, int | None]] = frozenset()  # config and seed of each run in the figure of an experiment
    narrow: "Drawn | None" = None  # the same with one panel in a row, where there are several

    def repeats(self, other: "Drawn") -> bool:
        """Whether `other` is of the same kind and shows all of these runs, in whatever mode."""
        return self.kind == other.kind and bool(self.shown) and self.shown <= other.shown

    @cached_property
    def svg(self) -> bytes:
        """With its words inside, but neither a date nor the version of matplotlib."""
        words = {"Title": self.title, "Description": self.caption, "Date": None, "Creator": None}
        return _bytes(self.figure, "svg", metadata=words)

    @cached_property
    def png(self) -> bytes:
        """At PNG_DPI."""
        # only run lengths: the result of a search for longer repeats may differ between builds of zlib
        run_lengths = {"compress_type": zlib.Z_RLE}
        return _bytes(self.figure, "png", dpi=PNG_DPI, metadata={"Software": None}, pil_kwargs=run_lengths)

    @property
    def images(self) -> dict[str, bytes]:
        """By the ending of their file names."""
        return {"svg": self.svg, "png": self.png}


@contextmanager
def our_style(changes: Any = None) -> Iterator[None]:
    """The style, independent of the user's settings."""
    with matplotlib.style.context("default"), mpl.rc_context(STYLE | (changes or {})):
        yield


def small_style() -> Any:
    """For figures that must still be read at 400 pixels."""
    return our_style({"font.size": 9, "axes.titlesize": 9.5, "lines.markersize": 4, "legend.fontsize": 8.5})


_stacked: ContextVar[bool] = ContextVar("stacked", default=False)


@contextmanager
def stacked() -> Iterator[None]:
    """Figures of several panels have one in each row."""
    token = _stacked.set(True)
    try:
        yield
    finally:
        _stacked.reset(token)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def figure_of(
    n: int, n_columns: int, row: float, around: float, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels in rows, each `row` inches high, `around` for the rest; with `options` of `subplots`."""
    if _stacked.get() and n_columns > 1:
        n_columns, width = 1, NARROW
    n_rows = -(-n // n_columns)
    figure = new_figure(around + row * n_rows, width)
    grid = list(figure.subplots(n_rows, n_columns, squeeze=False, **options).flat)
    for unused in grid[n:]:
        unused.set_visible(False)
    return figure, grid[:n]


def cut_figure(
    n: int, upper: float, lower: float, around: float, width: float
) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure of `n` panels side by side whose y axis is cut: the upper parts and the lower ones, by column."""
    below = _stacked.get()
    n_rows, n_columns = (2 * n, 1) if below else (2, n)
    figure = new_figure(around + (upper + lower) * (n if below else 1), NARROW if below else width)
    ratios = (upper, lower) * (n_rows // 2)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, height_ratios=ratios).flat)
    uppers, lowers = (axes[::2], axes[1::2]) if below else (axes[:n], axes[n:])
    for column in range(n):
        uppers[column].sharex(lowers[column])
        uppers[column].tick_params(labelbottom=False)
        if column and not below:
            for one, first in ((uppers[column], uppers[0]), (lowers[column], lowers[0])):
                one.sharey(first)
                one.tick_params(labelleft=False)
    return figure, uppers, lowers


def drawn_of(
    experiment: Results, kind: str, figure: Figure, cells: Sequence[CellResults], *, title: str, caption: str, alt: str
) -> Drawn:
    """A figure of these cells of an experiment, finished. The caption also lists those with missing runs."""
    made = finished(
        figure,
        name=f"{experiment.name}-{kind}",
        title=f"{experiment.name}: {title}",
        caption=caption + unfinished(cells),
        alt=alt,
    )
    return replace(
        made,
        kind=kind,
        shown=frozenset((without(record.config), record.seed) for cell in cells for record in cell.done),
    )


def finished(figure: Figure, *, name: str, title: str, caption: str, alt: str) -> Drawn:
    """The figure, laid out once for both of its files."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_locator(), AutoLocator):  # its ticks follow the size, so that no layout would hold
            axis.set_major_locator(MaxNLocator(N_TICKS, steps=ROUND))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return Drawn(name=name, title=plain(title), caption=clean(caption), alt=clean(alt), figure=figure)


def of_one_mode(drawn: Drawn, mode: str) -> Drawn:
    """The same figure with the mode of its runs: for an experiment that ran in both modes."""
    if drawn.narrow is not None:
        drawn = replace(drawn, narrow=of_one_mode(drawn.narrow, mode))
    drawn.figure.text(0.99, 0.01, f"mode {mode}", fontsize=8, color=INK, ha="right", va="bottom")
    return replace(drawn, caption=f"{drawn.caption} Runs of mode {mode} only.")


def legend(figure: Figure, looks: Sequence[dict[str, Any]], labels: Sequence[str], ncols: int = 2) -> None:
    """Above all panels, with lines long enough to tell dashes apart; in as many columns as there is room for."""
    samples = [Line2D([], [], **one) for one in looks]
    names = [short(label) for label in labels]
    for n in range(min(ncols, len(names)), 0, -1):
        made = figure.legend(samples, names, ncols=n, **LEGEND)
        if n == 1 or made.get_window_extent().width <= figure.bbox.width:
            return
        made.remove()


def draw_series(axes: Axes, series: Series, looks: dict[str, Any]) -> None:
    """The mean over seeds, and with several a band from minimum to maximum."""
    axes.plot(series.steps, series.middle, **looks)
    if series.n > 1:
        axes.fill_between(series.steps, series.low, series.high, color=looks["color"], alpha=0.15, linewidth=0)


def draw_spread(axes: Axes, places: Sequence[float], values: Sequence[Sequence[float]], looks: dict[str, Any]) -> None:
    """At each place the mean of its values, with a bar from minimum to maximum."""
    means = [mean(one) for one in values]
    below = [middle - min(one) for middle, one in zip(means, values, strict=True)]
    above = [max(one) - middle for middle, one in zip(means, values, strict=True)]
    axes.errorbar(places, means, (below, above), **BARS, **looks)


def step_axis(axes: Axes, title: str) -> None:
    """A panel over training steps."""
    axes.set_title(title, loc="left")
    axes.set_xlabel("step")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")  # 2k for 2,000 steps
    )


def context_axis(axes: Axes, title: str, contexts: Sequence[int]) -> None:
    """A panel over contexts, with a tick for each."""
    axes.set_title(title, loc="left")
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [f"{context:,}" for context in contexts])
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(axis: Axis, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Plain numbers at these multiples of each decade."""
    axis.set_major_locator(LogLocator(subs=subs, numticks=30))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def plain(text: str) -> str:
    """On one line, in letters that the font has."""
    return clean(text).encode("latin-1", "replace").decode("latin-1")


def short(text: str, longest: int = LONGEST_LABEL) -> str:
    """`plain`, and cut where it would push the drawing aside."""
    whole = plain(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 3]}..."


def note(figure: Figure, text: str) -> None:
    """What the lines and the bands are, below all panels: the file itself has no caption."""
    if _stacked.get():
        letters = int(figure.get_figwidth() / NOTE_LETTER)
        text = "\n".join(line for one in text.splitlines() for line in textwrap.wrap(one, letters))
    figure.supxlabel(text, fontsize=8, color=INK)


def _bytes(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with our_style():
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()
