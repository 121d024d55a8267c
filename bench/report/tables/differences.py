"""The table of differences: each arm against a reference arm, with intervals, tests and a verdict."""

from collections import Counter

from bench.errors import count
from bench.report.contrasts import ALPHA, Contrast
from bench.report.notes import protocol_legend, state_notes
from bench.report.over_text import LONG, N_RESAMPLES, SHORT
from bench.report.plays import PLAYS
from bench.report.statistics import MARGIN_NATS
from bench.report.table import NOTHING, Table
from bench.report.tables.view import View, arm_label, p_text, signed, signed_interval

OVER_TEXT = ("95 % interval over the text, 2 kB", "over the text, 16 kB", "over the text, 2 kB within plays")
QUESTIONS = {"baselines": "baselines", "ablation": "ablations", "stress": "wrong learning rates"}


def differences_table(view: View) -> Table | None:
    """Every trained arm against the reference arm; None without a reference or a done run."""
    if not view.contrasts or not view.experiment.done:
        return None
    return view.table("differences", [_row(view, one) for one in view.contrasts if one.arm.records], _notes(view))


def _row(view: View, one: Contrast) -> dict[str, str]:
    compared = one.comparison

    def marked(text: str) -> str:
        return f"{text} ({one.n_text})" if one.partial and compared is not None and text != NOTHING else text

    return {
        "arm": arm_label(view.experiment, one.arm),
        "against": one.reference.label,
        "verdict": marked(one.verdict),
        "runs": one.arm.statuses,
        "n": one.n_text if compared is not None else NOTHING,
        "difference, nats per token": marked(NOTHING if compared is None else signed(compared.difference)),
        "95 % interval": marked(signed_interval(None if compared is None else compared.interval)),
        "90 % interval": marked(signed_interval(None if one.equivalence is None else one.equivalence.interval_90)),
        "p": marked(p_text(one.p_value)),
        "p, Holm": "primary" if one.primary else marked(p_text(one.holm_p)),
        "p, permutation": marked(p_text(one.permutation_p)),
        "pairs": NOTHING if one.paired is None else marked(str(one.paired.n_a)),
        "95 % interval, paired": marked(signed_interval(None if one.paired is None else one.paired.interval)),
        "p, paired": marked(p_text(None if one.paired is None else one.paired.p_value)),
    } | {column: marked(signed_interval(interval)) for column, interval in zip(OVER_TEXT, one.over_text, strict=True)}


def _notes(view: View) -> list[str]:
    return [
        "difference: mean sweep loss (best) of the arm minus that of the arm it stands against, in nats per token; "
        "below 0 the arm is better. The mean is of the losses, not of the perplexities that the table of perplexities "
        "shows. Variants of K-Operators stand against the full model. Fitted models are left out.",
        "The intervals and the two-sided p are of Welch's t-test, over all runs of both arms; they cover the spread "
        f"between seeds. p, permutation: its exact companion, on the difference of means, twice the smaller tail, "
        f"where the runs are enough to reach {ALPHA}. paired: the "
        "check, Student's t-test over the seeds that both arms have in common, which draw the same batches. Changed "
        "after runs were seen: the paired test was the main one.",
        *_adjustment(view),
        f"not distinguishable: the 95 % interval contains 0. equivalent within {MARGIN_NATS}: by two one-sided tests, "
        f"whose 90 % interval is within ± {MARGIN_NATS} nats, a margin fixed before the runs, adjusted as p is.",
        f"95 % interval over the text: blocks of neighbouring windows, of {SHORT:,} characters (2 kB) or {LONG:,} "
        f"(16 kB), resampled {N_RESAMPLES:,} times, paired by window, the loss of each window first averaged over the "
        "seeds compared: how the difference would vary with other text of this kind, for the same trained weights. "
        f"within plays: {' and '.join(PLAYS)} each resampled by itself, without the window that has the end of one and "
        "the start of the other; only for the whole of Tiny Shakespeare. Changed after "
        "runs were seen: a block was 8 windows, 2 kB at context 256 and 1 kB at 128.",
        *protocol_legend(view.experiment, "sweep"),
        *_correlations(view),
        *_seeds_needed(view),
        *state_notes(view.experiment),
    ]


def _adjustment(view: View) -> list[str]:
    """A note on which p-values are adjusted, and together with which others."""
    primary = next((one.arm.label for one in view.contrasts if one.primary), None)
    sentences = [] if primary is None else [f"{primary} is the primary comparison, chosen beforehand, and not adjusted"]
    n_adjusted = Counter(one.question for one in view.contrasts if one.holm_p is not None)
    families = [f"{count(n, 'comparison')} ({QUESTIONS[question]})" for question, n in n_adjusted.items()]
    if families:
        each = "; each family by itself" if len(families) > 1 else ""
        sentences.append(f"adjusted together: {', '.join(families)}{each}")
    return [f"p, Holm: {'; '.join(sentences)}."] if sentences else []


def _correlations(view: View) -> list[str]:
    """A note on what pairing by seed gains: little between architectures, whose losses are not correlated."""
    known = {one.arm.label: r for one in view.contrasts if (r := one.correlation) is not None}
    found = [f"{label} {signed(r, 2)}" for label, r in known.items()]
    what = "Correlation with the reference at common seeds, near 0 where pairing by seed gains nothing"
    return [f"{what}: {', '.join(found)}."] if found else []


def _seeds_needed(view: View) -> list[str]:
    """A note on the seeds needed for the comparisons that are not decided."""
    lines = [f"{one.arm.label}, {line}" for one in view.contrasts if (line := one.seeds_line) is not None]
    start = "Seeds needed for 80 % power (Welch, two-sided, 5 %) at the measured gap and spread"
    return [f"{start}: {'; '.join(lines)}."] if lines else []
