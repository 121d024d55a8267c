"""What is read of K-Operators' learned dynamics is what the model does, and reading changes nothing."""

from itertools import pairwise

import pytest
import torch

from models import build
from models.k_operators_readings import GAMMA_QUANTILES, read_dynamics
from tests.conftest import TINY_MODELS
from tests.small_models import N_K2, k_operators, layers_of, some_tokens


@pytest.mark.parametrize("n_refinements", [0, 1, 3])
def test_readings_have_an_entry_for_each_layer_and_each_refinement(n_refinements):
    model = k_operators(refine_steps=n_refinements)
    found = read_dynamics(model, some_tokens())
    for name in ("base_norm", "recurrent_norm", "recurrent_share", "gate", "alpha", "gamma_quantiles"):
        assert len(found[name]) == N_K2, name
    assert all(0 < share < 1 for share in found["recurrent_share"])
    for layer, quantiles in zip(layers_of(model), found["gamma_quantiles"], strict=True):
        assert len(quantiles) == len(GAMMA_QUANTILES) == 5
        assert quantiles == sorted(quantiles)
        assert (quantiles[0], quantiles[4]) == pytest.approx((layer.gamma().min().item(), layer.gamma().max().item()))
    assert len(found.get("refinement_step_ratio", [])) == n_refinements
    assert ("eta" in found) == (n_refinements > 0)


def test_readings_of_evaluation_follow_its_own_number_of_refinements():
    found = read_dynamics(k_operators(refine_steps=1, eval_refine_steps=3), some_tokens())
    assert len(found["refinement_step_ratio"]) == 3


@pytest.mark.parametrize(
    ("paths", "share", "absent"), [("base", 0.0, {"alpha", "gamma_quantiles"}), ("recurrent", 1.0, {"gate"})]
)
def test_a_single_path_has_the_whole_share(paths, share, absent):
    found = read_dynamics(k_operators(paths=paths), some_tokens())
    assert found["recurrent_share"] == [share] * N_K2
    assert not absent & set(found)
    assert found["base_norm" if paths == "recurrent" else "recurrent_norm"] == [0.0] * N_K2


def test_where_neither_path_adds_anything_the_share_is_zero():
    model = k_operators()
    with torch.no_grad():
        for layer in layers_of(model):
            layer.base_gate_logit.fill_(-torch.inf)
            layer.alpha_logit.fill_(-torch.inf)
    assert read_dynamics(model, some_tokens())["recurrent_share"] == [0.0] * N_K2


@torch.no_grad()
def test_norms_are_read_from_the_last_pass_and_step_ratios_from_every_one():
    model = k_operators(refine_steps=2).eval()
    x = some_tokens()
    eta = torch.sigmoid(model.eta_logit)
    h = [model.embed(x)]
    for _ in range(2):
        h.append(h[-1] + eta * (model.stack(h[-1]) - h[-1]))
    found = read_dynamics(model, x)
    ratios = [((b - a).norm(dim=-1) / a.norm(dim=-1)).mean().item() for a, b in pairwise(h)]
    assert found["refinement_step_ratio"] == pytest.approx(ratios, rel=1e-4)
    assert found["eta"] == pytest.approx(eta.item())
    first_k1, layer = model.stack.layers[:2]
    base, read = (part.norm(dim=-1).mean().item() for part in layer.contributions(layer.norm1(first_k1(h[1]))))
    assert (found["base_norm"][0], found["recurrent_norm"][0]) == pytest.approx((base, read), rel=1e-4)
    assert found["recurrent_share"][0] == pytest.approx(read / (base + read), rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_reading_draws_no_dropout_and_leaves_the_model_as_it_was(training):
    torch.manual_seed(0)
    model = build(TINY_MODELS["k_operators"]).train(training)
    state, x = torch.get_rng_state(), some_tokens()
    first = read_dynamics(model, x)
    assert read_dynamics(model, x) == first
    assert model.training == training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
