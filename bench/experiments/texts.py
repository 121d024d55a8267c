"""The headline arms on other text, their recipes unchanged: the ten folds of Tiny Shakespeare, and War and Peace."""

from collections.abc import Callable

from bench.config import RunConfig
from bench.corpora import folds_of
from bench.experiments.grid import REPORTING_SEEDS, Cell, Experiment, on_corpus
from bench.experiments.laptop import best_arm
from bench.experiments.matched import tuned

ARMS = ("k_operators", "transformer", "transformer_rotary", "modern")  # of equal parameters
REFERENCE = "transformer"
Recipe = Callable[[str], RunConfig]  # from the name of an arm


def full_size(arm: str) -> RunConfig:
    """The recipe of an arm at the size of the preprint."""
    return tuned(arm)


def laptop_size(arm: str) -> RunConfig:
    """The recipe of an arm at laptop size."""
    return best_arm(arm)


def folds(name: str = "folds", recipe: Recipe = full_size) -> Experiment:
    """Each arm on nine tenths of the text and scored on the other one, ten times, with one seed."""
    return Experiment(
        name=name,
        question="Trained on nine tenths of Tiny Shakespeare and scored on the other one, which model is better?",
        cells=tuple(
            Cell(
                label=f"{arm}-fold{fold}",
                config=on_corpus(recipe(arm), corpus),
                seeds=REPORTING_SEEDS[:1],
                group=arm,
            )
            for fold, corpus in enumerate(folds_of("tinyshakespeare"))
            for arm in ARMS
        ),
        reference=REFERENCE,
    )


def warpeace(name: str = "warpeace", recipe: Recipe = full_size) -> Experiment:
    """Each arm on another text, with five seeds, scored once on a tenth that chose neither recipe nor step."""
    return Experiment(
        name=name,
        question="On War and Peace, with the recipes tuned on Tiny Shakespeare, which model is better?",
        cells=tuple(
            Cell(label=arm, config=on_corpus(recipe(arm), "warpeace"), seeds=REPORTING_SEEDS[:5]) for arm in ARMS
        ),
        reference=REFERENCE,
    )


def folds_laptop() -> Experiment:
    """`folds` at laptop size."""
    return folds("folds-laptop", laptop_size)


def warpeace_laptop() -> Experiment:
    """`warpeace` at laptop size."""
    return warpeace("warpeace-laptop", laptop_size)
