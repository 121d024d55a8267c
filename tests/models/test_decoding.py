"""A decoder says what the whole model would say of the same window, at every position, and says it sooner."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from bench.sample import generate
from models import ARCHITECTURES, SequenceModel, build, decoder_of
from models.decoding import Recomputing, window_start
from models.dropout import share_generator
from tests.conftest import CONTEXT, CPU_BACKENDS, TINY_MODELS, VOCAB_SIZE
from tests.small_models import acting, some_tokens

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "k_operators": [
        {},
        {"refine_steps": 0},
        {"refine_steps": 3},
        {"refine_steps": 0, "eval_refine_steps": 2},
        {"refine_steps": 3, "eval_refine_steps": 0},
        {"head": "tied"},
        {"head_mult": 3},
        {"rank": 1},
        {"n_k2": 0},
        {"n_k2": 3, "d_model": 5},
        {"gamma_min": 0.0, "gamma_max": 0.02},
        {"gamma_min": 0.0, "alpha_cap": 5.0},
        {"base_init": "exponential"},
        {"context": 1},
        {"paths": "base"},
        {"paths": "recurrent", "position": "learned"},
        {"shared_base": True, "n_k2": 3},
        {"eta": "frozen", "refine_steps": 2},
        {"position": "learned", "refine_steps": 2, "head": "tied"},
        *({"backend": backend} for backend in CPU_BACKENDS),
    ],
    "transformer": [
        {},
        {"position": "none"},
        {"position": "rotary"},
        {"position": "rotary", "context": 1},
        {"bias": True},
        {"n_heads": 1, "bias": True, "position": "rotary"},
        {"n_heads": 4, "mlp_mult": 1},
        {"n_layers": 3, "d_model": 12, "position": "rotary"},
        {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": True},
        {"position": "rotary", "norm": "rms", "mlp": "swiglu"},
        {"norm": "rms", "mlp": "gelu_tanh"},
    ],
}
CASES = [
    pytest.param(kind, changes, id=f"{kind} " + " ".join(f"{name}={value}" for name, value in changes.items()))
    for kind in ARCHITECTURES
    for changes in VARIANTS.get(kind, [{}])
]


def make(kind, **changes):
    """A model whose every parameter acts, in train mode, with dropout."""
    return acting(dataclasses.replace(TINY_MODELS[kind], **changes), by=0.2)


@torch.no_grad()
def predictions(model, tokens, context):
    """What the model says after each position of `tokens` (B, T), from that position's whole window: (B, T, V)."""
    model.eval()
    ends = range(1, tokens.shape[1] + 1)
    said = [model(tokens[:, window_start(end, context) : end])[:, -1] for end in ends]
    model.train()
    return torch.stack(said, dim=1)


# the window -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context", "starts"),
    [  # of the windows of texts of 1, 2, ... tokens
        (4, [0, 0, 0, 0, 2, 2, 4, 4, 6, 6]),
        (5, [0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]),
        (2, [0, 0, 1, 2, 3]),
        (1, [0, 1, 2, 3]),
    ],
)
def test_the_window_moves_by_half_a_context_when_one_more_token_would_not_fit(context, starts):
    assert [window_start(n, context) for n in range(1, len(starts) + 1)] == starts


