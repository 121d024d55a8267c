"""Experiments are fixed before their runs: distinct seeds, equal for every arm; tuning has another seed."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.experiments import EXPERIMENTS, find_experiment
from bench.experiments.grid import REPORTING_SEEDS, TUNING_SEED, Cell, Experiment
from bench.experiments.laptop import (
    BEST_TRIAL,
    FAMILIES,
    LEARNED,
    LEARNING_RATES,
    SHAPES,
    laptop,
    laptop_all,
    laptop_arm,
    laptop_tuning,
    trial_label,
)
from bench.experiments.laptop import SIZES as LAPTOP_SIZES
from bench.experiments.matched import AXES, SIZES, arm, matched
from bench.experiments.recipes import K_OPERATORS_PAPER
from bench.experiments.sizing import budget_of
from bench.record import Record
from bench.store import Store
from tests.searching import Made

RESULTS = Store(Path(__file__).parents[3] / "results")


def test_reporting_seeds_are_the_published_ones_then_more():
    assert REPORTING_SEEDS == (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)
    assert TUNING_SEED not in REPORTING_SEEDS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_run_ids_are_distinct_and_seeds_are_the_first_reporting_seeds_or_the_tuning_seed(name):
    experiment = find_experiment(name)
    for cell in experiment.cells:
        first = REPORTING_SEEDS[: len(cell.seeds)]
        assert cell.seeds == (first if cell.config.training is not None else (None,)) or cell.seeds == (TUNING_SEED,)
    ids = [run.run_id for run in experiment.runs()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in ("paper", "ablation", "stress", "laptop")),
        ("laptop-all", dict.fromkeys(FAMILIES, 5)),
    ],
)
def test_every_trained_arm_has_the_same_seeds_except_the_headline_pair(name, more):
    trained = [cell for cell in find_experiment(name).cells if cell.config.training is not None]
    others = {cell.seeds for cell in trained if cell.label not in more}
    assert len(others) == 1
    assert {cell.label: len(cell.seeds) for cell in trained if cell.seeds not in others} == more


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("family", SIZES)
def test_each_matched_baseline_has_the_budget_of_k_operators_on_its_axis_within_a_hundredth(family, axis):
    field = {"params": "params", "live": "live", "flops": "forward_flops"}[axis]
    target = getattr(budget_of(K_OPERATORS_PAPER.model, 256), field)
    assert abs(getattr(budget_of(arm(family, axis).model, 256), field) / target - 1) <= 0.01


def test_every_arm_of_matched_reads_equally_many_tokens_with_the_same_seeds_except_the_headline_pair():
    cells = matched(Made()).cells
    trainings = [(cell.config.training, cell.config.context) for cell in cells]
    assert {one.n_steps * one.batch_size * context for one, context in trainings if one} == {3500 * 64 * 256}
    headline = {"k_operators", "transformer-params"}
    n_seeds = {cell.label: len(cell.seeds) for cell in cells}
    assert n_seeds == {label: 10 if label in headline else 5 for label in n_seeds}
    assert all(cell.seeds == REPORTING_SEEDS[: len(cell.seeds)] for cell in cells)


@pytest.mark.parametrize("label", LAPTOP_SIZES)
def test_each_laptop_baseline_has_the_budget_of_k_operators_within_a_fiftieth(label):
    field = {"transformer-live": "live", "transformer-flops": "forward_flops"}.get(label, "params")
    target = getattr(budget_of(laptop_arm("k_operators", 1e-3).model, 128), field)
    assert abs(getattr(budget_of(laptop_arm(label, 1e-3).model, 128), field) / target - 1) <= 0.02


def test_a_seed_named_twice_is_refused():
    cell = laptop().cells[0]
    with pytest.raises(ConfigError, match="names a seed twice"):
        Experiment(name="x", question="?", cells=(Cell(label="a", config=cell.config, seeds=(1, 2, 1)),))


def test_other_seeds_replace_those_of_trained_cells_only():
    changed = laptop().on(corpus=None, mode="exact", seeds=(7, 8))
    assert [cell.seeds for cell in changed.cells] == [(7, 8), (7, 8), (None,), (None,), (None,)]


def test_the_manifest_names_every_run():
    experiment = laptop()
    named = {run_id for cell in experiment.manifest().cells for run_id in cell.run_ids.values()}
    assert named == {run.run_id for run in experiment.runs()}


def test_each_laptop_family_is_tuned_over_the_same_rates():
    of_arm = Counter(cell.group for cell in laptop_tuning().cells)
    assert of_arm == dict.fromkeys([*FAMILIES, LEARNED], len(LEARNING_RATES) * len(SHAPES))
    recipes = {
        arm: {
            (training.learning_rate, training.final_learning_rate, training.warmup_steps, training.schedule)
            for cell in laptop_tuning().cells
            if cell.group == arm and (training := cell.config.training)
        }
        for arm in of_arm
    }
    assert len({frozenset(found) for found in recipes.values()}) == 1
    assert set(BEST_TRIAL) == {*FAMILIES, LEARNED}


@pytest.mark.parametrize("family", BEST_TRIAL)
def test_the_laptop_recipe_is_the_best_of_the_committed_trials(family):
    labels = {trial_label(family, rate, shape) for rate in LEARNING_RATES for shape in SHAPES}
    assert best_trial(laptop_tuning(), labels) == trial_label(family, *BEST_TRIAL[family])


def test_the_committed_laptop_records_are_of_the_present_experiment():
    assert {run.run_id for run in laptop().runs()} <= set(committed())


def test_the_runs_of_laptop_are_among_those_of_laptop_all():
    assert {run.run_id for run in laptop().runs()} <= {run.run_id for run in laptop_all().runs()}


@cache
def committed() -> dict[str, Record]:
    records, errors = RESULTS.records()
    assert not errors
    return {one.run_id: one for one in records}


def best_trial(experiment: Experiment, labels: set[str]) -> str:
    """The label of the trial with the lowest recorded loss; each must have ended."""
    trials = {run.label: committed()[run.run_id] for run in experiment.runs() if run.label in labels}
    assert {one.status for one in trials.values()} <= {"done", "diverged"}
    losses = {label: nats for label, one in trials.items() if (nats := one.nats()) is not None}
    assert len(losses) >= 3
    return min(losses, key=losses.__getitem__)
