"""What each option of K-Operators changes, and that it changes nothing else."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.budget import count_parameters
from bench.train import Trainer
from models import KOperatorsConfig, build
from models.decay import recurrent
from models.k_operators_readings import read_dynamics
from tests.conftest import CONTEXT, CPU_BACKENDS, VOCAB_SIZE
from tests.small_models import N_K2, PLAIN, k_operators, layers_of, some_tokens

DROPOUTS = ("emb_dropout", "mlp_dropout", "residual_dropout", "head_dropout")
VARIANTS: dict[str, dict[str, Any]] = {
    "base only": {"paths": "base"},
    "recurrent only": {"paths": "recurrent"},
    "shared base": {"shared_base": True},
    "shared base only": {"shared_base": True, "paths": "base"},
    "exponential base": {"base_init": "exponential"},
    "frozen eta": {"eta": "frozen", "refine_steps": 2},
    "plain pass": {"refine_steps": 0},
    "plain pass, frozen eta": {"refine_steps": 0, "eta": "frozen"},
    "learned positions": {"position": "learned"},
    "learned positions, refined": {"position": "learned", "refine_steps": 2},
    "learned positions, tied head": {"position": "learned", "head": "tied"},
    "learned positions, recurrent only": {"position": "learned", "paths": "recurrent"},
    "wide gamma": {"gamma_min": 0.15},
    "free gamma": {"gamma_min": 0.0},
    "high cap": {"alpha_cap": 1.6},
    "rank 1": {"rank": 1},
}


# every variant --------------------------------------------------------------------------------------------------------


def counted_by_hand(c: KOperatorsConfig) -> int:
    """Parameters by the formulas of the paper, piece by piece."""
    d, r, V, W = c.d_model, c.rank, c.vocab_size, c.context
    norm, mlp = d, (2 * d * d + 2 * d) + (2 * d * d + d)
    k1 = norm + (d * d + d) + norm + mlp
    memory = 2 * d * r + r + 1  # U and V, lambda, a
    k2 = norm + (d * d + d) + norm + mlp
    k2 += 1 if c.paths != "recurrent" else 0  # g
    k2 += memory if c.paths != "base" else 0
    n_kernels = 0 if c.paths == "recurrent" else 1 if c.shared_base else c.n_k2
    k0 = norm + d + d
    hidden = c.head_mult * d
    head = 0 if c.head == "tied" else norm + (d * hidden + hidden) + hidden * V
    eta = 1 if c.eta == "learned" else 0
    positions = W * d if c.position == "learned" else 0
    return V * d + positions + 2 * k1 + c.n_k2 * k2 + n_kernels * W * W + k0 + norm + head + eta


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_has_the_parameters_of_its_formula(changes):
    config = dataclasses.replace(PLAIN, **changes)
    found = count_parameters(build(config))
    assert found.n_params == sum(found.parts.values()) == counted_by_hand(config)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_is_causal_at_every_position(changes):
    model = k_operators(**changes).double().eval()
    x = some_tokens()
    for t in (1, 7, CONTEXT - 1):
        edited = x.clone()
        edited[:, t:] = (edited[:, t:] + 1) % VOCAB_SIZE
        torch.testing.assert_close(model(edited)[:, :t], model(x)[:, :t], rtol=0, atol=1e-12)
        assert not torch.allclose(model(edited)[:, t], model(x)[:, t], atol=1e-4)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("grouping", ["simple", "grouped", "plain_embeddings"])
def test_a_variant_gives_the_optimizer_every_parameter_once(changes, grouping):
    model = k_operators(**changes)
    held = [id(parameter) for group in model.parameter_groups(grouping) for parameter in group.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_all_that_a_variant_counts_as_live_learns_and_nothing_else(changes):
    model = k_operators(**changes)
    x = torch.cat([some_tokens(), torch.arange(VOCAB_SIZE).repeat(2)[: CONTEXT * 8].view(-1, CONTEXT)])
    cross_entropy(model(x).flatten(0, 1), x.roll(1, 1).flatten()).backward()
    n_learning = sum(
        int(parameter.grad.count_nonzero()) for parameter in model.parameters() if parameter.grad is not None
    )
    assert n_learning == count_parameters(model).n_live_params


# the two paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("paths", ["both", "base", "recurrent"])
@torch.no_grad()
def test_what_the_paths_contribute_sums_to_what_the_layer_mixes(paths, backend):
    layer = layers_of(k_operators(paths=paths, backend=backend).double())[1]
    n = torch.randn(2, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    base, read = layer.contributions(n)
    torch.testing.assert_close(base + read, layer.mix(n), rtol=1e-10, atol=1e-12)
    expected_base = torch.zeros_like(n)
    if paths != "recurrent":
        for i in range(11):
            expected_base[:, i] = sum(layer.gate() * layer.base[i, j] * n[:, j] for j in range(i + 1))
    torch.testing.assert_close(base, expected_base)
    expected_read = torch.zeros_like(n)
    if paths != "base":
        expected_read = layer.alpha() * recurrent(*layer.query_key(n), n, layer.gamma())
    torch.testing.assert_close(read, expected_read, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("paths", "silenced", "absent"),
    [
        ("base", "alpha_logit", {"u", "v", "decay_logit", "alpha_logit"}),
        ("recurrent", "base_gate_logit", {"base", "base_gate_logit"}),
    ],
)
@torch.no_grad()
def test_a_model_of_one_path_is_the_full_one_with_the_other_silenced(paths, silenced, absent):
    full = k_operators().double().eval()
    single = k_operators(seed=1, paths=paths).double().eval()
    missing, extra = single.load_state_dict(full.state_dict(), strict=False)
    assert not missing
    assert {name.rpartition(".")[2] for name in extra} == absent
    x = some_tokens()
    assert not torch.allclose(single(x), full(x), atol=1e-4)
    for layer in layers_of(full):
        getattr(layer, silenced).fill_(-torch.inf)  # whose sigmoid is 0
    torch.testing.assert_close(single(x), full(x), rtol=1e-10, atol=1e-12)


def test_without_recurrence_the_options_of_the_memory_change_nothing():
    logits = [
        k_operators(paths="base", **changes).eval()(some_tokens())
        for changes in ({}, {"rank": 7}, {"gamma_min": 0.0}, {"alpha_cap": 1.6}, {"backend": "mask"})
    ]
    assert all(torch.equal(logits[0], other) for other in logits[1:])


def test_without_a_base_path_the_memory_alone_carries_the_past():
    """Its own token reaches a position by the residual stream; an earlier one only while alpha is not 0."""
    model = k_operators(paths="recurrent").double().eval()
    x = some_tokens()
    edited = x.clone()
    edited[:, 0] = (x[:, 0] + 1) % VOCAB_SIZE
    assert not torch.allclose(model(edited)[:, -1], model(x)[:, -1], atol=1e-6)
    with torch.no_grad():
        for layer in layers_of(model):
            layer.alpha_logit.fill_(-torch.inf)
    torch.testing.assert_close(model(edited)[:, 1:], model(x)[:, 1:], rtol=0, atol=0)


# the base kernel ------------------------------------------------------------------------------------------------------


def test_a_shared_base_is_one_kernel_with_a_gate_for_each_layer():
    model = k_operators(shared_base=True)
    first, *others = layers_of(model)
    assert all(layer.base is first.base for layer in others)
    assert len({id(layer.base_gate_logit) for layer in layers_of(model)}) == N_K2
    counts = count_parameters(model)
    assert counts.parts["base kernels"] == CONTEXT**2
    assert counts.n_params - counts.n_live_params == CONTEXT * (CONTEXT - 1) // 2


def test_the_initial_base_is_all_that_base_init_changes():
    torch.manual_seed(0)
    uniform = build(PLAIN).state_dict()
    torch.manual_seed(0)
    exponential = build(dataclasses.replace(PLAIN, base_init="exponential")).state_dict()
    differing = {name for name in uniform if not torch.equal(uniform[name], exponential[name])}
    assert differing == {f"stack.layers.{1 + i}.base" for i in range(N_K2)}


def test_a_uniform_base_is_a_running_mean():
    torch.manual_seed(0)
    layer = layers_of(build(PLAIN))[0]
    n = torch.randn(2, CONTEXT, 8, generator=torch.Generator().manual_seed(0))
    means = n.cumsum(1) / torch.arange(1, CONTEXT + 1)[:, None]
    torch.testing.assert_close(layer.contributions(n)[0], layer.gate() * means, rtol=1e-5, atol=1e-6)


# the memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0.85, 1.0), (0.15, 0.995), (0.0, 1.0), (0.3, 0.4)])
@torch.no_grad()
def test_gamma_stays_within_its_bounds_whatever_is_learned(low, high):
    layer = layers_of(k_operators(gamma_min=low, gamma_max=high))[0]
    layer.decay_logit.copy_(torch.tensor([-100.0, 0.0, 100.0]))
    torch.testing.assert_close(layer.gamma(), torch.tensor([low, (low + high) / 2, high]))


@pytest.mark.parametrize("gamma_min", [0.0, 0.15, 0.85])
def test_the_fast_form_vouches_for_no_more_than_gammas_bound(gamma_min):
    """At the lower bound, in windows longer than a chunk, where a factor for a higher bound would overflow."""
    changes = {"gamma_min": gamma_min, "context": 300, "d_model": 4}
    x = some_tokens(300)
    logits, gradients = [], []
    for backend in ("chunked", "recurrent"):
        model = k_operators(backend=backend, **changes)
        with torch.no_grad():
            for layer in layers_of(model):
                layer.decay_logit.copy_(torch.tensor([-30.0, -4.0, 0.0]))
        logits.append(model(x))
        logits[-1].square().mean().backward()
        gradients.append(layers_of(model)[0].u.grad)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_alphas_cap_bounds_the_recurrent_path_and_scales_it():
    low, high = (layers_of(k_operators(alpha_cap=cap).double())[0] for cap in (0.8, 1.6))
    n = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(high.contributions(n)[1], 2 * low.contributions(n)[1])
    torch.testing.assert_close(high.contributions(n)[0], low.contributions(n)[0])
    high.alpha_logit.fill_(100.0)
    assert high.alpha().item() == pytest.approx(1.6)


# refinement -----------------------------------------------------------------------------------------------------------


def test_a_frozen_eta_is_no_parameter_but_travels_with_the_state():
    model = build(dataclasses.replace(PLAIN, eta="frozen"))
    assert "eta_logit" not in dict(model.named_parameters())
    assert torch.sigmoid(model.state_dict()["eta_logit"]).item() == pytest.approx(0.3)
    assert "eta" not in count_parameters(model).parts
    model(some_tokens()).square().mean().backward()
    assert model.eta_logit.grad is None


@pytest.mark.parametrize("grouping", ["simple", "grouped"])
def test_training_moves_a_learned_eta_and_never_a_frozen_one(grouping, corpus, tiny_run):
    for kind in ("learned", "frozen"):
        run = tiny_run(grouping=grouping, warmup_steps=0)
        model = dataclasses.replace(run.config.model, eta=kind, refine_steps=2)
        run = dataclasses.replace(run, config=dataclasses.replace(run.config, model=model))
        trainer = Trainer(run, corpus, torch.device("cpu"))
        for _ in range(3):
            trainer.advance()
        eta = torch.sigmoid(trainer.model.eta_logit).item()
        assert (eta == pytest.approx(0.3, abs=1e-6)) == (kind == "frozen")


def test_a_frozen_eta_starts_where_a_learned_one_does():
    logits = []
    for kind in ("learned", "frozen"):
        torch.manual_seed(0)
        logits.append(build(dataclasses.replace(PLAIN, eta=kind, refine_steps=2))(some_tokens()))
    assert torch.equal(*logits)


def test_without_refinement_eta_does_nothing_and_is_not_read():
    model = k_operators(refine_steps=0)
    x = some_tokens()
    before = model(x)
    with torch.no_grad():
        model.eta_logit.fill_(5.0)
    assert torch.equal(model(x), before)
    assert not {"eta", "refinement_step_ratio"} & set(read_dynamics(model, x))


@torch.no_grad()
def test_refinement_at_eta_one_is_a_plain_pass_repeated():
    model = k_operators(refine_steps=2).double().eval()
    model.eta_logit.fill_(torch.inf)  # whose sigmoid is 1
    h = model.embed(some_tokens())
    torch.testing.assert_close(model.refine(h), model.stack(model.stack(h)), rtol=1e-12, atol=1e-12)


# positions ------------------------------------------------------------------------------------------------------------


def test_learned_positions_are_a_row_for_each_position_of_the_window():
    model = k_operators(position="learned")
    counts = count_parameters(model)
    assert counts.n_params - counts.n_params_without_positions == counts.parts["positions"] == CONTEXT * 8
    x = some_tokens(9)
    expected = torch.stack([model.embedding.weight[x[:, t]] + model.positions.weight[t] for t in range(9)], dim=1)
    torch.testing.assert_close(model.embed(x), expected)
    assert build(PLAIN).position_parameters() == []


def test_dropout_falls_on_the_sum_of_token_and_position():
    embedded = k_operators(position="learned", emb_dropout=0.5).embed(some_tokens(rows=32))
    assert (embedded == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


# dropout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DROPOUTS)
def test_each_dropout_acts_in_training_alone(name):
    plain, dropped = k_operators(), k_operators(**{name: 0.3})
    x = some_tokens()
    assert not torch.equal(dropped(x), dropped(x))
    spared = torch.equal(dropped.refine(dropped.embed(x)), dropped.refine(dropped.embed(x)))
    assert spared == (name == "head_dropout")  # only it spares the stack
    assert torch.equal(dropped.eval()(x), plain(x))
