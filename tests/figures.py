"""Experiments made of made-up records, and the figures of them."""

import math

from bench.report.figures import draw_all
from bench.report.figures.drawing import Drawn
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import Results
from tests.trained import make_aggregate, make_experiment, make_run

SEEDS = (42, 69, 420)
FROZEN, PLAIN = {"eta": "frozen"}, {"refine_steps": 0}


def runs(label: str, nats: float = 1.49, seeds=SEEDS, **changes):
    return [make_run(label, seed, nats, **changes) for seed in seeds]


def paper() -> Results:
    arms = [*runs("k_operators"), *runs("nanogpt_2023", 1.47, architecture="transformer", n_params=10_745_088)]
    return make_experiment("paper", arms, reference="nanogpt_2023")


def ablation() -> Results:
    arms = [
        *runs("k_operators"),
        *runs("wide-gamma", 1.50, model={"gamma_min": 0.15}),
        *runs("refine-2", 1.48, model={"refine_steps": 2}),
        *runs("rank-8", 1.55, seeds=(7, 8, 9), model={"rank": 8}),  # no seed in common
    ]
    return make_experiment("ablation", arms, reference="k_operators")


def stress() -> Results:
    arms = [
        run
        for form, model in (("refine", {}), ("plain", PLAIN), ("frozen", FROZEN))
        for multiple in (0.1, 1, 10)
        for run in runs(f"{form}-{multiple:g}", 1.5 + 0.1 * abs(math.log10(multiple)), model=model, rate=multiple / 100)
    ]
    return make_experiment("stress", arms, reference="refine-1")


def tuning(n_failed: int = 0) -> Results:
    arms = [make_run(f"trial-{i}", 1000, 1.5 + 0.01 * i, rate=0.01 + i / 1000) for i in range(20)]
    arms[:n_failed] = [run.model_copy(update={"status": "diverged", "result": None}) for run in arms[:n_failed]]
    return make_experiment("tuning", arms, {run.label: "k_operators" for run in arms})


def backends(**changes) -> Results:
    arms = [
        run
        for backend in ("mask", "chunked")
        for context in (64, 128)
        for run in runs(f"{backend}-{context}", model={"backend": backend, "context": context}, n_steps=20, **changes)
    ]
    return make_experiment("backends", arms)


EXPERIMENTS = (paper, ablation, stress, tuning, backends)


def draw(*experiments: Results) -> list[Drawn]:
    return draw_all(make_aggregate(*experiments), [], load_published(PUBLISHED))


def drawn_of(experiment: Results) -> dict[str, Drawn]:
    """The figures of an experiment, without those of its store."""
    return {drawn.name: drawn for drawn in draw(experiment) if drawn.kind}


def of_store(name: str, *experiments: Results) -> Drawn:
    return next(drawn for drawn in draw(*experiments) if drawn.name == name)


def marked(axes, marker: str) -> list[tuple[float, float]]:
    """The points with a marker."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [point for line in lines for point in zip(line.get_xdata(), line.get_ydata(), strict=True)]
