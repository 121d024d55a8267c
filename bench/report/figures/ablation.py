"""Forest plot of the variants of K-Operators, where `differences` shows other models."""

from bench.report.figures.differences import model_rows, variants_figure
from bench.report.figures.drawing import Drawn
from bench.report.published import Published
from bench.report.runs import Results


def ablation(experiment: Results, published: Published) -> list[Drawn]:
    """At most one figure: the variants against the full model."""
    return variants_figure(experiment, "ablation") if model_rows(experiment) else []
