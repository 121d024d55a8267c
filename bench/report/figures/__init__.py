"""Every figure of a store: the same bytes from the same records, and readable without colour."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench.report.figures.ablation import ablation
from bench.report.figures.best_of_k import best_of_k
from bench.report.figures.cost import cost
from bench.report.figures.curves import curves
from bench.report.figures.differences import differences
from bench.report.figures.drawing import Drawn, of_one_mode, small_style
from bench.report.figures.eta import eta
from bench.report.figures.gamma import gamma
from bench.report.figures.growth import growth_figure
from bench.report.figures.parameters import parameters
from bench.report.figures.paths import paths
from bench.report.published import Published
from bench.report.runs import Results, StoreResults
from bench.store import Measurements

# The figures of an experiment, by kind, in the order of the report. A function draws none where there is nothing to
# show, and several where one would be too crowded.
FIGURES: dict[str, Callable[[Results, Published], Iterable[Drawn]]] = {
    "parameters": parameters,
    "differences": differences,
    "ablation": ablation,
    "curves": curves,
    "eta": eta,
    "paths": paths,
    "gamma": gamma,
    "best-of-k": best_of_k,
    "cost": cost,
}
_NAME = re.compile(rf"(growth-.+|.+-({'|'.join(FIGURES)})(-\d+)?)\.(svg|png)", re.DOTALL)


def all_figures(
    aggregate: StoreResults, measurements: Sequence[Measurements], published: Published
) -> dict[str, bytes]:
    """Each figure's two files by name, ending in .svg and .png."""
    return {
        f"{drawn.name}.{ending}": image
        for drawn in draw_all(aggregate, measurements, published)
        for ending, image in drawn.images.items()
    }


def draw_all(aggregate: StoreResults, measurements: Sequence[Measurements], published: Published) -> list[Drawn]:
    """Every figure with its words, experiment by experiment, throughput last. None mixes experiments or modes."""
    drawn: list[Drawn] = []
    with small_style():
        for experiment in aggregate.experiments:
            if not experiment.manifest.superseded and any(len(record.curve) > 1 for record in experiment.done):
                one_mode = aggregate.other(experiment.name) is None
                found = [one for draw in FIGURES.values() for one in draw(experiment, published)]
                drawn += found if one_mode else [of_one_mode(one, experiment.mode) for one in found]
    return drawn + [growth_figure(measured) for measured in measurements if measured.grows]


def is_figure(path: Path) -> bool:
    """Whether a file has a name that a figure here could have: `make table` removes what nothing draws any more."""
    return _NAME.fullmatch(path.name) is not None
