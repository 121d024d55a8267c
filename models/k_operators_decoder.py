"""Decoder of K-Operators: O(r d + T d) per token and K2 layer, 1/T of the cost of recomputing the window.

    B batch   T position   W context   d width   r rank   h (B, d) the residual stream at one position

At batch 1 the number of operations takes the time, not the arithmetic. So everything that does not depend on the token
is multiplied out once, when the decoder is made. `models/k_operators.py` is the definition.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import linear, normalize

from models.decoding import Decoder, LinearStep, frozen
from models.k_operators import K0, K1, K2, GeluHead, KOperators
from models.norm import NORM_EPS, RMSNorm


class NormStep:
    """RMSNorm with its scale. (B, d) -> (B, d)"""

    def __init__(self, norm: RMSNorm) -> None:
        width = len(norm.scale)
        self.scale = norm.scale * math.sqrt(width)
        self.floor = norm.scale.new_tensor(math.sqrt(width * NORM_EPS))

    def direction(self, x: Tensor) -> Tensor:
        """x / (sqrt(d) rms(x)): the norm before `scale`."""
        return x / vector_norm(x, 2, -1, True).hypot_(self.floor)

    def step(self, x: Tensor) -> Tensor:
        return self.direction(x) * self.scale


class NormedLinear:
    """RMSNorm and a linear map, with the norm's scale multiplied into the matrix. (B, d) -> (B, out)"""

    def __init__(self, norm: RMSNorm, weight: Tensor, bias: Tensor | None = None) -> None:
        self.norm = NormStep(norm)
        self.linear = LinearStep(weight * self.norm.scale, bias)

    def step(self, x: Tensor) -> Tensor:
        return self.linear.step(self.norm.direction(x))


class NormedMLP:
    """W_down GELU(W_up norm(x)). (B, d) -> (B, out)

    Computed as GELU(sqrt(2) y) = (y + y erf(y)) / sqrt(2), with both roots in the matrices: a third of the time of
    torch's GELU.
    """

    def __init__(self, norm: RMSNorm, up: torch.nn.Linear, down: torch.nn.Linear) -> None:
        root = math.sqrt(2)
        self.up = NormedLinear(norm, up.weight / root, up.bias / root)
        self.down = LinearStep(down.weight / root, down.bias)

    def step(self, x: Tensor) -> Tensor:
        y = self.up.step(x)
        return self.down.step(torch.addcmul(y, y, y.erf()))


class K1Step:
    """K1 at one position. (B, d) -> (B, d)"""

    def __init__(self, layer: K1) -> None:
        self.feature_mix = NormedLinear(layer.norm1, layer.feature_mix.weight, layer.feature_mix.bias)
        self.mlp = NormedMLP(layer.norm2, layer.mlp.up, layer.mlp.down)

    def step(self, h: Tensor) -> Tensor:
        h = h + self.feature_mix.step(h)
        return h + self.mlp.step(h)


class K0Step:
    """K0 at one position. (B, d) -> (B, d)"""

    def __init__(self, layer: K0) -> None:
        self.norm = NormStep(layer.norm)
        self.gain = layer.gain * self.norm.scale
        self.bias = layer.bias

    def step(self, h: Tensor) -> Tensor:
        return torch.addcmul(h + self.bias, self.norm.direction(h), self.gain)


class GeluHeadStep:
    """The final norm and the head. (B, d) -> logits (B, V)"""

    def __init__(self, final_norm: RMSNorm, head: GeluHead) -> None:
        self.norm = NormStep(final_norm)
        self.mlp = NormedMLP(head.norm, head.up, head.out)

    def step(self, h: Tensor) -> Tensor:
        return self.mlp.step(self.norm.step(h))


class K2Views(NamedTuple):
    """Views of a `K2State` for one position t."""

    projected: Tensor  # (B, d): written at t
    query: Tensor  # (B, r): written at t
    weights: Tensor  # (B, 1, r + 2 + t): weights of the rows read at t
    rows: Tensor  # (B, r + 2 + t, d): rows read at t


class K2State:
    """The cache of one K2 layer in one refinement step, laid out so that one product reads it.

    rows (B, r + 1 + W, d)         alpha times the memory · the projection's bias · proj n of each position
    weights (W, B, 1, r + 1 + W)   per position: q, once computed · 1 · the position's row of the base kernel
    """

    def __init__(self, kernel: Tensor, bias: Tensor, batch_size: int, rank: int) -> None:
        context = len(kernel)
        self.rows = kernel.new_zeros(batch_size, rank + 1 + context, len(bias))
        self.rows[:, rank] = bias
        self.memory = self.rows[:, :rank]
        self.projected = self.rows[:, rank + 1 :]
        weights = kernel.new_ones(context, batch_size, 1, rank + 1 + context)
        weights[..., rank + 1 :] = kernel[:, None, None]
        self.views = [
            K2Views(
                projected=self.projected[:, t],
                query=weights[t, :, 0, :rank],
                weights=weights[t, :, :, : rank + 2 + t],
                rows=self.rows[:, : rank + 2 + t],
            )
            for t in range(context)
        ]


