"""The solver meets each budget within 1 %, with a config that can be built, and lists the changes."""

import dataclasses
import itertools
import shlex

import numpy as np
import pytest
import torch

from bench.app import app
from bench.budget import count_parameters
from bench.config import override
from bench.errors import ConfigError
from bench.experiments.laptop import laptop_arm
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from bench.experiments.sizing import (
    AXES,
    ROUNDING,
    budget_of,
    fit_size,
    free_sizes,
    predict,
    set_arguments,
    shape_change,
)
from models import ARCHITECTURES, LSTMConfig, NgramConfig, build
from tests.command_line import call, mistake
from tests.conftest import TINY_MODELS

PAPER, LAPTOP = K_OPERATORS_PAPER.model, laptop_arm("k_operators", 1e-2).model
TARGETS = {
    "paper": {"params": 1_137_869, "without_positions": 1_137_869, "live": 942_029, "forward_flops": 1_949_952},
    "laptop": {"params": 211_785, "without_positions": 211_785, "live": 179_273, "forward_flops": 360_576},
}
MODERN = {"position": "rotary", "norm": "rms", "mlp": "swiglu"}


def starts(size):
    """Starting shapes by arm."""
    transformer = NANOGPT.model if size == "paper" else laptop_arm("transformer", 1e-2).model
    return {
        # of the other size, so that it must be resized
        "k_operators": dataclasses.replace(LAPTOP if size == "paper" else PAPER, context=transformer.context),
        "transformer": transformer,
        "transformer_rotary": dataclasses.replace(transformer, position="rotary"),
        "transformer_none": dataclasses.replace(transformer, position="none"),
        "modern": dataclasses.replace(transformer, **MODERN),
        "lstm": LSTMConfig(
            vocab_size=65, context=transformer.context, d_model=256 if size == "paper" else 128, n_layers=2
        ),
    }


def counted(config, axis):
    """The value of a model on the CPU, not on the meta device."""
    model = build(config)
    found = count_parameters(model)
    return {
        "params": found.n_params,
        "without_positions": found.n_params_without_positions,
        "live": found.n_live_params,
        "forward_flops": 2 * model.forward_macs_per_token(config.context),
    }[axis]


ARMS = sorted(starts("paper"))


def test_the_targets_are_the_budgets_of_k_operators():
    for size, config in (("paper", PAPER), ("laptop", LAPTOP)):
        assert budget_of(config, config.context)._asdict() == TARGETS[size]
    assert {config.context for config in (PAPER, NANOGPT.model)} == {256}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_on_the_meta_device_has_the_counts_of_a_real_one(architecture):
    config = TINY_MODELS[architecture]
    budget = budget_of(config, config.context)
    assert {axis: counted(config, axis) for axis in AXES} == budget._asdict()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("size", TARGETS)
def test_every_arm_meets_every_budget_within_one_percent(size, arm, axis):
    start, target = starts(size)[arm], TARGETS[size][axis]
    found = fit_size(start, axis=axis, target=target)
    assert found.value == counted(found.config, axis)
    assert abs(found.value / target - 1) <= 0.01
    assert found.deviation == found.value / target - 1
    free = free_sizes(start).fields()
    for field in dataclasses.fields(start):
        if field.name not in free:
            assert getattr(found.config, field.name) == getattr(start, field.name)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("config", "rounding"),
    [
        (dataclasses.replace(PAPER, d_model=97, rank=29, n_k2=5), 0),
        (dataclasses.replace(PAPER, d_model=97, rank=29, n_k2=5, shared_base=True, refine_steps=0), 0),
        (dataclasses.replace(PAPER, d_model=97, rank=29, n_k2=5, paths="recurrent", position="learned"), 0),
        (dataclasses.replace(NANOGPT.model, d_model=110, n_heads=5, n_layers=7, mlp_mult=3, bias=True), 0),
        (dataclasses.replace(NANOGPT.model, d_model=110, n_heads=5, n_layers=7, mlp_mult=5, **MODERN), ROUNDING),
        (LSTMConfig(vocab_size=65, context=256, d_model=97, n_layers=5), 0),
    ],
)
def test_the_polynomial_predicts_what_a_model_counts(config, rounding, axis):
    sizes = np.array([[getattr(config, name) for name in free_sizes(config).fields()]])
    predicted = predict(config, sizes, axis, config.context)[0]
    assert predicted == pytest.approx(counted(config, axis), rel=rounding or 1e-9)


def test_equal_calls_give_equal_sizes_and_draw_no_random_number():
    before = torch.get_rng_state()
    first = fit_size(NANOGPT.model, axis="params", target=1_137_869)
    budget_of.cache_clear()
    assert fit_size(NANOGPT.model, axis="params", target=1_137_869) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_a_size_lists_its_changes():
    found = fit_size(NANOGPT.model, axis="params", target=1_137_869)
    assert found.value == 3 * 12 * 174**2 + (65 + 256) * 174 + (2 * 3 + 1) * 174  # blocks, embeddings, norms
    assert found.changes == (
        "d_model 384 -> 174",
        "n_layers 6 -> 3",
        "n_heads 6 -> 3",
        "width per layer 58 instead of 64",
        "width per head 58 instead of 64",
    )


@pytest.mark.parametrize("arm", ARMS)
def test_a_config_that_meets_the_target_is_unchanged(arm):
    start = starts("paper")[arm]
    for axis in AXES:
        found = fit_size(start, axis=axis, target=getattr(budget_of(start, start.context), axis))
        assert (found.config, found.changes, found.deviation) == (start, (), 0.0)


