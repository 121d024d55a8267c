"""What a model costs: parameters under every convention, and training FLOPs."""

from collections import Counter

from bench.config import RunConfig
from bench.record import Parameters
from models import Ngram, SequenceModel


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


def count_fitted(model: Ngram) -> Parameters:
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
