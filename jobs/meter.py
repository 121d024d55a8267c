"""The share of the time in which each GPU trains, as seen from the launcher."""

import time
from collections.abc import Callable


class Meter:
    """The share of the time since the start in which at least one run trained on a GPU, evaluations included.

    Seen from outside, without asking the GPU: its own utilisation counts the compiler's trials too, and a MIG instance
    has none.
    """

    def __init__(self, gpus: set[str | None], clock: Callable[[], float] = time.monotonic) -> None:
        self.gpus, self._clock = gpus, clock
        self._started = self._looked_at = clock()
        self._training: set[str | None] = set()
        self._seconds = 0.0  # summed over the GPUs

    def look(self, training: set[str | None]) -> None:
        """Note on which GPUs a run trains from now on."""
        now = self._clock()
        self._seconds += (now - self._looked_at) * len(self._training)
        self._looked_at, self._training = now, training & self.gpus

    def share(self) -> float | None:
        """The share, from 0 to 1, a mean over the GPUs; None where there is no GPU or no time has gone by."""
        seconds = self._looked_at - self._started
        return self._seconds / seconds / len(self.gpus) if self.gpus and seconds > 0 else None
