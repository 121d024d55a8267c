"""Readings of K-Operators' learned dynamics on a text: eta, gates, decays, and the size of each path's output."""

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


def share(base: float, recurrent: float) -> float:
    """recurrent / (base + recurrent); 0 where both are 0."""
    return recurrent / (base + recurrent) if base + recurrent else 0.0
