"""The table of noise: the spread over runs of one seed, against the spread over seeds."""

from collections import Counter
from collections.abc import Iterator, Sequence

from bench.dotted import alike
from bench.record import Record
from bench.report.notes import MEAN_OF_EXP, machines, protocol_legend, state_notes
from bench.report.runs import of_expected, sweep_nats
from bench.report.statistics import sample_sd
from bench.report.table import NOTHING, Table
from bench.report.tables.view import MODE, View, partial, plain_mean_sd, summary_of

SEEDS = "paper"  # the experiment with the same arms at different seeds


def noise_table(view: View) -> Table | None:
    """Runs of one seed of an arm against its seeds in `paper`, in the same mode; None if no seed ran twice."""
    found = list(_replicates(view))
    if not any(len(records) > 1 for _, _, records, _ in found):
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
        MEAN_OF_EXP,
        *protocol_legend(view.experiment, "sweep"),
        *state_notes(view.experiment),
        *machines(view.experiment),
    ]
    return view.table("noise", [_row(view, *each) for each in found], notes)


def _replicates(view: View) -> Iterator[tuple[str, str, list[Record], int]]:
    """The seeds of each arm that more than one run has: arm, seed, its done runs, and the expected number of runs."""
    for arm, cells in view.experiment.replicates.items():
        for seed, n in Counter(seed for cell in cells for seed in cell.expected).items():
            records = [record for cell in cells for record in cell.done if str(record.seed) == seed]
            second = _second_records(view, records)
            if n + len(second) > 1:
                yield arm, seed, records + second, n + len(second)


def _second_records(view: View, records: Sequence[Record]) -> list[Record]:
    """The replications that count as runs of the same seed: from the same kind of device and the same sources."""

    def kind(record: Record) -> tuple[str, str]:
        return record.environment.device_name, record.sources.fingerprint

    kinds = {record.run_id: kind(record) for record in records}
    return [one for one in view.replications if one.result is not None and kinds.get(one.run_id) == kind(one)]


def _row(view: View, arm: str, seed: str, records: Sequence[Record], n_expected: int) -> dict[str, str]:
    seeds, n_seeds = _seeds(view, arm, records)
    runs_text, seeds_text = of_expected(len(records), n_expected), of_expected(len(seeds), n_seeds)
    within, between = sample_sd(sweep_nats(records)), sample_sd(sweep_nats(seeds))
    share = NOTHING if within is None or not between else f"{(within / between) ** 2:.0%}"
    if share != NOTHING and (len(records), len(seeds)) != (n_expected, n_seeds):
        share += f" ({runs_text} and {seeds_text})"
    return {
        "arm": arm,
        MODE: records[0].mode if records else view.experiment.mode,
        "seed": seed,
        "runs": runs_text,
        **_spread("one seed", records, n_expected),
        "seeds": seeds_text if n_seeds else NOTHING,
        **_spread("all seeds", seeds, n_seeds),
        "share of variance": share,
    }


def _seeds(view: View, arm: str, records: Sequence[Record]) -> tuple[Sequence[Record], int]:
    """The done runs of the same arm at its distinct seeds, and the expected number of runs."""
    experiment = view.store.experiment(SEEDS)
    cell = None if experiment is None else experiment.cell(arm)
    if cell is None or (cell.done and records and not _comparable(cell.done[0], records[0])):
        return (), 0
    return cell.done, len(cell.expected)


def _comparable(one: Record, other: Record) -> bool:
    """Whether two records are of the same arm in the same mode."""
    return alike(one.config, other.config) and one.mode == other.mode and one.corpus.sha256 == other.corpus.sha256


def _spread(over: str, records: Sequence[Record], expected: int) -> dict[str, str]:
    """The columns of perplexity and standard deviation over some runs."""
    summary, sd = summary_of(records), sample_sd(sweep_nats(records))
    best = "not run" if summary is None else partial(plain_mean_sd(summary), summary.n, expected)
    sd_text = NOTHING if sd is None else partial(f"{sd:.4f}", len(records), expected)
    return {f"sweep, best, {over}": best, f"sd, nats per token, {over}": sd_text}
