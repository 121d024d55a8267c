"""The recurrence inside K2: a memory that fades at one learned rate per rank channel.

    S_t = diag(gamma) S_{t-1} + k_t n_t^T,   S_{-1} = 0,   o_t = q_t^T S_t

    B batch   T position   d width   r rank   C chunk   n normalised input
    q, k (B, T, r); n (B, T, d); gamma (r,), each in (0, 1)  ->  o (B, T, d)

Four forms of the same function. `recurrent` is the definition; `mask` and `block` are the two published ways;
`chunked` is ours. Source: Zenodo 19004569 and its released code; the chunk-wise regrouping is known from RetNet
(arXiv 2307.08621) and Gated Linear Attention (arXiv 2312.06635).
"""

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 64  # positions a chunk of `chunked`; a power of two
PUBLISHED_BLOCK = 128  # positions a block of `block`, as published


def read_memory(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor, backend: str) -> Tensor:
    """Read the fading memory at every position by the form named `backend` (a key of `BACKENDS`).

    q, k (B, T, r); n (B, T, d); gamma (r,), each in (0, 1)  ->  (B, T, d)
    """
    return BACKENDS[backend](q, k, n, gamma)


def recurrent(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """One position at a time: the reference for the other forms."""
    memory = n.new_zeros(n.shape[0], gamma.shape[0], n.shape[2])  # (B, r, d)
    reads = []
    for q_t, k_t, n_t in zip(q.unbind(1), k.unbind(1), n.unbind(1), strict=True):
        memory = gamma[:, None] * memory + einsum(k_t, n_t, "B r, B d -> B r d")
        reads.append(einsum(q_t, memory, "B r, B r d -> B d"))
    return torch.stack(reads, dim=1)


def mask(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """As published: contract an explicit decay table D[i, j] = gamma^(i-j), j <= i, with k_j n_j, for each channel.

    O(T^2 r d) time, O(T^2 r + B T r d) memory. One matrix product a channel, the layout that arithmetic allows.
    """
    length = n.shape[1]
    positions = torch.arange(length, device=n.device)
    distance = positions[:, None] - positions[None, :]  # (T, T)
    decay = torch.where(distance >= 0, gamma[:, None, None] ** distance.clamp(min=0), 0.0)  # (r, T, T)
    written = einsum(k, n, "B T r, B T d -> r T B d")
    memory = torch.bmm(decay, rearrange(written, "r T B d -> r T (B d)"))
    return einsum(q, rearrange(memory, "r T (B d) -> r T B d", d=n.shape[2]), "B T r, r T B d -> B T d")


def block(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """As published: inside blocks of 128 a prefix sum of gamma^(-t) k_t n_t, rescaled by gamma^t; a state between them.

    O(T r d) time. gamma^(-127) leaves float32 once gamma < 0.5, so K-Operators refuses it for gamma_min < 0.55.
    """
    memory = n.new_zeros(n.shape[0], gamma.shape[0], n.shape[2])  # (B, r, d), before the block's first position
    reads = []
    for q_b, k_b, n_b in zip(*(x.split(PUBLISHED_BLOCK, dim=1) for x in (q, k, n)), strict=True):
        t = torch.arange(n_b.shape[1], device=n.device)[:, None]
        written = einsum(k_b * gamma**-t, n_b, "B t r, B t d -> B t r d")
        states = (gamma**t)[:, :, None] * (written.cumsum(dim=1) + (gamma[:, None] * memory)[:, None])
        reads.append(einsum(q_b, states, "B t r, B t r d -> B t d"))
        memory = states[:, -1]
    return torch.cat(reads, dim=1)


def chunked(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """Ours: scores inside chunks, a state between them; every power of gamma has an exponent >= 0.

    O(T (C (r + d) + r d)) time, stable for every gamma in (0, 1), and it never holds a (T, r, d) tensor.
    """
    length = n.shape[1]
    size = min(CHUNK, max(2, 1 << (length - 1).bit_length()))  # 2 at least: gamma stays in the graph
    n_chunks = -(-length // size)
    if n_chunks * size > length:  # zero keys write nothing and zero queries read nothing
        q, k, n = (pad(x, (0, 0, 0, n_chunks * size - length)) for x in (q, k, n))
    q, k, n = (rearrange(x, "B (c t) e -> B c t e", t=size) for x in (q, k, n))
    reads = causal_scores(q, k, gamma) @ n  # what was written inside the chunk
    if n_chunks > 1:
        since_start = gamma ** torch.arange(1, size + 1, device=n.device)[:, None]  # (t, r): gamma^(t+1)
        until_end = gamma ** torch.arange(size - 1, -1, -1, device=n.device)[:, None]  # (t, r): gamma^(C-1-t)
        written = (k * until_end).mT @ n  # (B, c, r, d), as seen from the chunk's end
        states = carry(written[:, :-1], gamma**size)
        later = (q[:, 1:] * since_start) @ states
        reads = torch.cat([reads[:, :1], reads[:, 1:] + later], dim=1)
    return rearrange(reads, "B c t d -> B (c t) d")[:, :length]


def carry(written: Tensor, fade: Tensor) -> Tensor:
    """States at the chunks' ends: each the one before, faded, plus what its chunk wrote. (B, c, r, d), (r,) -> same."""
    states = [written[:, 0]]
    for one in written.unbind(1)[1:]:
        states.append(fade[:, None] * states[-1] + one)
    return torch.stack(states, dim=1)


def causal_scores(q: Tensor, k: Tensor, gamma: Tensor) -> Tensor:
    """A_ij = sum over channels of q_i gamma^(i-j) k_j for j <= i, else 0. (..., C, r), C a power of two -> (..., C, C).

    Halved until nothing is left: a later half meets an earlier one at their border, which keeps exponents >= 0 on both
    sides, so each level is one matrix product.
    """
    size = q.shape[-2]
    if size == 1:
        return (q * k).sum(-1, keepdim=True)
    half = size // 2
    q_halves, k_halves = (rearrange(x, "... (s t) r -> ... s t r", s=2) for x in (q, k))
    exponents = torch.arange(half, device=q.device)[:, None]  # (half, 1)
    later = q_halves[..., 1, :, :] * gamma ** (exponents + 1)
    earlier = k_halves[..., 0, :, :] * gamma ** (half - 1 - exponents)
    below = later @ earlier.mT  # (..., half, half)
    diagonal = causal_scores(q_halves, k_halves, gamma)  # (..., 2, half, half)
    top = pad(diagonal[..., 0, :, :], (0, half))
    bottom = torch.cat([below, diagonal[..., 1, :, :]], dim=-1)
    return torch.cat([top, bottom], dim=-2)


BACKENDS = {"recurrent": recurrent, "mask": mask, "block": block, "chunked": chunked}