@pytest.mark.parametrize("arm", ARMS)
def test_a_larger_target_gives_a_larger_model(arm):
    start = starts("paper")[arm]
    values = [fit_size(start, axis="live", target=round(500_000 * 1.25**i)).value for i in range(8)]
    assert values == sorted(set(values))


def test_no_other_lstm_within_the_tolerance_is_nearer_to_the_starting_shape():
    start = starts("paper")["lstm"]
    found = fit_size(start, axis="params", target=400_000)
    for depth in range(1, 9):
        for width in range(1, 300):
            # per layer: two matrices and two biases for each of four gates; embedding; output and its bias
            value = depth * (8 * width**2 + 8 * width) + 65 * width + 65 * width + 65
            if abs(value / 400_000 - 1) <= 0.01:
                other = dataclasses.replace(start, d_model=width, n_layers=depth)
                assert shape_change(start, other) > shape_change(start, found.config) - 0.1


@pytest.mark.parametrize("arm", ["transformer", "transformer_rotary", "modern"])
@pytest.mark.parametrize("size", TARGETS)
def test_head_widths_are_even_and_between_32_and_64_or_the_starting_width(size, arm):
    start = starts(size)[arm]
    for target in (10_000, 50_000, 200_000, 400_000, 1_000_000, 3_000_000):
        config = fit_size(start, axis="params", target=target, tolerance=0.05).config
        width, rest = divmod(config.d_model, config.n_heads)
        assert rest == 0
        assert width % 2 == 0
        assert width <= 64
        assert width >= min(32, start.d_model // start.n_heads) or config.n_heads == 1


def test_variants_of_the_transformer_that_differ_only_in_position_have_one_shape():
    arms = starts("paper")
    for axis, target in TARGETS["paper"].items():
        rotary, none = (
            fit_size(arms[arm], axis=axis, target=target) for arm in ("transformer_rotary", "transformer_none")
        )
        assert set_arguments(rotary.config) == set_arguments(none.config)


def test_the_width_of_the_mlp_changes_only_as_the_last_resort():
    start = NANOGPT.model
    assert fit_size(start, axis="params", target=1_137_869, tolerance=0.01).config.mlp_mult == 4
    tight = fit_size(start, axis="params", target=1_137_869, tolerance=1e-4)
    assert tight.config.mlp_mult != 4
    assert any(words.startswith("mlp_mult 4 -> ") for words in tight.changes)
    assert abs(tight.deviation) <= 1e-4


@pytest.mark.parametrize(
    ("target", "tolerance", "nearest"),
    [
        # an embedding and positions for width 2, a block of one head with an MLP of width 2, and three norms
        (10, 0.01, "has 672 (+6.62e+03 %), with d_model=2, n_layers=1, n_heads=1, mlp_mult=1"),
        (10**12, 0.01, "d_model=1024, n_layers=32"),
        (1_137_869, 1e-6, "has 1,137,792 (-0.00677 %)"),
    ],
)
def test_an_impossible_target_is_refused_with_the_nearest_size(target, tolerance, nearest):
    with pytest.raises(ConfigError) as refused:
        fit_size(NANOGPT.model, axis="params", target=target, tolerance=tolerance)
    assert nearest in str(refused.value)
    assert f"{target:,} params" in str(refused.value)
    assert "raise the tolerance" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"axis": "seconds", "target": 1}, "params, without_positions, live, forward_flops"),
        ({"axis": "params", "target": 0}, "at least 1"),
        ({"axis": "params", "target": 1, "tolerance": 0.0}, "between 0 and 1"),
    ],
)
def test_impossible_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        fit_size(PAPER, **arguments)


def test_every_trained_architecture_has_free_sizes():
    for config_type, _ in ARCHITECTURES.values():
        named = {*config_type.free_sizes.fields(), *config_type.free_sizes.ratios.values()}
        assert named <= {field.name for field in dataclasses.fields(config_type)}
    with pytest.raises(ConfigError, match="NgramConfig has no free sizes"):
        fit_size(NgramConfig(vocab_size=65, order=2), axis="params", target=1)


SIZE = ["size", "--experiment", "paper", "--cell", "nanogpt"]


def test_the_command_prints_both_budgets_and_the_arguments_of_the_size(capsys):
    arguments = ["--like", "paper/k_operators", "--axis", "live", "--set", "model.position=rotary"]
    assert call(app, *SIZE, *arguments) == 0
    printed = capsys.readouterr().out
    for words in ("target 942,029", "changed: d_model 384 -> ", "1,137,869", "1,949,952"):
        assert words in printed
    words = shlex.split(printed.splitlines()[-1])
    assert words[:9] == ["python", "-m", "bench", "run", "--experiment", "paper", "--cell", "nanogpt", "--seed"]
    config = override(NANOGPT, [after for word, after in itertools.pairwise(words) if word == "--set"])
    assert config.model.position == "rotary"
    assert abs(counted(config.model, "live") / 942_029 - 1) <= 0.01


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--like EXPERIMENT/LABEL, or --target"),
        (["--target", 5, "--like", "paper/k_operators"], "--like EXPERIMENT/LABEL, or --target"),
        (["--target", 5], "the nearest has"),
        (["--like", "paper/k_operator"], "its cells are k_operators"),
        (["--like", "paper/unigram"], "NgramConfig has no free sizes"),
        (["--target", 5, "--axis", "weights"], "params, without_positions, live, forward_flops"),
        (["--target", 5, "--set", "model.n_head=2"], "did you mean 'n_heads'"),
    ],
)
def test_a_mistake_on_the_command_line_gives_one_line_with_the_next_step(arguments, words, capsys):
    assert words in mistake(capsys, app, *SIZE, *arguments)
