"""The headline arms on other text, their recipes unchanged: the ten folds of Tiny Shakespeare, and War and Peace."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.config import RunConfig
from bench.corpora import folds_of
from bench.experiments.grid import REPORTING_SEEDS, Cell, Experiment, on_corpus
from bench.experiments.laptop import best_arm
from bench.experiments.matched import chosen_by, decided, tuned
from bench.experiments.search import Recorded

ARMS = ("k_operators", "transformer", "transformer_rotary", "modern")  # of equal parameters
REFERENCE = "transformer"
Recipe = Callable[[str], RunConfig]  # from the name of an arm


def folds(recorded: Recorded) -> Experiment:
    """Each arm on nine tenths of the text and scored on the other one, ten times, with one seed."""
    return _with_tuned_recipes(partial(on_folds, "folds"), recorded)


def warpeace(recorded: Recorded) -> Experiment:
    """Each arm on another text, with five seeds, scored once on a tenth that chose neither recipe nor step."""
    return _with_tuned_recipes(partial(on_warpeace, "warpeace"), recorded)


def folds_laptop() -> Experiment:
    """`folds` at laptop size."""
    return on_folds("folds-laptop", best_arm)


def warpeace_laptop() -> Experiment:
    """`warpeace` at laptop size."""
    return on_warpeace("warpeace-laptop", best_arm)


def _with_tuned_recipes(make: Callable[[Recipe], Experiment], recorded: Recorded) -> Experiment:
    """An experiment at the size of the preprint, with the recipes that won the search; ConfigError without winners."""
    found = decided(recorded, ARMS)
    experiment = make(partial(tuned, found))
    return replace(experiment, chosen_by=chosen_by(found), only_mode=recorded.mode)


def on_folds(name: str, recipe: Recipe) -> Experiment:
    """The arms with a recipe on each fold of Tiny Shakespeare."""
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


def on_warpeace(name: str, recipe: Recipe) -> Experiment:
    """The arms with a recipe on War and Peace."""
    return Experiment(
        name=name,
        question="On War and Peace, with the recipes tuned on Tiny Shakespeare, which model is better?",
        cells=tuple(
            Cell(label=arm, config=on_corpus(recipe(arm), "warpeace"), seeds=REPORTING_SEEDS[:5]) for arm in ARMS
        ),
        reference=REFERENCE,
    )
