"""The table of differences: each arm against the reference arm, with its intervals, tests and the words for them."""

from bench.errors import count
from bench.report.contrasts import ALPHA, BLOCK, FEWEST_FOR_SIGN_FLIP, N_RESAMPLES, Contrast, p_value
from bench.report.notes import protocol_legend, state_notes
from bench.report.statistics import MARGIN_NATS
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, p_text, signed

COLUMNS = (
    "arm",
    "verdict",
    "runs",
    "n",
    "test",
    "difference, nats per token",
    "95 % interval",
    "90 % interval",
    "p",
    "p, Holm",
    "p, sign-flip",
    "95 % interval over the text",
)


def differences_table(view: View) -> Table | None:
    """Every trained arm against the reference; None where there is no reference, or nothing is done."""
    if not view.contrasts or not view.experiment.done:
        return None
    rows = [_row(view, one) for one in view.contrasts]
    return view.table("differences", COLUMNS, 3, rows, _notes(view))


def _row(view: View, one: Contrast) -> list[str]:
    compared = one.comparison

    def marked(text: str) -> str:
        partial = one.partial and compared is not None and text != NOTHING
        return f"{text} ({one.n_text})" if partial else text

    return [
        arm_label(view.experiment, one.arm),
        marked(one.verdict),
        one.arm.statuses,
        one.n_text if compared is not None else NOTHING,
        NOTHING if compared is None else "paired t" if one.paired else "Welch",
        marked(NOTHING if compared is None else signed(compared.difference)),
        marked(_interval(None if compared is None else compared.interval)),
        marked(_interval(None if one.equivalence is None else one.equivalence.interval_90)),
        marked(p_text(p_value(one))),
        "primary" if one.primary else marked(p_text(one.holm_p)),
        marked(p_text(one.sign_flip_p)),
        marked(_interval(one.text_interval)),
    ]


def _interval(interval: tuple[float, float] | None) -> str:
    return NOTHING if interval is None else " to ".join(map(signed, interval))


def _notes(view: View) -> list[str]:
    reference = view.contrasts[0].reference
    return [
        f"difference: mean sweep loss (best) of the arm less that of {reference.label} ({reference.statuses}), in "
        "nats per "
        "token; below 0 the arm is better. Fitted models are left out.",
        "paired t: over the seeds that both arms have in common (n pairs), which draw the same batches; Welch: where "
        "fewer than 2 are common. The 95 % interval and p, two-sided, are of that test; they cover the spread between "
        "seeds.",
        *_adjustment(view),
        f"p, sign-flip: exact and two-sided, from {FEWEST_FOR_SIGN_FLIP} pairs on; with fewer it cannot reach {ALPHA}.",
        f"not distinguishable: the 95 % interval holds 0. equivalent within {MARGIN_NATS}: two one-sided tests, so the "
        f"90 % interval lies within ± {MARGIN_NATS} nats, a margin fixed before the runs.",
        f"95 % interval over the text: blocks of {BLOCK} windows resampled {N_RESAMPLES:,} times, paired by window, "
        "each window's loss first averaged over the seeds compared: how the difference would vary with other text of "
        "this kind, the trained weights as they are.",
        *protocol_legend(view.experiment, "sweep"),
        *_seeds_needed(view),
        *state_notes(view.experiment),
    ]


def _adjustment(view: View) -> list[str]:
    """The notes on which p-values are adjusted."""
    family = sum(one.holm_p is not None for one in view.contrasts)
    primary = next((one.arm.label for one in view.contrasts if one.primary), None)
    sentences = (
        [] if primary is None else [f"{primary} is the primary comparison, named beforehand, and is not adjusted"]
    )
    if family:
        sentences.append(f"{'the other ' if sentences else ''}{count(family, 'comparison')} are adjusted together")
    return [f"p, Holm: {'; '.join(sentences)}."] if sentences else []


def _seeds_needed(view: View) -> list[str]:
    """How many seeds would tell apart what these could not."""
    open_ones = [one for one in view.contrasts if one.distinguishable is False and not one.equivalent]
    lines = [f"{one.arm.label}, {line}" for one in open_ones if (line := one.seeds_line) is not None]
    if not lines:
        return []
    text = "; ".join(lines)
    return [f"Seeds that would give 80 % power (Welch, two-sided, 5 %), were gap and spread as measured: {text}."]
