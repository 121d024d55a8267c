"""What every trained architecture promises; a new one in `ARCHITECTURES` is covered unasked."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from models import ARCHITECTURES, FITTED, KOperators, KOperatorsConfig, Ngram, NgramConfig, TransformerConfig, build
from models.dropout import share_generator
from models.transformer import causal_weights
from tests.conftest import CONTEXT, TINY_MODELS, VOCAB_SIZE
from tests.small_models import layers_of, some_tokens


@pytest.fixture(params=ARCHITECTURES)
def model(request):
    torch.manual_seed(0)
    return build(TINY_MODELS[request.param])


@pytest.mark.parametrize("length", [1, 7, CONTEXT])
def test_tokens_become_logits(model, length):
    assert model(some_tokens(length)).shape == (2, length, VOCAB_SIZE)


def test_no_position_sees_the_future(model):
    model.eval()
    x = some_tokens()
    edited = x.clone()
    edited[:, 7:] = (edited[:, 7:] + 1) % VOCAB_SIZE
    torch.testing.assert_close(model(edited)[:, :7], model(x)[:, :7], rtol=0, atol=1e-6)
    assert not torch.allclose(model(edited)[:, 7:], model(x)[:, 7:], atol=1e-4)


def test_a_shorter_window_reads_the_same_from_its_start(model):
    model.eval()
    x = some_tokens()
    torch.testing.assert_close(model(x[:, :9]), model(x)[:, :9], rtol=1e-5, atol=1e-6)


def test_too_long_a_window_is_refused(model):
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens at once, but this model's context is {CONTEXT}"):
        model(some_tokens(CONTEXT + 1))


def test_one_torch_seed_makes_a_train_step_repeatable(model):
    x = some_tokens()
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        outputs.append(model(x))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], model(x))


def test_a_shared_generator_makes_a_train_step_repeatable(model):
    x = some_tokens()
    generator = share_generator(model, torch.device("cpu"))
    outputs = [(generator.manual_seed(5), model(x))[1] for _ in range(2)]
    assert torch.equal(*outputs)


def test_parameter_groups_hold_every_parameter_once(model):
    groups = model.parameter_groups("simple")
    held = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert all(group.decayed == (parameter.ndim >= 2) for group in groups for parameter in group.parameters)


def test_entries_called_dead_have_no_effect_and_no_gradient(model):
    model.eval()
    x = some_tokens()
    before = model(x)
    parameters = dict(model.named_parameters())
    cross_entropy(before.flatten(0, 1), x.flatten()).backward()
    for name, mask in model.live_masks().items():
        gradient = parameters[name].grad
        assert gradient is None or not gradient[~mask].any()
        with torch.no_grad():
            parameters[name][~mask] += 1.0
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


def test_entries_called_live_all_learn(model):
    x = torch.cat([some_tokens(), torch.arange(VOCAB_SIZE).repeat(2)[: CONTEXT * 8].view(-1, CONTEXT)])
    model.eval()
    cross_entropy(model(x).flatten(0, 1), x.roll(1, 1).flatten()).backward()
    masks = model.live_masks()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        live = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert (parameter.grad[live] != 0).float().mean() > 0.95, name


def test_parts_and_position_parameters_name_what_is_there(model):
    names = {name for name, _ in model.named_parameters()}
    assert set(model.position_parameters()) <= names
    assert set(model.live_masks()) <= names
    assert all(isinstance(model.part_of(name), str) for name in names)


def test_an_unknown_grouping_is_refused(model):
    for grouping in ["other"] if isinstance(model, KOperators) else ["other", "grouped"]:
        with pytest.raises(ValueError, match=f"{type(model).__name__} has no parameter grouping '{grouping}'"):
            model.parameter_groups(grouping)


class TestKOperators:
    def test_initial_values_are_those_of_the_released_code(self):
        torch.manual_seed(0)
        model = build(KOperatorsConfig(vocab_size=65, context=8, d_model=128, rank=32, n_k2=1))
        (layer,) = layers_of(model)
        assert layer.gate().item() == pytest.approx(0.9997, abs=1e-4)
        assert layer.alpha().item() == pytest.approx(0.4)
        assert layer.gamma()[0].item() == pytest.approx(0.9925)
        assert layer.gamma()[-1].item() == pytest.approx(0.99925)
        assert torch.sigmoid(model.eta_logit).item() == pytest.approx(0.3)
        assert layer.base[3].tolist() == [0.25] * 4 + [0.0] * 4
        assert layer.u.std().item() == pytest.approx(0.05, rel=0.05)
        assert layer.proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.proj.bias.any()
        assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)

    def test_the_exponential_base_falls_by_its_rate_and_sums_to_one(self):
        config = dataclasses.replace(TINY_MODELS["k_operators"], base_init="exponential")
        base = layers_of(build(config))[0].base
        torch.testing.assert_close(base.sum(1), torch.ones(CONTEXT))
        assert (base[9, 4] / base[9, 5]).item() == pytest.approx(0.860708, rel=1e-4)  # exp(-0.15)
        assert not base.triu(1).any()

    def test_grouped_scales_and_decays_as_the_released_default(self):
        model = build(TINY_MODELS["k_operators"])
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        found = {
            (group.learning_rate_scale, group.decayed): {names[id(parameter)] for parameter in group.parameters}
            for group in model.parameter_groups("grouped")
        }
        assert found[0.75, False] == {"embedding.weight"}
        assert "stack.layers.4.gain" in found[1.0, True]
        assert {"stack.layers.1.base", "stack.layers.1.u", "head.out.weight"} <= found[1.0, True]
        assert {"eta_logit", "stack.layers.1.decay_logit", "stack.layers.4.bias"} <= found[0.5, False]
        assert sum(map(len, found.values())) == len(names)

    def test_refinement_may_differ_between_training_and_evaluation(self):
        torch.manual_seed(0)
        config = dataclasses.replace(TINY_MODELS["k_operators"], emb_dropout=0.0, mlp_dropout=0.0)
        config = dataclasses.replace(config, residual_dropout=0.0, head_dropout=0.0, eval_refine_steps=3)
        model, x = build(config), some_tokens()
        trained = model(x)
        thrice = model.eval()(x)
        model.config = dataclasses.replace(config, eval_refine_steps=None)
        torch.testing.assert_close(model(x), trained)
        assert not torch.allclose(thrice, trained, atol=1e-4)

    def test_the_published_block_is_refused_where_it_would_overflow(self):
        with pytest.raises(ValueError, match=r"needs gamma_min >= 0\.55"):
            dataclasses.replace(TINY_MODELS["k_operators"], backend="block", gamma_min=0.5)


class TestTransformer:
    def test_residual_projections_start_smaller(self):
        torch.manual_seed(0)
        model = build(TransformerConfig(vocab_size=65, context=8, d_model=128, n_layers=8, n_heads=4))
        assert model.blocks[0].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert model.blocks[0].mlp.proj.weight.std().item() == pytest.approx(0.005, rel=0.05)
        assert model.blocks[0].attention.proj.weight.std().item() == pytest.approx(0.005, rel=0.05)

    def test_explicit_attention_equals_torchs_own(self):
        generator = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(2, 3, 9, 4, generator=generator, dtype=torch.float64) for _ in range(3))
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(causal_weights(q, k) @ v, expected)

    def test_width_must_divide_into_heads(self):
        with pytest.raises(ValueError, match="d_model=8 is not a multiple of n_heads=3"):
            dataclasses.replace(TINY_MODELS["transformer"], n_heads=3)


class TestFitted:
    def test_they_are_normalised_and_causal(self):
        for order in (1, 2):
            model = Ngram(NgramConfig(vocab_size=VOCAB_SIZE, order=order)).fit(some_tokens(CONTEXT * 50).flatten())
            x = some_tokens()
            torch.testing.assert_close(model(x).logsumexp(-1), torch.zeros(x.shape), rtol=0, atol=1e-5)
            torch.testing.assert_close(model(x[:, :4]), model(x)[:, :4])

    def test_a_bigram_by_hand(self):
        model = Ngram(NgramConfig(vocab_size=3, order=2)).fit(torch.tensor([0, 1, 0, 1, 0, 2]))
        expected = torch.tensor([[1 / 6, 3 / 6, 2 / 6], [3 / 5, 1 / 5, 1 / 5], [1 / 3, 1 / 3, 1 / 3]])
        torch.testing.assert_close(model(torch.tensor([[0, 1, 2]]))[0].exp(), expected)
        assert model.n_fitted() == 6

    def test_a_unigram_by_hand(self):
        model = Ngram(NgramConfig(vocab_size=3, order=1)).fit(torch.tensor([0, 1, 0, 1, 0, 2]))
        torch.testing.assert_close(model(torch.tensor([[2]]))[0, 0].exp(), torch.tensor([4 / 9, 3 / 9, 2 / 9]))

    def test_they_are_not_built_as_trained_models(self):
        assert not set(FITTED) & set(ARCHITECTURES)
        with pytest.raises(ValueError, match="no architecture is configured by NgramConfig"):
            build(NgramConfig(vocab_size=3, order=1))
