"""All trials of a search are shown, and the best of k of them is an expectation over every choice of k."""

from itertools import combinations

import pytest

from bench.record import Record, Status
from bench.report.statistics import expected_best, mean
from bench.report.table import NOTHING
from bench.store import Store
from tests.records import make_record
from tests.stores import grouped, kinds_of, make_store, table_of


def trial(arm: str, number: int, perplexity: float = 5.0, status: Status = "done", **settings) -> Record:
    label = f"{arm}-t{number:02}"
    plain = make_record(label, 1000, perplexity, status=status)
    config = {**plain.config, "training": {"n_steps": 500, "learning_rate": 0.001 * (number + 1), **settings}}
    return plain.model_copy(update={"config": config})


def stored(tmp_path, records: list[Record], *missing: str) -> Store:
    """A search whose trials belong to the arm that their label begins with."""
    manifest = grouped(records, lambda label: label.partition("-")[0], missing=missing)
    return make_store(tmp_path, records, manifest)


def test_every_trial_is_a_row_with_what_it_tried_and_how_it_ended(tmp_path):
    records = [trial("a", 0, 6.0), trial("a", 1, 5.0), trial("a", 2, status="diverged")]
    records += [trial("b", 0, 7.0, weight_decay=0.02), trial("b", 1, 8.0, weight_decay=0.1)]
    table = table_of(stored(tmp_path, records, "b-t02"), "tuning")
    settings = ("learning_rate", "weight_decay")
    assert table.columns == ("arm", "trial", "sweep, best", "rank in its arm", *settings, "outcome")
    assert table.rows == (
        ("a", "a-t00", "6.000", "2 of 2", "0.001", NOTHING, "done"),
        ("a", "a-t01", "5.000", "1 of 2", "0.002", NOTHING, "done"),
        ("a", "a-t02", NOTHING, NOTHING, "0.003", NOTHING, "diverged at step 120"),
        ("b", "b-t00", "7.000", "1 of 2", "0.001", "0.02", "done"),
        ("b", "b-t01", "8.000", "2 of 2", "0.002", "0.1", "done"),
        ("b", "b-t02", NOTHING, NOTHING, NOTHING, NOTHING, "not run"),
    )


def test_a_setting_that_older_records_lack_was_not_searched(tmp_path):
    records = [trial("a", 0, 6.0), trial("a", 1, 5.0, clip_norm=1.0), trial("a", 2, 5.5, clip_norm=1.0)]
    assert "clip_norm" not in table_of(stored(tmp_path, records), "tuning").columns


def test_the_expected_best_of_k_is_the_mean_over_all_choices_of_k():
    values = [5.0, 4.0, 7.0, 4.5, 6.0]
    for k in range(1, 6):
        every = [min(choice) for choice in combinations(values, k)]
        assert expected_best(values, 5, k) == pytest.approx(mean(every), rel=1e-12)
    assert expected_best([4.0, 6.0, 8.0], 3, 2) == pytest.approx((4 + 4 + 6) / 3)  # by hand: {4, 6}, {4, 8}, {6, 8}


def test_trials_without_a_number_are_worse_than_any_and_stay_in_the_denominator():
    values, n = [4.0, 6.0], 4  # two of four diverged
    assert [expected_best(values, n, k) for k in (0, 1, 2, 5)] == [None] * 4  # a choice of 2 may hold no number at all
    every = [min(choice) for choice in combinations([*values, float("inf"), float("inf")], 3)]
    assert expected_best(values, n, 3) == pytest.approx(mean(every))
    assert expected_best(values, n, 4) == pytest.approx(4.0)


def test_the_curve_has_a_column_for_each_arm_and_marks_the_one_that_is_not_whole(tmp_path):
    records = [trial("a", i, value) for i, value in enumerate((4.0, 6.0, 8.0))]
    records += [trial("b", 0, 5.0), trial("b", 1, 7.0)]
    table = table_of(stored(tmp_path, records, "b-t02"), "best-of-k")
    assert table.columns == ("k", "a", "b")
    assert table.rows == (("1", "6.000", "6.000 (2 of 3)"), ("2", "4.667", "5.000 (2 of 3)"), ("3", "4.000", NOTHING))
    assert any(note == "Trials: a 3; b 2 of 3." for note in table.notes)


def test_cells_without_groups_are_no_search(tmp_path):
    assert not {"tuning", "best-of-k"} & set(kinds_of(make_store(tmp_path, [trial("a", 0), trial("a", 1)])))


def test_a_search_of_which_nothing_ended_well_has_no_curve(tmp_path):
    records = [trial("a", i, status="diverged") for i in range(2)]
    kinds = kinds_of(stored(tmp_path, records))
    assert "tuning" in kinds
    assert "best-of-k" not in kinds
