"""Costs of a model: parameters by each convention, FLOPs in closed form, and memory besides the weights."""

from collections import Counter

import torch
from torch import Tensor

from bench.config import RunConfig
from bench.record import Parameters
from models import FittedModel, SequenceModel

FLOAT_BYTES = 4  # memory is counted in float32, whatever the precision of a run


def count_parameters(model: SequenceModel) -> Parameters:
    """Total, live, without positions, and by part; a tied parameter counts once."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts: Counter[str] = Counter()
    for name, size in sizes.items():
        parts[model.part_of(name)] += size
    total = sum(sizes.values())
    dead = sum(int((~mask).sum()) for mask in model.live_masks().values())
    positions = sum(sizes[name] for name in model.position_parameters())
    return Parameters(
        n_params=total, n_live_params=total - dead, n_params_without_positions=total - positions, parts=dict(parts)
    )


def count_fitted(model: FittedModel) -> Parameters:
    """Parameters of a fitted model: its free probabilities."""
    n = model.n_fitted()
    return Parameters(n_params=n, n_live_params=n, n_params_without_positions=n, parts={"probabilities": n})


def train_flops(forward_macs_per_token: int, n_tokens: int) -> float:
    """FLOPs of the matrix products in training: 2 per multiply-add, the backward pass twice the forward."""
    return 3 * 2.0 * forward_macs_per_token * n_tokens


def n_train_tokens(config: RunConfig, n_steps: int) -> int:
    """Number of predictions in `n_steps` updates."""
    assert config.training is not None
    return n_steps * config.training.batch_size * config.context


def state_bytes(model: SequenceModel, context: int) -> int:
    """Bytes that decoding keeps for one text after `context` tokens, in float32."""
    return FLOAT_BYTES * model.state_numbers(context)


def activation_bytes(model: SequenceModel, context: int) -> int | None:
    """Bytes that autograd keeps for the backward pass over one window of `context` tokens, besides the parameters.

    Measured in a forward pass on the CPU, in train mode, eager, in float32. None for a model that cannot run there.
    """
    if getattr(model.config, "backend", "") == "fla":
        return None
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # by storage; the reference keeps its address from being reused

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, context, dtype=torch.int64))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
