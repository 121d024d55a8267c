"""K-Operators: an attention-free sequence model, as released with preprint v1.

B batch   T sequence length   W context   d width   r rank   N number of K2 layers   V vocabulary

K1 position-wise · K2 mixes positions, the only layer that does · K0 final rescale · stack K1 -> K2 x N -> K1 -> K0
source: Zenodo 19004569 and its reference implementation at commit e104fa9; where the two differ we follow the
code, on the line that says so
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from models.base import FreeSizes, ParameterGroup, SequenceModel, require, require_rates
from models.decay import BACKENDS, chunked, read_memory
from models.dropout import Dropout
from models.norm import NORM_EPS, RMSNorm

PATHS = ("both", "base", "recurrent")


def ranks(start: Any, width: int) -> range:
    """Ranks near the one that keeps the ratio of width to rank."""
    kept = round(start.rank * width / start.d_model)
    return range(max(1, kept - 3), kept + 4)


@dataclass(frozen=True, kw_only=True)
class KOperatorsConfig:
    """Sizes and options of K-Operators; the defaults are those of the published 1.14M runs, without dropout."""

    vocab_size: int
    context: int  # tokens seen at once: W
    d_model: int
    rank: int  # channels of each K2's memory
    n_k2: int  # K2 layers
    head: Literal["gelu", "tied"] = "gelu"
    head_mult: int = 1  # hidden width of the gelu head, in d_model
    refine_steps: int = 1  # 0: one plain pass and no eta
    eval_refine_steps: int | None = None  # None: as in training
    alpha_cap: float = 0.8
    gamma_min: float = 0.85
    gamma_max: float = 1.0
    base_init: Literal["uniform", "exponential"] = "uniform"
    backend: Literal["recurrent", "mask", "block", "chunked", "fla"] = "chunked"  # fla: on CUDA alone
    paths: Literal["both", "base", "recurrent"] = "both"  # which of the two paths of K2 are present
    shared_base: bool = False  # one base kernel for all K2 layers, with one gate per layer
    eta: Literal["learned", "frozen"] = "learned"  # frozen: stays at its initial 0.3
    position: Literal["none", "learned"] = "none"  # learned: a table added to the embedding, as in the Transformer
    emb_dropout: float = 0.0
    mlp_dropout: float = 0.0
    residual_dropout: float = 0.0
    head_dropout: float = 0.0

    free_sizes: ClassVar = FreeSizes(
        depth="n_k2",
        within="rank",
        choices=ranks,
        ratios={"width per layer": "n_k2", "width per rank channel": "rank"},
    )
    tiny: ClassVar = {
        "d_model": 8, "rank": 3, "n_k2": 2,
        "emb_dropout": 0.1, "mlp_dropout": 0.1, "residual_dropout": 0.1, "head_dropout": 0.1,
    }  # fmt: skip

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model", "rank", "head_mult"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        for name in ("n_k2", "refine_steps", "eval_refine_steps"):
            require((getattr(self, name) or 0) >= 0, f"{name}={getattr(self, name)} must not be negative")
        require(self.head in ("gelu", "tied"), f"head={self.head!r} is not one of 'gelu', 'tied'")
        require(self.base_init in BASE_INITS, f"base_init={self.base_init!r} is not one of {sorted(BASE_INITS)}")
        require(self.backend in BACKENDS, f"backend={self.backend!r} is not one of {sorted(BACKENDS)}")
        require(
            0.0 <= self.gamma_min < self.gamma_max <= 1.0,
            f"gamma_min={self.gamma_min} and gamma_max={self.gamma_max} must satisfy 0 <= min < max <= 1",
        )
        require(
            self.backend != "block" or self.gamma_min >= 0.55,
            f"backend='block' overflows float32 for gamma < 0.5, so it needs gamma_min >= 0.55, not {self.gamma_min}; "
            "use backend='chunked'",
        )
        require(self.paths in PATHS, f"paths={self.paths!r} is not one of {', '.join(PATHS)}")
        require(self.eta in ("learned", "frozen"), f"eta={self.eta!r} is not one of 'learned', 'frozen'")
        require(self.position in ("none", "learned"), f"position={self.position!r} is not one of 'none', 'learned'")
        require(0 < self.alpha_cap < math.inf, f"alpha_cap={self.alpha_cap} must be positive and finite")
        require_rates(self, ("emb_dropout", "mlp_dropout", "residual_dropout", "head_dropout"))


class MLP(nn.Module):
    """W_down Dropout(GELU(W_up x)), hidden width 2 d, exact GELU."""

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, 2 * config.d_model)
        self.dropout = Dropout(config.mlp_dropout)
        self.down = nn.Linear(2 * config.d_model, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.dropout(gelu(self.up(x))))


class K1(nn.Module):
    """Position-wise: h + W_f norm(h), then the MLP. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.d_model)
        self.feature_mix = nn.Linear(config.d_model, config.d_model)
        self.norm2 = RMSNorm(config.d_model)
        self.mlp = MLP(config)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.feature_mix(self.norm1(h))
        return h + self.mlp(self.norm2(h))


