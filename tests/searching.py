"""Losses of a search, made without training."""

from collections.abc import Callable

from bench.config import Mode
from bench.experiments.grid import Cell
from bench.experiments.search import Recorded


def by_number(label: str, seed: int) -> float | None:
    """Trial 0 is the best on every seed, then trial 1, and so on."""
    return 1.4 + 0.01 * int(label[-2:])


class Made(Recorded):
    """Records with these losses, in nats per token, by label and seed: infinite if diverged, None without a record."""

    def __init__(self, losses: Callable[[str, int], float | None] = by_number, mode: Mode = "exact") -> None:
        super().__init__(mode=mode)
        self.losses = losses

    def nats(self, cell: Cell, seed: int) -> float | None:
        """As of a store."""
        return self.losses(cell.label, seed)
