"""Unigram and bigram models with add-one smoothing: fitted by counting, so they have no seed."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from models.base import FittedModel, require


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """`order` 1: unigram, which ignores the context; 2: bigram, which sees one token."""

    vocab_size: int
    order: int

    def __post_init__(self) -> None:
        require(self.vocab_size >= 1, f"vocab_size={self.vocab_size} must be at least 1")
        require(self.order in (1, 2), f"order={self.order} is not one of 1, 2")


class Ngram(FittedModel):
    """Token ids (B, T) to log-probabilities of the next token (B, T, V), from counts with one added to each."""

    log_probabilities: Tensor  # (V, V): row = the last token; for order 1 all rows are equal

    def __init__(self, config: NgramConfig) -> None:
        super().__init__()
        self.config = config
        uniform = torch.full((config.vocab_size, config.vocab_size), 1 / config.vocab_size)
        self.register_buffer("log_probabilities", uniform.log())

    def fit(self, tokens: Tensor) -> Self:
        size = self.config.vocab_size
        if self.config.order == 1:
            counts = torch.bincount(tokens, minlength=size).expand(size, size)
        else:
            counts = torch.bincount(tokens[:-1] * size + tokens[1:], minlength=size * size).view(size, size)
        smoothed = counts.double() + 1
        self.log_probabilities = (smoothed / smoothed.sum(-1, keepdim=True)).log().float().to(tokens.device)
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        return self.log_probabilities[tokens]

    def tables(self) -> list[Tensor]:
        return [self.log_probabilities]

    def n_fitted(self) -> int:
        """Number of free probabilities."""
        return (self.config.vocab_size - 1) * self.config.vocab_size ** (self.config.order - 1)
