"""A mean is over what belongs together, and everything that does not count is named."""

import math
import random
import shutil

import pytest

from bench.record import SCHEMA_VERSION, Recheck, Record, to_bytes
from bench.report.frame import LOSSES
from bench.report.mixing import MixedRunsError
from bench.report.runs import read_results
from bench.store import Store
from tests.records import FINGERPRINT, make_environment, make_manifest, make_record, manifest_of
from tests.stores import make_store


def only_cell(store: Store):
    (experiment,) = read_results(store).experiments
    (cell,) = experiment.cells
    return cell


def test_a_cell_holds_its_records_by_seed(tmp_path):
    cell = only_cell(make_store(tmp_path, [make_record(seed=seed) for seed in (420, 42, 69)]))
    assert [record.seed for record in cell.done] == [42, 69, 420]
    assert (cell.n_text, cell.shortfall) == ("3", None)


@pytest.mark.fault("F9")
def test_what_diverged_failed_or_is_missing_is_counted_and_named_with_its_seed(tmp_path):
    records = [make_record(seed=42), make_record(seed=69, status="diverged"), make_record(seed=420, status="oom")]
    run_ids = {str(record.seed): record.run_id for record in records} | {"666": "0" * 12, "2137": "1" * 12}
    cell = only_cell(make_store(tmp_path, records, make_manifest({"k_operators": run_ids})))
    assert cell.n_text == "1 of 5"
    assert cell.shortfall == (
        "1 of 5 runs done (diverged: seed 69 at step 120; missing: seeds 666, 2137; oom: seed 420 at step 120)"
    )


def test_a_done_record_without_a_result_is_not_averaged(tmp_path):
    cell = only_cell(make_store(tmp_path, [make_record(seed=42), make_record(seed=69, result=None)]))
    assert cell.n_text == "1 of 2"
    assert "without a result: seed 69" in str(cell.shortfall)


@pytest.mark.parametrize(
    ("arms", "run_ids", "message"),
    [
        ([("one", "a" * 12), ("one", "b" * 12)], {"42": "a" * 12, "69": "b" * 12}, "seed 42"),
        ([("one", "a" * 12)], {"7": "a" * 12}, "as seed 7"),
        ([("one", "a" * 12), ("two", "a" * 12)], {"42": "a" * 12}, "more than one record"),
    ],
)
def test_a_seed_counts_once_in_a_mean_as_its_manifest_names_it(tmp_path, arms, run_ids, message):
    records = [make_record(label, 42, run_id=run_id) for label, run_id in arms]
    with pytest.raises(MixedRunsError, match=message) as caught:
        read_results(make_store(tmp_path, records, make_manifest({"one": run_ids})))
    assert all(record.file_name in str(caught.value) for record in records)
    assert caught.value.exit_code == 2


@pytest.mark.met("U9")
def test_copies_of_a_record_count_once_and_records_that_differ_are_named_by_their_files(tmp_path):
    records = [make_record(seed=42), make_record(seed=69)]
    store = make_store(tmp_path, records)
    first, copy = store.record_paths()[0], tmp_path / "runs" / "a copy.json"
    shutil.copy(first, copy)
    assert only_cell(store).n_text == "2"
    copy.write_bytes(to_bytes(records[0].model_copy(update={"error": "another"})))
    with pytest.raises(MixedRunsError) as caught:
        read_results(store)
    assert f"(a copy.json, {first.name})" in str(caught.value)
    assert store.take_record(records[0].run_id, tmp_path / "aside") is not None  # or the copy would still be recorded
    assert store.statuses() == {records[1].run_id: "done"}


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (make_record(seed=69, mode="fast"), "modes"),
        (make_record(seed=69, corpus="synthetic", entropy_rate_nats=1.0), "corpora"),
        (make_record(seed=69, context=128), "protocols"),
        (make_record(seed=69, config={**make_record().config, "training": {"n_steps": 501}}), "training.n_steps"),
    ],
)
def test_a_mean_never_mixes(tmp_path, other, word):
    records = [make_record(seed=42), other]
    with pytest.raises(MixedRunsError, match=word) as caught:
        read_results(make_store(tmp_path, records))
    assert all(record.file_name in str(caught.value) for record in records)
    assert "launch" in str(caught.value)


def test_a_field_that_an_older_record_lacks_is_no_difference(tmp_path):
    newer = make_record(seed=69)
    newer.config["model"]["added_later"] = 3
    assert only_cell(make_store(tmp_path, [make_record(seed=42), newer])).n_text == "2"


