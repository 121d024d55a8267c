"""The published recipes, the n-gram floors, and the changes of each ablation."""

from dataclasses import fields, replace
from typing import Any

from bench.config import RunConfig, TrainingConfig
from bench.experiments.grid import Cell
from models import KneserNeyConfig, KOperatorsConfig, NgramConfig, TransformerConfig

VOCAB_SIZE = 65
KNESER_NEY_ORDER = 6  # of 1 to 9, the least loss on the last tenth of the training text

K_OPERATORS_PAPER = RunConfig(
    architecture="k_operators",
    model=KOperatorsConfig(
        vocab_size=VOCAB_SIZE,
        context=256,
        d_model=128,
        rank=32,
        n_k2=6,
        emb_dropout=0.08,
        mlp_dropout=0.10,
        residual_dropout=0.05,
        head_dropout=0.15,
    ),
    context=256,
    training=TrainingConfig(
        n_steps=3500,
        learning_rate=1e-2,
        final_learning_rate=3.5e-4,
        warmup_steps=2000,
        schedule="k_operators",
        betas=(0.8, 0.999),
        weight_decay=0.02,
    ),
)
NANOGPT = RunConfig(  # at commit 3adf61e
    architecture="transformer",
    model=TransformerConfig(vocab_size=VOCAB_SIZE, context=256, d_model=384, n_layers=6, n_heads=6, dropout=0.2),
    context=256,
    training=TrainingConfig(
        n_steps=5000,
        learning_rate=1e-3,
        final_learning_rate=1e-4,
        warmup_steps=100,
        schedule="nanogpt",
        betas=(0.9, 0.99),
        weight_decay=0.1,
    ),
)


def changed(config: RunConfig, *, model: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    """`config` with fields of its model and of its training replaced; its windows are as long as the model sees."""
    assert config.training is not None
    new = replace(config.model, **(model or {}))
    return replace(config, model=new, context=new.context, training=replace(config.training, **training))


# of February 2023, behind the published 1.4697
NANOGPT_2023 = changed(NANOGPT, model={"mlp": "gelu_tanh"}, schedule="nanogpt_2023", grouping="plain_embeddings")


def floors(context: int, n_sampled_batches: int = 200) -> tuple[Cell, ...]:
    """Counted models that anything trained must beat."""
    models = {
        "unigram": ("ngram", NgramConfig(vocab_size=VOCAB_SIZE, order=1)),
        "bigram": ("ngram", NgramConfig(vocab_size=VOCAB_SIZE, order=2)),
        "kneser_ney": ("kneser_ney", KneserNeyConfig(vocab_size=VOCAB_SIZE, order=KNESER_NEY_ORDER)),
    }
    return tuple(
        Cell(
            label=label,
            config=RunConfig(
                architecture=architecture,
                model=model,
                context=context,
                training=None,
                n_sampled_batches=n_sampled_batches,
            ),
            seeds=(None,),
        )
        for label, (architecture, model) in models.items()
    )


# K-Operators, changed in one thing -----------------------------------------------------------------------------------


def dropout_fields(model: Any) -> tuple[str, ...]:
    """The names of a model config's dropout rates."""
    return tuple(field.name for field in fields(model) if field.name.endswith("dropout"))


def with_dropout(model: Any, rate: float) -> Any:
    """A model config with one rate at each of its dropouts."""
    return replace(model, **dict.fromkeys(dropout_fields(model), rate))


REFINEMENTS: dict[str, dict[str, Any]] = {
    "refine-0": {"refine_steps": 0},
    "refine-1-frozen": {"eta": "frozen"},
    "refine-2": {"refine_steps": 2},
    "refine-2-frozen": {"refine_steps": 2, "eta": "frozen"},
    "refine-4": {"refine_steps": 4},
    "refine-4-frozen": {"refine_steps": 4, "eta": "frozen"},
}


def ablations(base: RunConfig) -> dict[str, RunConfig]:
    """`base`, a K-Operators recipe of one refinement, and each change of one thing, by label."""
    dropout = {name: getattr(base.model, name) for name in dropout_fields(base.model)}
    if any(dropout.values()):
        of_dropout = {"no-dropout": dict.fromkeys(dropout, 0.0)}
    else:
        of_dropout = {"dropout": {name: getattr(K_OPERATORS_PAPER.model, name) for name in dropout}}
    changes: dict[str, dict[str, Any]] = {
        "k_operators": {},
        "no-base": {"paths": "recurrent"},
        "no-recurrence": {"paths": "base"},
        "exponential-base": {"base_init": "exponential"},
        "shared-base": {"shared_base": True},
        "gamma-min-0.15": {"gamma_min": 0.15},
        "gamma-free": {"gamma_min": 0.0},
        "alpha-cap-0.4": {"alpha_cap": 0.4},
        "alpha-cap-1.6": {"alpha_cap": 1.6},
        **REFINEMENTS,
        "learned-positions": {"position": "learned"},
        **of_dropout,
        **{f"rank-{rank}": {"rank": rank} for rank in (base.model.rank // 4, base.model.rank * 2)},
    }
    return {label: changed(base, model=change) for label, change in changes.items()}


STRESS_FACTORS = (0.1, 1, 3, 10)


def stressed(base: RunConfig) -> dict[str, RunConfig]:
    """`base` at wrong learning rates: with its refinement, with one plain pass, and with eta frozen, by label."""
    variants: dict[str, dict[str, Any]] = {"refine": {}, "plain": {"refine_steps": 0}, "frozen": {"eta": "frozen"}}
    assert base.training is not None
    rates = {name: getattr(base.training, name) for name in ("learning_rate", "final_learning_rate")}
    return {
        f"{variant}-lr{factor:g}": changed(
            base, model=change, **{name: float(f"{rate * factor:.6g}") for name, rate in rates.items()}
        )
        for variant, change in variants.items()
        for factor in STRESS_FACTORS
    }
