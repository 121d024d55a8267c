"""The recurrence inside K2: a memory that decays at one learned rate per rank channel.

    S_t = diag(gamma) S_{t-1} + k_t n_t^T,   S_{-1} = 0,   o_t = q_t^T S_t

    B batch   T position   d width   r rank   C chunk   n normalised input
    q, k (B, T, r); n (B, T, d); gamma (r,), each in (0, 1)  ->  o (B, T, d)

Five forms of the same function. `recurrent` is the definition; `mask` and `block` are the two published forms;
`chunked` is ours; `fla` is the CUDA kernel of fla-core. Source: Zenodo 19004569 and its released code; the
chunk-wise regrouping is known from RetNet (arXiv 2307.08621) and Gated Linear Attention (arXiv 2312.06635).
"""

import math
import os

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 128  # positions per chunk of `chunked`; a power of two
LARGEST_FACTOR_LOG10 = 30  # float32 ends at 38: limit of a power of gamma before it is multiplied with q and k
PUBLISHED_BLOCK = 128  # positions per block of `block`, as published


def read_memory(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor, backend: str) -> Tensor:
    """Read the decaying memory at every position with the form named `backend` (a key of `BACKENDS`).

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
    """As published: an explicit decay table D[i, j] = gamma^(i-j), j <= i, times k_j n_j, for each channel.

    O(T^2 r d) time, O(T^2 r + B T r d) memory. One matrix product per channel, over the whole batch.
    """
    positions = torch.arange(n.shape[1], device=n.device)
    distance = (positions[:, None] - positions[None, :]).clamp(min=0)  # (T, T)
    decay = (gamma[:, None, None] ** distance).tril()  # (r, T, T)
    n = rearrange(n, "B T d -> T B d").contiguous()
    reads = torch.zeros_like(n)
    for q_c, k_c, decay_c in zip(q.unbind(-1), k.unbind(-1), decay, strict=True):  # (B, T), (B, T), (T, T)
        written = k_c.mT[:, :, None] * n
        reads = reads + q_c.mT[:, :, None] * (decay_c @ written.flatten(1)).unflatten(1, n.shape[1:])
    return rearrange(reads, "T B d -> B T d")


def block(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """As published: in blocks of 128 a prefix sum of gamma^(-t) k_t n_t, rescaled by gamma^t; a state between blocks.

    O(T r d) time. gamma^(-127) overflows float32 for gamma < 0.5, so K-Operators refuses it for gamma_min < 0.55.
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


