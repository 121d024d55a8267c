"""`bench export` has each number of the records once, in long form, as CSV and as JSON."""

import csv
import io
import json

import pytest

from bench.app import app
from bench.record import Attempt
from bench.store import Store
from tests.command_line import call, mistake
from tests.records import make_record, manifest_of
from tests.stores import make_store
from tests.trained import make_run


@pytest.fixture
def store(tmp_path) -> Store:
    """Two trained runs, one of which belongs to an experiment, and a fitted one."""
    runs = [make_run("k_operators", 42), make_run("k_operators", 69), make_record("unigram", None)]
    store = make_store(tmp_path / "store", runs)
    store.write_manifest(manifest_of(runs[:1], "paper"))
    return store


def exported(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, str]]:
    assert call(app, "export", *words) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_row_has_one_number_of_a_run_and_every_number_of_its_curve_has_a_row(store, capsys):
    rows = exported(capsys, "--store", store.root)
    records = {record.run_id: record for record in store.records()[0]}
    assert {row["run_id"] for row in rows} == set(records)
    keys = [(row["run_id"], row["quantity"], row["step"]) for row in rows]
    assert len(set(keys)) == len(keys)
    values = dict(zip(keys, (float(row["value"]) for row in rows), strict=True))
    for run_id, record in records.items():
        assert record.result is not None
        for one in record.curve:
            assert values[run_id, "val_nats_per_token", str(one.step)] == one.val_nats_per_token
        best = record.result.sweep.best
        assert values[run_id, "sweep_best_nats_per_token", str(best.step)] == best.nats_per_token
        assert values[run_id, "n_params", ""] == record.cost.parameters.n_params
        for step, readings in record.diagnostics.by_step.items():
            for name, value in readings.items():
                if name == "eta":
                    assert values[run_id, "eta", str(step)] == value
                elif name == "alpha":
                    assert [values[run_id, f"alpha.{i}", str(step)] for i in range(len(value))] == value


def test_an_experiment_or_single_records_can_be_chosen_and_json_has_the_same_rows(store, capsys):
    [of_paper] = {row["run_id"] for row in exported(capsys, "--store", store.root, "--experiment", "paper")}
    [path] = store.files_of(of_paper)
    rows = exported(capsys, path)
    assert {row["run_id"] for row in rows} == {of_paper}
    assert call(app, "export", path, "--format", "json") == 0
    as_json = json.loads(capsys.readouterr().out)
    assert [[str(one["step"] or ""), one["value"]] for one in as_json] == [
        ["" if row["step"] in ("", "0") else row["step"], float(row["value"])] for row in rows
    ]
    assert as_json[0].keys() == rows[0].keys()


def test_what_cannot_be_exported_is_refused_in_a_line(store, tmp_path, capsys):
    assert "csv and json" in mistake(capsys, app, "export", "--store", store.root, "--format", "xml")
    assert "it has: laptop, paper" in mistake(capsys, app, "export", "--store", store.root, "--experiment", "none")
    assert "not both" in mistake(capsys, app, "export", "a.json", "--experiment", "paper")
    assert "a.json" in mistake(capsys, app, "export", tmp_path / "a.json", code=1)


def test_times_of_a_run_that_shared_its_gpu_are_left_out(tmp_path, capsys):
    alone = make_run("k_operators", 42)
    attempt = {"started_at": "", "first_step": 0, "last_step": 3500, "train_seconds": 9.0, "runs_per_gpu": 3}
    attempts = [Attempt.model_validate(attempt | {"environment": alone.environment})]
    store = make_store(tmp_path, [alone.model_copy(update={"attempts": attempts})])
    quantities = {row["quantity"] for row in exported(capsys, "--store", store.root)}
    assert "n_params" in quantities
    assert not quantities & {"train_seconds", "tokens_per_second"}
