"""The questions, each a function that returns its cells: what is trained, at which seeds, to answer it.

Seeds are fixed here, before any run: reporting seeds in this order, tuning seeds from 1000.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.config import Mode, Run, RunConfig, TrainingConfig
from bench.errors import ConfigError
from bench.record import NO_SEED, SCHEMA_VERSION, Manifest
from bench.record import Cell as ManifestCell
from models import KOperatorsConfig, NgramConfig, TransformerConfig

REPORTING_SEEDS = (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)
TUNING_SEED = 1000
VOCAB_SIZE = 65
SYNTHETIC_ALLOWED = ("laptop", "laptop-tuning", "smoke")  # may fall back to the synthetic corpus, labelled so


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs that differ only in seed. `seeds` is (None,) for a fitted model."""

    label: str
    config: RunConfig
    seeds: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The cells that answer one question."""

    name: str
    question: str
    cells: tuple[Cell, ...]
    mode: Mode = "exact"

    def __post_init__(self) -> None:
        labels = [cell.label for cell in self.cells]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"experiment {self.name!r} has two cells of one label: {labels}")
        for cell in self.cells:
            if len(set(cell.seeds)) < len(cell.seeds):
                raise ConfigError(f"{self.name}/{cell.label} names a seed twice: {cell.seeds}; seeds must be distinct")

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that each arm has its first seeds early."""
        longest = max(len(cell.seeds) for cell in self.cells)
        return [
            Run(label=cell.label, config=cell.config, seed=cell.seeds[i], mode=self.mode)
            for i in range(longest)
            for cell in self.cells
            if i < len(cell.seeds)
        ]

    def manifest(self) -> Manifest:
        """What a store says belongs to this experiment."""
        cells: dict[str, dict[str, str]] = {cell.label: {} for cell in self.cells}
        for run in self.runs():
            cells[run.label][NO_SEED if run.seed is None else str(run.seed)] = run.run_id
        return Manifest(
            schema_version=SCHEMA_VERSION,
            name=self.name,
            question=self.question,
            corpus=self.cells[0].config.corpus,
            mode=self.mode,
            cells=[ManifestCell(label=label, run_ids=run_ids) for label, run_ids in cells.items()],
            claim_rules_sha256=None,
        )

    def on(self, *, corpus: str | None, mode: Mode, seeds: tuple[int, ...] | None) -> "Experiment":
        """The same experiment in a mode and, where they are named, on another corpus and at other seeds."""
        cells = tuple(
            replace(
                cell,
                config=replace(cell.config, corpus=corpus or cell.config.corpus),
                seeds=cell.seeds if seeds is None or cell.seeds == (None,) else seeds,
            )
            for cell in self.cells
        )
        return replace(self, cells=cells, mode=mode)


# the published recipes ---------------------------------------------------------------------------------------------

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
NANOGPT = RunConfig(
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


def floors(context: int, n_sampled_batches: int = 200) -> tuple[Cell, ...]:
    """Counted models that anything trained must beat."""
    return tuple(
        Cell(
            label=label,
            config=RunConfig(
                architecture="ngram",
                model=NgramConfig(vocab_size=VOCAB_SIZE, order=order),
                context=context,
                training=None,
                n_sampled_batches=n_sampled_batches,
            ),
            seeds=(None,),
        )
        for label, order in (("unigram", 1), ("bigram", 2))
    )


def paper() -> Experiment:
    """Both published systems, each with its own recipe."""
    return Experiment(
        name="paper",
        question="Do K-Operators and nanoGPT, each with its own recipe, reach their published perplexities?",
        cells=(
            Cell(label="k_operators", config=K_OPERATORS_PAPER, seeds=REPORTING_SEEDS),
            Cell(label="nanogpt", config=NANOGPT, seeds=REPORTING_SEEDS),
            *floors(context=256),
        ),
    )


# the comparison at a size that two CPU cores finish in about ten minutes -------------------------------------------

LAPTOP_CONTEXT = 128
LAPTOP_SAMPLED_BATCHES = 50
LAPTOP_LEARNING_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)  # five, then one more: an arm was best at the edge
LAPTOP_BEST_LEARNING_RATE = {"k_operators": 8e-3, "transformer": 1.6e-2}  # a test compares `laptop-tuning`


def laptop_arm(label: str, learning_rate: float) -> RunConfig:
    """An arm of the laptop comparison: 210 thousand parameters, 4.1 million tokens, one width, four mixing layers.

    Both arms share the schedule, and each keeps the betas and the weight decay of its published recipe. No dropout:
    four epochs overfit nothing.
    """
    model = {
        "k_operators": KOperatorsConfig(vocab_size=VOCAB_SIZE, context=LAPTOP_CONTEXT, d_model=64, rank=16, n_k2=4),
        "transformer": TransformerConfig(
            vocab_size=VOCAB_SIZE, context=LAPTOP_CONTEXT, d_model=64, n_layers=4, n_heads=4
        ),
    }[label]
    published = {"k_operators": K_OPERATORS_PAPER, "transformer": NANOGPT}[label].training
    assert published is not None
    return RunConfig(
        architecture=label,
        model=model,
        context=LAPTOP_CONTEXT,
        n_sampled_batches=LAPTOP_SAMPLED_BATCHES,
        training=replace(
            published,
            n_steps=2000,
            batch_size=16,
            eval_every=250,
            warmup_steps=200,
            schedule="nanogpt",
            learning_rate=learning_rate,
            final_learning_rate=learning_rate / 10,
        ),
    )


def laptop() -> Experiment:
    """The same comparison at laptop size, at each arm's best learning rate."""
    return Experiment(
        name="laptop",
        question="At equal parameters and equal tokens, at a size that a laptop trains, which model is better?",
        cells=(
            *(
                Cell(label=label, config=laptop_arm(label, rate), seeds=REPORTING_SEEDS[:3])
                for label, rate in LAPTOP_BEST_LEARNING_RATE.items()
            ),
            *floors(LAPTOP_CONTEXT, LAPTOP_SAMPLED_BATCHES),
        ),
    )


def laptop_tuning() -> Experiment:
    """The trials that chose the learning rates of `laptop`: the same for each arm, on a tuning seed."""
    return Experiment(
        name="laptop-tuning",
        question="Which of six learning rates is best for each arm of `laptop`?",
        cells=tuple(
            Cell(label=f"{label}-lr{rate:g}", config=laptop_arm(label, rate), seeds=(TUNING_SEED,))
            for label in LAPTOP_BEST_LEARNING_RATE
            for rate in LAPTOP_LEARNING_RATES
        ),
    )


def smoke() -> Experiment:
    """The whole path in seconds. Its numbers mean nothing."""
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
        question="Does the whole path work?",
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
    )


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {
    "paper": paper,
    "laptop": laptop,
    "laptop-tuning": laptop_tuning,
    "smoke": smoke,
}


def find_experiment(name: str) -> Experiment:
    """The experiment of that name. ConfigError lists those there are."""
    if name not in EXPERIMENTS:
        raise ConfigError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]()
