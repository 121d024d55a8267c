"""Baselines of equal budget at the size of the preprint: their sizes, the search that tunes them, the comparison.

Everything here takes 3,500 steps of 64 windows of 256: the tokens of the published K-Operators runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bench.config import RunConfig
from bench.experiments.grid import REPORTING_SEEDS, Cell, Experiment
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, VOCAB_SIZE
from bench.experiments.search import Recorded, Search, points, refuse_incomplete, search, with_point
from models import LSTMConfig, TransformerConfig

CONTEXT = 256
AXES = ("params", "live", "flops")  # what is held equal: parameters, live parameters, training FLOPs

# What `python -m bench size` finds within 1 %; where it offers several depths, the one nearest to six layers, which
# nanoGPT and the published K-Operators both have. A test counts each.
SIZES: dict[str, dict[str, dict[str, int]]] = {
    "transformer": {
        "params": {"d_model": 124, "n_layers": 6, "n_heads": 2},
        "live": {"d_model": 112, "n_layers": 6, "n_heads": 2},
        "flops": {"d_model": 108, "n_layers": 5, "n_heads": 2},
    },
    "transformer_rotary": {
        "params": {"d_model": 116, "n_layers": 7, "n_heads": 2},
        "live": {"d_model": 114, "n_layers": 6, "n_heads": 3},
        "flops": {"d_model": 108, "n_layers": 5, "n_heads": 2},
    },
    "transformer_none": {
        "params": {"d_model": 116, "n_layers": 7, "n_heads": 2},
        "live": {"d_model": 114, "n_layers": 6, "n_heads": 3},
        "flops": {"d_model": 108, "n_layers": 5, "n_heads": 2},
    },
    "modern": {
        "params": {"d_model": 116, "n_layers": 7, "n_heads": 2},
        "live": {"d_model": 114, "n_layers": 6, "n_heads": 3},
        "flops": {"d_model": 108, "n_layers": 5, "n_heads": 2},
    },
    "lstm": {
        "params": {"d_model": 262, "n_layers": 2},
        "live": {"d_model": 238, "n_layers": 2},
        "flops": {"d_model": 245, "n_layers": 2},
    },
}
OPTIONS: dict[str, dict[str, Any]] = {  # of the Transformers
    "transformer": {},
    "transformer_rotary": {"position": "rotary"},
    "transformer_none": {"position": "none"},
    "modern": {"position": "rotary", "norm": "rms", "mlp": "swiglu"},
}
DROPOUT = 0.2  # nanoGPT's, before an arm is tuned
FAMILIES = ("k_operators", "transformer", "transformer_rotary", "modern", "transformer_none", "lstm")
ALL_AXES = ("transformer", "modern")  # families that are compared on every axis; the others at equal parameters


def baseline(family: str, sizes: dict[str, int], *, context: int, dropout: float) -> tuple[str, Any]:
    """The architecture and the model config of a baseline."""
    common: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "context": context, "dropout": dropout, **sizes}
    if family == "lstm":
        return "lstm", LSTMConfig(**common)
    return "transformer", TransformerConfig(**common, **OPTIONS[family])


def arm(family: str, axis: str = "params") -> RunConfig:
    """An arm at equal tokens before it is tuned: `k_operators`, or a baseline whose budget on `axis` is its."""
    if family == "k_operators":
        return K_OPERATORS_PAPER
    architecture, model = baseline(family, SIZES[family][axis], context=CONTEXT, dropout=DROPOUT)
    published, target = NANOGPT.training, K_OPERATORS_PAPER.training
    assert published is not None
    assert target is not None
    training = replace(published, n_steps=target.n_steps, batch_size=target.batch_size)
    return RunConfig(architecture=architecture, model=model, context=CONTEXT, training=training)


def searches(recorded: Recorded, families: Iterable[str] | None = None) -> dict[str, Search]:
    """The search of each family, at equal parameters; by default of all."""
    return {family: search(family, arm(family), recorded) for family in families or FAMILIES}


def decided(recorded: Recorded, families: Iterable[str] | None = None) -> dict[str, Search]:
    """The search of each family with its winner; ConfigError with what is missing while one has none."""
    found = searches(recorded, families)
    refuse_incomplete(found, recorded, "tuning")
    return found


def tuned(found: Mapping[str, Search], family: str, axis: str = "params") -> RunConfig:
    """An arm with the recipe that won the search of its family."""
    winner = found[family].winner
    assert winner is not None
    return with_point(arm(family, axis), points()[winner])


def chosen_by(found: Mapping[str, Search]) -> dict[str, tuple[str, ...]]:
    """The ids of the runs whose records chose the winner, by family."""
    return {family: one.run_ids(stage=2) for family, one in found.items()}


def tuning(recorded: Recorded) -> Experiment:
    """The search, the same for every family: 20 trials on one seed, then the best three on two more."""
    found = searches(recorded)
    return Experiment(
        name="tuning",
        question="Which of twenty recipes is best for each family of `matched`?",
        cells=tuple(cell for one in found.values() for cell in one.cells),
        chosen_by={family: one.run_ids(stage=1) for family, one in found.items() if one.finalists},
        awaits=tuple(name for one in found.values() if not one.finalists for name in one.awaited),
        only_mode=recorded.mode,
    )


def matched(recorded: Recorded) -> Experiment:
    """Each baseline at equal tokens and at equal parameters; some at equal live parameters and training FLOPs, too."""
    headline = ("k_operators", "transformer-params")  # the primary comparison: ten seeds
    found = decided(recorded)
    arms = {"k_operators": tuned(found, "k_operators")}
    arms |= {
        f"{family}-{axis}": tuned(found, family, axis)
        for family in FAMILIES[1:]
        for axis in (AXES if family in ALL_AXES else AXES[:1])
    }
    return Experiment(
        name="matched",
        question="At an equal budget and with as much tuning, are K-Operators better than each baseline?",
        cells=tuple(
            Cell(label=label, config=config, seeds=REPORTING_SEEDS if label in headline else REPORTING_SEEDS[:5])
            for label, config in arms.items()
        ),
        reference="transformer-params",
        chosen_by=chosen_by(found),
        only_mode=recorded.mode,
    )
