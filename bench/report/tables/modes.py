"""The table of modes: by how much an arm's validation loss in `fast` mode differs from that in `exact` mode."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.dotted import alike
from bench.record import Record
from bench.report.mixing import protocol_of
from bench.report.notes import STALE, machines, number, protocol_legend, state_notes
from bench.report.runs import CellResults, Results, sweep_nats
from bench.report.statistics import mean, paired_t, perplexity, sample_sd
from bench.report.table import NOTHING, Table
from bench.report.tables.both_modes import merged_notes
from bench.report.tables.view import View, arm_label, signed

COLUMNS = (
    "arm",
    "common seeds",
    "fast less exact, nats per token",
    "95 % interval",
    "sweep, best, fast",
    "sweep, best, exact",
)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The done runs of one arm in both modes, seed by seed, and how many such pairs there should be."""

    arm: str
    fast: tuple[Record, ...]
    exact: tuple[Record, ...]
    n_expected: int


def modes_table(view: View, other: View) -> Table | None:
    """Each trained arm in both modes at the seeds that are done in both; None where no arm has such a seed."""
    chosen, beside = view.experiment, other.experiment
    fast, exact = (chosen, beside) if chosen.mode == "fast" else (beside, chosen)
    found = [_pairs(cell, exact) for cell in fast.cells if not cell.fitted]
    pairs = [one for one in found if one is not None and one.fast]
    if not pairs:
        return None
    stale = fast.stale | exact.stale
    notes = [
        "fast less exact: the best validation loss (sweep) of the run in fast mode less that of the run in exact mode "
        "at the same seed, which draws the same batches: mean ± sample standard deviation (n - 1) over the common "
        "seeds; above 0, fast is worse. The interval is Student's t.",
        "The modes differ in more than their arithmetic: fast ran on a GPU, and exact may have run on a CPU, with "
        "another torch and, since each kind of device has a random stream of its own, other dropout masks.",
        "sweep, best: validation perplexity, the mean over the common seeds only.",
        *merged_notes(protocol_legend(chosen, "sweep"), protocol_legend(beside, "sweep"), (chosen, beside)),
        *merged_notes(state_notes(chosen), state_notes(beside), (chosen, beside)),
        *merged_notes(_machines_of(pairs, chosen), _machines_of(pairs, beside), (chosen, beside)),
    ]
    return view.table("modes", COLUMNS, 1, [_row(one, stale) for one in pairs], notes)


def _machines_of(pairs: Sequence[Pairs], experiment: Results) -> list[str]:
    """The machines that made the runs compared, in one of the modes."""
    compared = {record.run_id for one in pairs for record in (*one.fast, *one.exact)}
    cells = [replace(cell, records=tuple(r for r in cell.records if r.run_id in compared)) for cell in experiment.cells]
    return machines(replace(experiment, cells=tuple(cells)))


def _pairs(cell: CellResults, exact: Results) -> Pairs | None:
    """The pairs of a cell of the fast experiment; None where its arm is no other's of the exact one."""
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
    """Whether two done records differ in nothing but their mode and seed."""
    same_text = one.corpus.sha256 == other.corpus.sha256
    return same_text and protocol_of(one) == protocol_of(other) and alike(one.config, other.config)


def _row(pairs: Pairs, stale: frozenset[str]) -> list[str]:
    fast, exact = sweep_nats(pairs.fast), sweep_nats(pairs.exact)
    compared = paired_t(fast, exact)
    sd = sample_sd([one - other for one, other in zip(fast, exact, strict=True)])
    n = len(pairs.fast)
    of = "" if n == pairs.n_expected else f" ({n} of {pairs.n_expected})"
    marks = f" {STALE}" if any(record.run_id in stale for record in (*pairs.fast, *pairs.exact)) else ""
    spread = "" if sd is None else f" ± {sd:.4f}"
    return [
        pairs.arm,
        (f"{n} of {pairs.n_expected}" if of else str(n)) + marks,
        f"{signed(compared.difference)}{spread}{of}",
        NOTHING if compared.interval is None else f"{' to '.join(map(signed, compared.interval))}{of}",
        *(f"{number(mean([perplexity(nats) for nats in values]))}{of}" for values in (fast, exact)),
    ]
