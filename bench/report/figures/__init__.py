"""Every figure of a store: the same bytes from the same records, and readable without colour."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.report.figures.best_of_k import best_of_k
from bench.report.figures.claims import claims
from bench.report.figures.cost import cost
from bench.report.figures.curves import curves
from bench.report.figures.differences import ablation, differences
from bench.report.figures.drawing import Drawn, of_one_mode, small_style, stacked
from bench.report.figures.eta import eta
from bench.report.figures.frontier import frontier
from bench.report.figures.growth import growth_figure
from bench.report.figures.hero import hero
from bench.report.figures.learned import kernels, learned
from bench.report.published import Published
from bench.report.runs import Results, StoreResults
from bench.store import Measurements

# The figures of a store, by name. None mixes modes in a mean.
OF_A_STORE: dict[str, Callable[[StoreResults, Published], Iterable[Drawn]]] = {
    "hero": hero,
    "claims": claims,
    "frontier": frontier,
}
# The figures of an experiment, by kind, in the order of the report. A function draws at most one, and none where there
# is nothing to show.
FIGURES: dict[str, Callable[[Results, Published], Iterable[Drawn]]] = {
    "differences": differences,
    "ablation": ablation,
    "curves": curves,
    "eta": eta,
    "learned": learned,
    "kernels": kernels,
    "best-of-k": best_of_k,
    "cost": cost,
}
FORMER = ("parameters", "paths", "gamma")  # kinds that older versions drew: `make table` removes them
_NAME = re.compile(
    rf"({'|'.join(OF_A_STORE)}|growth-.+|.+-({'|'.join((*FIGURES, *FORMER))})(-\d+)?)\.(svg|png)", re.DOTALL
)


def all_figures(
    aggregate: StoreResults, measurements: Sequence[Measurements], published: Published
) -> dict[str, bytes]:
    """Each figure's two files by name, ending in .svg and .png."""
    return {
        f"{drawn.name}.{ending}": image
        for drawn in draw_all(aggregate, measurements, published)
        for ending, image in drawn.images.items()
    }


def draw_all(
    aggregate: StoreResults, measurements: Sequence[Measurements], published: Published, *, narrow: bool = False
) -> list[Drawn]:
    """Every figure with its words: of the store, by experiment, of throughput; with `narrow` each also stacked."""

    def draws(draw: Callable[..., Iterable[Drawn]], *of: object) -> list[Drawn]:
        found = list(draw(*of))
        if not narrow or all(len(one.figure.axes) == 1 for one in found):
            return found
        with stacked():
            return [replace(one, narrow=below) for one, below in zip(found, draw(*of), strict=True)]

    drawn: list[Drawn] = []
    with small_style():
        first = [one for draw in OF_A_STORE.values() for one in draws(draw, aggregate, published)]
        for experiment in aggregate.experiments:
            if not experiment.manifest.superseded and any(len(record.curve) > 1 for record in experiment.done):
                one_mode = aggregate.other(experiment.name) is None
                found = [one for draw in FIGURES.values() for one in draws(draw, experiment, published)]
                drawn += found if one_mode else [of_one_mode(one, experiment.mode) for one in found]
    drawn = [one for i, one in enumerate(drawn) if not _repeated(one, drawn[:i], drawn[i + 1 :])]
    growth = [one for measured in measurements if measured.grows for one in draws(_growth, measured)]
    return first + drawn + growth


def _growth(measured: Measurements) -> list[Drawn]:
    return [growth_figure(measured)]


def _repeated(one: Drawn, before: Sequence[Drawn], after: Sequence[Drawn]) -> bool:
    """Whether another figure shows all that this one does; of two alike the first is kept."""
    return any(map(one.repeats, before)) or any(one.repeats(other) and not other.repeats(one) for other in after)


def is_figure(path: Path) -> bool:
    """Whether a file has a name that a figure here could have: `make table` removes what nothing draws any more."""
    return _NAME.fullmatch(path.name) is not None