class K2Step:
    """K2 at one position.

    The projection acts on channels and the mixing on positions, so they commute: n is projected once, by the matrix
    that also computes q and k; the memory and the base kernel then hold and mix proj n.
    """

    def __init__(self, layer: K2, context: int) -> None:
        self.layer = layer
        weight = layer.proj.weight
        # an absent path has weight 0, or rank 0
        kernel = layer.kernel(context)
        self.kernel = weight.new_zeros(context, context) if kernel is None else kernel
        self.rank, self.alpha, self.gamma = 0, 0.0, weight.new_zeros(0, 1)
        matrices = [weight]
        if layer.has_memory:
            self.rank, self.alpha, self.gamma = layer.u.shape[1], layer.alpha().item(), layer.gamma()[:, None]
            matrices = [layer.u.mT, layer.v.mT, weight]
        self.qkp = NormedLinear(layer.norm1, torch.cat(matrices))
        self.mlp = NormedMLP(layer.norm2, layer.mlp.up, layer.mlp.down)

    def fresh_state(self, batch_size: int) -> K2State:
        """The state before the first position."""
        return K2State(self.kernel, self.layer.proj.bias, batch_size, self.rank)

    def fill(self, h: Tensor, state: K2State) -> Tensor:
        """K2 at positions 0..T-1, which refill `state`. (B, T, d) -> (B, T, d)"""
        n = self.layer.norm1(h)
        projected = linear(n, self.layer.proj.weight)
        state.projected[:, : n.shape[1]] = projected
        if self.layer.has_memory:
            k = normalize(n @ self.layer.v, dim=-1, eps=NORM_EPS)
            until_end = self.gamma ** torch.arange(n.shape[1] - 1, -1, -1, device=n.device)  # (r, T)
            state.memory[:] = (self.alpha * k.mT * until_end) @ projected
        return self.layer(h)

    def step(self, h: Tensor, state: K2State, position: int) -> Tensor:
        """K2 at `position`, which is added to `state`. (B, d) -> (B, d)"""
        views = state.views[position]
        qkp = self.qkp.step(h)
        qk = qkp.narrow(1, 0, 2 * self.rank).view(len(h), 2, self.rank)
        q, k = (qk / vector_norm(qk, 2, -1, True).clamp_min_(NORM_EPS)).unbind(1)
        projected = qkp.narrow(1, 2 * self.rank, h.shape[1])
        views.projected.copy_(projected)
        views.query.copy_(q)
        state.memory.mul_(self.gamma).baddbmm_(k.unsqueeze(2), projected.unsqueeze(1), alpha=self.alpha)
        h = torch.baddbmm(h.unsqueeze(1), views.weights, views.rows).squeeze(1)
        return h + self.mlp.step(h)


class KOperatorsDecoder(Decoder):
    """K-Operators with a cache for each K2 layer and refinement step."""

    def __init__(self, model: KOperators, batch_size: int, context: int) -> None:
        super().__init__(model, batch_size, context)
        self.model = frozen(model)
        layers = self.model.stack.layers
        self.first, self.last = (K1Step(layer) for layer in layers if isinstance(layer, K1))
        self.k2 = [K2Step(layer, context) for layer in self.model.stack.k2_layers()]
        (self.k0,) = (K0Step(layer) for layer in layers if isinstance(layer, K0))
        self.n_refinements = self.model.n_refinements()
        self.eta = torch.sigmoid(self.model.eta_logit)
        self.states = [[k2.fresh_state(batch_size) for k2 in self.k2] for _ in range(max(self.n_refinements, 1))]
        self.embedding = self.model.embedding.weight
        self.positions = None if self.model.positions is None else self.model.positions.weight
        # (V, d): without positions, the input of the first K1 depends only on the token
        self.first_of_embedding = self.first.step(self.embedding)
        self.head = (
            NormedLinear(self.model.final_norm, self.model.embedding.weight)
            if self.model.head is None
            else GeluHeadStep(self.model.final_norm, self.model.head)
        )

    def prefill(self, tokens: Tensor) -> Tensor:
        first, *_, last, k0 = self.model.stack.layers
        h = self.model.embed(tokens)
        for states in self.states:
            inside = first(h)
            for k2, state in zip(self.k2, states, strict=True):
                inside = k2.fill(inside, state)
            h = self._refined(h, k0(last(inside)))
        return self.head.step(h[:, -1])

    def step(self, token: Tensor, position: int) -> Tensor:
        h = self.embedding[token]
        if self.positions is not None:
            h = h + self.positions[position]
        for number, states in enumerate(self.states):
            known = number == 0 and self.positions is None
            inside = self.first_of_embedding[token] if known else self.first.step(h)
            for k2, state in zip(self.k2, states, strict=True):
                inside = k2.step(inside, state, position)
            h = self._refined(h, self.k0.step(self.last.step(inside)))
        return self.head.step(h)

    def _refined(self, h: Tensor, stack_of_h: Tensor) -> Tensor:
        return h.lerp(stack_of_h, self.eta) if self.n_refinements else stack_of_h
