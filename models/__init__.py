"""What is compared. A new architecture is one file here and one line in `ARCHITECTURES`, keyed by its file's name."""

from typing import Any

from models.base import FittedModel, SequenceModel
from models.k_operators import KOperators, KOperatorsConfig
from models.kneser_ney import KneserNey, KneserNeyConfig
from models.lstm import LSTM, LSTMConfig
from models.ngram import Ngram, NgramConfig
from models.transformer import Transformer, TransformerConfig

ARCHITECTURES: dict[str, tuple[type, type[SequenceModel]]] = {  # trained
    "k_operators": (KOperatorsConfig, KOperators),
    "transformer": (TransformerConfig, Transformer),
    "lstm": (LSTMConfig, LSTM),
}
FITTED: dict[str, tuple[type, type[FittedModel]]] = {  # counted, not trained
    "ngram": (NgramConfig, Ngram),
    "kneser_ney": (KneserNeyConfig, KneserNey),
}

__all__ = [
    "ARCHITECTURES",
    "FITTED",
    "LSTM",
    "FittedModel",
    "KOperators",
    "KOperatorsConfig",
    "KneserNey",
    "KneserNeyConfig",
    "LSTMConfig",
    "Ngram",
    "NgramConfig",
    "SequenceModel",
    "Transformer",
    "TransformerConfig",
    "build",
    "build_fitted",
]


def build_fitted(config: Any) -> FittedModel:
    """The counted model that `config` describes, before it has seen a text."""
    for config_type, model_type in FITTED.values():
        if isinstance(config, config_type):
            return model_type(config)
    raise ValueError(f"no fitted model is configured by {type(config).__name__}")


def build(config: Any) -> SequenceModel:
    """The model that `config` describes, its initial values drawn from torch's default generator, in train mode."""
    for config_type, model_type in ARCHITECTURES.values():
        if isinstance(config, config_type):
            return model_type(config)
    known = ", ".join(config_type.__name__ for config_type, _ in ARCHITECTURES.values())
    raise ValueError(f"no architecture is configured by {type(config).__name__}; there are {known}")
