"""The size of a training step: what two runs must share to take equally long, and its FLOPs."""

from functools import lru_cache
from typing import Any

import torch

from bench.budget import train_flops
from bench.config import RunConfig
from models import KOperatorsConfig, build

Shape = tuple[str, Any, int, int]  # architecture, model config, context, batch size
DEFAULT_FORM = KOperatorsConfig.backend  # of the recurrence


def shape_of(config: RunConfig) -> Shape:
    """The settings that determine the work of a training step: not seeds, rates, schedules or the number of steps."""
    assert config.training is not None
    return config.architecture, config.model, config.context, config.training.batch_size


def form_of(config: RunConfig) -> str:
    """The form of the recurrence (forms of equal FLOPs take unequal times); the default for models without one."""
    return str(getattr(config.model, "backend", DEFAULT_FORM))


@lru_cache(maxsize=4096)
def step_flops(config: RunConfig) -> float:
    """FLOPs of the matrix products of one training step, from the model's closed form."""
    assert config.training is not None
    # not on the meta device, whose imports in torch take longer than building the model
    with torch.random.fork_rng(devices=[]):
        model = build(config.model)
    return train_flops(model.forward_macs_per_token(config.context), config.training.batch_size * config.context)
