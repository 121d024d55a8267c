"""The table of contributed runs: runs of an experiment that others made, never averaged with ours."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from bench.errors import count
from bench.record import NO_SEED, Record
from bench.report.mixing import MixedRunsError, protocol_of
from bench.report.notes import MEAN_OF_EXP
from bench.report.outside import Contribution
from bench.report.table import NOTHING, Table
from bench.report.tables.view import plain_mean_sd, summary_of

NOTES = (
    "Contributed: others made these runs. Their seal, config and corpus were checked when they were merged, but they "
    "were not run here. They are in no mean with ours, and no claim uses them.",
    "Validation perplexity, mean ± sample standard deviation (n - 1) over n distinct seeds, as in the table of "
    "perplexities; one row per arm, mode and device.",
    MEAN_OF_EXP,
)

Key = tuple[str, str, str, str]  # arm, mode, device, corpus


def contributed_table(experiment: str, found: Sequence[Contribution]) -> Table | None:
    """One row per arm, mode and device of contributed runs of an experiment; None if there are none."""
    groups: dict[Key, list[Record]] = defaultdict(list)
    for one in found:
        if one.experiment == experiment:
            groups[_key(one)].append(one.record)
    rows = [_row(key, groups[key]) for key in sorted(groups)]
    return Table.of(experiment, "contributed", "What did others measure with the same arms?", rows, NOTES)


def _key(one: Contribution) -> Key:
    """What the runs of one row have in common, so that they may be in one mean."""
    record = one.record
    mode = NOTHING if record.seed is None else record.mode
    return one.label, mode, record.environment.device_name, record.corpus.name


def _row(key: Key, records: Sequence[Record]) -> dict[str, str]:
    label, mode, device, corpus = key
    _refuse_duplicate_seeds(label, records)
    done = [record for record in records if record.result is not None]
    if len({protocol_of(record) for record in done}) > 1:
        names = ", ".join(sorted(record.file_name for record in done))
        raise MixedRunsError(f"contributed/, arm {label}: one mean cannot mix protocols ({names}); keep those of one")
    ended = Counter(record.status for record in records if record.result is None)
    n = [str(len(done)) if done else "", *(f"{number} {status}" for status, number in sorted(ended.items()))]
    return {
        "arm": f"{label} (synthetic)" if corpus == "synthetic" else label,
        "mode": mode,
        "device": device,
        "origin": "contributed",
        "n": ", ".join(filter(None, n)),
        "sweep, best": plain_mean_sd(summary_of(done)),
        "sweep, final": plain_mean_sd(summary_of(done, "final")),
    }


def _refuse_duplicate_seeds(label: str, records: Sequence[Record]) -> None:
    for seed, n in Counter(record.seed for record in records).items():
        if n > 1:
            names = ", ".join(sorted(record.file_name for record in records if record.seed == seed))
            known = NO_SEED if seed is None else seed
            raise MixedRunsError(
                f"contributed/ has {count(n, 'record')} of {label} at seed {known} ({names}); move one to replications/"
            )
