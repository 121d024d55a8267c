"""The same experiments at a size that two CPU cores can train: `laptop` in ten minutes, `laptop-all` in three hours."""

from dataclasses import replace
from typing import Any

from bench.config import RunConfig
from bench.experiments.grid import REPORTING_SEEDS, TUNING_SEED, Cell, Experiment
from bench.experiments.matched import baseline
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, VOCAB_SIZE, ablations, floors, stressed
from models import KOperatorsConfig

CONTEXT = 128
N_SAMPLED_BATCHES = 50
N_STEPS = 2000
LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)  # five, then two more: an arm was best at the edge
SHAPES: dict[str, dict[str, Any]] = {  # of the schedule: warm-up and the last rate over the peak
    "short": {"schedule": "nanogpt", "warmup_steps": N_STEPS // 10, "floor": 0.1},  # nanoGPT's, with a longer warm-up
    "long": {"schedule": "k_operators", "warmup_steps": round(N_STEPS * 2000 / 3500), "floor": 0.035},  # K-Operators'
}

# Four mixing layers or the nearest that fits: within 2 % of the parameters of K-Operators (a test counts); -live and
# -flops of its live parameters and of its training FLOPs.
SIZES: dict[str, dict[str, int]] = {
    "transformer": {"d_model": 64, "n_layers": 4, "n_heads": 4},
    "transformer_rotary": {"d_model": 66, "n_layers": 4, "n_heads": 3},
    "transformer_none": {"d_model": 66, "n_layers": 4, "n_heads": 3},
    "modern": {"d_model": 66, "n_layers": 4, "n_heads": 3},
    "lstm": {"d_model": 111, "n_layers": 2},
    "transformer-live": {"d_model": 68, "n_layers": 3, "n_heads": 2},
    "transformer-flops": {"d_model": 60, "n_layers": 3, "n_heads": 3},
}
FAMILIES = ("k_operators", "transformer", "transformer_rotary", "transformer_none", "modern", "lstm")
LEARNED = "learned-positions"  # K-Operators with a new part, which is searched by itself
BEST_TRIAL = {  # of `laptop-tuning`: learning rate and shape; a test compares the records
    "k_operators": (3.2e-2, "long"),
    "transformer": (1.6e-2, "long"),
    "transformer_rotary": (1.6e-2, "long"),
    "transformer_none": (8e-3, "long"),
    "modern": (1.6e-2, "long"),
    "lstm": (3.2e-2, "long"),
    LEARNED: (1.6e-2, "long"),
}


def laptop_arm(label: str, learning_rate: float, shape: str = "short") -> RunConfig:
    """An arm of the laptop comparison: 210 thousand parameters, 4.1 million tokens, context 128.

    Each arm keeps the betas and the weight decay of its published recipe, the LSTM those of the Transformer. No
    dropout: four epochs overfit nothing.
    """
    architecture: str = "k_operators"
    model: Any = KOperatorsConfig(vocab_size=VOCAB_SIZE, context=CONTEXT, d_model=64, rank=16, n_k2=4)
    if label == LEARNED:
        model = replace(model, position="learned")
    elif label != "k_operators":
        family = label.removesuffix("-live").removesuffix("-flops")
        architecture, model = baseline(family, SIZES[label], context=CONTEXT, dropout=0.0)
    published = (K_OPERATORS_PAPER if architecture == "k_operators" else NANOGPT).training
    assert published is not None
    return RunConfig(
        architecture=architecture,
        model=model,
        context=CONTEXT,
        n_sampled_batches=N_SAMPLED_BATCHES,
        training=replace(
            published,
            n_steps=N_STEPS,
            batch_size=16,
            eval_every=250,
            schedule=SHAPES[shape]["schedule"],
            warmup_steps=SHAPES[shape]["warmup_steps"],
            learning_rate=learning_rate,
            final_learning_rate=float(f"{learning_rate * SHAPES[shape]['floor']:.6g}"),
        ),
    )


def best_arm(label: str) -> RunConfig:
    """An arm with the best trial of its family."""
    return laptop_arm(label, *BEST_TRIAL[label.removesuffix("-live").removesuffix("-flops")])


def laptop() -> Experiment:
    """The comparison itself, each arm with its best trial."""
    return Experiment(
        name="laptop",
        question="At equal parameters and equal tokens, at a size that a laptop trains, which model is better?",
        cells=(
            *(
                Cell(label=label, config=best_arm(label), seeds=REPORTING_SEEDS[:3])
                for label in ("k_operators", "transformer")
            ),
            *floors(CONTEXT, N_SAMPLED_BATCHES),
        ),
        reference="transformer",
    )


def laptop_tuning() -> Experiment:
    """The trials that chose the recipes at laptop size: the same for each arm, on a tuning seed.

    The short shape was searched first, for all arms: K-Operators' own was added after `laptop-2026-11` had run.
    """
    return Experiment(
        name="laptop-tuning",
        question="Which of seven learning rates and two shapes of the schedule is best for each arm at laptop size?",
        cells=tuple(
            Cell(
                label=trial_label(label, rate, shape),
                config=laptop_arm(label, rate, shape),
                seeds=(TUNING_SEED,),
                group=label,
            )
            for label in (*FAMILIES, LEARNED)
            for shape in SHAPES
            for rate in LEARNING_RATES
        ),
    )


def trial_label(label: str, rate: float, shape: str) -> str:
    """The label of a trial; without the shape where it is short, as before there were two."""
    return f"{label}{'' if shape == 'short' else f'-{shape}'}-lr{rate:g}"


def laptop_all() -> Experiment:
    """Every question of `matched`, `ablation` and `stress` at laptop size. The runs of `laptop` are among them.

    Variants of K-Operators are at its best trial, but for learned positions, a new part with a search of its own.
    """
    baselines = {label: best_arm(label) for label in SIZES}
    k_operators = best_arm("k_operators")
    changes = {**ablations(k_operators), **stressed(k_operators), LEARNED: best_arm(LEARNED)}
    distinct: dict[str, RunConfig] = {}
    for label, config in {"k_operators": k_operators, **baselines, **changes}.items():
        if config not in distinct.values():  # at the right rate the variants of `stressed` are ablations
            distinct[label] = config
    return Experiment(
        name="laptop-all",
        question="At laptop size, what do each baseline, each part of K-Operators and a wrong learning rate do?",
        cells=(
            *(
                Cell(
                    label=label,
                    config=config,
                    seeds=REPORTING_SEEDS[:5] if label in FAMILIES else REPORTING_SEEDS[:3],
                )
                for label, config in distinct.items()
            ),
            *floors(CONTEXT, N_SAMPLED_BATCHES),
        ),
        reference="transformer",
    )
