"""Baselines of equal budget at the size of the preprint: their sizes, the search that tunes them, the comparison.

Everything here takes 3,500 steps of 64 windows of 256: the tokens of the published K-Operators runs.
"""

from dataclasses import replace
from typing import Any

from bench.config import RunConfig, TrainingConfig
from bench.experiments.grid import REPORTING_SEEDS, TUNING_SEED, Cell, Experiment
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, VOCAB_SIZE, changed, with_dropout
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
DROPOUT = 0.2  # nanoGPT's, until an arm is tuned

# The trial of `tuning` with the least sweep loss, by arm; an arm that is not here has its published recipe, and the
# Transformers' is the LSTM's too. A test compares the records.
TUNED_TRIAL: dict[str, int] = {}
N_TRIALS = 20


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


def trials() -> list[dict[str, float]]:
    """The points of the search, the same for every arm: a Halton sequence over rate, decay, warm-up and dropout.

    Not scrambled and rounded to three digits, so that no version of scipy moves a run.
    """
    from scipy.stats import qmc

    halton = qmc.Halton(d=4, scramble=False)
    halton.fast_forward(1)  # past the corner of the space
    return [
        {
            "learning_rate": _digits(_between(rate, 3e-4, 3e-2)),
            "weight_decay": _digits(_between(decay, 1e-3, 0.3)),
            "warmup": _digits(_between(warmup, 0.02, 0.5)),  # share of the steps
            "dropout": round(0.3 * float(dropout), 3),
        }
        for rate, decay, warmup, dropout in halton.random(N_TRIALS)
    ]


def _between(share: float, low: float, high: float) -> float:
    return float(low * (high / low) ** share)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def with_trial(config: RunConfig, trial: dict[str, float]) -> RunConfig:
    """`config` with the settings of a trial: a cosine to a tenth of its rate, one dropout rate at every site."""
    assert isinstance(config.training, TrainingConfig)
    trained = changed(
        config,
        schedule="nanogpt",
        learning_rate=trial["learning_rate"],
        final_learning_rate=trial["learning_rate"] / 10,
        weight_decay=trial["weight_decay"],
        warmup_steps=round(trial["warmup"] * config.training.n_steps),
    )
    return replace(trained, model=with_dropout(config.model, trial["dropout"]))


def tuned(family: str, axis: str = "params") -> RunConfig:
    """The arm with its best trial; with its published recipe while it has none."""
    config = arm(family, axis)
    return with_trial(config, trials()[TUNED_TRIAL[family]]) if family in TUNED_TRIAL else config


def tuning() -> Experiment:
    """The search, as wide and as long for every arm, on a tuning seed."""
    return Experiment(
        name="tuning",
        question="Which of twenty quasi-random recipes is best for each arm of `matched`?",
        cells=tuple(
            Cell(label=f"{family}-t{i:02d}", config=with_trial(arm(family), trial), seeds=(TUNING_SEED,), group=family)
            for family in ("k_operators", *SIZES)
            for i, trial in enumerate(trials())
        ),
    )


def matched() -> Experiment:
    """Each baseline at equal tokens and at equal parameters, live parameters or training FLOPs."""
    headline = ("k_operators", "transformer-params")  # the primary comparison: ten seeds
    arms = {"k_operators": tuned("k_operators")}
    arms |= {f"{family}-{axis}": tuned(family, axis) for family in SIZES for axis in AXES}
    return Experiment(
        name="matched",
        question="At an equal budget and with as much tuning, are K-Operators better than each baseline?",
        cells=tuple(
            Cell(label=label, config=config, seeds=REPORTING_SEEDS if label in headline else REPORTING_SEEDS[:5])
            for label, config in arms.items()
        ),
        reference="transformer-params",
    )
