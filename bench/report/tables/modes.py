"""The table of modes: the validation loss of an arm in mode `fast` minus that in mode `exact`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.dotted import alike
from bench.record import Record
from bench.report.mixing import measured_alike
from bench.report.notes import STALE, machines, number, protocol_legend, state_notes
from bench.report.runs import CellResults, Results, of_expected, sweep_nats
from bench.report.statistics import mean, paired_t, perplexity, sample_sd
from bench.report.table import Table
from bench.report.tables.both_modes import merged_notes
from bench.report.tables.view import View, arm_label, partial, signed, signed_interval

COLUMNS = (
    "arm",
    "common seeds",
    "fast minus exact, nats per token",
    "95 % interval",
    "sweep, best, fast",
    "sweep, best, exact",
)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The done runs of one arm in both modes, paired by seed, and the expected number of pairs."""

    arm: str
    fast: tuple[Record, ...]
    exact: tuple[Record, ...]
    n_expected: int


def modes_table(view: View, other: View) -> Table | None:
    """Each trained arm in both modes over the seeds done in both; None if there is no such seed."""
    both = view.experiment, other.experiment
    fast, exact = both if both[0].mode == "fast" else both[::-1]
    found = [_pairs(cell, exact) for cell in fast.cells if not cell.fitted]
    pairs = [one for one in found if one is not None and one.fast]
    if not pairs:
        return None
    stale = fast.stale | exact.stale
    notes = [
        "fast minus exact: the best validation loss (sweep) in mode fast minus that in mode exact at the same "
        "seed, which draws the same batches: mean ± sample standard deviation (n - 1) over the common seeds; above "
        "0, fast is worse. The interval is Student's t.",
        "The modes differ not only in arithmetic: fast ran on a GPU; exact may have run on a CPU, with another torch "
        "and other dropout masks, since random numbers differ between kinds of device.",
        "sweep, best: validation perplexity, the mean over the common seeds only.",
        *merged_notes((protocol_legend(one, "sweep") for one in both), both),
        *merged_notes(map(state_notes, both), both),
        *merged_notes((_machines_of(pairs, one) for one in both), both),
    ]
    return view.table("modes", COLUMNS, 1, [_row(one, stale) for one in pairs], notes)


def _machines_of(pairs: Sequence[Pairs], experiment: Results) -> list[str]:
    """The machines of the compared runs in one mode."""
    compared = {record.run_id for one in pairs for record in (*one.fast, *one.exact)}
    cells = [replace(cell, records=tuple(r for r in cell.records if r.run_id in compared)) for cell in experiment.cells]
    return machines(replace(experiment, cells=tuple(cells)))


def _pairs(cell: CellResults, exact: Results) -> Pairs | None:
    """The pairs of a cell in mode fast; None if it has no comparable cell in mode exact."""
    same = exact.cell(cell.label)
    if same is None or not cell.done or not same.done or not _comparable(cell.done[0], same.done[0]):
        return None
    by_seed = {record.seed: record for record in same.done}
    both = [(record, by_seed[record.seed]) for record in cell.done if record.seed in by_seed]
    return Pairs(
        arm=arm_label(exact, same),
        fast=tuple(one for one, _ in both),
        exact=tuple(one for _, one in both),
        n_expected=len(set(cell.expected) & set(same.expected)),
    )


def _comparable(one: Record, other: Record) -> bool:
    """Whether two done records differ only in mode and seed."""
    return measured_alike(one, other) and alike(one.config, other.config)


def _row(pairs: Pairs, stale: frozenset[str]) -> list[str]:
    fast, exact = sweep_nats(pairs.fast), sweep_nats(pairs.exact)
    compared = paired_t(fast, exact)
    sd = sample_sd([one - other for one, other in zip(fast, exact, strict=True)])
    n = len(pairs.fast)
    marks = f" {STALE}" if any(record.run_id in stale for record in (*pairs.fast, *pairs.exact)) else ""
    spread = "" if sd is None else f" ± {sd:.4f}"
    numbers = [
        signed(compared.difference) + spread,
        signed_interval(compared.interval),
        *(number(mean([perplexity(nats) for nats in values])) for values in (fast, exact)),
    ]
    n_text = of_expected(n, pairs.n_expected) + marks
    return [pairs.arm, n_text, *(partial(text, n, pairs.n_expected) for text in numbers)]
