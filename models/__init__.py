"""What is compared. A new architecture is one file here and one line in `ARCHITECTURES`, keyed by its file's name."""

from typing import Any

from models.base import SequenceModel
from models.k_operators import KOperators, KOperatorsConfig
from models.ngram import Ngram, NgramConfig
from models.transformer import Transformer, TransformerConfig

ARCHITECTURES: dict[str, tuple[type, type[SequenceModel]]] = {  # trained
    "k_operators": (KOperatorsConfig, KOperators),
    "transformer": (TransformerConfig, Transformer),
}
FITTED: dict[str, tuple[type, type[Ngram]]] = {"ngram": (NgramConfig, Ngram)}  # counted, not trained

__all__ = [
    "ARCHITECTURES",
    "FITTED",
    "KOperators",
    "KOperatorsConfig",
    "Ngram",
    "NgramConfig",
    "SequenceModel",
    "Transformer",
    "TransformerConfig",
    "build",
]


def build(config: Any) -> SequenceModel:
    """The model that `config` describes, its initial values drawn from torch's default generator, in train mode."""
    for config_type, model_type in ARCHITECTURES.values():
        if isinstance(config, config_type):
            return model_type(config)
    known = ", ".join(config_type.__name__ for config_type, _ in ARCHITECTURES.values())
    raise ValueError(f"no architecture is configured by {type(config).__name__}; there are {known}")
