"""Training seconds, without evaluation and checkpoints."""

import time


class Stopwatch:
    """Counts the seconds since `start`, by the monotonic clock; 0 while it is stopped."""

    def __init__(self) -> None:
        self._started: float | None = None

    def start(self) -> None:
        """Count from now on."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    def stop(self) -> float:
        """Stop, and return the seconds since the start."""
        seconds, self._started = self.seconds, None
        return seconds
