"""Closed forms of a model's cost against the counts of torch, and bytes against real tensors."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.flop_counter import FlopCounterMode

from bench.budget import activation_bytes, state_bytes, train_flops
from bench.experiments.matched import arm
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from models import ARCHITECTURES, LSTM, KOperators, SequenceModel, build, decoder_of
from models.k_operators_decoder import KOperatorsDecoder
from models.transformer_decoder import TransformerDecoder
from tests.conftest import CONTEXT, TINY_MODELS, VOCAB_SIZE, without_onednn

ROWS = 2
# The closed form counts `recurrent`. With dropout the Transformer's attention is explicit, so that its products are
# counted: the counter does not support torch's fused attention on a CPU.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "k_operators": [
        {"backend": "recurrent", **changes}
        for changes in (
            {},
            {"paths": "base"},
            {"paths": "recurrent"},
            {"shared_base": True},
            {"refine_steps": 0},
            {"refine_steps": 3},
            {"eta": "frozen"},
            {"position": "learned"},
            {"rank": 5},
            {"head_mult": 2},
            {"head": "tied", "paths": "base"},
        )
    ],
    "transformer": [
        {},
        {"position": "rotary", "norm": "rms", "mlp": "swiglu"},
        {"mlp": "swiglu", "mlp_mult": 3, "bias": True},
        {"mlp": "gelu_tanh"},
        {"bias": True, "position": "none"},
        {"n_heads": 4, "d_model": 12},
    ],
    "lstm": [{}, {"n_layers": 3}, {"d_model": 5}],
}
CASES = [
    pytest.param(kind, changes, id=f"{kind} " + " ".join(f"{name}={value}" for name, value in changes.items()))
    for kind in ARCHITECTURES
    for changes in VARIANTS[kind]
]


def make(kind: str, **changes: Any) -> SequenceModel:
    torch.manual_seed(0)
    config: Any = TINY_MODELS[kind]
    return build(dataclasses.replace(config, **changes))


def some_tokens() -> Tensor:
    return torch.randint(VOCAB_SIZE, (ROWS, CONTEXT), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def unfused():
    """Neither the counter nor a hook sees the operations of the fused LSTM."""
    with without_onednn():
        yield


def unseen_macs(model: SequenceModel) -> int:
    """MACs of a forward pass that are not counted: the outer products k_t n_t, which torch runs as multiplications."""
    if not isinstance(model, KOperators) or model.config.paths == "base":
        return 0
    c = model.config
    return max(c.refine_steps, 1) * c.n_k2 * c.rank * c.d_model * ROWS * CONTEXT


def needless_macs(model: SequenceModel) -> int:
    """MACs of a backward pass that the closed form lacks: the unused gradient of an LSTM's first state."""
    return model.config.n_layers * 4 * model.config.d_model**2 * ROWS if isinstance(model, LSTM) else 0


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_the_closed_forms_of_forward_and_training_count_what_torch_counts(kind, changes, unfused):
    model = make(kind, **changes)
    with FlopCounterMode(display=False) as counter:
        logits = model(some_tokens())
        forward = counter.get_total_flops()
        logits.sum().backward()
    macs = model.forward_macs_per_token(CONTEXT)
    assert forward == 2 * (macs * ROWS * CONTEXT - unseen_macs(model))
    training = train_flops(macs, ROWS * CONTEXT)
    assert counter.get_total_flops() == training - 3 * 2 * unseen_macs(model) - 2 * needless_macs(model)


@pytest.mark.parametrize(
    ("family", "macs"),
    [
        # 2 K1 of 5 x 128^2; 6 K2 of 5 x 128^2 + 256 x 128 (kernel) + 4 x 128 x 32 (memory); 128^2 + 128 x 65
        ("k_operators", 163_840 + 6 * (81_920 + 32_768 + 16_384) + 24_704),
        # 6 blocks of 12 x 124^2 and 2 x 256 x 124 of attention; 124 x 65
        ("transformer", 6 * (184_512 + 63_488) + 8_060),
        # 7 blocks of 4 x 116^2, 3 x 116 x 309 of SwiGLU (309 = 2/3 of 464, rounded) and 2 x 256 x 116; 116 x 65
        ("modern", 7 * (53_824 + 107_532 + 59_392) + 7_540),
        # 2 layers of 8 x 262^2; 262 x 65
        ("lstm", 2 * 549_152 + 17_030),
        ("nanogpt", 6 * (12 * 384**2 + 2 * 256 * 384) + 384 * 65),
    ],
)
def test_macs_of_nanogpt_and_the_matched_arms_by_hand(family, macs):
    config = NANOGPT if family == "nanogpt" else arm(family)
    assert build(config.model).forward_macs_per_token(config.context) == macs


