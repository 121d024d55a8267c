"""The baseline: nanoGPT's decoder-only Transformer.

B batch   T sequence length   h heads   c width of a head   V vocabulary
source: nanoGPT (github.com/karpathy/nanoGPT) at commit 3adf61e; rotary positions: RoFormer, arXiv 2104.09864; RMSNorm:
arXiv 1910.07467; SwiGLU: arXiv 2002.05202; the modern variant has these three, as LLaMA (arXiv 2302.13971)
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu

from models.base import FreeSizes, SequenceModel, require, require_rates
from models.dropout import Dropout
from models.norm import RMSNorm

ROTARY_BASE = 10_000.0


def head_counts(start: Any, width: int) -> list[int]:
    """Numbers of heads that make each 32 to 64 wide, or as wide as in the starting config.

    Even widths, which rotary positions need: then models that differ only in their positions get one shape.
    """
    begun = start.d_model // start.n_heads
    low, high = min(32, begun, width), max(64, begun)
    return [n for n in range(1, width // low + 1) if width % (2 * n) == 0 and width // n <= high]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and options of the Transformer; the defaults are nanoGPT's, without dropout."""

    vocab_size: int
    context: int  # tokens seen at once
    d_model: int
    n_layers: int
    n_heads: int
    dropout: float = 0.0  # on the embedding, the attention weights and both residual branches
    bias: bool = False  # in linear layers and LayerNorms; never in the output
    position: Literal["learned", "none", "rotary"] = "learned"
    mlp_mult: int = 4  # hidden width of the MLP, in d_model; swiglu, with three matrices, uses two thirds of it
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"  # gelu_tanh: the approximation that nanoGPT used until 2023

    free_sizes: ClassVar = FreeSizes(
        depth="n_layers",
        within="n_heads",
        choices=head_counts,
        last="mlp_mult",
        last_choices=(1, 2, 3, 4, 5, 6, 7, 8),
        ratios={"width per layer": "n_layers", "width per head": "n_heads"},
    )
    tiny: ClassVar = {"d_model": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.1}

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model", "n_layers", "n_heads", "mlp_mult"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require(self.d_model % self.n_heads == 0, f"d_model={self.d_model} is not a multiple of n_heads={self.n_heads}")
        require(
            self.position in ("learned", "none", "rotary"),
            f"position={self.position!r} is not one of 'learned', 'none', 'rotary'",
        )
        require(
            self.position != "rotary" or (self.d_model // self.n_heads) % 2 == 0,
            f"rotary positions need heads of even width, not {self.d_model // self.n_heads}",
        )
        require(self.norm in ("layer", "rms"), f"norm={self.norm!r} is not one of 'layer', 'rms'")
        require(self.mlp in MLPS, f"mlp={self.mlp!r} is not one of {sorted(MLPS)}")
        require_rates(self, ("dropout",))


class Attention(nn.Module):
    """Causal multi-head self-attention. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.rotary = config.position == "rotary"
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=config.bias)
        self.weight_dropout = Dropout(config.dropout)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "B T (three h c) -> three B h T c", three=3, h=self.n_heads)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        if self.weight_dropout.active and not self.weight_dropout.torch_stream:
            heads = (
                self.weight_dropout(causal_weights(q, k)) @ v
            )  # the same function, with dropout from our own random stream
        else:
            rate = self.weight_dropout.rate if self.weight_dropout.active else 0.0
            heads = scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        return self.proj(rearrange(heads, "B h T c -> B T (h c)"))


def causal_weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(c)) over positions up to the query's own. (B, h, T, c) twice -> (B, h, T, T)"""
    length, width = q.shape[-2:]
    future = torch.full((length, length), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(future, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=1 / math.sqrt(width))
    return scores.softmax(-1).unflatten(0, q.shape[:2])


def rotate(x: Tensor) -> Tensor:
    """Rotary positions: rotate each pair (x_i, x_{i + c/2}) by position * base^(-2i/c). (B, h, T, c) -> same"""
    half = x.shape[-1] // 2
    frequencies = ROTARY_BASE ** (-torch.arange(half, device=x.device) / half)  # (c/2,)
    angles = torch.arange(x.shape[-2], device=x.device)[:, None] * frequencies  # (T, c/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class GeluMLP(nn.Module):
    """W_down GELU(W_up x), hidden width `mlp_mult` d; exact GELU, or its tanh approximation. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = config.mlp_mult * config.d_model
        self.approximate = "tanh" if config.mlp == "gelu_tanh" else "none"
        self.up = nn.Linear(config.d_model, hidden, bias=config.bias)
        self.proj = nn.Linear(hidden, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(gelu(self.up(x), approximate=self.approximate))


class SwigluMLP(nn.Module):
    """W_down (SiLU(W_gate x) * W_up x), hidden width 2/3 `mlp_mult` d, rounded. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = round(2 / 3 * config.mlp_mult * config.d_model)
        self.gate_up = nn.Linear(config.d_model, 2 * hidden, bias=config.bias)  # both in one product
        self.proj = nn.Linear(hidden, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.proj(silu(gate) * up)


MLPS: dict[str, type[GeluMLP] | type[SwigluMLP]] = {"gelu": GeluMLP, "gelu_tanh": GeluMLP, "swiglu": SwigluMLP}


def norm_of(config: TransformerConfig) -> nn.Module:
    """The normalisation named by a config, over the last axis."""
    return RMSNorm(config.d_model) if config.norm == "rms" else nn.LayerNorm(config.d_model, bias=config.bias)


class Block(nn.Module):
    """Pre-norm attention, then MLP, each added to the residual stream. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = norm_of(config)
        self.attention = Attention(config)
        self.norm2 = norm_of(config)
        self.mlp = MLPS[config.mlp](config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class Transformer(SequenceModel):
    """The whole model: embedding and positions, blocks, norm, output tied to the embedding."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context, config.d_model) if config.position == "learned" else None
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_layers)])
        self.final_norm = norm_of(config)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                residual = name.endswith(".proj")  # the two projections that write to the residual stream
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * config.n_layers) if residual else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        length = self.check_context(tokens)
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions.weight[:length]
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x) @ self.embedding.weight.mT

    def forward_macs_per_token(self, context: int) -> int:
        """Counts dense (T, T) attention scores in full."""
        c = self.config
        matrices = [module.weight for module in self.blocks.modules() if isinstance(module, nn.Linear)]
        attention = c.n_layers * 2 * context * c.d_model
        return sum(matrix.numel() for matrix in matrices) + attention + c.d_model * c.vocab_size

    def state_numbers(self, context: int) -> int:
        """The keys and values of every layer."""
        return 2 * self.config.n_layers * context * self.config.d_model

    def position_parameters(self) -> list[str]:
        return [] if self.positions is None else ["positions.weight"]

    def part_of(self, parameter_name: str) -> str:
        """embedding, positions, attention, mlp, norms."""
        if "norm" in parameter_name:
            return "norms"
        return parameter_name.split(".")[2] if parameter_name.startswith("blocks.") else parameter_name.split(".")[0]
