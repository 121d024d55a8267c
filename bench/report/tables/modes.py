"""The table of modes: the validation loss of an arm in mode `fast` minus that in mode `exact`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from bench.dotted import alike
from bench.record import Record
from bench.report.contrasts import of_common_seeds
from bench.report.mixing import measured_alike
from bench.report.notes import MEAN_OF_EXP, STALE, machines, number, protocol_legend, state_notes
from bench.report.runs import CellResults, Results, of_expected, sweep_nats
from bench.report.statistics import mean, paired_t, perplexity, sample_sd
from bench.report.table import Table
from bench.report.tables.both_modes import merged_notes
from bench.report.tables.view import View, arm_label, partial, signed, signed_interval


class Pairs(NamedTuple):
    """The runs of an arm in both modes, at the common seeds in the same order."""

    fast: CellResults
    exact: CellResults
    ours: tuple[Record, ...]  # of mode fast
    theirs: tuple[Record, ...]


def modes_table(view: View, other: View) -> Table | None:
    """Each trained arm in both modes over the seeds done in both; None if there is no such seed."""
    both = view.experiment, other.experiment
    fast, exact = both if both[0].mode == "fast" else both[::-1]
    pairs = [one for cell in fast.cells if not cell.fitted and (one := _pairs(cell, exact)) is not None]
    stale = fast.stale | exact.stale
    notes = [
        "fast minus exact: the best validation loss (sweep) in mode fast minus that in mode exact at the same "
        "seed, which draws the same batches: mean ± sample standard deviation (n - 1) over the common seeds; above "
        "0, fast is worse. The interval is Student's t.",
        "The modes differ not only in arithmetic: fast ran on a GPU; exact may have run on a CPU, with another torch "
        "and other dropout masks, since random numbers differ between kinds of device.",
        f"sweep, best: validation perplexity, the mean over the common seeds only. {MEAN_OF_EXP}",
        *merged_notes((protocol_legend(one, "sweep") for one in both), both),
        *merged_notes(map(state_notes, both), both),
        *merged_notes((_machines_of(pairs, one) for one in both), both),
    ]
    return view.table("modes", [_row(one, exact, stale) for one in pairs], notes)


def _machines_of(pairs: Sequence[Pairs], experiment: Results) -> list[str]:
    """The machines of the compared runs in one mode."""
    compared = {record.run_id for one in pairs for record in (*one.ours, *one.theirs)}
    cells = [replace(cell, records=tuple(r for r in cell.records if r.run_id in compared)) for cell in experiment.cells]
    return machines(replace(experiment, cells=tuple(cells)))


def _pairs(cell: CellResults, exact: Results) -> Pairs | None:
    """A cell in mode fast against that in mode exact, over their common seeds; None if they cannot be compared."""
    same = exact.cell(cell.label)
    if same is None or not cell.done or not same.done or not _comparable(cell.done[0], same.done[0]):
        return None
    ours, theirs = of_common_seeds(cell, same)
    return Pairs(cell, same, ours, theirs) if ours else None


def _comparable(one: Record, other: Record) -> bool:
    """Whether two done records differ only in mode and seed."""
    return measured_alike(one, other) and alike(one.config, other.config)


def _row(pairs: Pairs, exact: Results, stale: frozenset[str]) -> dict[str, str]:
    ours, theirs = sweep_nats(pairs.ours), sweep_nats(pairs.theirs)
    compared, sd = paired_t(ours, theirs), sample_sd([one - other for one, other in zip(ours, theirs, strict=True)])
    n, n_expected = len(ours), len(set(pairs.fast.expected) & set(pairs.exact.expected))
    marks = f" {STALE}" if any(record.run_id in stale for record in (*pairs.ours, *pairs.theirs)) else ""
    numbers = {
        "fast minus exact, nats per token": signed(compared.difference) + ("" if sd is None else f" ± {sd:.4f}"),
        "95 % interval": signed_interval(compared.interval),
        "sweep, best, fast": number(mean([perplexity(nats) for nats in ours])),
        "sweep, best, exact": number(mean([perplexity(nats) for nats in theirs])),
    }
    known = {"arm": arm_label(exact, pairs.exact), "common seeds": of_expected(n, n_expected) + marks}
    return known | {column: partial(text, n, n_expected) for column, text in numbers.items()}
