"""A stacked LSTM, torch's own; every window starts from a zero state.

B batch   T sequence length   d width   V vocabulary
source: Hochreiter and Schmidhuber 1997; stacked, with dropout between layers, as Zaremba et al. (arXiv 1409.2329)
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from models.base import FreeSizes, SequenceModel, require, require_rates
from models.dropout import Dropout


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """Sizes of the LSTM; each layer is as wide as the embedding."""

    vocab_size: int
    context: int  # tokens seen at once
    d_model: int
    n_layers: int
    dropout: float = 0.0  # on the embedding, between layers and before the output

    free_sizes: ClassVar = FreeSizes(depth="n_layers", ratios={"width per layer": "n_layers"})
    tiny: ClassVar = {"d_model": 8, "n_layers": 2, "dropout": 0.1}  # sizes for tests, as in every architecture

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model", "n_layers"):
            require(getattr(self, name) >= 1, f"{name}={getattr(self, name)} must be at least 1")
        require_rates(self, ("dropout",))


class LSTM(SequenceModel):
    """The whole model: embedding, layers, linear output. Every window starts from a zero state."""

    config: LSTMConfig
    one_graph = False  # torch.compile does not trace torch's recurrent layers

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = Dropout(config.dropout)
        width = config.d_model
        self.layers = nn.ModuleList([nn.LSTM(width, width, batch_first=True) for _ in range(config.n_layers)])
        self.output = nn.Linear(width, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        self.check_context(tokens)
        h = self.dropout(self.embedding(tokens))
        for layer in self.layers:
            h = self.dropout(layer(h)[0])
        logits: Tensor = self.output(h)
        return logits

    def forward_macs_per_token(self, context: int) -> int:
        """Four gates, each with an input matrix and a recurrent one; the same for any context."""
        c = self.config
        return c.n_layers * 8 * c.d_model**2 + c.d_model * c.vocab_size

    def state_numbers(self, context: int) -> int:
        """The output and the cell of each layer."""
        return 2 * self.config.n_layers * self.config.d_model

    def part_of(self, parameter_name: str) -> str:
        """embedding, layers, output."""
        return parameter_name.split(".")[0]