class K2(nn.Module):
    """Mixes positions: a learned causal kernel plus a decaying memory. (B, T, d) -> (B, T, d)

    The base kernel sees absolute positions and the decay gives relative order: there is no positional encoding.
    """

    def __init__(self, config: KOperatorsConfig, base: nn.Parameter | None) -> None:
        super().__init__()
        self.config = config
        self.norm1 = RMSNorm(config.d_model)
        self.base = base  # K (W, W), used below its diagonal; None: no base path
        if base is not None:
            self.base_gate_logit = nn.Parameter(torch.tensor(8.0))  # g
        self.has_memory = config.paths != "base"
        if self.has_memory:
            self.u = nn.Parameter(torch.empty(config.d_model, config.rank).normal_(std=0.05))
            self.v = nn.Parameter(torch.empty(config.d_model, config.rank).normal_(std=0.05))
            # logits of lambda, before the bounds: so v1's gamma starts in [0.9925, 0.99925], as in its code
            self.decay_logit = nn.Parameter(torch.logit(torch.linspace(0.95, 0.995, config.rank)))
            self.alpha_logit = nn.Parameter(torch.tensor(0.0))  # a
        self.proj = nn.Linear(config.d_model, config.d_model)
        self.dropout = Dropout(config.residual_dropout)
        self.norm2 = RMSNorm(config.d_model)
        self.mlp = MLP(config)

    def gate(self) -> Tensor:
        """The base path's weight, one scalar."""
        return torch.sigmoid(self.base_gate_logit)

    def alpha(self) -> Tensor:
        """The recurrent path's weight, one scalar."""
        return self.config.alpha_cap * torch.sigmoid(self.alpha_logit)

    def gamma(self) -> Tensor:
        """The decay of each rank channel, (r,)."""
        low, high = self.config.gamma_min, self.config.gamma_max
        return low + (high - low) * torch.sigmoid(self.decay_logit)

    def kernel(self, length: int) -> Tensor | None:
        """The base path as a matrix over positions, gate * (K masked causal), (T, T); None without a base path."""
        return None if self.base is None else self.gate() * self.base[:length, :length].tril()

    def query_key(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised queries and keys of the memory. (B, T, d) -> (B, T, r) twice"""
        q, k = n @ self.u, n @ self.v
        return normalize(q, dim=-1, eps=NORM_EPS), normalize(k, dim=-1, eps=NORM_EPS)

    def mix(self, n: Tensor) -> Tensor:
        """Both paths over positions: gate * (K masked causal) n + alpha * memory read. (B, T, d) -> (B, T, d)"""
        kernel = self.kernel(n.shape[1])
        if not self.has_memory:
            assert kernel is not None
            return kernel @ n
        q, k = self.query_key(n)
        if self.config.backend == "chunked":
            return chunked(self.alpha() * q, k, n, self.gamma(), gamma_min=self.config.gamma_min, kernel=kernel)
        read = self.alpha() * read_memory(q, k, n, self.gamma(), self.config.backend)
        return read if kernel is None else kernel @ n + read

    def contributions(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """The terms of `mix`: base, then recurrent; zeros for an absent path. (B, T, d) -> (B, T, d) twice"""
        kernel = self.kernel(n.shape[1])
        base = torch.zeros_like(n) if kernel is None else kernel @ n
        if not self.has_memory:
            return base, torch.zeros_like(n)
        q, k = self.query_key(n)
        return base, chunked(self.alpha() * q, k, n, self.gamma(), gamma_min=self.config.gamma_min)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.dropout(self.proj(self.mix(self.norm1(h))))
        return h + self.mlp(self.norm2(h))


class K0(nn.Module):
    """Final rescale: h + (norm(h) * gain + bias). (B, T, d) -> (B, T, d)"""

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.gain = nn.Parameter(torch.ones(config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.d_model))

    def forward(self, h: Tensor) -> Tensor:
        return h + (self.norm(h) * self.gain + self.bias)


class KStack(nn.Module):
    """K1 -> K2 x N -> K1 -> K0. (B, T, d) -> (B, T, d)"""

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        first = K1(config)
        k2_layers = [K2(config, base) for base in base_kernels(config)]
        self.layers = nn.ModuleList([first, *k2_layers, K1(config), K0(config)])

    def k2_layers(self) -> Iterable[K2]:
        """The K2 layers, first to last."""
        return (layer for layer in self.layers if isinstance(layer, K2))

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return h


class GeluHead(nn.Module):
    """norm -> Linear(d, m d) -> GELU -> dropout -> Linear to V without bias."""

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        hidden = config.head_mult * config.d_model
        self.norm = RMSNorm(config.d_model)
        self.up = nn.Linear(config.d_model, hidden)
        self.dropout = Dropout(config.head_dropout)
        self.out = nn.Linear(hidden, config.vocab_size, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.out(self.dropout(gelu(self.up(self.norm(h)))))


class KOperators(SequenceModel):
    """The whole model: embedding, equilibrium refinement of one stack, norm, head."""

    config: KOperatorsConfig

    def __init__(self, config: KOperatorsConfig) -> None:
        super().__init__()
        self.config = config
        self.one_graph = config.backend != "fla"  # torch.compile does not trace the kernels of fla-core
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = Dropout(config.emb_dropout)
        self.positions = nn.Embedding(config.context, config.d_model) if config.position == "learned" else None
        self.stack = KStack(config)
        self.eta_logit = nn.Parameter(torch.logit(torch.tensor(0.3)))  # e
        if config.eta == "frozen":
            initial = self.eta_logit.detach()
            del self.eta_logit
            self.register_buffer("eta_logit", initial)
        self.final_norm = RMSNorm(config.d_model)
        self.head = GeluHead(config) if config.head == "gelu" else None  # None: tied to the embedding
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.final_norm(self.refine(self.embed(tokens)))
        return h @ self.embedding.weight.mT if self.head is None else self.head(h)

    def embed(self, tokens: Tensor) -> Tensor:
        """h_0: token ids (B, T) -> (B, T, d)"""
        length = self.check_context(tokens)
        h: Tensor = self.embedding(tokens)
        if self.positions is not None:
            h = h + self.positions.weight[:length]
        return self.dropout(h)

    def n_refinements(self) -> int:
        """R in the current mode, training or evaluation."""
        if not self.training and self.config.eval_refine_steps is not None:
            return self.config.eval_refine_steps
        return self.config.refine_steps

    def refine(self, h: Tensor) -> Tensor:
        """The equilibrium loop: R steps of h + eta (stack(h) - h); R = 0 is one plain pass. (B, T, d) -> same"""
        steps = self.n_refinements()
        if steps == 0:
            return self.stack(h)
        eta = torch.sigmoid(self.eta_logit)
        for _ in range(steps):
            h = h + eta * (self.stack(h) - h)
        return h

    def forward_macs_per_token(self, context: int) -> int:
        """Counts the recurrent form (an (r, d) memory) and the dense base kernel, `refine_steps` times."""
        c = self.config
        k1, mlp_and_proj = 5 * c.d_model**2, 5 * c.d_model**2
        stack = 2 * k1
        for layer in self.stack.k2_layers():
            base = 0 if layer.base is None else context * c.d_model
            memory = 4 * c.d_model * c.rank if layer.has_memory else 0  # q, k; write, read
            stack += mlp_and_proj + base + memory
        hidden = c.head_mult * c.d_model
        head = c.d_model * hidden + hidden * c.vocab_size if c.head == "gelu" else c.d_model * c.vocab_size
        return max(c.refine_steps, 1) * stack + head

    def state_numbers(self, context: int) -> int:
        """Per pass through the stack: the (r, d) memory, and n at every position for the dense base kernel."""
        c = self.config
        of_layers = (
            (c.rank if layer.has_memory else 0) + (0 if layer.base is None else context)
            for layer in self.stack.k2_layers()
        )
        return max(c.refine_steps, 1) * c.d_model * sum(of_layers)

    def parameter_groups(self, grouping: str) -> list[ParameterGroup]:
        """`simple`: as the published v1 runs. `grouped`: as the released code's default and the April 2026 checkpoints,
        with logits, biases and norms at half the rate, the embedding at three quarters, all without weight decay.
        """
        if grouping != "grouped":
            return super().parameter_groups(grouping)
        members: dict[tuple[float, bool], list[nn.Parameter]] = {(0.5, False): [], (0.75, False): [], (1.0, True): []}
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                members[0.75, False].append(parameter)
            elif name.endswith(("_logit", "bias", ".scale")):
                members[0.5, False].append(parameter)
            else:
                members[1.0, True].append(parameter)
        return [
            ParameterGroup(parameters=parameters, learning_rate_scale=scale, decayed=decayed)
            for (scale, decayed), parameters in members.items()
        ]

    def live_masks(self) -> dict[str, Tensor]:
        """Entries of a base kernel above its diagonal are stored and decayed, but multiplied by zero."""
        lower = torch.ones(self.config.context, self.config.context, dtype=torch.bool).tril()
        masks = {name: lower for name, _ in self.named_parameters() if name.endswith(".base")}
        if self.config.refine_steps == 0 and not self.config.eval_refine_steps and self.config.eta == "learned":
            masks["eta_logit"] = torch.zeros((), dtype=torch.bool)
        return masks

    def position_parameters(self) -> list[str]:
        return [] if self.positions is None else ["positions.weight"]

    def part_of(self, parameter_name: str) -> str:
        """embedding, positions, K1, K2 without its kernel, base kernels, K0, head, final norm, eta."""
        if parameter_name.endswith(".base"):
            return "base kernels"
        if parameter_name.startswith("stack.layers."):
            return type(self.stack.layers[int(parameter_name.split(".")[2])]).__name__
        first = parameter_name.split(".")[0]
        return {"final_norm": "final norm", "eta_logit": "eta"}.get(first, first)


def base_kernels(config: KOperatorsConfig) -> list[nn.Parameter | None]:
    """The base kernel of each K2 layer: its own, one shared by all, or none."""
    if config.paths == "recurrent":
        return [None] * config.n_k2
    if config.shared_base:
        return [nn.Parameter(BASE_INITS[config.base_init](config.context))] * config.n_k2
    return [nn.Parameter(BASE_INITS[config.base_init](config.context)) for _ in range(config.n_k2)]


def uniform_base(context: int) -> Tensor:
    """Row i is 1/(i+1) for j <= i: a running mean. As the released code, which made every published number."""
    lower = torch.ones(context, context).tril()
    return lower / lower.sum(-1, keepdim=True)


def exponential_base(context: int) -> Tensor:
    """exp(-0.15 distance), rows normalised to sum 1. As the preprint's text; its code has the sign wrong."""
    positions = torch.arange(context, dtype=torch.float32)
    profile = torch.exp(-0.15 * (positions[:, None] - positions[None, :]).clamp(min=0)).tril()
    return profile / profile.sum(-1, keepdim=True)


BASE_INITS = {"uniform": uniform_base, "exponential": exponential_base}
