"""Every figure of a store: the same bytes from the same records, and readable without colour.

Nothing here imports the drawing library before there is something to draw.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report.published import Published
from bench.report.runs import StoreResults
from bench.store import Measurements

if TYPE_CHECKING:
    from bench.report.figures.drawing import Drawn

KINDS = ("curves", "parameters", "gamma", "paths", "eta", "differences", "ablation", "best-of-k", "cost")
_NAME = re.compile(rf"(growth-.+|.+-({'|'.join(KINDS)})(-\d+)?)\.(svg|png)", re.DOTALL)


def all_figures(
    aggregate: StoreResults, measurements: Sequence[Measurements], published: Published | None = None
) -> dict[str, bytes]:
    """Each figure's two files by name, ending in .svg and .png."""
    return {
        f"{drawn.name}.{ending}": image
        for drawn in draw_all(aggregate, measurements, published)
        for ending, image in drawn.images.items()
    }


def draw_all(
    aggregate: StoreResults, measurements: Sequence[Measurements], published: Published | None = None
) -> "list[Drawn]":
    """Every figure with its words, experiment by experiment, throughput last. None mixes experiments or modes."""
    grown = [measured for measured in measurements if measured.grows]
    trained = [one for one in aggregate.experiments if any(len(record.curve) > 1 for record in one.done)]
    if not grown and not trained:
        return []
    from bench.report.figures.backends import backends
    from bench.report.figures.curves import curves
    from bench.report.figures.differences import differences
    from bench.report.figures.drawing import of_one_mode
    from bench.report.figures.growth import growth_figure
    from bench.report.figures.parameters import parameters
    from bench.report.figures.paths import gammas, paths
    from bench.report.figures.rates import rates
    from bench.report.figures.tuning import best_of_k

    drawn = []
    for experiment in trained:
        of_one = parameters(experiment, published)
        for family in (differences, curves, rates, paths, gammas, best_of_k, backends):
            of_one += family(experiment)
        one_mode = aggregate.other(experiment.name) is None
        drawn += of_one if one_mode else [of_one_mode(one, experiment.mode) for one in of_one]
    return drawn + [growth_figure(measured) for measured in grown]


def is_figure(path: Path) -> bool:
    """Whether a file has a name that a figure here could have: `make table` removes what nothing draws any more."""
    return _NAME.fullmatch(path.name) is not None
