"""The Transformer's options against a model written out plainly, and the 2023 recipe's own grouping."""

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.budget import count_parameters
from bench.experiments.recipes import NANOGPT, NANOGPT_2023
from bench.train import Trainer, make_optimizer
from models import SequenceModel, Transformer, TransformerConfig, build
from tests.conftest import CONTEXT, TINY_MODELS, VOCAB_SIZE
from tests.small_models import acting, some_tokens

PLAIN = TransformerConfig(vocab_size=VOCAB_SIZE, context=CONTEXT, d_model=12, n_layers=2, n_heads=3)  # no dropout
OPTIONS = {
    "norm": ("layer", "rms"),
    "mlp": ("gelu", "gelu_tanh", "swiglu"),
    "bias": (False, True),
    "position": ("learned", "none", "rotary"),
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]
IDS = [" ".join(str(value) for value in changes.values()) for changes in COMBINATIONS]


def make(**changes: Any) -> Transformer:
    """A Transformer, `PLAIN` but for some options."""
    model: Transformer = acting(dataclasses.replace(PLAIN, **changes))
    return model


# written out plainly: one window, one head and one position at a time -------------------------------------------------


class Written:
    """A Transformer as its papers say it, on the weights of ours."""

    def __init__(self, model: Transformer) -> None:
        self.config, self.weights = model.config, dict(model.named_parameters())

    def logits(self, tokens: Tensor) -> Tensor:
        """Token ids (T,) -> (T, V)"""
        table = self.weights["embedding.weight"]
        x = table[tokens]
        if self.config.position == "learned":
            x = x + self.weights["positions.weight"][: len(tokens)]
        for layer in range(self.config.n_layers):
            prefix = f"blocks.{layer}."
            x = x + self.attention(self.norm(x, prefix + "norm1"), prefix + "attention.")
            x = x + self.mlp(self.norm(x, prefix + "norm2"), prefix + "mlp.")
        return self.norm(x, "final_norm") @ table.T

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].T
        return y + self.weights[f"{name}.bias"] if self.config.bias else y

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.config.norm == "rms":  # no mean taken away, and no bias
            return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-8) * self.weights[f"{name}.scale"]
        centred = x - x.mean(-1, keepdim=True)
        y = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * self.weights[f"{name}.weight"]
        return y + self.weights[f"{name}.bias"] if self.config.bias else y

    def attention(self, x: Tensor, prefix: str) -> Tensor:
        width = self.config.d_model // self.config.n_heads
        q, k, v = self.linear(x, prefix + "qkv").split(self.config.d_model, dim=-1)
        heads = torch.zeros_like(x)
        for h in range(self.config.n_heads):
            own = slice(h * width, (h + 1) * width)
            for i in range(len(x)):
                query = self.turned(q[i, own], i)
                scores = torch.stack([query @ self.turned(k[j, own], j) for j in range(i + 1)]) / math.sqrt(width)
                heads[i, own] = torch.exp(scores) / torch.exp(scores).sum() @ v[: i + 1, own]
        return self.linear(heads, prefix + "proj")

    def turned(self, x: Tensor, position: int) -> Tensor:
        """RoFormer: pairs as complex numbers, pair i turned by position * 10000^(-2i/c)."""
        if self.config.position != "rotary":
            return x
        half = len(x) // 2
        angles = torch.tensor([position * 10_000.0 ** (-2 * i / len(x)) for i in range(half)], dtype=x.dtype)
        turned = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag])

    def mlp(self, x: Tensor, prefix: str) -> Tensor:
        if self.config.mlp == "swiglu":
            gate, up = self.linear(x, prefix + "gate_up").chunk(2, dim=-1)
            return self.linear(gate / (1 + torch.exp(-gate)) * up, prefix + "proj")
        y = self.linear(x, prefix + "up")
        if self.config.mlp == "gelu_tanh":
            cdf = 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        else:
            cdf = 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        return self.linear(y * cdf, prefix + "proj")


