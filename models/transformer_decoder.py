"""Decoder of the Transformer: a key-value cache, O(T d) per token besides the products with the weights.

    B batch   T position   W context   h heads   c width of a head   d width   x (B, d) the residual stream

`models/transformer.py` is the definition.
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from models.decoding import Decoder, LinearStep, frozen
from models.norm import RMSNorm, rms_norm
from models.transformer import Block, GeluMLP, SwigluMLP, Transformer, rotate


class LayerNormStep:
    """LayerNorm without a module's overhead. (B, d) -> (B, d)"""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.shape, self.weight, self.bias, self.eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps

    def step(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class RMSNormStep:
    """RMSNorm without a module's overhead. (B, d) -> (B, d)"""

    def __init__(self, norm: RMSNorm) -> None:
        self.scale = norm.scale

    def step(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.scale)


def norm_step(norm: nn.Module) -> LayerNormStep | RMSNormStep:
    """The step of either norm."""
    if isinstance(norm, RMSNorm):
        return RMSNormStep(norm)
    assert isinstance(norm, nn.LayerNorm)
    return LayerNormStep(norm)


class MLPStep:
    """Either MLP. (B, d) -> (B, d)"""

    def __init__(self, mlp: GeluMLP | SwigluMLP) -> None:
        self.approximate = mlp.approximate if isinstance(mlp, GeluMLP) else None
        up = mlp.up if isinstance(mlp, GeluMLP) else mlp.gate_up
        self.up, self.down = LinearStep(up.weight, up.bias), LinearStep(mlp.proj.weight, mlp.proj.bias)

    def step(self, x: Tensor) -> Tensor:
        inside = self.up.step(x)
        if self.approximate is None:
            gate, up = inside.chunk(2, dim=-1)
            return self.down.step(silu(gate) * up)
        return self.down.step(gelu(inside, approximate=self.approximate))


class BlockViews(NamedTuple):
    """Views of a `BlockCache` for one position t."""

    key: Tensor  # (B, h, c): written at t
    value: Tensor  # (B, h, c): written at t
    keys: Tensor  # (B h, c, t + 1): read at t
    values: Tensor  # (B h, t + 1, c)


class BlockCache:
    """Keys and values of the positions seen by one block, each (B, h, W, c); rotary keys are stored rotated."""

    def __init__(self, like: Tensor, shape: tuple[int, int, int, int]) -> None:
        self.keys, self.values = like.new_zeros(2, *shape)
        keys, values = self.keys.flatten(0, 1), self.values.flatten(0, 1)
        self.views = [
            BlockViews(self.keys[:, :, t], self.values[:, :, t], keys[:, : t + 1].mT, values[:, : t + 1])
            for t in range(shape[2])
        ]


class BlockStep:
    """One block at one position: attention over a cache, then the MLP. `rotations` (2, W, c): see `rotation_tables`."""

    def __init__(self, block: Block, rotations: Tensor | None) -> None:
        self.block, self.rotations = block, rotations
        attention = block.attention
        self.n_heads = attention.n_heads
        self.norm1, self.norm2 = norm_step(block.norm1), norm_step(block.norm2)
        self.qkv, self.proj = (LinearStep(m.weight, m.bias) for m in (attention.qkv, attention.proj))
        self.mlp = MLPStep(block.mlp)
        self.no_mask = attention.qkv.weight.new_zeros(())

    def fill(self, x: Tensor, cache: BlockCache) -> Tensor:
        """The block at positions 0..T-1, which refill `cache`. (B, T, d) -> (B, T, d)"""
        attention = self.block.attention
        qkv = attention.qkv(self.block.norm1(x))
        _, k, v = rearrange(qkv, "B T (three h c) -> three B h T c", three=3, h=self.n_heads)
        cache.keys[:, :, : x.shape[1]] = k if self.rotations is None else rotate(k)
        cache.values[:, :, : x.shape[1]] = v
        return self.block(x)

    def step(self, x: Tensor, cache: BlockCache, position: int) -> Tensor:
        """The block at `position`, which is added to `cache`. (B, d) -> (B, d)"""
        views = cache.views[position]
        qkv = self.qkv.step(self.norm1.step(x)).unflatten(1, (3, self.n_heads, -1))  # (B, 3, h, c)
        if self.rotations is not None:
            along, across = self.rotations[:, position]
            qk = qkv[:, :2]
            qkv[:, :2] = torch.addcmul(qk * along, qk.roll(qk.shape[-1] // 2, -1), across)
        q, k, v = qkv.unbind(1)
        views.key.copy_(k)
        views.value.copy_(v)
        q = q.flatten(0, 1).unsqueeze(1)  # (B h, 1, c)
        weights = torch.baddbmm(self.no_mask, q, views.keys, alpha=1 / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + self.proj.step(torch.bmm(weights, views.values).view_as(x))
        return x + self.mlp.step(self.norm2.step(x))


class TransformerDecoder(Decoder):
    """The Transformer with a key-value cache for each block."""

    def __init__(self, model: Transformer, batch_size: int, context: int) -> None:
        super().__init__(model, batch_size, context)
        self.model = frozen(model)
        c = model.config
        like = self.model.embedding.weight
        shape = (batch_size, c.n_heads, context, c.d_model // c.n_heads)
        rotations = rotation_tables(like, *shape[2:]) if c.position == "rotary" else None
        self.blocks = [BlockStep(block, rotations) for block in self.model.blocks if isinstance(block, Block)]
        self.caches = [BlockCache(like, shape) for _ in self.blocks]
        self.final_norm = norm_step(self.model.final_norm)
        self.output = LinearStep(like, None)

    def prefill(self, tokens: Tensor) -> Tensor:
        x = self.model.embedding(tokens)
        if self.model.positions is not None:
            x = x + self.model.positions.weight[: tokens.shape[1]]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = block.fill(x, cache)
        return self.output.step(self.final_norm.step(x[:, -1]))

    def step(self, token: Tensor, position: int) -> Tensor:
        x = self.model.embedding(token)
        if self.model.positions is not None:
            x = x + self.model.positions.weight[position]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = block.step(x, cache, position)
        return self.output.step(self.final_norm.step(x))


def rotation_tables(like: Tensor, context: int, width: int) -> Tensor:
    """Cosines and signed sines (2, W, c): `rotate` is x * cosines + (x with its halves swapped) * sines."""
    ones, zeros = like.new_ones(context, width // 2), like.new_zeros(context, width // 2)
    cos, sin = rotate(torch.cat([ones, zeros], dim=-1)[None, None])[0, 0].chunk(2, dim=-1)  # (1, 0), rotated
    return torch.stack([torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)])
