"""The questions are fixed before their runs: distinct seeds, the same for every arm, tuning apart from reporting."""

from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.experiments import (
    EXPERIMENTS,
    LAPTOP_BEST_LEARNING_RATE,
    LAPTOP_LEARNING_RATES,
    REPORTING_SEEDS,
    TUNING_SEED,
    Cell,
    Experiment,
    find_experiment,
    laptop,
    laptop_tuning,
)
from bench.store import Store

RESULTS = Store(Path(__file__).parent.parent / "results")


def test_reporting_seeds_are_the_published_ones_then_more():
    assert REPORTING_SEEDS == (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)
    assert TUNING_SEED not in REPORTING_SEEDS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_trained_arm_has_the_same_seeds_and_no_two_runs_are_one(name):
    experiment = find_experiment(name)
    trained = {cell.seeds for cell in experiment.cells if cell.config.training is not None}
    assert len(trained) == 1
    ids = [run.run_id for run in experiment.runs()]
    assert len(set(ids)) == len(ids)


def test_a_seed_named_twice_is_refused():
    cell = laptop().cells[0]
    with pytest.raises(ConfigError, match="names a seed twice"):
        Experiment(name="x", question="?", cells=(Cell(label="a", config=cell.config, seeds=(1, 2, 1)),))


def test_other_seeds_replace_those_of_trained_cells_only():
    changed = laptop().on(corpus=None, mode="exact", seeds=(7, 8))
    assert [cell.seeds for cell in changed.cells] == [(7, 8), (7, 8), (None,), (None,)]


def test_the_manifest_names_every_run():
    experiment = laptop()
    named = {run_id for cell in experiment.manifest().cells for run_id in cell.run_ids.values()}
    assert named == {run.run_id for run in experiment.runs()}


def test_each_laptop_arm_was_tuned_over_the_same_rates():
    labels = {cell.label for cell in laptop_tuning().cells}
    assert labels == {f"{arm}-lr{rate:g}" for arm in LAPTOP_BEST_LEARNING_RATE for rate in LAPTOP_LEARNING_RATES}


@pytest.mark.parametrize("arm", LAPTOP_BEST_LEARNING_RATE)
def test_the_laptop_learning_rate_is_the_best_of_the_committed_trials(arm):
    records, errors = RESULTS.records()
    assert not errors
    recorded = {one.run_id: one for one in records}
    losses = {}
    for run in laptop_tuning().runs():
        if run.config.architecture == arm:
            trial = recorded[run.run_id]
            assert trial.status in ("done", "diverged")
            if trial.result is not None:
                losses[run.config.training.learning_rate] = trial.result.sweep.best.nats_per_token
    assert len(losses) >= 3
    assert min(losses, key=losses.__getitem__) == LAPTOP_BEST_LEARNING_RATE[arm]


def test_the_committed_laptop_records_are_of_the_present_experiment():
    records, _ = RESULTS.records()
    recorded = {one.run_id for one in records}
    assert {run.run_id for run in laptop().runs()} <= recorded
