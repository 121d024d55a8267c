"""The two plays of the validation text of Tiny Shakespeare, and the loss on each.

It is most of The Taming of the Shrew, whose start is in the training text, and then the start of The Tempest.
"""

from bench.record import Record
from bench.report.statistics import mean

CORPUS = "tinyshakespeare"
PLAYS = ("The Taming of the Shrew", "The Tempest")
FIRST_LINE = (
    76_893  # the character of the validation text, counted from 0, at which the second play's first line starts
)
BOUNDARY = FIRST_LINE - len("Master:\n")  # where its first heading starts, and so the play


def split_windows(nats: list[float], context: int) -> tuple[list[float], list[float]]:
    """The values of the windows of each play, from those of a sweep in order; the window with the boundary is in none.

    Window i is scored on the characters from i * context + 1 to (i + 1) * context.
    """
    at = (BOUNDARY - 1) // context
    return nats[:at], nats[at + 1 :]


def nats_by_play(record: Record) -> tuple[float, float] | None:
    """The sweep loss on each play at the run's best step, in nats per token.

    None for another text or for one of its folds, and for a record without losses by window.
    """
    if record.result is None or record.corpus.name != CORPUS:
        return None
    windows = record.result.window_nats.get(record.result.sweep.best.step, [])
    first, second = split_windows(windows, int(record.config["context"]))
    return (mean(first), mean(second)) if first and second else None
