"""The models that are compared. A new one is one file here and a line in `ARCHITECTURES`, keyed by its file's name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.base import FittedModel, SequenceModel
from models.decoding import Decoder, Recomputing
from models.k_operators import KOperators, KOperatorsConfig
from models.k_operators_decoder import KOperatorsDecoder
from models.k_operators_readings import parts, paths, read_dynamics, read_kernels
from models.kneser_ney import KneserNey, KneserNeyConfig
from models.lstm import LSTM, LSTMConfig
from models.ngram import Ngram, NgramConfig
from models.transformer import Transformer, TransformerConfig
from models.transformer_decoder import TransformerDecoder

ARCHITECTURES: dict[str, tuple[type[Any], type[SequenceModel]]] = {  # trained
    "k_operators": (KOperatorsConfig, KOperators),
    "transformer": (TransformerConfig, Transformer),
    "lstm": (LSTMConfig, LSTM),
}
FITTED: dict[str, tuple[type, type[FittedModel]]] = {  # fitted by counting n-grams, not trained
    "ngram": (NgramConfig, Ngram),
    "kneser_ney": (KneserNeyConfig, KneserNey),
}

DECODERS: dict[type[SequenceModel], Callable[[Any, int, int], Decoder]] = {  # with a cache; the others recompute
    KOperators: KOperatorsDecoder,
    Transformer: TransformerDecoder,
}
Replacements = dict[str, list[tuple[Tensor, Tensor]]]  # by part: parameters, and the values that knock it out


def nothing(*_: Any) -> dict[str, Any]:
    """No reading."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What can be read of the learned dynamics of a model: functions of the model."""

    dynamics: Callable[[Any, Tensor], dict[str, Any]] = nothing  # on token ids (B, T), at each evaluation
    weights: Callable[[Any], dict[str, Any]] = nothing  # at both ends of training
    paths: Callable[[Any], Replacements] = nothing  # knocked out at each evaluation
    parts: Callable[[Any], Replacements] = nothing  # knocked out at the best step


READINGS: dict[type[Any], Readings] = {
    KOperators: Readings(dynamics=read_dynamics, weights=read_kernels, paths=paths, parts=parts)
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
    "decoder_of",
    "readings_of",
]


def build_fitted(config: Any) -> FittedModel:
    """The n-gram model that `config` describes, not yet fitted to a text."""
    for config_type, model_type in FITTED.values():
        if isinstance(config, config_type):
            return model_type(config)
    raise ValueError(f"no fitted model is configured by {type(config).__name__}")


def build(config: Any) -> SequenceModel:
    """The model that `config` describes, initialised from torch's default generator, in train mode."""
    for config_type, model_type in ARCHITECTURES.values():
        if isinstance(config, config_type):
            return model_type(config)
    known = ", ".join(config_type.__name__ for config_type, _ in ARCHITECTURES.values())
    raise ValueError(f"no architecture is configured by {type(config).__name__}; there are {known}")


def decoder_of(model: SequenceModel, batch_size: int, context: int) -> Decoder:
    """A new decoder of `batch_size` texts over windows of at most `context` tokens."""
    return DECODERS.get(type(model), Recomputing)(model, batch_size, context)


def readings_of(model: nn.Module) -> Readings:
    """What can be read of a model; of most, nothing."""
    return READINGS.get(type(model), Readings())
