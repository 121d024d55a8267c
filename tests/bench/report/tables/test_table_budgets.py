"""What an arm takes is shown on every axis on which it could be matched, and fitted models are no budget."""

import pytest

from bench.record import Record
from bench.report.table import NOTHING
from tests.records import make_environment, make_manifest, make_record, manifest_of
from tests.stores import cells, kinds_of, make_store, table_of


def test_parameters_stand_under_every_convention(tmp_path):
    small = make_record("k_operators", 42)
    counts = {
        "n_params": 10_745_088,
        "n_live_params": 10_745_088,
        "n_params_without_positions": 10_646_784,
        "parts": {"blocks": 10_621_824, "positions": 98_304, "embedding": 24_960},
    }
    large = make_record("nanogpt", 42, cost={**small.cost.model_dump(), "parameters": counts})
    table = table_of(make_store(tmp_path, [small, large]), "parameters")
    assert cells(table, 1) == {
        "arm": "nanogpt",
        "total": "10,745,088",
        "without positions": "10,646,784",
        "live": "10,745,088",
        "relative to first row": "9.44 / 9.36 / 11.41",  # over 1,137,869, 1,137,869 and 942,029
        "published": "–",
        "by part": "blocks 10,621,824; positions 98,304; embedding 24,960",
    }


def test_a_run_that_diverged_still_has_a_parameter_count(tmp_path):
    store = make_store(tmp_path, [make_record(status="diverged")])
    assert cells(table_of(store, "parameters"))["total"] == "1,137,869"


def costing(label: str, seed: int | None, seconds: float = 100.0, **changes) -> Record:
    """A record whose cost has these fields."""
    cost = {**make_record(label, seed).cost.model_dump(), "train_seconds": seconds, **changes}
    return make_record(label, seed, cost=cost)


def two_arms() -> list[Record]:
    counted = {"forward_macs_per_token": 1_500_000, "state_bytes": 4096, "activation_bytes": 2_000_000}
    double = {key: 2 * n for key, n in counted.items()}
    ours = [costing("k_operators", seed, seconds, **counted) for seed, seconds in ((42, 50.0), (69, 60.0))]
    theirs = [costing("transformer", 42, 110.0, train_flops=7e12, peak_bytes=2**30, **double)]
    return [*ours, *theirs, make_record("unigram", None, 28.4, architecture="ngram")]


def test_every_arm_stands_on_every_axis(tmp_path):
    table = table_of(make_store(tmp_path, two_arms()), "budgets")
    assert cells(table) == {
        "arm": "k_operators",
        "n": "2",
        "parameters": "1,137,869",
        "live": "942,029",
        "without positions": "1,137,869",
        "training tokens": "2,000,000",
        "forward MACs per token": "1,500,000",
        "training FLOPs": "3.5e+12",
        "state bytes": "4,096",
        "activation bytes": "2,000,000",
        "seconds per step": "0.11 ± 0.014",  # 50 and 60 s over 500 steps: 0.1 and 0.12
        "peak bytes": "536,870,912",
    }
    assert {cells(table, "unigram")[axis] for axis in table.columns[5:]} == {NOTHING}  # it has no steps to count


@pytest.mark.parametrize(("reference", "listed"), [("transformer", "transformer"), (None, "k_operators")])
def test_budgets_are_also_shown_over_those_of_the_reference_or_the_first_arm(tmp_path, reference, listed):
    records = two_arms()
    store = make_store(tmp_path, records, manifest_of(records, reference=reference))
    table = table_of(store, "relative-budgets")
    one, other = (cells(table, label) for label in ("k_operators", "transformer"))
    axes = ("training tokens", "forward MACs per token", "training FLOPs", "seconds per step", "peak bytes")
    expected = ("1.00", "0.50", "0.50", "0.50", "0.50"), ("1.00", "2.00", "2.00", "2.00", "2.00")
    at_one = ("1.00",) * 5
    shown = tuple(one[axis] for axis in axes), tuple(other[axis] for axis in axes)
    assert shown == ((expected[0], at_one) if reference else (at_one, expected[1]))
    assert listed in table.notes[0]


