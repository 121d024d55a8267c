"""Configs: the run id ignores defaults, and reading refuses unknown keys."""

import dataclasses
import json

import pytest

from bench.config import Run, override, read_config, read_run, to_json, without_defaults
from bench.errors import ConfigError
from bench.experiments import EXPERIMENTS, find_experiment
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT

PAPER_RUN = Run(label="k_operators", config=K_OPERATORS_PAPER, seed=42, mode="exact")


def test_run_ids_are_pinned():
    """Records are found by run id: a change of one of these renames every existing run."""
    assert PAPER_RUN.run_id == "1e31217268cd"
    assert Run(label="nanogpt", config=NANOGPT, seed=42, mode="exact").run_id == "4ec7b319cde9"
    ids = {run.name: run.run_id for run in find_experiment("laptop").runs()}
    assert ids["unigram-fitted"] == "98d23e7c1989"


def test_what_may_change_a_number_changes_the_id_and_a_label_does_not():
    other = {
        dataclasses.replace(PAPER_RUN, seed=69).run_id,
        dataclasses.replace(PAPER_RUN, mode="fast").run_id,
        dataclasses.replace(PAPER_RUN, replicate=1).run_id,
        dataclasses.replace(PAPER_RUN, config=override(K_OPERATORS_PAPER, ["model.rank=16"])).run_id,
        dataclasses.replace(PAPER_RUN, config=override(K_OPERATORS_PAPER, ["corpus=synthetic"])).run_id,
        PAPER_RUN.run_id,
    }
    assert len(other) == 6
    assert dataclasses.replace(PAPER_RUN, label="other").run_id == PAPER_RUN.run_id


def test_a_field_at_its_default_is_not_part_of_the_identity():
    identity = without_defaults(K_OPERATORS_PAPER)
    assert "backend" not in identity["model"]
    assert "n_sampled_batches" not in identity
    assert identity["model"]["emb_dropout"] == 0.08
    assert identity["architecture"] == "k_operators"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_survives_json(name):
    for run in find_experiment(name).runs():
        assert read_run(json.loads(json.dumps(to_json(run)))) == run


def test_a_missing_field_means_its_default():
    data = to_json(K_OPERATORS_PAPER)
    del data["model"]["backend"], data["training"]["clip_norm"], data["n_sampled_batches"]
    assert read_config(data) == K_OPERATORS_PAPER


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.lerning_rate=1", "unknown key training.lerning_rate, did you mean 'learning_rate'"),
        ("modle=1", "unknown key modle, did you mean 'model'"),
        ("training.n_steps=many", "training.n_steps: Input should be a valid integer"),
        ("training.n_steps=0", "n_steps=0 must be at least 1"),
        ("model.d_model=-1", "d_model=-1 must be at least 1"),
        ("context=512", "context=512 is longer than the model's context=256"),
        ("corpus=wikipedia", "corpus='wikipedia' is not one of"),
        ("architecture=mamba", "architecture 'mamba' is not one of"),
        ("architecture=transformer", "unknown key model.rank"),
        ("model.vocab_size=66", "vocab_size=66, but tinyshakespeare has 65 characters"),
        ("model.rank.x=1", "model.rank is not a group of keys"),
        ("model.rank", "write it as key.path=value"),
    ],
)
def test_a_wrong_override_is_refused_by_name(assignment, message):
    with pytest.raises(ConfigError) as caught:
        override(K_OPERATORS_PAPER, [assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_are_toml_literals():
    assignments = ["training.learning_rate=3e-3", "model.backend=mask", "training.betas=[0.9,0.95]"]
    changed = override(K_OPERATORS_PAPER, assignments)
    assert (changed.training.learning_rate, changed.training.betas) == (3e-3, (0.9, 0.95))
    assert changed.model.backend == "mask"


def test_fitted_models_take_no_seed_and_trained_ones_need_one():
    fitted = find_experiment("laptop").cells[-1].config
    with pytest.raises(ValueError, match="fitted ones have none"):
        Run(label="bigram", config=fitted, seed=1, mode="exact")
    with pytest.raises(ValueError, match="trained models need a seed"):
        Run(label="k_operators", config=K_OPERATORS_PAPER, seed=None, mode="exact")
