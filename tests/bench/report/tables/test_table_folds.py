"""The table of folds compares arms fold by fold; runs on two folds are neither trials nor replicates."""

import math

import pytest

from bench.record import Record
from bench.report.figures import all_figures
from bench.report.mixing import measured_alike
from bench.report.output import make_tables
from bench.report.runs import read_results
from bench.report.table import NOTHING
from bench.report.tables.folds import OVERLAP
from bench.store import Store
from tests.records import make_record
from tests.stores import cells, grouped, kinds_of, make_store, table_of


def run(arm: str, fold: int, nats: float, seed: int = 42, **changes) -> Record:
    label, corpus = f"{arm}-fold{fold}", f"tinyshakespeare-fold{fold}"
    return make_record(label, seed, math.exp(nats), corpus=corpus, **changes)


def stored(root, records: list[Record], missing: tuple[str, ...] = ()) -> Store:
    manifest = grouped(
        records, lambda label: label.partition("-")[0], name="folds", reference="transformer", missing=missing
    )
    return make_store(root, records, manifest)


OURS = [run("k_operators", i, nats) for i, nats in enumerate((1.50, 1.72, 1.64))]
THEIRS = [run("transformer", i, nats) for i, nats in enumerate((1.48, 1.69, 1.63))]


def test_differences_are_paired_by_fold_as_worked_by_hand(tmp_path):
    table = table_of(stored(tmp_path, [*OURS, *THEIRS]), "folds", "folds")
    # losses: mean 1.62, deviations -0.12, 0.10, 0.02, sd sqrt(0.0248 / 2) = 0.1114. Differences 0.02, 0.03, 0.01: mean
    # 0.02, sd 0.01, error 0.005774, times 4.3027: 0.0248; t = 3.4641 with 2 degrees of freedom: p = 0.0742
    assert cells(table, "k_operators") == {
        "arm": "k_operators",
        "folds done": "3",
        "loss": "1.6200 ± 0.1114",
        "difference to transformer": "+0.0200",
        "95 % interval": "−0.0048 to +0.0448",
        "p": "0.074",
    }
    assert list(table.rows[1]) == ["transformer", "3", "1.6000 ± 0.1082", NOTHING, NOTHING, NOTHING]


def test_the_notes_say_what_the_recipe_was_tuned_on_and_that_training_texts_overlap(tmp_path):
    notes = " ".join(table_of(stored(tmp_path, [*OURS, *THEIRS]), "folds", "folds").notes)
    assert "tuned on the last tenth" in notes
    assert pytest.approx(math.sqrt((1 / 10 + 1 / 9) / (1 / 10))) == OVERLAP  # Nadeau and Bengio, ten folds
    assert "1.45 times as wide" in notes


def test_only_folds_that_both_arms_have_done_are_compared(tmp_path):
    diverged = run("k_operators", 1, 1.0, status="diverged")
    table = table_of(stored(tmp_path, [OURS[0], diverged, OURS[2], *THEIRS]), "folds", "folds")
    row = cells(table, "k_operators")
    assert (row["folds done"], row["loss"]) == ("2 of 3", "1.5700 ± 0.0990 (2 of 3)")
    assert row["difference to transformer"] == "+0.0150 (2 of 3)"
    assert "k_operators-fold1: 0 of 1 runs done (diverged: seed 42 at step 120)." in table.notes


def test_an_arm_that_did_not_run_is_shown_and_one_fold_has_no_interval(tmp_path):
    missing = ("modern-fold0", "modern-fold1", "transformer-fold1", "transformer-fold2")
    table = table_of(stored(tmp_path, [*OURS, THEIRS[0]], missing), "folds", "folds")
    row = cells(table, "k_operators")
    assert (row["difference to transformer"], row["95 % interval"]) == ("+0.0200 (1 of 3)", NOTHING)
    assert list(cells(table, "modern").values()) == ["modern", "0 of 2", "not run", NOTHING, NOTHING, NOTHING]


def test_several_seeds_of_a_fold_count_as_one_fold(tmp_path):
    twice = [run("k_operators", 0, 1.40, 69), run("transformer", 0, 1.42, 69)]
    manifest = grouped([*OURS, *THEIRS], lambda label: label.partition("-")[0], name="folds", reference="transformer")
    by_label = {one.label: one.run_id for one in twice}
    added = [
        cell.model_copy(
            update={"run_ids": cell.run_ids | ({"69": by_label[cell.label]} if cell.label in by_label else {})}
        )
        for cell in manifest.cells
    ]
    store = make_store(tmp_path, [*OURS, *THEIRS, *twice], manifest.model_copy(update={"cells": added}))
    row = cells(table_of(store, "folds", "folds"), "k_operators")
    # fold 0: 1.45 and 1.45, so differences 0.00, 0.03, 0.01
    assert (row["folds done"], row["difference to transformer"]) == ("3", "+0.0133")


def test_folds_are_no_search_and_no_replicates_and_are_compared_in_no_other_table(tmp_path):
    store = stored(tmp_path, [*OURS, *THEIRS])
    (experiment,) = read_results(store).experiments
    assert (experiment.trials, experiment.replicates) == ({}, {})
    assert {arm: len(cells) for arm, cells in experiment.folds.items()} == {"k_operators": 3, "transformer": 3}
    assert set(kinds_of(store, "folds")) == {"perplexity", "parameters", "cost", "folds"}


def test_runs_on_two_folds_are_not_measured_alike_though_their_text_is_one(tmp_path):
    one, other = (
        record.model_copy(update={"corpus": record.corpus.model_copy(update={"sha256": "s" * 64})})
        for record in OURS[:2]
    )
    assert measured_alike(one, one)
    assert not measured_alike(one, other)


def test_folds_have_no_figure_of_curves(tmp_path):
    made = make_tables(stored(tmp_path, [*OURS, *THEIRS]))
    assert not [name for name in all_figures(made.results, made.measurements, made.published) if "curves" in name]


def test_trials_and_replicates_are_no_folds(tmp_path):
    trials = [make_record(f"t{i}", 42, config=make_record().config | {"context": i + 1}) for i in range(2)]
    store = make_store(tmp_path, trials, grouped(trials, lambda _: "arm", name="search"))
    (experiment,) = read_results(store).experiments
    assert (experiment.folds, set(experiment.trials)) == ({}, {"arm"})
    assert "folds" not in kinds_of(store, "search")
