"""Text from a trained model: ancestral sampling, one token at a time."""

import torch
from torch import Tensor

from bench.batches import stream_seed
from bench.errors import ConfigError
from models import SequenceModel, decoder_of
from models.decoding import Recomputing

LEAST_TEMPERATURE = torch.finfo(torch.float32).tiny
MOST_TOKENS = 100_000_000


def generate(
    model: SequenceModel,
    prompt: Tensor,
    n_tokens: int,
    context: int,
    *,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    cached: bool = True,
) -> Tensor:
    """Continue `prompt` (n,), n >= 1, by `n_tokens` token ids, without dropout.

    Each token sees at most the `context` tokens before it, and fewer where the text is longer: the window then moves as
    `models.decoding.window_start` defines. temperature 0 takes the most likely token. `top_k` keeps that many most
    likely; `top_p` keeps the fewest that together have that probability. Without `cached`, the window is recomputed
    for every token, with the same result.
    """
    if not 0 <= temperature < float("inf") or not 0 < top_p <= 1 or (top_k is not None and top_k < 1):
        raise ConfigError("temperature must not be negative, top-p be in (0, 1], top-k at least 1")
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ConfigError(f"temperature {temperature:g} is 0 in float32: give 0, or at least {LEAST_TEMPERATURE:.3g}")
    if not 0 <= seed < 2**31:
        raise ConfigError(f"seed {seed} must be 0 to 2^31 - 1")
    if not 0 <= n_tokens <= MOST_TOKENS:
        raise ConfigError(f"tokens {n_tokens} must be 0 to {MOST_TOKENS:,}: the text is held in memory")
    decoder = decoder_of(model, 1, context) if cached else Recomputing(model, 1, context)
    generator = torch.Generator(prompt.device).manual_seed(stream_seed(seed, "generation"))
    written = torch.cat([prompt, prompt.new_zeros(n_tokens)])
    fresh = prompt  # the tokens that the decoder has not read
    for i in range(len(prompt), len(written)):
        logits = decoder.feed(fresh[None])[0].float()
        fresh = torch.multinomial(kept_probabilities(logits, temperature, top_k, top_p), 1, generator=generator)
        written[i] = fresh[0]
    return written


def kept_probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """Probabilities (V,) of the next token after temperature, top-k and top-p; 0 for tokens not kept."""
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    probabilities = ((logits - logits.max()) / temperature).softmax(0)
    if top_k is None and top_p == 1.0:
        return probabilities
    ordered, order = probabilities.sort(descending=True, stable=True)
    kept = ordered.cumsum(0) - ordered < top_p
    kept[0] = True  # also where top_p is 0 in float32
    if top_k is not None:
        kept[top_k:] = False
    ordered = torch.where(kept, ordered, 0.0)
    return torch.zeros_like(logits).scatter(0, order, ordered / ordered.sum())
