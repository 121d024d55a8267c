"""Only one table shows losses on a test text, with the step that the validation text chose and both tests."""

import math

from bench.record import Measurement, Record
from bench.report.output import make_tables
from bench.report.table import NOTHING
from tests.records import make_record, manifest_of
from tests.stores import cells, kinds_of, make_store, table_of

SEEDS = (42, 69, 420)


def run(label: str, seed: int | None, test: float | None, val: float = 1.2, step: int = 250, **changes) -> Record:
    record = make_record(label, seed, math.exp(val), corpus="warpeace", **changes)
    assert record.result is not None
    measured = None if test is None else Measurement(step=step, nats_per_token=test, n_tokens=319_488)
    return record.model_copy(update={"result": record.result.model_copy(update={"test": measured})})


def runs(label: str, nats: tuple[float, ...], seeds: tuple[int, ...] = SEEDS) -> list[Record]:
    """Runs with these losses on the test text; the steps chosen are 250, 500, 750."""
    both = zip(seeds, nats, strict=True)
    return [run(label, seed, each, step=250 * i) for i, (seed, each) in enumerate(both, 1)]


def arms(*others: Record) -> list[Record]:
    """The losses of the hand-worked tests of differences: 0.02, 0.03 and 0.01 apart."""
    return [*runs("k_operators", (1.50, 1.52, 1.54)), *runs("transformer", (1.48, 1.49, 1.53)), *others]


def made(root, records: list[Record]):
    store = make_store(root, records, manifest_of(records, "warpeace", corpus="warpeace", reference="transformer"))
    return table_of(store, "warpeace", "warpeace")


def test_the_test_text_reads_as_worked_by_hand(tmp_path):
    # paired: mean 0.02 ± 4.3027 * 0.005774, p = 0.0742. Welch: sds 0.02 and 0.026458, error 0.019149, t = 1.0445, 3.723
    # degrees of freedom: 0.02 ± 2.860 * 0.019149
    assert cells(made(tmp_path, arms()), "k_operators") == {
        "arm": "k_operators",
        "n": "3",
        "validation perplexity": "3.320 ± 0.000",
        "test perplexity": "4.573 ± 0.091",  # mean of exp(1.50), exp(1.52), exp(1.54)
        "test loss": "1.5200 ± 0.0200",
        "step chosen": "250 to 750",
        "difference": "+0.0200",
        "95 % interval, Welch": "−0.0348 to +0.0748",
        "p, Welch": "0.359",
        "95 % interval, paired": "−0.0048 to +0.0448",
        "p, paired": "0.074",
    }


def test_the_reference_and_arms_without_a_test_loss_have_no_difference(tmp_path):
    older = [run("older", seed, None) for seed in SEEDS]
    table = made(tmp_path, arms(*older, make_record("gone", 42, corpus="warpeace", status="oom")))
    assert set(table.rows[1][6:]) == {NOTHING}
    assert list(table.rows[2][3:]) == [NOTHING] * 8
    assert cells(table, "gone")["validation perplexity"] == "1 oom"


def test_without_common_seeds_only_welch_compares(tmp_path):
    others = runs("other", (1.50, 1.52, 1.54), (1, 2, 3))
    row = cells(made(tmp_path, arms(*others)), "other")
    assert (row["95 % interval, Welch"], row["p, Welch"]) == ("−0.0348 to +0.0748", "0.359")
    assert (row["95 % interval, paired"], row["p, paired"]) == (NOTHING, NOTHING)


def test_runs_that_are_missing_are_marked(tmp_path):
    records = arms()
    manifest = manifest_of(records, "warpeace", corpus="warpeace", reference="transformer")
    table = table_of(make_store(tmp_path, records[1:], manifest), "warpeace", "warpeace")
    row = cells(table, "k_operators")
    assert row["test loss"] == "1.5300 ± 0.0141 (2 of 3)"
    assert row["n"] == "2 of 3"


def test_no_other_table_shows_or_uses_the_test_text(tmp_path):
    def others(folder: str, shift: float) -> list[tuple[str, tuple]]:
        k_operators, transformer = (tuple(nats + shift for nats in each) for each in ((1.50, 1.52), (1.48, 1.49)))
        records = [*runs("k_operators", k_operators, SEEDS[:2]), *runs("transformer", transformer, SEEDS[:2])]
        manifest = manifest_of(records, "warpeace", corpus="warpeace", reference="transformer")
        tables = make_tables(make_store(tmp_path / folder, records, manifest)).tables
        return [(one.name, one.rows) for one in tables if one.kind != "warpeace"]

    assert others("as-measured", 0.0) == others("shifted", 0.5)


def test_a_text_without_a_test_text_has_no_such_table(tmp_path):
    records = [make_record("k_operators", seed) for seed in SEEDS]
    assert "warpeace" not in kinds_of(make_store(tmp_path, records))
