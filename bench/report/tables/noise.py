"""The table of noise: the spread over runs of one seed, against the spread over seeds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench.dotted import alike
from bench.record import Record
from bench.report.notes import machine_notes, protocol_legend, state_notes
from bench.report.runs import of_expected, sweep_nats
from bench.report.statistics import sample_sd
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, View, partial, plain_mean_sd, summary_of

SEEDS = "paper"  # the experiment with the same arms at different seeds
COLUMNS = (
    "arm",
    MODE,
    "seed",
    "runs",
    "sweep, best, one seed",
    "sd, nats per token, one seed",
    "seeds",
    "sweep, best, all seeds",
    "sd, nats per token, all seeds",
    "share of variance",
)


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """The done runs of one seed of one arm, and the expected number of runs."""

    arm: str
    seed: str
    records: tuple[Record, ...]
    n_expected: int


def noise_table(view: View) -> Table | None:
    """Runs of one seed of an arm against its seeds in `paper`, in the same mode; None if no seed ran twice."""
    found = replicates(view)
    if not any(len(each.records) > 1 for each in found):
        return None
    notes = [
        "Validation perplexity, mean ± sample standard deviation (n - 1): over runs of one seed, with equal config and "
        "seed, and over the distinct seeds of the same arm, in the same mode and with the same config, in experiment "
        f"{SEEDS}. sd, nats per token: the standard deviation of the losses.",
        f"runs: the run of {SEEDS}, its replicates, and second records of these runs from the same kind of device and "
        "the same sources, which are in no other mean.",
        "share of variance: the variance of the losses of one seed over that of all seeds, which includes it: the part "
        "that seeds do not explain. With a few runs it is inaccurate. In mode exact such runs are equal by "
        "construction.",
        *protocol_legend(view.experiment, "sweep"),
        *state_notes(view.experiment),
        *machine_notes(view.experiment),
    ]
    return view.table("noise", COLUMNS, 3, [_row(view, each) for each in found], notes)


def replicates(view: View) -> list[Replicates]:
    """The seeds of each arm that more than one run has."""
    found = []
    for arm, cells in view.experiment.replicates.items():
        for seed, n in Counter(seed for cell in cells for seed in cell.expected).items():
            records = [record for cell in cells for record in cell.done if str(record.seed) == seed]
            second = _second_records(view, records)
            found.append(Replicates(arm=arm, seed=seed, records=(*records, *second), n_expected=n + len(second)))
    return [one for one in found if one.n_expected > 1]


def _second_records(view: View, records: Sequence[Record]) -> list[Record]:
    """The replications that count as runs of the same seed: from the same kind of device and the same sources."""

    def kind(record: Record) -> tuple[str, str]:
        return record.environment.device_name, record.sources.fingerprint

    kinds = {record.run_id: kind(record) for record in records}
    return [one for one in view.replications if one.result is not None and kinds.get(one.run_id) == kind(one)]


def _row(view: View, one: Replicates) -> list[str]:
    seeds, n_seeds = _seeds(view, one)
    counts = of_expected(len(one.records), one.n_expected), of_expected(len(seeds), n_seeds)
    share = _share(sample_sd(sweep_nats(one.records)), sample_sd(sweep_nats(seeds)))
    if share != NOTHING and (len(one.records), len(seeds)) != (one.n_expected, n_seeds):
        share += f" ({' and '.join(counts)})"
    return [
        one.arm,
        one.records[0].mode if one.records else view.experiment.manifest.mode,
        one.seed,
        counts[0],
        _mean_sd(one.records, one.n_expected),
        _sd_text(one.records, one.n_expected),
        counts[1] if n_seeds else NOTHING,
        _mean_sd(seeds, n_seeds),
        _sd_text(seeds, n_seeds),
        share,
    ]


def _seeds(view: View, one: Replicates) -> tuple[Sequence[Record], int]:
    """The done runs of the same arm at its distinct seeds, and the expected number of runs."""
    experiment = view.store.experiment(SEEDS)
    cell = None if experiment is None else experiment.cell(one.arm)
    if cell is None or (cell.done and one.records and not _comparable(cell.done[0], one.records[0])):
        return (), 0
    return cell.done, len(cell.expected)


def _comparable(one: Record, other: Record) -> bool:
    """Whether two records are of the same arm in the same mode."""
    return alike(one.config, other.config) and one.mode == other.mode and one.corpus.sha256 == other.corpus.sha256


def _sd_text(records: Sequence[Record], expected: int) -> str:
    sd = sample_sd(sweep_nats(records))
    return NOTHING if sd is None else partial(f"{sd:.4f}", len(records), expected)


def _mean_sd(records: Sequence[Record], expected: int) -> str:
    summary = summary_of(records)
    return "not run" if summary is None else partial(plain_mean_sd(summary), summary.n, expected)


def _share(within: float | None, between: float | None) -> str:
    return NOTHING if within is None or not between else f"{(within / between) ** 2:.0%}"
