"""The frontier: perplexity against parameters and against training FLOPs, of our arms and of what was published."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bench.report.arms import config_of, principal, seeds_text
from bench.report.families import FAMILIES, family_of
from bench.report.figures import drawing
from bench.report.figures.looks import INK, PUBLISHED, of_family
from bench.report.published import Figure, Published
from bench.report.runs import CellResults, Results, StoreResults, sweep_nats
from bench.report.statistics import Summary, perplexity, summarise

PROTOCOLS = {"sweep": "*", "sampled": "h"}  # markers of published points
NEAR = 1.03  # the lower panels reach this far above the highest published point
NEIGHBOUR = 0.2  # points with a smaller distance, in natural logs, stand above each other
APART = 0.06  # least distance of the numbers of points, in heights of a panel
LONGEST_KEY = 60  # letters
PANELS = (("n_params", "parameters (log scale)"), ("train_flops", "training FLOPs (log scale)"))


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One of our arms."""

    family: str
    places: dict[str, float]  # on the x axes
    summary: Summary


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A published figure. Its FLOPs are those of our arm that follows its recipe, where there is one."""

    figure: Figure
    number: int
    places: dict[str, float]


def frontier(ours: StoreResults, published: Published) -> Iterator[drawing.Drawn]:
    """At most one figure; none where no arm is done."""
    arms = [arm for cell in _cells(ours, published.corpus) if math.isfinite((arm := _arm(cell)).summary.mean)]
    if not arms:
        return
    points = _points(ours, published)
    figure, uppers, lowers = drawing.cut_figure(len(PANELS), upper=1.9, lower=3.8, around=1.3, width=drawing.WIDE)
    highest = NEAR * max((one.figure.perplexity for one in points), default=1.0)
    values = [arm.summary.mean for arm in arms] + [one.figure.perplexity for one in points]
    for upper, lower, (quantity, unit) in zip(uppers, lowers, PANELS, strict=True):
        for axes in (upper, lower):
            _draw_arms(axes, arms, quantity)
        _finish(upper, lower, unit, highest, values)
        _draw_points(lower, points, quantity)
    for axes in (uppers[0], lowers[0]):
        axes.set_ylabel("perplexity")
    families = [family for family in FAMILIES if any(arm.family == family for arm in arms)]
    samples = [PUBLISHED | {"marker": marker} for marker in PROTOCOLS.values()]
    looks = [of_family(family) | {"linestyle": "none"} for family in families] + samples
    drawing.legend(figure, looks, families + [f"published, {protocol}" for protocol in PROTOCOLS], ncols=3)
    drawing.note(figure, "\n".join(map(_key, points)))
    yield drawing.finished(
        figure,
        name="frontier",
        title="Perplexity against size and cost",
        caption=(
            f"Best validation perplexity, {seeds_text((arm.summary.n for arm in arms), 'bar: 95 % t interval')}; "
            "against all parameters, tables of positions included, and training FLOPs. Of K-Operators only the full "
            f"model. Modes: {', '.join(f'{one.name} {one.mode}' for one in _live(ours) if principal(one))}. "
            "Hollow, as published: "
            f"{'; '.join(map(_text, points))}. A published point stands at the FLOPs of our arm with its recipe."
        ),
        alt=f"Perplexity over parameters and FLOPs for {', '.join(families)}, and {len(points)} published points.",
    )


def _live(ours: StoreResults) -> list[Results]:
    return [one for one in ours.experiments if not one.manifest.superseded]


def _cells(ours: StoreResults, corpus: str) -> list[CellResults]:
    """The principal arms on the published text, each run once, and the best counted model."""
    live = _live(ours)
    cells = [cell for one in live for cell in principal(one) if cell.done[0].corpus.name == corpus]
    runs = [{record.run_id for record in cell.done} for cell in cells]
    once = [
        cell
        for i, cell in enumerate(cells)
        if not any(runs[i] < other or (runs[i] == other and j < i) for j, other in enumerate(runs))
    ]
    fitted = [cell for one in live for cell in one.cells if cell.fitted and cell.done]
    counted = [cell for cell in fitted if cell.done[0].corpus.name == corpus]
    return once + sorted(counted, key=lambda cell: sweep_nats(cell.done))[:1]


def _arm(cell: CellResults) -> _Arm:
    cost = cell.done[0].cost
    return _Arm(
        family=family_of(config_of(cell)),
        places={"n_params": cost.parameters.n_params, "train_flops": cost.train_flops},
        summary=summarise([perplexity(nats) for nats in sweep_nats(cell.done)]),
    )


def _points(ours: StoreResults, published: Published) -> list[_Point]:
    """The published figures with a number of parameters, from the lowest perplexity."""
    experiment = ours.experiment(published.experiment)
    cells = [] if experiment is None else [cell for cell in experiment.cells if cell.done]
    of_arm = {cell.label: cell.done[0].cost.train_flops for cell in cells}
    known = sorted((one for one in published.figure if one.n_params), key=lambda one: one.perplexity)
    return [
        _Point(
            figure=one,
            number=i,
            places={"n_params": float(one.n_params or 0)} | _flops(one, of_arm),
        )
        for i, one in enumerate(known, 1)
    ]


def _flops(figure: Figure, of_arm: dict[str, float]) -> dict[str, float]:
    found = [of_arm[label] for label in figure.arms if label in of_arm]
    return {"train_flops": found[0]} if found else {}


def _draw_arms(axes: Axes, arms: Sequence[_Arm], quantity: str) -> None:
    for arm in arms:
        middle, place = arm.summary.mean, arm.places[quantity]
        low, high = arm.summary.interval or (middle, middle)
        if place > 0:  # of counted models no FLOPs are known
            look = of_family(arm.family) | {"linestyle": "none", "markersize": 5}
            axes.errorbar([place], [middle], yerr=([middle - low], [high - middle]), **drawing.BARS, **look)


def _draw_points(axes: Axes, points: Sequence[_Point], quantity: str) -> None:
    """Hollow, each with its number beside it, moved up where it would cover that of the one below."""
    low, high = axes.get_ylim()
    known = [(point, math.log(place)) for point in points if (place := point.places.get(quantity)) is not None]
    taken: list[tuple[float, float]] = []
    for point, place in known:
        one = point.figure
        look = PUBLISHED | {"marker": PROTOCOLS[one.protocol]}
        axes.errorbar([math.exp(place)], [one.perplexity], one.perplexity_sd, elinewidth=0.8, **look)
        beside = [height for other, height in taken if abs(other - place) < NEIGHBOUR]
        height = max([one.perplexity, *(other + APART * (high - low) for other in beside)])
        taken.append((place, height))
        gaps = [other - place for _, other in known if abs(other - place) >= NEIGHBOUR]
        side = -1 if min(gaps, key=abs, default=-1.0) > 0 else 1  # away from the nearest neighbour
        text: dict[str, Any] = {
            "xytext": (14 * side, height),
            "textcoords": ("offset points", "data"),
            "va": "center",
            "ha": "left" if side > 0 else "right",
            "arrowprops": {"arrowstyle": "-", "color": INK, "linewidth": 0.5},
        }
        axes.annotate(str(point.number), (math.exp(place), one.perplexity), **text)


def _finish(upper: Axes, lower: Axes, unit: str, highest: float, values: Sequence[float]) -> None:
    """The lower panel, of the lowest of `values` to `highest`, ends where the upper one starts."""
    lowest = min(values)
    lower.set_ylim(lowest / 1.01, max(highest, lowest * NEAR))
    upper.set_ylim(max(highest, lowest * NEAR), max([*values, highest * NEAR]) * NEAR)
    for axes in (upper, lower):
        axes.set_xscale("log")
        axes.margins(x=0.12)
    drawing.log_ticks(lower.xaxis, (1, 3))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_number(value)))
    lower.set_xlabel(unit)


def _short_number(value: float) -> str:
    """`300k`, `1M`, `3e14`."""
    if value >= 1e9:
        return f"{value:.0e}".replace("e+", "e")
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"


def _key(point: _Point) -> str:
    """`3 K-Operators preprint v1: 4.43, context 256`: the caption has the rest."""
    context = "" if point.figure.context is None else f", context {point.figure.context:,}"
    return f"{point.number} {drawing.short(point.figure.system, LONGEST_KEY)}: {point.figure.perplexity:g}{context}"


def _text(point: _Point) -> str:
    """`3 K-Operators preprint v1: 4.43 ± 0.05 (1.14M, sweep, context 256; 7 runs of 5 seeds)`."""
    one = point.figure
    spread = "" if one.perplexity_sd is None else f" ± {one.perplexity_sd:g}"
    context = "context not stated" if one.context is None else f"context {one.context:,}"
    size = one.parameters_printed or _short_number(one.n_params or 0)
    return f"{point.number} {one.system}: {one.perplexity:g}{spread} ({size}, {one.protocol}, {context}; {one.n_text})"
