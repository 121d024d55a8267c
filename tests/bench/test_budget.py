"""The counts in the papers."""

import dataclasses

from bench.budget import count_parameters, train_flops
from bench.experiments.laptop import laptop
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from models import build
from tests.conftest import TINY_MODELS


def counts(config):
    return count_parameters(build(config.model))


def test_the_paper_configuration_counts_1_137_869_of_which_942_029_live():
    found = counts(K_OPERATORS_PAPER)
    assert (found.n_params, found.n_live_params, found.n_params_without_positions) == (1_137_869, 942_029, 1_137_869)
    assert found.parts["embedding"] == 8_320
    assert found.parts["head"] == 24_960
    assert sum(found.parts[part] for part in ("K1", "K2", "K0", "base kernels")) == 1_104_460
    assert sum(found.parts.values()) == found.n_params


def test_nanogpt_counts_10_745_088_and_10_646_784_without_positions():
    found = counts(NANOGPT)
    assert (found.n_params, found.n_live_params) == (10_745_088, 10_745_088)
    assert found.n_params_without_positions == 10_646_784
    assert found.parts["positions"] == 98_304
    assert sum(found.parts.values()) == found.n_params


def test_the_laptop_arms_have_equal_parameters_within_two_percent_and_train_on_equal_tokens():
    first, second = (cell.config for cell in laptop().cells[:2])
    assert abs(counts(first).n_params / counts(second).n_params - 1) < 0.02
    fields = ("n_steps", "batch_size", "eval_every")
    assert [getattr(first.training, f) for f in fields] == [getattr(second.training, f) for f in fields]
    assert first.context == second.context


def test_without_refinement_eta_is_not_live():
    plain = dataclasses.replace(TINY_MODELS["k_operators"], refine_steps=0)
    found = count_parameters(build(plain))
    assert found.n_params - found.n_live_params == 1 + 2 * 16 * 15 // 2


def test_training_is_three_forwards():
    macs = build(NANOGPT.model).forward_macs_per_token(256)
    assert macs == 11_821_440  # 6 x (12 x 384^2 + 2 x 256 x 384) + 384 x 65
    assert train_flops(macs, 64 * 256) == 3 * 2 * 11_821_440 * 64 * 256