def kept_by_decoding(model: SequenceModel, context: int) -> int:
    """Bytes of state per text after a window's last token, without what can be computed from the weights."""
    decoder = decoder_of(model, ROWS, context)
    for token in some_tokens()[:, :context].split(1, dim=1):
        decoder.feed(token)
    assert decoder.n_seen == context
    if isinstance(decoder, KOperatorsDecoder):
        states = [pair for states in decoder.states for pair in zip(decoder.k2, states, strict=True)]
        kept = [state.memory for _, state in states]
        kept += [state.projected for k2, state in states if k2.kernel.any()]  # otherwise no later position reads them
    elif isinstance(decoder, TransformerDecoder):
        kept = [part for cache in decoder.caches for part in (cache.keys, cache.values)]
    else:  # torch's LSTM returns its state
        assert isinstance(model, LSTM)
        kept, h = [], model.embedding(some_tokens()[:, :context])
        for layer in model.layers:
            h, state = layer(h)
            kept.extend(state)
    assert all(part.any() for part in kept if part.numel())
    return sum(part.numel() * part.element_size() for part in kept) // ROWS


@pytest.mark.parametrize("context", [5, CONTEXT])
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_state_bytes_are_those_of_the_decoders_state_at_the_windows_end(kind, changes, context):
    model = make(kind, **changes)
    assert state_bytes(model, context) == kept_by_decoding(model, context)


def test_state_bytes_by_hand():
    # 6 layers of a (32, 128) memory and 256 rows of 128, in float32
    assert state_bytes(build(K_OPERATORS_PAPER.model), 256) == 4 * 6 * (32 + 256) * 128
    assert state_bytes(make("transformer"), 16) == 4 * 2 * 2 * 16 * 8  # 2 layers, keys and values
    for context in (8, 16):
        assert state_bytes(make("lstm"), context) == 4 * 2 * 2 * 8  # 2 layers, output and cell
        assert state_bytes(make("k_operators", paths="recurrent"), context) == 4 * 2 * 3 * 8  # 2 layers, rank 3


class TwoLayers(SequenceModel):
    """Small enough to calculate by hand what each operation saves."""

    def __init__(self) -> None:
        super().__init__()
        self.config = TINY_MODELS["lstm"]
        self.embedding = nn.Embedding(VOCAB_SIZE, 4)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, VOCAB_SIZE)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(gelu(self.up(self.embedding(tokens))))

    def forward_macs_per_token(self, context: int) -> int:
        return 4 * 6 + 6 * VOCAB_SIZE


@pytest.mark.parametrize("context", [1, 7, 16])
def test_activation_bytes_by_hand(context):
    tokens, embedded, before_gelu, after_gelu = 8, 4 * 4, 4 * 6, 4 * 6  # per token; weights are no activations
    assert activation_bytes(TwoLayers(), context) == context * (tokens + embedded + before_gelu + after_gelu)


def kept(kind: str, contexts: tuple[int, ...], **changes: Any) -> list[int]:
    model = make(kind, context=max(contexts), **changes)
    found = [activation_bytes(model, context) for context in contexts]
    assert all(found)
    return [n for n in found if n is not None]


def curvature(kind: str, **changes: Any) -> float:
    """c of a + b T + c T^2, in bytes, from three lengths that are multiples of a chunk."""
    short, middle, long = kept(kind, (128, 256, 384), **changes)
    return (long - 2 * middle + short) / (2 * 128**2)


@pytest.mark.parametrize(
    ("kind", "changes", "tables"),
    [
        # the weights, their dropout mask and their product, in 2 layers of 2 heads
        ("transformer", {}, 3 * 2 * 2),
        ("transformer", {"dropout": 0.0}, 0),  # torch's fused attention stores no table
        # the causal kernel, and the kernel times its gate, in 2 layers
        ("k_operators", {"backend": "recurrent", "paths": "base"}, 2 * 2),
        ("k_operators", {"backend": "recurrent", "paths": "both"}, 2 * 2),
        ("k_operators", {"backend": "recurrent", "paths": "recurrent"}, 0),
        ("lstm", {}, 0),
    ],
)
def test_tables_of_the_squared_context_that_are_stored(kind, changes, tables, unfused):
    assert curvature(kind, **changes) == 4 * tables


def test_the_published_form_stores_a_table_for_each_rank_channel():
    assert curvature("k_operators", backend="mask", paths="recurrent") >= 4 * 3 * 2  # rank 3, 2 layers


def test_the_chunked_recurrence_stores_equally_much_for_each_token():
    short, middle, long = kept("k_operators", (128, 256, 512), backend="chunked", paths="recurrent")
    assert long - middle <= 2 * (middle - short)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_weights_are_not_counted_and_each_pass_of_refinement_is(kind):
    assert kept(kind, (16,), vocab_size=10 * VOCAB_SIZE) == kept(kind, (16,))
    if kind == "k_operators":
        none, once, twice, thrice = (kept(kind, (16,), refine_steps=n)[0] for n in (0, 1, 2, 3))
        assert thrice - twice > 0.8 * none
        assert twice > once > none


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_counting_activations_does_not_change_the_model(kind):
    model = make(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    activation_bytes(model, CONTEXT)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_activations_of_a_form_that_runs_only_on_cuda_are_unknown():
    assert activation_bytes(make("k_operators", backend="fla"), CONTEXT) is None
