"""The experiments, one function each: the cells that are trained, and their seeds."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from bench.config import MODES, Mode, RunConfig, TrainingConfig
from bench.errors import ConfigError
from bench.experiments.grid import REPORTING_SEEDS, Cell, Experiment
from bench.experiments.laptop import laptop, laptop_all, laptop_tuning
from bench.experiments.matched import matched, tuning
from bench.experiments.recipes import (
    K_OPERATORS_PAPER,
    NANOGPT,
    NANOGPT_2023,
    VOCAB_SIZE,
    ablations,
    changed,
    floors,
    stressed,
)
from bench.experiments.search import Recorded
from bench.experiments.texts import folds, folds_laptop, warpeace, warpeace_laptop
from bench.store import Store
from models import KOperatorsConfig, TransformerConfig

SYNTHETIC_ALLOWED = ("laptop", "laptop-tuning", "laptop-all", "smoke")  # may use the synthetic corpus, labelled so


def paper() -> Experiment:
    """The published systems, each with its own recipe."""
    recipes = {"k_operators": K_OPERATORS_PAPER, "nanogpt": NANOGPT, "nanogpt_2023": NANOGPT_2023}
    return Experiment(
        name="paper",
        question="Do K-Operators and nanoGPT, each with its own recipe, reach their published perplexities?",
        cells=(
            *(Cell(label=label, config=config, seeds=REPORTING_SEEDS) for label, config in recipes.items()),
            *floors(context=256),
        ),
        reference="nanogpt_2023",
    )


def noise() -> Experiment:
    """One seed repeated in fast mode: the spread to compare the spread between seeds with."""
    return Experiment(
        name="noise",
        question="How far apart are runs of one seed whose arithmetic is fast rather than exact?",
        cells=tuple(
            Cell(
                label=f"k_operators-replicate-{i}",
                config=K_OPERATORS_PAPER,
                seeds=REPORTING_SEEDS[:1],
                group="k_operators",
                replicate=i,
            )
            for i in range(6)  # the first three ran before paths were knocked out
        ),
        only_mode="fast",
    )


def ablation() -> Experiment:
    """K-Operators with the paper's recipe, changed in one thing at a time."""
    return Experiment(
        name="ablation",
        question="What does each part of K-Operators do for its perplexity?",
        cells=tuple(
            Cell(label=label, config=config, seeds=REPORTING_SEEDS[:5])
            for label, config in ablations(K_OPERATORS_PAPER).items()
        ),
        reference="k_operators",
    )


def stress() -> Experiment:
    """The learning rate of the paper's recipe times 0.1 to 10, with and without refinement."""
    return Experiment(
        name="stress",
        question="Does learned refinement carry K-Operators through a learning rate that is ten times wrong?",
        cells=tuple(
            Cell(label=label, config=config, seeds=REPORTING_SEEDS[:5])
            for label, config in stressed(K_OPERATORS_PAPER).items()
        ),
        reference="refine-lr1",
    )


def backends() -> Experiment:
    """Twenty steps of each form of the memory, at contexts from 64 to 512, in exact arithmetic."""

    def config(backend: str, context: int) -> RunConfig:
        short = changed(
            K_OPERATORS_PAPER,
            model={"backend": backend, "context": context},
            n_steps=20,
            warmup_steps=10,
            eval_every=20,
            batch_size=16,  # so that the longest fits a small machine
        )
        return replace(short, n_sampled_batches=1)

    return Experiment(
        name="backends",
        question="Do the forms of K-Operators' memory train alike, and what time and memory does each take?",
        cells=tuple(
            Cell(label=f"{backend}-T{context}", config=config(backend, context), seeds=REPORTING_SEEDS[:3])
            for backend in ("mask", "block", "chunked")
            for context in (64, 128, 256, 512)
        ),
        only_mode="exact",
    )


def smoke() -> Experiment:
    """The complete pipeline in seconds. Its numbers mean nothing."""
    training = TrainingConfig(
        n_steps=12,
        batch_size=8,
        eval_every=5,
        learning_rate=1e-2,
        final_learning_rate=1e-3,
        warmup_steps=2,
        schedule="nanogpt",
        betas=(0.9, 0.99),
        weight_decay=0.1,
    )
    context = 32
    models = {
        "k_operators": KOperatorsConfig(
            vocab_size=VOCAB_SIZE, context=context, d_model=16, rank=4, n_k2=2, mlp_dropout=0.1
        ),
        "transformer": TransformerConfig(
            vocab_size=VOCAB_SIZE, context=context, d_model=16, n_layers=2, n_heads=2, dropout=0.1
        ),
    }
    return Experiment(
        name="smoke",
        question="Does the complete pipeline work?",
        cells=(
            *(
                Cell(
                    label=label,
                    config=RunConfig(
                        architecture=label, model=model, context=context, training=training, n_sampled_batches=2
                    ),
                    seeds=REPORTING_SEEDS[:2],
                )
                for label, model in models.items()
            ),
            *floors(context, n_sampled_batches=2),
        ),
        reference="transformer",
    )


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {  # those whose cells are fixed
    "paper": paper,
    "noise": noise,
    "ablation": ablation,
    "stress": stress,
    "backends": backends,
    "folds-laptop": folds_laptop,
    "warpeace-laptop": warpeace_laptop,
    "laptop": laptop,
    "laptop-tuning": laptop_tuning,
    "laptop-all": laptop_all,
    "smoke": smoke,
}


FROM_RECORDS: dict[str, Callable[[Recorded], Experiment]] = {  # those some of whose cells are chosen by records
    "tuning": tuning,
    "matched": matched,
    "folds": folds,
    "warpeace": warpeace,
}


def check_name(name: str) -> None:
    """ConfigError that lists the experiments unless one has that name."""
    if name not in {**EXPERIMENTS, **FROM_RECORDS}:
        raise ConfigError(f"no experiment {name!r}; there are {', '.join((*EXPERIMENTS, *FROM_RECORDS))}")


def find_experiment(name: str, recorded: Recorded | None = None) -> Experiment:
    """The experiment of that name. `recorded` is what the cells of some depend on; default: no records.

    ConfigError lists the experiments there are, or the records that are missing.
    """
    check_name(name)
    return FROM_RECORDS[name](recorded or Recorded()) if name in FROM_RECORDS else EXPERIMENTS[name]()


def in_modes(name: str, store: Store, modes: Iterable[Mode]) -> list[Callable[[], Experiment]]:
    """Functions that return the experiment: one, or one for each mode if its cells depend on the records of a store."""
    if name in EXPERIMENTS:
        return [EXPERIMENTS[name]]
    return [partial(FROM_RECORDS[name], Recorded(store, mode)) for mode in sorted(modes) or MODES[:1]]
