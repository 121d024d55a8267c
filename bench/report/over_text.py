"""95 % intervals of a difference over the text: how it would vary with other text of this kind."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.report.plays import CORPUS, split_windows
from bench.report.resampling import Interval, block_bootstrap

SHORT, LONG = 2048, 16384  # characters in a block: a part of a scene, and a few scenes
N_RESAMPLES = 10_000


class OverText(NamedTuple):
    """Intervals by the length of the blocks; None if there are fewer than two blocks, or no plays."""

    short: Interval | None
    long: Interval | None
    within_plays: Interval | None  # short blocks, each play resampled by itself


NO_WINDOWS = OverText(None, None, None)


def over_text(by_window: Sequence[float], *, context: int, corpus: str) -> OverText:
    """Bootstrap intervals of the mean of differences by window, which are in the order of the text."""
    parts = split_windows(list(by_window), context) if corpus == CORPUS else ()
    return OverText(
        short=_interval([by_window], SHORT // context),
        long=_interval([by_window], LONG // context),
        within_plays=_interval(parts, SHORT // context),
    )


def _interval(parts: Sequence[Sequence[float]], block: int) -> Interval | None:
    return block_bootstrap(*parts, block=max(block, 1), n_resamples=N_RESAMPLES)