@pytest.mark.parametrize("context", [1, 2, 7, 16])
def test_past_the_context_a_prediction_sees_between_half_of_it_and_all(context):
    seen = [n - window_start(n, context) for n in range(1, 6 * context)]
    assert seen[:context] == list(range(1, context + 1))
    assert set(seen[context:]) == set(range(context // 2 + 1, context + 1))


# the same numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_a_decoder_says_what_recomputing_says_at_every_position(kind, changes, dtype, tolerance):
    model = make(kind, **changes).to(dtype)
    context = model.config.context
    tokens = some_tokens(2 * context + 2)  # the window moves three times
    expected = predictions(model, tokens, context)
    assert expected.std() > 0.05  # else the tolerance would mean nothing
    for n_first in {1, min(5, context), context, context + 3}:
        decoder = decoder_of(model, 2, context)
        found = [decoder.feed(tokens[:, :n_first])]
        found += [decoder.feed(tokens[:, i : i + 1]) for i in range(n_first, tokens.shape[1])]
        torch.testing.assert_close(torch.stack(found, 1), expected[:, n_first - 1 :], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_however_a_text_is_cut_the_prediction_is_the_same(kind):
    model = make(kind)
    tokens = some_tokens(50)
    expected = predictions(model, tokens, CONTEXT)
    for cuts in ([1, 4, 5, 8, 9, 17, 18, 26, 50], [16, 17, 24, 25, 32, 33, 50], [3, 40, 41, 42, 50]):
        decoder = decoder_of(model, 2, CONTEXT)
        for start, end in zip([0, *cuts], cuts, strict=False):
            logits = decoder.feed(tokens[:, start:end])
            torch.testing.assert_close(logits, expected[:, end - 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize(("decoder_type", "context"), [(decoder_of, 7), (Recomputing, CONTEXT)])
def test_recomputing_and_a_window_shorter_than_the_model_allows_say_the_same(kind, decoder_type, context):
    model = make(kind)
    tokens = some_tokens(40)
    decoder = decoder_type(model, 2, context)
    found = torch.stack([decoder.feed(token) for token in tokens.split(1, dim=1)], dim=1)
    torch.testing.assert_close(found, predictions(model, tokens, context), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_decoder_leaves_its_model_alone_and_keeps_the_weights_it_was_made_with(kind):
    model = make(kind)
    share_generator(model, torch.device("cpu"))  # as a trainer does
    tokens = some_tokens(20)
    decoder, same = decoder_of(model, 2, CONTEXT), decoder_of(model, 2, CONTEXT)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    expected = [same.feed(tokens[:, :5]), same.feed(tokens[:, 5:6]), same.feed(tokens[:, 6:])]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    state = torch.get_rng_state()
    found = [decoder.feed(tokens[:, :5]), decoder.feed(tokens[:, 5:6]), decoder.feed(tokens[:, 6:])]
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_caller_may_use_its_tensor_again(kind):
    model = make(kind)
    tokens = some_tokens(20)
    expected = predictions(model, tokens, CONTEXT)[:, -1]
    decoder, buffer = decoder_of(model, 2, CONTEXT), torch.zeros(2, 1, dtype=torch.int64)
    for i in range(20):
        buffer.copy_(tokens[:, i : i + 1])
        logits = decoder.feed(buffer)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_what_makes_no_sense_is_refused(kind):
    model = make(kind)
    for context in (0, CONTEXT + 1):
        with pytest.raises(ValueError, match=f"a window of {context} tokens, but this model's context is {CONTEXT}"):
            decoder_of(model, 1, context)
    for shape in ((2, 0), (3, 1)):
        with pytest.raises(ValueError, match=r"tokens of shape .* for 2 texts"):
            decoder_of(model, 2, CONTEXT).feed(torch.zeros(shape, dtype=torch.int64))


class RunningMean(SequenceModel):
    """An architecture that knows nothing of decoders."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=VOCAB_SIZE, context=6)
        self.embedding = nn.Embedding(VOCAB_SIZE, 4)

    def forward(self, tokens):
        n = torch.arange(1, self.check_context(tokens) + 1)[:, None]
        return (self.embedding(tokens).cumsum(1) / n) @ self.embedding.weight.mT

    def forward_macs_per_token(self, context):
        return 4 * VOCAB_SIZE


def test_a_new_architecture_decodes_without_a_line_of_its_own():
    torch.manual_seed(0)
    model = RunningMean()
    tokens = some_tokens(15)
    decoder = decoder_of(model, 2, 6)
    found = torch.stack([decoder.feed(tokens[:, i : i + 1]) for i in range(15)], dim=1)
    torch.testing.assert_close(found, predictions(model, tokens, 6), rtol=1e-6, atol=1e-6)
    assert len(generate(model, tokens[0, :2], 20, 6, seed=1)) == 22


# sooner ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [K_OPERATORS_PAPER, NANOGPT], ids=["k_operators", "nanogpt"])
def test_at_paper_size_a_token_from_the_cache_takes_a_hundredth_of_the_flops_at_most(config):
    """Of matrix products, at the end of the window of 256; `make bench` measures what that saves in time."""
    torch.manual_seed(0)
    model = build(config.model)
    tokens = some_tokens(config.context, rows=1)
    flops, said = {}, {}
    decoders = {"cached": decoder_of(model, 1, config.context), "recomputed": Recomputing(model, 1, config.context)}
    for name, decoder in decoders.items():
        decoder.feed(tokens[:, :-1])
        with FlopCounterMode(display=False) as counter:
            said[name] = decoder.feed(tokens[:, -1:])
        flops[name] = counter.get_total_flops()
    torch.testing.assert_close(said["cached"], said["recomputed"], rtol=1e-5, atol=1e-5)
    assert 0 < 100 * flops["cached"] <= flops["recomputed"]
