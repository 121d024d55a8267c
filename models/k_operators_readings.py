"""Readings of K-Operators' learned dynamics: eta, gates, decays, the size of each path's output, base kernels; and the
parts of the model that can be knocked out.
"""

from typing import Any

import torch
from torch import Tensor

from models.k_operators import K2, KOperators

GAMMA_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@torch.no_grad()
def read_dynamics(model: KOperators, tokens: Tensor) -> dict[str, Any]:
    """Readings on token ids (B, T), as JSON values; lists are by K2 layer, first to last. Absent parts are left out.

    gate, alpha · gamma_quantiles [layer][GAMMA_QUANTILES] · base_norm, recurrent_norm: mean over positions of the L2
    norm of each path's output, in the last pass through the stack · recurrent_share: recurrent / (base + recurrent) ·
    eta · refinement_step_ratio [refinement]: mean over positions of |step| / |h|. All without dropout.
    """
    was_training = model.training
    model.eval()
    base_norm, recurrent_norm, step_ratios = sizes(model, tokens)
    model.train(was_training)
    layers = list(model.stack.k2_layers())
    readings: dict[str, Any] = {
        "base_norm": base_norm,
        "recurrent_norm": recurrent_norm,
        "recurrent_share": [share(base, recurrent) for base, recurrent in zip(base_norm, recurrent_norm, strict=True)],
    }
    if step_ratios:
        readings |= {"eta": torch.sigmoid(model.eta_logit).item(), "refinement_step_ratio": step_ratios}
    if all(layer.base is not None for layer in layers):
        readings["gate"] = [layer.gate().item() for layer in layers]
    if all(layer.has_memory for layer in layers):
        levels = torch.tensor(GAMMA_QUANTILES, device=tokens.device)
        readings["alpha"] = [layer.alpha().item() for layer in layers]
        readings["gamma_quantiles"] = [layer.gamma().quantile(levels).tolist() for layer in layers]
    return readings


def sizes(model: KOperators, tokens: Tensor) -> tuple[list[float], list[float], list[float]]:
    """Norms of the base and of the recurrent contribution by layer, and |step| / |h| by refinement (none if R = 0)."""
    h = model.embed(tokens)
    base_norm: list[float] = []
    recurrent_norm: list[float] = []
    step_ratios = []
    for _ in range(max(model.n_refinements(), 1)):
        base_norm, recurrent_norm = [], []
        inside = h
        for layer in model.stack.layers:
            if isinstance(layer, K2):
                base, recurrent = layer.contributions(layer.norm1(inside))
                base_norm.append(base.norm(dim=-1).mean().item())
                recurrent_norm.append(recurrent.norm(dim=-1).mean().item())
            inside = layer(inside)
        if model.n_refinements():
            step = torch.sigmoid(model.eta_logit) * (inside - h)
            step_ratios.append((step.norm(dim=-1) / h.norm(dim=-1)).mean().item())
            h = h + step
    return base_norm, recurrent_norm, step_ratios


def paths(model: KOperators) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Knocks out the base path or the recurrent path in every layer: the parameters and the values that do it."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"base": [], "recurrent": []}
    for by_path in of_layers(model):
        for path, replacement in by_path.items():
            found[path].append(replacement)
    return {path: replacements for path, replacements in found.items() if replacements}


def parts(model: KOperators) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Knocks out each path, in every layer and in one (`base 1`, ...); `averaged kernels` know only distances."""
    found = paths(model)
    for i, by_path in enumerate(of_layers(model), start=1):
        found |= {f"{path} {i}": [replacement] for path, replacement in by_path.items()}
    kernels = [layer.base for layer in model.stack.k2_layers() if layer.base is not None]
    return found | ({"averaged kernels": [(one, averaged(one.detach())) for one in kernels]} if kernels else {})


def of_layers(model: KOperators) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """For each K2 layer and path, the logit of its weight and the value at which the weight is 0."""
    found = []
    for layer in model.stack.k2_layers():
        by_path: dict[str, Tensor] = {} if layer.base is None else {"base": layer.base_gate_logit}
        by_path |= {"recurrent": layer.alpha_logit} if layer.has_memory else {}
        found.append({path: (logit, torch.full_like(logit, -torch.inf)) for path, logit in by_path.items()})
    return found


def averaged(kernel: Tensor) -> Tensor:
    """A base kernel (W, W) whose entries at one distance have the mean of all entries at that distance."""
    positions = torch.arange(len(kernel), device=kernel.device)
    distance = (positions[:, None] - positions[None, :]).clamp(min=0)
    return by_distance(kernel)[distance].tril()


def by_distance(kernel: Tensor) -> Tensor:
    """The mean of a base kernel (W, W) over all positions at each distance (W,), from 0."""
    return torch.stack([kernel.diagonal(-distance).mean() for distance in range(len(kernel))])


@torch.no_grad()
def read_kernels(model: KOperators) -> dict[str, Any]:
    """kernel_by_distance [layer][distance]: the means of each base kernel, to 6 digits; one row if layers share it."""
    kernels = dict.fromkeys(layer.base for layer in model.stack.k2_layers() if layer.base is not None)
    rows = [[float(f"{mean:.6g}") for mean in by_distance(kernel).tolist()] for kernel in kernels]
    return {"kernel_by_distance": rows} if rows else {}


def share(base: float, recurrent: float) -> float:
    """recurrent / (base + recurrent); 0 where both are 0."""
    return recurrent / (base + recurrent) if base + recurrent else 0.0
