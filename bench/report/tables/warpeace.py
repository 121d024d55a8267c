"""The table of the test text: losses on text that chose neither the recipe nor the step.

Only a corpus that holds back a test text has it, such as War and Peace; no other table shows these losses.
"""

from bench.record import Measurement, Record
from bench.report.notes import MEAN_OF_EXP, corpus_of, machines, state_notes
from bench.report.runs import CellResults
from bench.report.statistics import mean, paired_t, perplexity, sample_sd, summarise, welch
from bench.report.table import NOTHING, Table
from bench.report.tables.view import (
    View,
    arm_label,
    marked,
    mean_sd,
    n_of,
    p_text,
    plain_mean_sd,
    signed,
    signed_interval,
    summary_of,
)

COLUMNS = ("arm", "n", "validation perplexity", "test perplexity", "test loss", "step chosen")
COMPARED = ("difference", "95 % interval, Welch", "p, Welch", "95 % interval, paired", "p, paired")


def warpeace_table(view: View) -> Table | None:
    """One row per arm; None if no run was scored on a test text."""
    if not any(map(test_of, view.experiment.done)):
        return None
    rows = [
        [
            arm_label(view.experiment, cell),
            n_of(view.experiment, cell),
            cell.statuses if not cell.done else mean_sd(cell, summary_of(cell.done)),
            *_on_test(cell),
            *_difference(cell, view.experiment.reference),
        ]
        for cell in view.cells
    ]
    columns = [*COLUMNS, *COMPARED]
    return view.table("warpeace", [dict(zip(columns, row, strict=True)) for row in rows], _notes(view))


def _notes(view: View) -> list[str]:
    experiment = view.experiment
    corpora = " and ".join(sorted({corpus_of(experiment, cell) for cell in experiment.cells}))
    n_tokens = sorted({found.n_tokens for record in experiment.done if (found := test_of(record)) is not None})
    return [
        "Mean ± sample standard deviation (n - 1) over n seeds. test loss: in nats per token.",
        f"The test text of {corpora}, its end, was scored once by each run, when it ended, in windows that do not "
        f"overlap ({' or '.join(f'{n:,}' for n in n_tokens)} predictions), with the weights of the step that the "
        "validation text chose (step chosen, from the earliest to the latest over seeds). The recipes were chosen on "
        "another text.",
        f"difference: mean test loss of the arm minus that of {experiment.manifest.reference}; below 0 the arm is "
        "better. Welch: all runs of both arms; paired: over the seeds in common, which draw the same batches. p is "
        "two-sided and not adjusted.",
        MEAN_OF_EXP,
        *state_notes(experiment),
        *machines(experiment),
    ]


def test_of(record: Record) -> Measurement | None:
    """The loss of a record on the test text; None if it has none."""
    return None if record.result is None else record.result.test


def _by_seed(cell: CellResults) -> dict[int | None, Measurement]:
    return {record.seed: found for record in cell.done if (found := test_of(record)) is not None}


def _on_test(cell: CellResults) -> list[str]:
    """Test perplexity, test loss and the range of the steps chosen."""
    measured = list(_by_seed(cell).values())
    if not measured:
        return [NOTHING] * 3
    nats, steps = [one.nats_per_token for one in measured], [one.step for one in measured]
    sd = sample_sd(nats)
    texts = (
        plain_mean_sd(summarise(list(map(perplexity, nats)))),
        f"{mean(nats):.4f}" + ("" if sd is None else f" ± {sd:.4f}"),
        " to ".join(f"{step:,}" for step in dict.fromkeys((min(steps), max(steps)))),
    )
    return [marked(text, cell, len(measured)) for text in texts]


def _difference(cell: CellResults, reference: CellResults | None) -> list[str]:
    """The difference to the reference arm on the test text, with both tests."""
    ours, theirs = (
        {seed: one.nats_per_token for seed, one in _by_seed(each).items()} if each is not None else {}
        for each in (cell, reference)
    )
    if cell is reference or not ours or not theirs:
        return [NOTHING] * len(COMPARED)
    by_welch = welch(list(ours.values()), list(theirs.values()))
    texts = [signed(by_welch.difference), signed_interval(by_welch.interval), p_text(by_welch.p_value)]
    common = [seed for seed in ours if seed in theirs]
    if not common:
        return [*texts, NOTHING, NOTHING]
    paired = paired_t([ours[seed] for seed in common], [theirs[seed] for seed in common])
    return [*texts, signed_interval(paired.interval), p_text(paired.p_value)]
