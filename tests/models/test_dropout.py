"""Our dropout has the rate and the mean it should, and draws only from the stream it was given."""

import pytest
import torch

from models.dropout import Dropout, random_words, share_generator

N = 1_000_000


def seeded(rate: float = 0.5) -> Dropout:
    dropout = Dropout(rate)
    share_generator(dropout, torch.device("cpu")).manual_seed(1)
    return dropout


@pytest.mark.parametrize("rate", [0.05, 0.08, 0.2, 0.5])
def test_the_rate_is_right_and_the_expectation_is_kept(rate):
    dropout = seeded(rate)
    out = dropout(torch.ones(N))
    error = 5 * (rate * (1 - rate) / N) ** 0.5  # five standard errors
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=error + 1 / 65536)
    assert out.mean().item() == pytest.approx(1.0, abs=error / (1 - rate))
    assert out.unique().numel() == 2


def test_words_are_uniform_over_all_values_and_lanes_which_are_not_correlated():
    words = random_words(torch.Size([4 * N]), torch.device("cpu"), torch.Generator().manual_seed(0))
    assert words.dtype == torch.int16
    for lane in words.view(-1, 4).unbind(1):  # four words of a draw
        counts = torch.histc(lane.float(), bins=64, min=-32768, max=32767)
        chi_squared = ((counts - N / 64) ** 2 / (N / 64)).sum().item()
        assert chi_squared < 130  # 63 degrees of freedom: exceeded once in a million draws
    correlation = torch.corrcoef(words.double().view(-1, 4).T) - torch.eye(4)
    assert correlation.abs().max() < 5 / N**0.5


def test_evaluation_and_rate_zero_are_the_identity_and_draw_nothing():
    for dropout in (Dropout(0.5).eval(), Dropout(0.0)):
        generator = share_generator(dropout, torch.device("cpu"))
        before = generator.get_state()
        x = torch.randn(7)
        assert dropout(x) is x
        assert torch.equal(generator.get_state(), before)


def test_a_given_generator_leaves_torchs_own_alone():
    dropout = seeded()
    before = torch.get_rng_state()
    dropout(torch.ones(9))
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_flow_where_values_do():
    dropout = seeded()
    x = torch.ones(1000, requires_grad=True)
    out = dropout(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
