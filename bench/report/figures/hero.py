"""The figure of the answer: what came out at the preprint's size, and the perplexity at each learning rate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes

from bench.report.arms import by_rate, config_of, learning_rate
from bench.report.families import FAMILIES, headline, name_of, searched
from bench.report.figures import drawing
from bench.report.figures.looks import INK, PUBLISHED, of_family
from bench.report.notes import number
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, StoreResults, sweep_nats
from bench.report.statistics import mean, perplexity, summarise

UNTUNED = "matched-untuned"  # stands in for `matched` while that has no run
SEARCHES = {"tuning": "the preprint's size", "laptop-tuning": "laptop size"}  # the first with enough trials is drawn
FEWEST_RATES = 3
HIGHEST = 1.75  # perplexity at the top of the right panel, relative to the lowest


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An arm at the preprint's size, or the heading above some."""

    text: str
    family: str | None = None
    values: Sequence[float] = ()
    published: Sequence[Figure] = field(default_factory=tuple)


def hero(ours: StoreResults, published: Published) -> Iterator[drawing.Drawn]:
    """At most one figure: the preprint's size on the left, learning rates on the right."""
    rows, counts = list(_rows(ours, published)), _counts(ours, published)
    found = next((one for name in SEARCHES if (one := _search(ours, name))), None)
    if not rows and found is None:
        return
    n = bool(rows) + (found is not None)
    figure, axes = drawing.figure_of(n, n, row=3.4, around=0.7, width=drawing.WIDE)
    panels = iter(axes)
    words, alts = [], []
    if rows:
        _draw_rows(next(panels), rows, counts)
        words.append(
            "The preprint's size: small marks are seeds, bars 95 % t intervals of the mean; best validation perplexity "
            "(sweep). Stars: as published, each by its own protocol"
            + "".join(f"; {_published_text(one)}" for row in rows for one in row.published)
            + "."
        )
        alts.append("the perplexity of each arm at the preprint's size")
    if found is not None:
        name, lines = found
        _draw_rates(next(panels), name, lines)
        drawing.legend(figure, [of_family(family) for family in lines], list(lines), ncols=3)
        words.append(
            f"Learning rates, of {name}: the best validation perplexity of each trial that did not diverge, of a "
            "family with several schedules of the best one; ringed: the best."
        )
        alts.append("the perplexity of each family against the learning rate")
    drawing.note(
        figure, "small: seeds; bar: 95 % interval of the mean; star: as published; ring: the best rate" if rows else ""
    )
    yield drawing.finished(
        figure, name="hero", title="What came out", caption=" ".join(words), alt=f"Two panels: {'; '.join(alts)}."
    )


def _rows(ours: StoreResults, published: Published) -> Iterator[_Row]:
    """The arms that follow the published recipes, then those of equal parameters."""
    paper, matched = ours.experiment(published.experiment), ours.experiment("matched")
    searched_too = matched is not None and bool(headline(matched))
    equal = matched if searched_too else ours.experiment(UNTUNED)
    for experiment, heading in (
        (paper, "published recipes"),
        (equal, "equal parameters" + ("" if searched_too else ", not searched")),
    ):
        found = {} if experiment is None else headline(experiment)
        if experiment is not None and found:
            yield _Row(text=f"{heading} (mode {experiment.mode})")
        for family, cell in found.items():
            assert experiment is not None
            yield _Row(
                text=f"{family}, {_millions(cell)}",
                family=family,
                values=[perplexity(nats) for nats in sweep_nats(cell.done)],
                published=published.beside(experiment.name, cell.done[0].corpus.name, cell.label),
            )


def _counts(ours: StoreResults, published: Published) -> tuple[str, float] | None:
    """The best counted model at the preprint's size, and its perplexity."""
    experiment = ours.experiment(published.experiment)
    fitted = [] if experiment is None else [cell for cell in experiment.cells if cell.fitted and cell.done]
    found = [(perplexity(sweep_nats(cell.done)[0]), name_of(config_of(cell))) for cell in fitted]
    return (min(found)[1], min(found)[0]) if found else None