def test_what_an_older_record_lacks_is_missing_and_not_zero(tmp_path):
    row = cells(table_of(make_store(tmp_path, [make_record()]), "budgets"))
    assert {row[axis] for axis in ("forward MACs per token", "state bytes", "activation bytes")} == {NOTHING}


def test_runs_that_ended_early_count_in_no_budget_and_mark_the_measured_ones(tmp_path):
    records = [make_record(seed=42), make_record(seed=69, status="diverged")]
    missing = {"never": {"42": "0" * 12}}
    manifest = make_manifest({"k_operators": {str(one.seed): one.run_id for one in records}, **missing})
    table = table_of(make_store(tmp_path, records, manifest), "budgets")
    row = cells(table)
    assert (row["n"], row["training tokens"]) == ("1 of 2", "2,000,000")
    assert (row["seconds per step"], row["peak bytes"]) == ("0.2 (1 of 2)", "536,870,912 (1 of 2)")
    assert len(table.rows) == 1
    assert "Not run: never." in table.notes


def test_an_experiment_without_a_record_has_no_table(tmp_path):
    kinds = kinds_of(make_store(tmp_path, [], make_manifest({"never": {"42": "0" * 12}})))
    assert kinds == []


def test_costs_are_means_over_the_done_runs_and_leave_fitted_models_out(tmp_path):
    times = ((42, 100.0, 10_000.0), (69, 110.0, 12_000.0))
    records = [costing("k_operators", seed, seconds, tokens_per_second=speed) for seed, seconds, speed in times]
    records.append(make_record("unigram", None, 28.4))
    table = table_of(make_store(tmp_path, records), "cost")
    row = cells(table)
    assert (row["train seconds"], row["tokens/s"], row["peak MiB"]) == ("105.0 ± 7.1", "11,000", "512")
    assert len(table.rows) == 1


def test_runs_that_shared_a_gpu_count_in_no_table_of_times(tmp_path):
    attempt = {"started_at": "", "first_step": 0, "last_step": 9, "train_seconds": 1.0}
    attempt["environment"] = make_environment(device="cuda")

    def sharing(seed: int, seconds: float, *runs_per_gpu: int | None) -> Record:
        """A record whose attempts shared their GPU with that many runs."""
        made = costing("k_operators", seed, seconds, tokens_per_second=2e6 / seconds)
        return make_record(seed=seed, cost=made.cost, attempts=[{**attempt, "runs_per_gpu": n} for n in runs_per_gpu])

    lone = [sharing(42, 100.0, None), sharing(69, 100.0, 1)]  # None: a record older than the count
    table = table_of(make_store(tmp_path / "some", [*lone, sharing(420, 400.0, 4), sharing(666, 300.0, 1, 2)]), "cost")
    row = cells(table)
    assert (row["n"], row["train seconds"], row["tokens/s"]) == ("4", "100.0 ± 0.0 (2 of 4)", "20,000 (2 of 4)")
    left_out = [note for note in table.notes if "are left out" in note]
    assert [note.split(": ", 1)[1] for note in left_out] == ["k_operators: 2 runs."]
    assert not [note for note in table_of(make_store(tmp_path / "none", lone), "cost").notes if "left out" in note]


def test_arms_that_did_not_end_have_a_row_in_words_and_those_that_did_not_run_a_note(tmp_path):
    lost = [make_record("lost", 42, status="diverged"), make_record("lost", 69, status="oom")]
    cells_of = {"lost": {str(one.seed): one.run_id for one in lost}, "never": {"42": "0" * 12}}
    table = table_of(make_store(tmp_path, lost, make_manifest(cells_of)))
    assert [(row[3], row[4]) for row in table.rows] == [("0 of 2", "1 diverged, 1 oom")]
    assert "Not run: never." in table.notes
