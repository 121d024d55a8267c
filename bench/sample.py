"""What a trained model writes: ancestral sampling, one token at a time."""

import torch
from torch import Tensor, nn

from bench.batches import stream_seed
from bench.errors import ConfigError


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt: Tensor,
    n_tokens: int,
    context: int,
    *,
    seed: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Tensor:
    """Continue `prompt` (n,) by `n_tokens` token ids; the model sees the last `context` tokens each time.

    temperature 0 takes the likeliest token. `top_k` keeps that many likeliest; `top_p` keeps the fewest that together
    have that probability.
    """
    if not 0 <= temperature < float("inf") or not 0 < top_p <= 1 or (top_k is not None and top_k < 1) or n_tokens < 0:
        raise ConfigError("temperature and tokens must not be negative, top-p be in (0, 1], top-k at least 1")
    model.eval()
    generator = torch.Generator(prompt.device).manual_seed(stream_seed(seed, "generation"))
    tokens = prompt
    for _ in range(n_tokens):
        logits = model(tokens[None, -context:])[0, -1].float()
        probabilities = kept_probabilities(logits, temperature, top_k, top_p)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)])
    return tokens


def kept_probabilities(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> Tensor:
    """Probabilities (V,) of the next token after temperature, top-k and top-p; not kept ones are 0."""
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    ordered, order = ((logits - logits.max()) / temperature).softmax(0).sort(descending=True, stable=True)
    kept = ordered.cumsum(0) - ordered < top_p  # the first always stays
    if top_k is not None:
        kept[top_k:] = False
    ordered = torch.where(kept, ordered, 0.0)
    return torch.zeros_like(logits).scatter(0, order, ordered / ordered.sum())
