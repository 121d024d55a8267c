"""The two published forms of the recurrence with the operations of the released code, and a training step of them.

`mask` and `block` in models/decay.py compute the same, but hold less memory. Source: Zenodo 19004569 and its code.

    B batch   T position   r rank   d width
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import torch
from einops import einsum
from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.batches import stream_seed, train_batch
from bench.config import RunConfig
from bench.corpus import Corpus
from bench.schedule import learning_rate
from bench.store import PUBLISHED_FORMS
from bench.train import add_gradients, apply_gradients, make_optimizer, set_learning_rate
from models import SequenceModel, build
from models.decay import BACKENDS, PUBLISHED_BLOCK
from models.dropout import share_generator

SEED = 42


def mask(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """A decay table (T, T, r) times every k_j n_j, (B, T, r, d), in one contraction; then q times the result."""
    position = torch.arange(n.shape[1], device=n.device, dtype=gamma.dtype)
    distance = (position[:, None] - position).clamp(min=0)
    lower = torch.ones_like(distance).tril()
    decay = torch.exp(distance[:, :, None] * gamma.log()) * lower[:, :, None]
    written = k[:, :, :, None] * n[:, :, None, :]
    memory = einsum(decay, written, "i j r, B j r d -> B i r d")
    return einsum(q, memory, "B i r, B i r d -> B i d")


def block(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """In blocks of 128 positions a prefix sum of gamma^(-t) k_t n_t, times gamma^t; a state between blocks."""
    t = torch.arange(min(PUBLISHED_BLOCK, n.shape[1]), device=n.device, dtype=gamma.dtype)[:, None]
    power, inverse = torch.exp(t * gamma.log())[:, :, None], torch.exp(-t * gamma.log())[:, :, None]  # (t, r, 1)
    memory = n.new_zeros(n.shape[0], gamma.shape[0], n.shape[2])  # (B, r, d), before the block's first position
    reads = []
    for q_b, k_b, n_b in zip(*(x.split(PUBLISHED_BLOCK, dim=1) for x in (q, k, n)), strict=True):
        up, down = power[: n_b.shape[1]], inverse[: n_b.shape[1]]
        written = k_b[:, :, :, None] * n_b[:, :, None, :]
        states = (written * down).cumsum(dim=1) * up + memory[:, None] * (up * gamma[:, None])
        reads.append((q_b[:, :, :, None] * states).sum(dim=2))
        memory = states[:, -1]
    return torch.cat(reads, dim=1)


FORMS = dict(zip(PUBLISHED_FORMS, (mask, block), strict=True))


@contextmanager
def published_forms() -> Iterator[None]:
    """In this block a config of K-Operators may name them as its backend."""
    before = dict(BACKENDS)
    BACKENDS.update(FORMS)
    try:
        yield
    finally:
        BACKENDS.clear()
        BACKENDS.update(before)


def predictor(
    config: RunConfig, form: str, dtype: torch.dtype, device: torch.device
) -> tuple[SequenceModel, Callable[[Tensor], Tensor]]:
    """The model of a seed, and its logits (B, T, V) of token ids (B, T), under autocast unless `dtype` is float32."""
    torch.manual_seed(SEED)
    model = build(replace(config.model, backend=form)).to(device)

    def predict(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = model(x)
            return logits

    return model, predict


def training_step(
    config: RunConfig, form: str, dtype: torch.dtype, corpus: Corpus, device: torch.device
) -> Callable[[], Tensor]:
    """A function that does the next training step and returns its loss, a scalar: eager, the whole batch at once."""
    assert config.training is not None
    training, steps = config.training, count()
    model, predict = predictor(config, form, dtype, device)
    optimizer, generator = make_optimizer(model, training), share_generator(model, device)

    def step() -> Tensor:
        n_done = next(steps)
        set_learning_rate(optimizer, learning_rate(n_done, training))
        generator.manual_seed(stream_seed(SEED, "dropout", n_done))
        optimizer.zero_grad(set_to_none=True)
        x, y = train_batch(corpus.train, SEED, n_done, training.batch_size, config.context, corpus.cuts)
        nats = add_gradients(predict, x, y, len(x))
        apply_gradients(model, optimizer, training.clip_norm)
        return nats

    return step


def forward_pass(
    config: RunConfig, form: str, dtype: torch.dtype, corpus: Corpus, device: torch.device
) -> Callable[[], Tensor]:
    """As `training_step`, without gradients, dropout and updates: the same batches, the same weights."""
    assert config.training is not None
    batch_size, steps = config.training.batch_size, count()
    model, predict = predictor(config, form, dtype, device)
    model.eval()

    @torch.no_grad()
    def step() -> Tensor:
        x, y = train_batch(corpus.train, SEED, next(steps), batch_size, config.context, corpus.cuts)
        return cross_entropy(predict(x).flatten(0, 1).float(), y.flatten())

    return step
