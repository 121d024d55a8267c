"""The three protocols score the documented windows, and the selection rules choose the documented steps."""

import pytest
import torch
from torch import nn

from bench import evaluate
from bench.evaluate import half_sums, permuted, sampled, strided, sweep
from bench.history import History

CONTEXT = 8


class PositionModel(nn.Module):
    """The loss of the token x + 1 is its position in the window plus one."""

    def forward(self, x):
        nats = torch.arange(1, x.shape[1] + 1, dtype=torch.float64)
        p = (-nats).exp()
        logits = ((1 - p) / 64).log()[None, :, None].expand(*x.shape, 65).clone()
        target = (x + 1) % 65
        logits.scatter_(2, target[..., None], (-nats)[None, :, None].expand(*x.shape, 1))
        return logits.float()


@pytest.fixture
def counting_text() -> torch.Tensor:
    """0, 1, 2, ... modulo 65: each token determines the next."""
    return (torch.arange(100) % 65).to(torch.uint8)


def test_sweep_scores_every_whole_window_once(counting_text):
    losses = sweep(PositionModel(), counting_text, CONTEXT)
    assert len(losses) == (100 - 1) // CONTEXT == 12
    torch.testing.assert_close(losses, torch.full((12,), 4.5, dtype=torch.float64))  # mean of 1..8


def test_sweep_of_tiny_shakespeare_has_435_windows_and_111_360_predictions():
    starts = evaluate.sweep_starts(torch.zeros(111_540), 256)
    assert len(starts) == 435
    assert len(starts) * 256 == 111_360


def test_strided_scores_second_halves_only_and_all_but_the_first_half_window(counting_text):
    nats, n_tokens = strided(PositionModel(), counting_text, CONTEXT)
    assert nats == pytest.approx((5 + 6 + 7 + 8) / 4)
    assert n_tokens == (100 - 1 - 4) // 4 * 4


def test_sampled_is_200_batches_of_64_by_seed_and_repeatable(counting_text):
    model = PositionModel()
    nats, n_tokens = sampled(model, counting_text, CONTEXT, seed=1, n_batches=3)
    assert nats == pytest.approx(4.5)
    assert n_tokens == 3 * 64 * CONTEXT


def test_sampled_draws_differ_by_seed():
    text = torch.randint(65, (500,), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    table = torch.randn(65, 65, generator=torch.Generator().manual_seed(1))

    class Table(nn.Module):
        def forward(self, x):
            return table[x]

    first, again, other = (sampled(Table(), text, CONTEXT, seed, 2)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_evaluation_is_float32_without_dropout_and_restores_train_mode():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(self.training)
            return torch.zeros(*x.shape, 65, dtype=torch.bfloat16)

    model = Watch().train()
    losses = sweep(model, torch.zeros(40, dtype=torch.uint8), CONTEXT)
    assert seen == [False]
    assert model.training
    assert losses.dtype == torch.float64
    assert losses[0].item() == pytest.approx(4.174387, abs=1e-6)  # ln 65


def test_the_first_half_is_the_first_ceil_n_over_2_windows():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    assert half_sums(losses, 10) == ((60.0, 30), (90.0, 20))


@pytest.mark.parametrize("protocol", [sweep, permuted])
def test_a_text_too_short_for_two_windows_is_refused(protocol):
    with pytest.raises(ValueError, match="too short for two windows of 8"):
        protocol(PositionModel(), torch.zeros(16, dtype=torch.uint8), CONTEXT)


def test_best_final_and_cross_fitted_by_hand():
    history = History()
    model = nn.Linear(1, 1)
    for step, losses in {
        0: [9.0, 9.0, 9.0, 9.0],
        10: [1.0, 1.0, 6.0, 4.0],
        20: [3.0, 3.0, 2.0, 2.0],
        30: [4.0] * 4,
    }.items():
        history.add_evaluation(step, torch.tensor(losses, dtype=torch.float64), CONTEXT, model)
    result = history.sweep_result(CONTEXT)
    assert (result.best.step, result.best.nats_per_token) == (20, 2.5)
    assert (result.final.step, result.final.nats_per_token) == (30, 4.0)
    assert result.best.n_tokens == 4 * CONTEXT
    # best on the first half is step 10, which scores 5 on the second; best on the second is step 20: 3 on the first
    assert result.cross_fitted.step_chosen_on_first_half == 10
    assert result.cross_fitted.step_chosen_on_second_half == 20
    assert result.cross_fitted.nats_per_token == 4.0
    assert set(history.rounded_window_losses(result)) == {10, 20, 30}


def test_of_equal_losses_the_earliest_step_is_best():
    assert evaluate.best_step({30: 1.0, 10: 1.0, 20: 2.0}) == 10
