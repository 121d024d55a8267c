"""Small models in which every parameter affects the output, and tokens for them."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from models import KOperators, KOperatorsConfig, build
from models.k_operators import K2
from tests.conftest import CONTEXT, VOCAB_SIZE

N_K2 = 3
PLAIN = KOperatorsConfig(vocab_size=VOCAB_SIZE, context=CONTEXT, d_model=8, rank=3, n_k2=N_K2)  # no dropout


def acting(config: Any, seed: int = 0, by: float = 0.3) -> Any:
    """A model in train mode, with Gaussian noise of deviation `by` added to each parameter."""
    torch.manual_seed(seed)
    model = build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model


def k_operators(seed: int = 0, **changes: Any) -> KOperators:
    """K-Operators with the config `PLAIN` and some other options."""
    model: KOperators = acting(dataclasses.replace(PLAIN, **changes), seed)
    return model


def layers_of(model: Any) -> list[K2]:
    """The K2 layers of K-Operators."""
    return list(model.stack.k2_layers())


def some_tokens(length: int = CONTEXT, rows: int = 2) -> Tensor:
    """Token ids (rows, length), the same for equal arguments."""
    return torch.randint(VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(length))
