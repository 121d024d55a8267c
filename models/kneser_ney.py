"""Interpolated Kneser-Ney n-gram model, the strongest of the counted floors.

source: Kneser and Ney 1995, as interpolated by Chen and Goodman (Computer Speech and Language 13, 1999), one discount
per order, D = n1 / (n1 + 2 n2) with n1 and n2 the numbers of n-grams counted once and twice
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from models.base import FittedModel, require

LONGEST = 2**62  # contexts are numbers in base V, held in int64


@dataclass(frozen=True, kw_only=True)
class KneserNeyConfig:
    """An n-gram of `order` sees `order - 1` tokens; at the start of a window, fewer."""

    vocab_size: int
    order: int

    def __post_init__(self) -> None:
        for name in ("vocab_size", "order"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require(self.vocab_size**self.order < LONGEST, f"order={self.order} is too long for {self.vocab_size} tokens")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The n-grams of one order, sorted: each a context (n - 1 tokens, as a number) and the token after it."""

    contexts: Tensor  # (m,) distinct, ascending
    first: Tensor  # (m + 1,) index of each context's first n-gram in `following`
    following: Tensor  # (k,) tokens
    kept: Tensor  # (k,) discounted share of the n-gram in its context's total
    spared: Tensor  # (m,) share left to the order below


class KneserNey(FittedModel):
    """Token ids (B, T) to log-probabilities of the next token (B, T, V).

    p_n(w | h) = max(c(h w) - D, 0) / c(h) + D n(h) / c(h) p_{n-1}(w | h'), where n(h) is the number of tokens seen
    after h, h' is h without its first token, and p_0 is uniform. c counts occurrences at the highest order, and below
    it the distinct tokens seen before an n-gram.
    """

    def __init__(self, config: KneserNeyConfig) -> None:
        super().__init__()
        self.config = config
        # filled by `fit`, on the device of its text
        self.orders: list[Counts] = []  # from 1 up, as used after a full context
        self.plain: list[Counts] = []  # from 1 up, of occurrences: the highest order at the start of a window

    def fit(self, tokens: Tensor) -> Self:
        size, n = self.config.vocab_size, self.config.order
        if len(tokens) < n:
            raise ValueError(f"a text of {len(tokens)} tokens holds no {n}-gram")
        whole = [ngrams(tokens, order, size) for order in range(1, n + 1)]  # of each text position, as a number
        self.plain = [counted(one, size) for one in whole]
        self.orders = []
        for order in range(1, n):
            longer = whole[order].unique()  # distinct, so each counts one token that precedes the shorter n-gram
            self.orders.append(counted(longer % size**order, size))
        self.orders.append(self.plain[-1])
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        n = self.config.order
        by_length = []  # of contexts of 0, 1, .. n - 1 tokens
        for position in range(min(tokens.shape[1], n - 1)):
            seen = position + 1  # the first positions of a window see fewer tokens than the order uses
            by_length.append(self._probabilities(tokens[:, :seen], [*self.orders[:seen], self.plain[seen]])[:, -1:])
        if tokens.shape[1] >= n:
            by_length.append(self._probabilities(tokens, self.orders)[:, n - 1 :])
        elif n == 1:
            by_length.append(self._probabilities(tokens, self.orders))
        return torch.cat(by_length, dim=1).log().float()

    def _probabilities(self, tokens: Tensor, orders: list[Counts]) -> Tensor:
        """(B, T) -> (B, T, V), correct at positions that see len(orders) - 1 tokens, their own included."""
        size = self.config.vocab_size
        p = torch.full((*tokens.shape, size), 1 / size, dtype=torch.float64, device=tokens.device)
        context = torch.zeros_like(tokens)
        for order, counts in enumerate(orders):
            if order:  # the context grows by the token that precedes it
                before = torch.zeros_like(tokens)
                before[:, order - 1 :] = tokens[:, : tokens.shape[1] - order + 1]
                context = context + before * size ** (order - 1)
            p = interpolate(p.flatten(0, 1), context.flatten(), counts).view_as(p)
        return p

    def tables(self) -> list[Tensor]:
        return [table for one in [*self.orders, *self.plain] for table in (one.contexts, one.following, one.kept)]

    def n_fitted(self) -> int:
        """Distinct n-grams counted, of all orders."""
        return sum(len(counts.following) for counts in self.orders)


def ngrams(tokens: Tensor, order: int, size: int) -> Tensor:
    """Each n-gram of a text (n,) as a number in base `size`, its last token the lowest digit. (n - order + 1,)"""
    number = torch.zeros(len(tokens) - order + 1, dtype=torch.int64, device=tokens.device)
    for place in range(order):
        number = number * size + tokens[place : len(tokens) - order + 1 + place]
    return number


def counted(numbers: Tensor, size: int) -> Counts:
    """The shares for interpolation, from n-grams (m,) with repeats."""
    distinct, counts = numbers.unique(return_counts=True)
    return discounted(distinct, counts, size)


def discounted(numbers: Tensor, counts: Tensor, size: int) -> Counts:
    """The shares for interpolation, from distinct ascending n-grams (k,) and their counts."""
    contexts, lengths = (numbers // size).unique_consecutive(return_counts=True)
    row = torch.repeat_interleave(torch.arange(len(contexts), device=numbers.device), lengths)
    total = torch.zeros(len(contexts), dtype=torch.float64, device=numbers.device).index_add_(0, row, counts.double())
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.0
    return Counts(
        contexts=contexts,
        first=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        following=numbers % size,
        kept=(counts - discount) / total[row],
        spared=discount * lengths / total,
    )


def interpolate(lower: Tensor, context: Tensor, counts: Counts) -> Tensor:
    """Interpolate an order with the one below: lower (N, V), contexts (N,) -> (N, V); unseen contexts keep `lower`."""
    row = torch.searchsorted(counts.contexts, context).clamp(max=len(counts.contexts) - 1)
    seen = (counts.contexts[row] == context).nonzero()[:, 0]
    row = row[seen]
    p = lower.clone()
    p[seen] *= counts.spared[row, None]
    start, length = counts.first[row], counts.first[row + 1] - counts.first[row]
    to = torch.repeat_interleave(seen, length)
    offset = torch.arange(len(to), device=to.device) - torch.repeat_interleave(length.cumsum(0) - length, length)
    entry = torch.repeat_interleave(start, length) + offset
    p.view(-1).index_add_(0, to * lower.shape[1] + counts.following[entry], counts.kept[entry])
    return p
