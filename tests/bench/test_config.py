"""Configs: the run id ignores defaults, and reading refuses unknown keys."""

import dataclasses
import json
import re

import pytest

from bench.config import Run, override, read_config, read_run, to_json, without_defaults
from bench.errors import ConfigError
from bench.experiments import EXPERIMENTS, find_experiment
from bench.experiments.recipes import K_OPERATORS_PAPER as PAPER
from bench.experiments.recipes import NANOGPT, floors

PAPER_RUN = Run(label="k_operators", config=PAPER, seed=42, mode="exact")


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
        dataclasses.replace(PAPER_RUN, config=override(PAPER, ["model.rank=16"])).run_id,
        dataclasses.replace(PAPER_RUN, config=override(PAPER, ["corpus=synthetic"])).run_id,
        PAPER_RUN.run_id,
    }
    assert len(other) == 6
    assert dataclasses.replace(PAPER_RUN, label="other").run_id == PAPER_RUN.run_id


def test_a_field_at_its_default_is_not_part_of_the_identity():
    identity = without_defaults(PAPER)
    assert "backend" not in identity["model"]
    assert "n_sampled_batches" not in identity
    assert identity["model"]["emb_dropout"] == 0.08
    assert identity["architecture"] == "k_operators"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_survives_json(name):
    for run in find_experiment(name).runs():
        assert read_run(json.loads(json.dumps(to_json(run)))) == run


def test_a_missing_field_means_its_default():
    data = to_json(PAPER)
    del data["model"]["backend"], data["training"]["clip_norm"], data["n_sampled_batches"]
    assert read_config(data) == PAPER


KNESER_NEY = floors(256)[-1].config
WRONG_IN_K_OPERATORS = {
    **dict.fromkeys(("backend", "head", "paths", "shared_base", "base_init", "eta"), ("other",)),
    "position": ("rotary",),
    "gamma_min": ("-0.1", "1.0"),
    "gamma_max": ("1.1", "0.85", "nan"),
    "alpha_cap": ("0.0", "inf", "nan"),
    **dict.fromkeys(("rank", "head_mult"), ("0",)),
    **dict.fromkeys(("n_k2", "eval_refine_steps"), ("-1",)),
    "refine_steps": ("-1", "1.5"),
    **dict.fromkeys(("emb_dropout", "mlp_dropout", "residual_dropout", "head_dropout"), ("1.0", "-0.1", "nan")),
}


@pytest.mark.met("U14")
@pytest.mark.parametrize(
    ("config", "assignment", "message"),
    [
        (
            PAPER,
            "training.lerning_rate=1",
            "unknown key training.lerning_rate, did you mean 'learning_rate'",
        ),
        (PAPER, "modle=1", "unknown key modle, did you mean 'model'"),
        (PAPER, "training.n_steps=many", "training.n_steps: Input should be a valid integer"),
        (PAPER, "training.n_steps=0", "n_steps=0 must be at least 1"),
        (PAPER, "model.d_model=-1", "d_model=-1 must be at least 1"),
        (PAPER, "context=512", "context=512 is longer than the model's context=256"),
        (PAPER, "corpus=wikipedia", "corpus='wikipedia' is not one of"),
        (PAPER, "architecture=mamba", "architecture 'mamba' is not one of"),
        (PAPER, "architecture=transformer", "unknown key model.rank"),
        (PAPER, "model.vocab_size=66", "vocab_size=66, but tinyshakespeare has 65 characters"),
        (PAPER, "training.learning_rate=true", "training.learning_rate: Input should be a valid number"),
        (PAPER, "training.n_steps=1e3", "training.n_steps: Input should be a valid integer"),
        (PAPER, "training.warmup_steps='100'", "training.warmup_steps: Input should be a valid integer"),
        (PAPER, "training.betas=[true, 0.9]", "training.betas.0: Input should be a valid number"),
        (PAPER, "model.shared_base=1", "model.shared_base: Input should be a valid boolean"),
        (PAPER, "context=256.0", "context: Input should be a valid integer"),
        (PAPER, "n_sampled_batches=true", "n_sampled_batches: Input should be a valid integer"),
        (PAPER, "training.n_steps=99999999999999999999999", "at most 99,999,999: checkpoints are named"),
        (PAPER, "training.batch_size=1048577", "at most 1,048,576: more would repeat the next step"),
        (PAPER, "training.eval_every=2147483648", "at most 2,147,483,647: products of two counts must fit 64 bits"),
        (PAPER, "n_sampled_batches=9999999999", "at most 2,147,483,647: products of two counts must fit 64 bits"),
        (PAPER, "model.rank=9999999999", "model.rank=9999999999 must be at most 2,147,483,647"),
        (PAPER, "model.rank.x=1", "model.rank is not a group of keys"),
        (PAPER, "model.rank", "write it as key.path=value"),
        *((PAPER, f"model.{name}={one}", name) for name, many in WRONG_IN_K_OPERATORS.items() for one in many),
        (NANOGPT, "model.norm=batch", "model.norm"),
        (NANOGPT, "model.mlp=relu", "model.mlp"),
        (NANOGPT, "model.position=absolute", "model.position"),
        (NANOGPT, "model.mlp_mult=0", "mlp_mult=0"),
        (NANOGPT, "model.dropout=1.0", "dropout=1.0"),
        (NANOGPT, "training.schedule=linear", "training.schedule"),
        (NANOGPT, "training.grouping=none", "training.grouping"),
        (KNESER_NEY, "model.order=0", "order=0 must be at least 1"),
        (KNESER_NEY, "model.order=11", "order=11 is too long for 65 tokens"),  # 65^11 > 2^62: too long for int64
        (KNESER_NEY, "model.order=two", "model.order"),
    ],
)
def test_a_wrong_override_is_refused_by_name(config, assignment, message):
    with pytest.raises(ConfigError, match=rf"(?<!\w){re.escape(message)}(?!\w)") as caught:
        override(config, [assignment])
    assert "\n" not in str(caught.value)


def test_overrides_are_toml_literals():
    assignments = ["training.learning_rate=3e-3", "model.backend=mask", "training.betas=[0.9,0.95]"]
    changed = override(PAPER, assignments)
    assert (changed.training.learning_rate, changed.training.betas) == (3e-3, (0.9, 0.95))
    assert changed.model.backend == "mask"


def test_fitted_models_take_no_seed_and_trained_ones_need_one():
    fitted = find_experiment("laptop").cells[-1].config
    with pytest.raises(ValueError, match="fitted ones have none"):
        Run(label="bigram", config=fitted, seed=1, mode="exact")
    with pytest.raises(ValueError, match="trained models need a seed"):
        Run(label="k_operators", config=PAPER, seed=None, mode="exact")