def chunked(
    q: Tensor, k: Tensor, n: Tensor, gamma: Tensor, *, gamma_min: float = 0.0, kernel: Tensor | None = None
) -> Tensor:
    """Ours: scores inside chunks, a state between chunks; no factor of a kept term overflows or underflows float32.

    O(T (C (r + d) + r d)) time, without a (T, r, d) tensor. `gamma_min` is a lower bound of gamma: the nearer to 1, the
    fewer halvings. `kernel` (T, T), zero above its diagonal, is applied to n and added; inside a chunk it is added to
    the scores, so that both paths share one product.
    """
    length = n.shape[1]
    size = min(CHUNK, max(2, 1 << (length - 1).bit_length()))  # at least 2, so that gamma stays in the graph
    n_chunks = -(-length // size)
    missing = n_chunks * size - length
    if missing:  # zero keys write nothing, zero queries read nothing
        q, k, n = (pad(x, (0, 0, 0, missing)) for x in (q, k, n))
        kernel = None if kernel is None else pad(kernel, (0, missing, 0, missing))
    q, k, n = (rearrange(x, "B (c t) e -> B c t e", t=size) for x in (q, k, n))
    scores = causal_scores(q, k, gamma, longest_leaf(gamma_min))
    before: list[Tensor] = []
    if kernel is not None:
        before, own = split_rows(kernel, size)
        scores = scores + own
    reads = scores @ n  # from positions in the same chunk
    if n_chunks > 1:
        since_start = gamma ** torch.arange(1, size + 1, device=n.device)[:, None]  # (t, r): gamma^(t+1)
        until_end = gamma ** torch.arange(size - 1, -1, -1, device=n.device)[:, None]  # (t, r): gamma^(C-1-t)
        written = (k[:, :-1] * until_end).mT @ n[:, :-1]  # (B, c, r, d), decayed to the chunk's end
        later = (q[:, 1:] * since_start) @ carry(written, gamma**size)
        if before:
            earlier = [row.expand(len(n), -1, -1) @ n[:, :c].flatten(1, 2) for c, row in enumerate(before) if c]
            later = later + torch.stack(earlier, dim=1)
        reads = torch.cat([reads[:, :1], reads[:, 1:] + later], dim=1)
    return rearrange(reads, "B c t d -> B (c t) d")[:, :length]


def carry(written: Tensor, fade: Tensor) -> Tensor:
    """States at chunk ends: the one before times `fade` plus what the chunk wrote. (B, c, r, d), (r,) -> same"""
    states = [written[:, 0]]
    for one in written.unbind(1)[1:]:
        states.append(fade[:, None] * states[-1] + one)
    return torch.stack(states, dim=1)


def split_rows(kernel: Tensor, size: int) -> tuple[list[Tensor], Tensor]:
    """The rows of each chunk: the part before the chunk (C, c C), a list, and the chunk's own block, (c, C, C).

    With `split`, whose gradient takes one pass; the gradient of a slice would fill a whole (T, T) for each chunk.
    """
    before, own = [], []
    for chunk, row in enumerate(kernel.split(size)):
        start = chunk * size
        earlier, here, _ = row.split([start, size, kernel.shape[1] - start - size], dim=1)
        before.append(earlier)
        own.append(here)
    return before, torch.stack(own)


def causal_scores(q: Tensor, k: Tensor, gamma: Tensor, leaf: int) -> Tensor:
    """A_ij = sum over channels of q_i gamma^(i-j) k_j for j <= i, else 0. (..., C, r), C a power of two -> (..., C, C).

    Up to `leaf` positions one product suffices, with gamma^(i-j) split at the middle m into gamma^(i-m) gamma^(m-j).
    Longer chunks are halved: scores of the later half with the earlier one split at their border, where both exponents
    are >= 0. In a leaf, gamma's gradient is a difference of two sums: in float32 it is accurate to 3e-6 of its largest
    value at gamma 0.85 and to 3e-5 at 0.05, everything else to 1e-6.
    """
    size = q.shape[-2]
    if size == 1:
        return (q * k).sum(-1, keepdim=True)
    if size <= leaf:
        since_middle = torch.arange(size, device=q.device)[:, None] - size // 2
        return ((q * gamma**since_middle) @ (k * gamma**-since_middle).mT).tril()
    half = size // 2
    q_halves, k_halves = (rearrange(x, "... (s t) r -> ... s t r", s=2) for x in (q, k))
    exponents = torch.arange(half, device=q.device)[:, None]  # (half, 1)
    later = q_halves[..., 1, :, :] * gamma ** (exponents + 1)
    earlier = k_halves[..., 0, :, :] * gamma ** (half - 1 - exponents)
    below = later @ earlier.mT  # (..., half, half)
    diagonal = causal_scores(q_halves, k_halves, gamma, leaf)  # (..., 2, half, half)
    top = pad(diagonal[..., 0, :, :], (0, half))
    bottom = torch.cat([below, diagonal[..., 1, :, :]], dim=-1)
    return torch.cat([top, bottom], dim=-2)


def longest_leaf(gamma_min: float) -> int:
    """The longest chunk that `causal_scores` may take in one product, a power of two: its largest factor,
    gamma^-length, must stay below 10^LARGEST_FACTOR_LOG10. 1 where gamma has no positive lower bound.
    """
    if gamma_min == 0.0:
        return 1
    longest = min(LARGEST_FACTOR_LOG10 / -math.log10(gamma_min), CHUNK)
    return 1 << (max(int(longest), 1).bit_length() - 1)


def fla(q: Tensor, k: Tensor, n: Tensor, gamma: Tensor) -> Tensor:
    """Gated linear attention's Triton kernel, of fla-core: one head whose gate is the same at every position.

    CUDA only. Its products use the precision of autocast, as matrix products do, or else float32; the gate is always
    float32. Triton times block sizes and takes the fastest, so two processes may differ in the last bits.
    """
    if n.device.type != "cuda":
        raise RuntimeError(f"backend='fla' runs on CUDA, and this is on {n.device.type}; use backend='chunked'")
    os.environ.setdefault(
        "TRITON_F32_DEFAULT", "ieee"
    )  # otherwise Triton multiplies float32 as TF32, in evaluation too
    try:
        from fla.ops.gla import chunk_gla
    except ImportError as error:
        raise RuntimeError(f"backend='fla' needs fla-core ({error}): pip install -e '.[kernels]'") from error
    precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else n.dtype
    q, k, n = (x.to(precision)[:, :, None] for x in (q, k, n))  # (B, T, 1 head, r or d)
    log_gate = gamma.float().log().expand(q.shape)
    reads, _ = chunk_gla(q, k, n, log_gate, scale=1.0)  # its default is r^(-1/2), which is another model
    return reads[:, :, 0]


BACKENDS = {"recurrent": recurrent, "mask": mask, "block": block, "chunked": chunked, "fla": fla}