def test_one_run_may_belong_to_two_experiments(tmp_path):
    records = [make_record()]
    found = read_results(make_store(tmp_path, records, manifest_of(records, "paper"), manifest_of(records, "ablation")))
    assert [experiment.cells[0].n_text for experiment in found.experiments] == ["1", "1"]


def test_experiments_come_as_paper_matched_and_then_by_name(tmp_path):
    records = [make_record()]
    names = ["smoke", "laptop-tuning", "matched", "laptop", "paper", "ablation"]
    found = read_results(make_store(tmp_path, records, *(manifest_of(records, name) for name in names)))
    expected = ["paper", "matched", "ablation", "laptop", "laptop-tuning", "smoke"]
    assert [each.name for each in found.experiments] == expected


@pytest.mark.parametrize("name", ["../../x", "a/b", ".hidden", ""])
def test_an_experiment_name_that_is_no_plain_file_name_is_refused(tmp_path, name):
    store = make_store(tmp_path, [make_record()])
    path = store.write_manifest(make_manifest({}, "plain"))
    path.write_bytes(to_bytes(make_manifest({}, name)))  # sealed elsewhere and copied here
    with pytest.raises(MixedRunsError, match="letters, digits"):
        read_results(store)


def recheck(record: Record, **changes) -> Recheck:
    fields = {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "fingerprint": FINGERPRINT,
        "first_train_nats": [4.2],
        "equal": True,
        "environment": make_environment(),
    }
    return Recheck.model_validate(fields | changes)


@pytest.mark.fault("F14")
def test_a_record_by_other_sources_is_stale(tmp_path):
    old, fresh = make_record(seed=42, fingerprint="e" * 64), make_record(seed=69)
    (experiment,) = read_results(make_store(tmp_path, [old, fresh])).experiments
    assert experiment.stale == {old.run_id}


@pytest.mark.parametrize(
    ("changes", "stands"), [({}, True), ({"equal": False}, False), ({"fingerprint": "d" * 64}, False)]
)
def test_only_equal_losses_under_the_current_sources_prove_an_old_record(tmp_path, changes, stands):
    old = make_record(fingerprint="e" * 64)
    store = make_store(tmp_path, [old])
    store.write_recheck(recheck(old, **changes))
    (experiment,) = read_results(store).experiments
    assert (old.run_id not in experiment.stale) == stands


@pytest.mark.parametrize("architecture", ["gone", "../../etc/passwd"])
def test_an_architecture_without_sources_here_is_stale_and_no_crash(tmp_path, monkeypatch, architecture):
    monkeypatch.undo()
    record = make_record()
    record.config["architecture"] = architecture
    (experiment,) = read_results(make_store(tmp_path, [record])).experiments
    assert experiment.stale == {record.run_id}


def test_the_frame_has_a_row_a_run_with_every_loss_and_the_runs_without_a_record(tmp_path):
    records = [make_record(seed=42, perplexity=4.0, final=4.2, sampled=4.1), make_record(seed=69, status="failed")]
    run_ids = {str(record.seed): record.run_id for record in records} | {"420": "0" * 12}
    (results,) = read_results(make_store(tmp_path, records, make_manifest({"k_operators": run_ids}))).experiments
    done, failed, not_run = results.frame.to_dict("records")
    ended = {row["seed"]: row["status"] for row in (done, failed, not_run)}
    assert ended == {"42": "done", "69": "failed", "420": "not run"}
    losses = {column: done[column] for column in LOSSES}
    assert math.exp(losses["sweep_best_nats_per_token"]) == pytest.approx(4.0)
    assert math.exp(losses["sweep_final_nats_per_token"]) == pytest.approx(4.2)
    assert math.exp(losses["sampled_best_nats_per_token"]) == pytest.approx(4.1)
    assert None not in losses.values()
    assert all(failed[column] is None for column in LOSSES)
    assert done["n_params"] == records[0].cost.parameters.n_params
    assert not_run["n_params"] is None


@pytest.mark.fault("F12")
def test_any_part_of_a_grid_aggregates_to_its_own_count(tmp_path):
    rng = random.Random(0)
    records = [make_record(label, seed) for label in ("a", "b") for seed in range(5)]
    for trial in range(10):
        there = [record for record in records if rng.random() < 0.5]
        found = read_results(make_store(tmp_path / str(trial), there, manifest_of(records)))
        for cell in found.experiments[0].cells:
            assert len(cell.done) == sum(record.label == cell.label for record in there)
            assert len(cell.done) + len(cell.missing) == 5