@pytest.mark.parametrize("changes", COMBINATIONS, ids=IDS)
@torch.no_grad()
def test_every_combination_of_options_is_what_its_papers_say(changes):
    model = make(**changes).double()
    x = some_tokens(7)
    written = Written(model)
    # angles of rotary positions are float32 in ours, as in the released LLaMA
    tolerance = 1e-5 if changes["position"] == "rotary" else 1e-10
    expected = torch.stack([written.logits(row) for row in x])
    torch.testing.assert_close(model(x), expected, rtol=tolerance, atol=tolerance)


# sizes ----------------------------------------------------------------------------------------------------------------


def counted_by_hand(c: TransformerConfig) -> int:
    """Parameters without positions by the formulas of the papers, piece by piece."""
    d = c.d_model

    def linear(n_in: int, n_out: int) -> int:
        return n_in * n_out + (n_out if c.bias else 0)

    norm = 2 * d if c.bias and c.norm == "layer" else d
    if c.mlp == "swiglu":
        hidden = round(c.mlp_mult * d * 2 / 3)
        mlp = 2 * linear(d, hidden) + linear(hidden, d)
    else:
        mlp = linear(d, c.mlp_mult * d) + linear(c.mlp_mult * d, d)
    block = norm + linear(d, 3 * d) + linear(d, d) + norm + mlp
    return c.vocab_size * d + c.n_layers * block + norm


@pytest.mark.parametrize("d_model", [12, 16])  # two thirds of 64 is no whole number
@pytest.mark.parametrize("changes", COMBINATIONS, ids=IDS)
def test_every_combination_has_the_parameters_of_its_formula(changes, d_model):
    config = dataclasses.replace(PLAIN, d_model=d_model, n_heads=2, **changes)
    found = count_parameters(build(config))
    positions = {"positions": CONTEXT * d_model} if config.position == "learned" else {}
    assert found.n_params_without_positions == counted_by_hand(config)
    assert found.n_params == found.n_live_params == sum(found.parts.values())
    assert found.n_params == counted_by_hand(config) + sum(positions.values())
    assert {name: n for name, n in found.parts.items() if name == "positions"} == positions


# the recipe behind 1.4697 ---------------------------------------------------------------------------------------------


def after_a_step_without_gradient(model: SequenceModel, grouping: Any) -> dict[str, Tensor]:
    """What one AdamW step makes of parameters whose gradients are all zero: weight decay and nothing else."""
    assert NANOGPT_2023.training is not None
    training = dataclasses.replace(NANOGPT_2023.training, grouping=grouping, learning_rate=0.5, weight_decay=0.2)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, training).step()
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("grouping", ["simple", "plain_embeddings"])
@pytest.mark.parametrize("kind", ["transformer", "k_operators", "lstm"])
def test_plain_embeddings_spares_embeddings_and_no_other_matrix_from_decay(kind, grouping):
    config = TINY_MODELS[kind]
    if kind == "k_operators":
        config = dataclasses.replace(config, position="learned", head="tied")
    torch.manual_seed(0)
    model = build(config)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    after = after_a_step_without_gradient(model, grouping)
    tables = {"embedding.weight", "positions.weight"}
    for name, value in before.items():
        decays = value.ndim >= 2 and not (grouping == "plain_embeddings" and name in tables)
        torch.testing.assert_close(after[name], value * (1 - 0.5 * 0.2) if decays else value, msg=name)


def test_the_recipe_of_2023_differs_in_three_things():
    assert NANOGPT_2023.model == dataclasses.replace(NANOGPT.model, mlp="gelu_tanh")
    assert NANOGPT_2023.training == dataclasses.replace(
        NANOGPT.training, schedule="nanogpt_2023", grouping="plain_embeddings"
    )


def test_an_update_without_a_rate_moves_nothing_but_the_moments(corpus, tiny_run):
    trainer = Trainer(tiny_run("transformer", schedule="nanogpt_2023"), corpus, torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.advance()
    assert all(torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))
    assert all(state["exp_avg"].any() for state in trainer.optimizer.state.values())
    trainer.advance()
    assert not any(torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))


# refused --------------------------------------------------------------------------------------------------------------


def test_rotary_positions_need_pairs():
    with pytest.raises(ValueError, match="rotary positions need heads of even width, not 3"):
        dataclasses.replace(PLAIN, position="rotary", n_heads=4)
