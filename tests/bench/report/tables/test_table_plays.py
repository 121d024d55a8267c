"""The table of plays shows, for the headline experiments only, each arm's loss on both plays against the reference."""

import pytest

from bench.record import Record
from bench.report.table import NOTHING
from tests.bench.report.test_plays import with_windows
from tests.records import make_record, manifest_of
from tests.stores import cells, kinds_of, make_store, table_of

SHREW, TEMPEST = "The Taming of the Shrew", "The Tempest"


def run(label: str, seed: int | None, shrew: float, tempest: float, **changes) -> Record:
    return with_windows([shrew] * 300 + [77.0] + [tempest] * 134, label=label, seed=seed, **changes)


def both(*others: Record) -> list[Record]:
    """K-Operators ahead by 0.10, 0.12 and 0.14 on the first play, and behind by 0.01 on the second."""
    seeds = (42, 69, 420)
    ours = [run("k_operators", seed, 1.4 - 0.01 * i, 1.81) for i, seed in enumerate(seeds)]
    theirs = [run("transformer", seed, 1.5 + 0.01 * i, 1.8) for i, seed in enumerate(seeds)]
    return [*ours, *theirs, *others]


def made(root, records: list[Record], name: str = "matched"):
    return table_of(make_store(root, records, manifest_of(records, name, reference="transformer")), "plays", name)


def test_losses_and_differences_read_as_worked_by_hand(tmp_path):
    table = made(tmp_path, both(run("unigram", None, 3.3, 3.4)))
    # means 1.39 and 1.51, both sd 0.01: error 0.01 sqrt(2 / 3) = 0.008165, 4 degrees of freedom, times 2.7764: 0.0227
    assert cells(table, "k_operators") == {
        "arm": "k_operators",
        "n": "3",
        SHREW: "1.3900 ± 0.0100",
        TEMPEST: "1.8100 ± 0.0000",
        f"{SHREW}, difference": "−0.1200",
        f"{SHREW}, 95 % interval": "−0.1427 to −0.0973",
        f"{TEMPEST}, difference": "+0.0100",
        f"{TEMPEST}, 95 % interval": "+0.0100 to +0.0100",
    }
    reference, counted = cells(table, "transformer"), cells(table, "unigram")
    assert (reference[SHREW], reference[f"{SHREW}, difference"]) == ("1.5100 ± 0.0100", NOTHING)
    assert (counted[SHREW], counted[TEMPEST], counted[f"{TEMPEST}, difference"]) == ("3.3000", "3.4000", NOTHING)


def test_missing_runs_and_arms_are_marked(tmp_path):
    ended = [make_record("lstm", 69, status="diverged"), make_record("gone", 42, status="oom")]
    records = both(run("lstm", 42, 1.0, 1.1), *ended)
    manifest = manifest_of(records, "matched", reference="transformer")
    kept = [one for one in records if (one.label, one.seed) != ("k_operators", 420)]
    table = table_of(make_store(tmp_path, kept, manifest), "plays", "matched")
    two = cells(table, "k_operators")
    assert (two[SHREW], two[f"{SHREW}, difference"]) == ("1.3950 ± 0.0071 (2 of 3)", "−0.1150 (2 of 3)")
    assert (cells(table, "lstm")[SHREW], cells(table, "lstm")[f"{SHREW}, difference"]) == ("1.0000 (1 of 2)", NOTHING)
    assert cells(table, "gone")[TEMPEST] == "1 oom"


@pytest.mark.parametrize(("name", "changes"), [("laptop", {}), ("matched", {"corpus": "warpeace"})])
def test_other_experiments_and_other_texts_have_no_such_table(tmp_path, name, changes):
    records = [run("k_operators", 42, 1.4, 1.8, **changes), run("transformer", 42, 1.5, 1.8, **changes)]
    store = make_store(tmp_path, records, manifest_of(records, name, reference="transformer"))
    assert "plays" not in kinds_of(store, name)


def test_an_arm_measured_otherwise_is_not_compared(tmp_path):
    other = [run("fast", seed, 1.4, 1.8, mode="fast") for seed in (42, 69)]
    row = cells(made(tmp_path, both(*other)), "fast")
    assert (row[SHREW], row[f"{SHREW}, difference"]) == ("1.4000 ± 0.0000", NOTHING)
