"""What a model costs: parameters under every convention, FLOPs by closed form, and memory beside the weights."""

from collections import Counter

import torch
from torch import Tensor

from bench.config import RunConfig
from bench.record import Parameters
from models import FittedModel, SequenceModel

FLOAT_BYTES = 4  # memory is counted in float32, whatever a run's precision


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
    """The free probabilities of a fitted model."""
    n = model.n_fitted()
    return Parameters(n_params=n, n_live_params=n, n_params_without_positions=n, parts={"probabilities": n})


def train_flops(forward_macs_per_token: int, n_tokens: int) -> float:
    """FLOPs of the matrix products of training: 2 a multiply-add, the backward pass twice the forward."""
    return 3 * 2.0 * forward_macs_per_token * n_tokens


def n_train_tokens(config: RunConfig, n_steps: int) -> int:
    """Predictions trained on in `n_steps` updates."""
    assert config.training is not None
    return n_steps * config.training.batch_size * config.context


def state_bytes(model: SequenceModel, context: int) -> int:
    """What decoding keeps of one text after `context` tokens, in float32."""
    return FLOAT_BYTES * model.state_numbers(context)


def activation_bytes(model: SequenceModel, context: int) -> int | None:
    """What autograd keeps of one window of `context` tokens for the backward pass, beside the parameters.

    Seen rather than derived: a forward pass on the CPU, in train mode, eager, in float32. None for a model that cannot
    run there.
    """
    if getattr(model.config, "backend", "") == "fla":
        return None
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # by storage; holding the tensor keeps its address from being given away again

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in parameters:
            kept[address] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, context, dtype=torch.int64))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
