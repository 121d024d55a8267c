"""The counts in the papers."""

from bench.budget import count_parameters
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from models import build


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
