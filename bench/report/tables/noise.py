"""The table of noise: how far runs of one seed lie apart, against runs of different seeds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bench.dotted import alike
from bench.record import Record
from bench.report.notes import machine_notes, protocol_legend, state_notes
from bench.report.runs import CellResults, of_expected, sweep_nats
from bench.report.statistics import Summary, sample_sd
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, View, plain_mean_sd, summary_of

SEEDS = "paper"  # the experiment that has the same arms at different seeds
COLUMNS = (
    "arm",
    MODE,
    "seed",
    "runs of it",
    "sweep, best, one seed",
    "sd, nats per token, one seed",
    "seeds",
    "sweep, best, all seeds",
    "sd, nats per token, all seeds",
    "share of variance",
)


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Runs of one seed of one arm: those that are done, and how many there should be."""

    arm: str
    seed: str
    records: tuple[Record, ...]
    n_expected: int


def noise_table(view: View) -> Table | None:
    """Runs of one seed of an arm against its seeds in `paper`, in the same mode; None where no seed ran twice."""
    found = replicates(view)
    if not any(len(each.records) > 1 for each in found):
        return None
    notes = [
        "Validation perplexity, mean ± sample standard deviation (n - 1): over runs of one seed, which differ in "
        "neither config nor seed, and over the distinct seeds of the same arm, in the same mode and of the same "
        f"config, in experiment {SEEDS}. sd, nats per token: the same spread of the losses.",
        f"runs of it: the run of {SEEDS} itself, its replicates, and second records of these runs from the same kind "
        "of device and the same sources, which enter no other mean.",
        "share of variance: that of the losses of one seed over that of all seeds, which holds both: what no seed "
        "explains. A few runs tell it poorly. In exact mode such runs are equal by construction.",
        *protocol_legend(view.experiment, "sweep"),
        *state_notes(view.experiment),
        *machine_notes(view.experiment),
    ]
    return view.table("noise", COLUMNS, 3, [_row(view, each) for each in found], notes)


def replicates(view: View) -> list[Replicates]:
    """The seeds that more than one cell of a group has, where those cells are no trials of a search."""
    cells: dict[tuple[str, str], list[CellResults]] = defaultdict(list)
    for cell in view.experiment.cells:
        if cell.group is not None and cell.group not in view.trials:
            for seed in cell.expected:
                cells[cell.group, seed].append(cell)
    found = []
    for (group, seed), same in cells.items():
        records = [record for cell in same for record in cell.done if str(record.seed) == seed]
        second = _second_records(view, records)
        if len(same) + len(second) > 1:
            found.append(
                Replicates(arm=group, seed=seed, records=(*records, *second), n_expected=len(same) + len(second))
            )
    return found


def _second_records(view: View, records: Sequence[Record]) -> list[Record]:
    """The replications of some runs that count as runs of their seed: of the same kind of device and sources."""

    def kind(record: Record) -> tuple[str, str]:
        return record.environment.device_name, record.sources.fingerprint

    kinds = {record.run_id: kind(record) for record in records}
    return [one for one in view.replications if one.result is not None and kinds.get(one.run_id) == kind(one)]


def _row(view: View, one: Replicates) -> list[str]:
    within = summary_of(one.records)
    seeds, n_seeds = _seeds(view, one)
    between = summary_of(seeds)
    counts = of_expected(len(one.records), one.n_expected), of_expected(len(seeds), n_seeds)
    share = _share(sample_sd(sweep_nats(one.records)), sample_sd(sweep_nats(seeds)))
    if share != NOTHING and (len(one.records), len(seeds)) != (one.n_expected, n_seeds):
        share += f" ({' and '.join(counts)})"
    return [
        one.arm,
        one.records[0].mode if one.records else view.experiment.manifest.mode,
        one.seed,
        counts[0],
        _mean_sd(within, one.n_expected),
        _sd_text(one.records, one.n_expected),
        counts[1] if n_seeds else NOTHING,
        _mean_sd(between, n_seeds),
        _sd_text(seeds, n_seeds),
        share,
    ]


def _seeds(view: View, one: Replicates) -> tuple[Sequence[Record], int]:
    """The done runs of the same arm at its distinct seeds, and how many there should be."""
    experiment = view.store.experiment(SEEDS)
    cell = None if experiment is None else experiment.cell(one.arm)
    if cell is None:
        return (), 0
    if cell.done and one.records and not _same(cell.done[0], one.records[0]):
        return (), 0
    return cell.done, len(cell.expected)


def _same(one: Record, other: Record) -> bool:
    """Whether two records are of one arm in one mode."""
    return alike(one.config, other.config) and one.mode == other.mode and one.corpus.sha256 == other.corpus.sha256


def _sd_text(records: Sequence[Record], expected: int) -> str:
    if (sd := sample_sd(sweep_nats(records))) is None:
        return NOTHING
    return f"{sd:.4f}" if len(records) == expected else f"{sd:.4f} ({of_expected(len(records), expected)})"


def _mean_sd(summary: Summary | None, expected: int) -> str:
    if summary is None:
        return "not run"
    text = plain_mean_sd(summary)
    return text if summary.n == expected else f"{text} ({of_expected(summary.n, expected)})"


def _share(within: float | None, between: float | None) -> str:
    return NOTHING if within is None or not between else f"{(within / between) ** 2:.0%}"
