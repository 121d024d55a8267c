"""Decoding one token at a time: the interface of decoders, and the rule for texts longer than the window.

B batch   T tokens seen   V vocabulary
"""

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.base import SequenceModel

Model = TypeVar("Model", bound=nn.Module)


def window_start(n_tokens: int, context: int) -> int:
    """Index of the first token that is visible to the prediction after `n_tokens` tokens.

    The window holds `context` tokens. When it is full, it keeps the newest `context // 2`, so after the first `context`
    tokens a prediction sees between `context // 2 + 1` and `context` of them. (A window of always the last `context`
    tokens would shift every position at each step, and no cache would stay valid.)
    """
    forgotten_at_once = context - context // 2
    n_moves = -(-max(n_tokens - context, 0) // forgotten_at_once)
    return n_moves * forgotten_at_once


class Decoder(ABC):
    """Predicts the token after those fed so far, of which it sees those from `window_start` on.

    It uses a copy of the model's weights from when it was made, without dropout and without gradients.
    """

    def __init__(self, model: SequenceModel, batch_size: int, context: int) -> None:
        if not 1 <= context <= model.config.context:
            raise ValueError(f"a window of {context} tokens, but this model's context is {model.config.context}")
        self.context = context
        self.n_seen = 0
        device = next(model.parameters(), torch.empty(0)).device
        self.seen = torch.zeros(batch_size, context, dtype=torch.int64, device=device)  # the first `n_seen` are filled

    @torch.inference_mode()
    def feed(self, tokens: Tensor) -> Tensor:
        """Token ids (B, n), n >= 1, that follow those fed before  ->  logits (B, V) of the token after them.

        One token that fits the window takes one step. Several tokens, or a window that moves, refill the cache.
        """
        n = tokens.shape[1]
        if n == 0 or tokens.shape[0] != self.seen.shape[0]:
            raise ValueError(f"tokens of shape {tuple(tokens.shape)} for {self.seen.shape[0]} texts")
        start = window_start(self.n_seen + n, self.context)
        if n == 1 and start == 0 and self.n_seen > 0:
            token, position = tokens[:, 0], self.n_seen
            self.seen[:, position] = token
            self.n_seen += 1
            return self.step(token, position)
        kept = torch.cat([self.seen[:, : self.n_seen], tokens], dim=1)[:, start:]
        self.n_seen = kept.shape[1]
        self.seen[:, : self.n_seen] = kept
        return self.prefill(kept)

    @abstractmethod
    def prefill(self, tokens: Tensor) -> Tensor:
        """Restart with token ids (B, T) at positions 0..T-1  ->  logits (B, V) after the last."""

    @abstractmethod
    def step(self, token: Tensor, position: int) -> Tensor:
        """One more token id per text (B,), at the next position  ->  logits (B, V) after it."""


class Recomputing(Decoder):
    """Recomputes the whole window for every token: works for any model, and is the reference for the caches."""

    def __init__(self, model: SequenceModel, batch_size: int, context: int) -> None:
        super().__init__(model, batch_size, context)
        self.model = frozen(model)

    def prefill(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens)[:, -1]
        return logits

    def step(self, token: Tensor, position: int) -> Tensor:
        return self.prefill(self.seen[:, : position + 1])


def frozen(model: Model) -> Model:
    """A copy in evaluation mode that needs no gradients."""
    return deepcopy(model).eval().requires_grad_(False)


class LinearStep:
    """A linear map for small batches: (B, in) -> (B, out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # with one row, reading the matrix takes the time, and long contiguous rows are read up to twice as fast
        self.weight = weight.mT.contiguous() if weight.shape[0] > weight.shape[1] else weight.contiguous().mT
        self.bias = bias

    def step(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)
