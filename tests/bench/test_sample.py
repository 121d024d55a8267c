"""Sampled text depends only on the model's probabilities and the seed."""

import math
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from bench.errors import ConfigError
from bench.sample import generate, kept_probabilities
from models import ARCHITECTURES, SequenceModel, build
from models.decoding import window_start

PROBABILITIES = (0.1, 0.4, 0.05, 0.25, 0.2)  # ordered: tokens 1, 3, 4, 0, 2
LOGITS = torch.tensor(PROBABILITIES).log()


class Next(SequenceModel):
    """Predicts x + 1 after x, and keeps the inputs of all instances."""

    shown: ClassVar[list[list[int]]] = []
    vocab_size = 7
    config = SimpleNamespace(context=4)

    def forward(self, tokens: Tensor) -> Tensor:
        self.shown.append(tokens[0].tolist())
        return 50.0 * nn.functional.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float()

    def forward_macs_per_token(self, context: int) -> int:
        return 0


LIKELIEST = (0, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "expected"),
    [
        (1.0, None, 1.0, PROBABILITIES),
        (1.0, 5, 1.0, PROBABILITIES),
        (1.0, 99, 1.0, PROBABILITIES),
        (1.0, 1, 1.0, LIKELIEST),
        (1.0, 2, 1.0, (0, 0.4, 0, 0.25, 0)),
        (1.0, None, 0.3, LIKELIEST),  # token 1 has 0.4
        (1.0, None, 0.5, (0, 0.4, 0, 0.25, 0)),  # 0.4 is not enough, 0.65 is
        (1.0, None, 0.8, (0, 0.4, 0, 0.25, 0.2)),
        (1.0, None, 0.9, (0.1, 0.4, 0, 0.25, 0.2)),
        (1.0, None, 1e-9, LIKELIEST),  # one always stays
        (1.0, None, 1e-320, LIKELIEST),  # which is 0 in float32
        (1.0, 2, 0.9, (0, 0.4, 0, 0.25, 0)),
        (1.0, 3, 0.5, (0, 0.4, 0, 0.25, 0)),
        (0.5, None, 1.0, [p * p for p in PROBABILITIES]),
        (2.0, None, 1.0, [math.sqrt(p) for p in PROBABILITIES]),
        (0.5, None, 0.5, LIKELIEST),  # before the cut: token 1 has 0.16 of 0.275, more than a half
        (0.0, None, 1.0, LIKELIEST),
        (0.0, 3, 0.1, LIKELIEST),
    ],
)
def test_the_likeliest_are_kept_at_a_temperature_and_normalised(temperature, top_k, top_p, expected):
    shares = torch.tensor([p / sum(expected) for p in expected], dtype=torch.float32)
    # float32 of numbers below 1
    torch.testing.assert_close(kept_probabilities(LOGITS, temperature, top_k, top_p), shares, rtol=0, atol=1e-6)


def test_drawn_tokens_have_the_probabilities_of_the_model():
    class Constant(Next):
        def forward(self, tokens: Tensor) -> Tensor:
            return LOGITS.expand(*tokens.shape, -1)

    n = 4000
    written = generate(Constant(), torch.tensor([0]), n, 4, seed=1)[1:]
    shares = torch.bincount(written, minlength=5) / n
    # five standard deviations of a share: 5 * sqrt(0.4 * 0.6 / 4000) = 0.039
    torch.testing.assert_close(shares, torch.tensor(PROBABILITIES), rtol=0, atol=0.039)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_writes_the_same_text_every_time_and_another_seed_another(architecture, tiny_run):
    torch.manual_seed(0)
    model = build(tiny_run(architecture).config.model)
    prompt = torch.tensor([3, 1, 4])

    def write(seed: int) -> list[int]:
        model.train()  # dropout must not act
        written: list[int] = generate(model, prompt, 40, 16, seed=seed, temperature=0.8).tolist()
        return written

    first = write(7)
    torch.manual_seed(123)  # nor does torch's default generator
    assert write(7) == first
    assert write(8) != first
    assert first[:3] == prompt.tolist()
    assert len(first) == 43


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_temperature_zero_follows_the_model_step_by_step(architecture, tiny_run):
    torch.manual_seed(0)
    model = build(tiny_run(architecture).config.model).eval()
    tokens = torch.tensor([3, 1, 4])
    written = generate(model, tokens, 30, 16, seed=0, temperature=0)  # 33 tokens: the window of 16 moves three times
    for _ in range(30):
        seen = tokens[window_start(len(tokens), 16) :]
        with torch.no_grad():
            tokens = torch.cat([tokens, model(seen[None])[0, -1].argmax()[None]])
    assert torch.equal(written, tokens)


def test_the_window_of_a_text_longer_than_the_context_starts_at_its_newest_half():
    Next.shown.clear()
    written = generate(Next(), torch.arange(5), 6, 4, seed=0)
    assert written.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]
    assert Next.shown == [[2, 3, 4], [2, 3, 4, 5], [4, 5, 6], [4, 5, 6, 0], [6, 0, 1], [6, 0, 1, 2]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kept", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 9, "top_p": 0.9}])
def test_the_cache_changes_no_token(architecture, kept, tiny_run):
    torch.manual_seed(0)
    model = build(tiny_run(architecture).config.model)
    prompt = torch.tensor([3, 1, 4])
    cached, recomputed = (generate(model, prompt, 60, 16, seed=5, cached=cached, **kept) for cached in (True, False))
    assert torch.equal(cached, recomputed)


def test_zero_tokens_give_the_prompt():
    assert generate(Next(), torch.arange(3), 0, 4, seed=0).tolist() == [0, 1, 2]


@pytest.mark.met("U11")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-0.1, math.nan, math.inf, 1e-320)),
        ("top_k", 0),
        *(("top_p", value) for value in (0.0, 1.1, math.nan)),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ConfigError):
        generate(Next(), torch.arange(3), 1, 4, seed=0, **{name: value})