def _draw_rows(axes: Axes, rows: Sequence[_Row], counts: tuple[str, float] | None) -> None:
    middle = _middle([value for row in rows for value in row.values] + ([] if counts is None else [counts[1]]))
    for height, row in zip(range(len(rows), 0, -1), rows, strict=True):
        if row.family is None:
            left = axes.get_yaxis_transform()
            axes.text(0, height - 0.3, drawing.plain(row.text), va="bottom", fontweight="bold", transform=left)
        else:
            _draw_row(axes, height, row, middle)
    if counts is not None:
        axes.axvline(counts[1], color=INK, linestyle=":", alpha=0.6, zorder=0)
        axes.text(counts[1], 0.45, f"{counts[0]} {number(counts[1])} ", va="bottom", ha="right")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0.4, len(rows) + 0.3)
    axes.margins(x=0.08)
    axes.set_title("the preprint's size", loc="left")
    axes.set_xlabel("validation perplexity (left: better)")


def _draw_row(axes: Axes, height: float, row: _Row, middle: float) -> None:
    """Seeds above, the mean with its interval, what was published below; the words where there is room."""
    assert row.family is not None
    look, summary = of_family(row.family) | {"linestyle": "none"}, summarise(row.values)
    axes.plot(row.values, [height + 0.2] * summary.n, **look | {"alpha": 0.5, "markersize": 3})
    low, high = summary.interval or (summary.mean, summary.mean)
    reach = ([summary.mean - low], [high - summary.mean])
    axes.errorbar([summary.mean], [height], xerr=reach, **drawing.BARS, **look | {"markersize": 5})
    for one in row.published:
        star = PUBLISHED | {"marker": "*", "color": look["color"]}
        axes.errorbar([one.perplexity], [height - 0.27], xerr=one.perplexity_sd, elinewidth=0.8, **star)
    reached = [*row.values, low, high]
    on_right = summary.mean <= middle
    place = (max(reached) if on_right else min(reached), height)
    offset, side = (8, "left") if on_right else (-8, "right")
    text = f"{row.text}: {number(summary.mean)}"
    axes.annotate(text, place, (offset, 0), textcoords="offset points", ha=side, va="center")


def _middle(values: Sequence[float]) -> float:
    return (min(values) + max(values)) / 2


def _search(ours: StoreResults, name: str) -> tuple[str, dict[str, list[CellResults]]] | None:
    """The done trials of each family by learning rate: of the best shape, if each has several rates, else all."""
    experiment = ours.experiment(name)
    found = {} if experiment is None else searched(experiment)
    done = {family: [cell for cell in cells if cell.done] for family, cells in found.items() if family in FAMILIES}
    if not done or min(map(len, done.values())) < FEWEST_RATES:
        return None
    shapes = {family: min(by_rate(cells), key=lambda group: min(map(_nats, group))) for family, cells in done.items()}
    whole = min(map(len, shapes.values())) >= FEWEST_RATES
    return name, shapes if whole else done


def _nats(cell: CellResults) -> float:
    return mean(sweep_nats(cell.done))


def _draw_rates(axes: Axes, name: str, lines: dict[str, list[CellResults]]) -> None:
    """A line for a family whose trials differ only in the rate, else points; the best one ringed."""
    for family, cells in lines.items():
        look = of_family(family) | ({} if len(by_rate(cells)) == 1 else {"linestyle": "none"})
        points = [(learning_rate(cell) or 0.0, perplexity(_nats(cell))) for cell in cells]
        axes.plot(*zip(*points, strict=True), **look)
        rate, lowest = min(points, key=lambda point: point[1])
        axes.plot([rate], [lowest], **PUBLISHED | {"marker": "o", "markersize": 11, "color": look["color"]})
    axes.set_xscale("log")
    axes.set_yscale("log")
    drawing.log_ticks(axes.yaxis, (4, 4.5, 5, 5.5, 6, 7, 8, 9))
    lowest = min(perplexity(_nats(cell)) for cells in lines.values() for cell in cells)
    axes.set_ylim(lowest / 1.03, min(axes.get_ylim()[1], lowest * HIGHEST))
    axes.set_xlabel("learning rate (log scale)")
    axes.set_ylabel("validation perplexity")
    axes.set_title(f"{SEARCHES[name]}, by learning rate", loc="left")
    drawing.log_ticks(axes.xaxis, (1, 3))


def _millions(cell: CellResults) -> str:
    return f"{cell.done[0].cost.parameters.n_params / 1e6:.3g}M"


def _published_text(figure: Figure) -> str:
    return f"{figure.system} {figure.perplexity:g} ({figure.protocol}, {figure.selection}; {figure.n_text})"
