"""The interface of every model: one training loop, one budget and one test suite use nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with one learning-rate scale, and whether weight decay acts on them."""

    parameters: list[nn.Parameter]
    learning_rate_scale: float
    decayed: bool


@dataclass(frozen=True, kw_only=True)
class FreeSizes:
    """The fields of a config, beside `d_model`, that may change to meet a budget, and the ratios that define its shape.

    A config names its own as `free_sizes`; bench/experiments/sizing.py searches over them.
    """

    depth: str
    within: str | None = None  # a field whose choices depend on the width
    choices: Callable[[Any, int], Iterable[int]] | None = None  # of `within`: (starting config, width) -> values
    last: str | None = None  # changes only where nothing else meets the target
    last_choices: tuple[int, ...] = ()
    ratios: dict[str, str]  # ratio's name -> the field that d_model is divided by

    def fields(self) -> tuple[str, ...]:
        """Names of all fields that may change."""
        return tuple(name for name in ("d_model", self.depth, self.within, self.last) if name is not None)

    def ratios_of(self, config: Any) -> dict[str, float]:
        """The value of each ratio."""
        return {name: config.d_model / max(getattr(config, field), 1) for name, field in self.ratios.items()}


class SequenceModel(nn.Module, ABC):
    """A causal model of token sequences: token ids (B, T) to logits (B, T, V), for any 1 <= T <= `config.context`."""

    config: Any  # the frozen dataclass that it was built from; has at least vocab_size and context
    one_graph = True  # whether torch.compile can trace a forward pass as one graph

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, T) to logits (B, T, V); position t sees tokens 0..t."""

    @abstractmethod
    def forward_macs_per_token(self, context: int) -> int:
        """Multiply-adds per token of the matrix products in a forward pass over windows of `context` tokens.

        Closed form, dense score and kernel matrices counted in full; times 2 gives FLOPs.
        """

    def state_numbers(self, context: int) -> int:
        """How many numbers decoding keeps for one text after `context` tokens, besides the weights.

        Default: a model that recomputes its window keeps only the tokens.
        """
        return context

    def parameter_groups(self, grouping: str) -> list[ParameterGroup]:
        """The optimizer's groups. `simple`: weight decay on tensors of two or more dimensions, one learning rate.
        `plain_embeddings`: the same without weight decay on embeddings. ValueError for another name.
        """
        if grouping not in ("simple", "plain_embeddings"):
            there_are = "'simple', 'plain_embeddings'"
            raise ValueError(f"{type(self).__name__} has no parameter grouping {grouping!r}; it has {there_are}")
        embeddings = [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]
        spared = {id(weight) for weight in embeddings} if grouping == "plain_embeddings" else set()
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in self.parameters():
            groups[parameter.ndim >= 2 and id(parameter) not in spared].append(parameter)
        return [
            ParameterGroup(parameters=parameters, learning_rate_scale=1.0, decayed=decayed)
            for decayed, parameters in groups.items()
        ]

    def live_masks(self) -> dict[str, Tensor]:
        """For each parameter with entries that cannot affect the output: its name and a mask, True where they can."""
        return {}

    def position_parameters(self) -> list[str]:
        """Names of the parameters that only encode positions (nanoGPT's published count excludes them)."""
        return []

    def part_of(self, parameter_name: str) -> str:
        """The row of the parameter table that a parameter belongs to."""
        return parameter_name.split(".")[0]

    def check_context(self, tokens: Tensor) -> int:
        """The length T of `tokens` (B, T); ValueError where it exceeds the model's context."""
        length = tokens.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens at once, but this model's context is {self.config.context}")
        return length


class FittedModel(nn.Module, ABC):
    """A causal model fitted by counting: token ids (B, T) to log-probabilities of the next token (B, T, V)."""

    config: Any

    @abstractmethod
    def fit(self, tokens: Tensor) -> Self:
        """Fit to the token ids of a text (n,); returns self."""

    @abstractmethod
    def tables(self) -> list[Tensor]:
        """The fitted tensors."""

    @abstractmethod
    def n_fitted(self) -> int:
        """Number of fitted values; reported as the parameter count."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless `condition` holds. Every check of a config goes through it."""
    if not condition:
        raise ValueError(message)


def require_rates(config: Any, names: Iterable[str]) -> None:
    """Raise ValueError unless each named field of `config` is a dropout rate in [0, 1)."""
    for name in names:
        rate = getattr(config, name)
        require(0.0 <= rate < 1.0, f"{name}={rate} is not a rate in [0, 1)")
