"""A launch in one mode leaves what was launched in the other, and a counted model is one run for both."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from bench.commands import run_of_cell
from bench.config import Run
from bench.errors import ConfigError
from bench.experiments import find_experiment
from bench.experiments.grid import Experiment
from bench.record import Manifest
from bench.repeat import run_of
from bench.report.claims.registered import rules_sha256
from bench.store import Store
from jobs.app import app
from jobs.launch import Todo, find_todo, write_plan
from jobs.layout import CANCEL_FILE
from jobs.worker import find_run
from tests.command_line import call
from tests.records import make_record
from tests.tiny import counted_cell, tiny_cell
from tests.watched import record_run

pytestmark = pytest.mark.usefixtures("no_scheduler")


def asked(mode: str = "exact", seeds: tuple[int, ...] = (42,), name: str = "paper") -> Experiment:
    """A trained arm and a counted one."""
    return Experiment(name=name, question="?", cells=(tiny_cell("tiny", seeds), counted_cell()), mode=mode)  # type: ignore[arg-type]


def launch(store: Store, experiment: Experiment) -> Todo:
    """All of a launch but the training."""
    todo = find_todo(experiment, store, pattern=None, retry=None)
    write_plan(experiment, store, todo, any_sources=True)
    return todo


def written(store: Store, mode: str) -> Manifest:
    return next(one for one in store.manifests()[0] if one.mode == mode)


def seeds_of(manifest: Manifest) -> list[str]:
    return list(manifest.cells[0].run_ids)


def test_a_counted_model_is_the_same_run_in_both_modes_and_a_trained_one_is_not():
    exact, fast = (find_experiment("paper").on(corpus=None, mode=mode, seeds=None) for mode in ("exact", "fast"))
    for before, after in zip(exact.manifest().cells, fast.manifest().cells, strict=True):
        assert (before.run_ids == after.run_ids) == ("fitted" in before.run_ids), before.label
    assert fast.manifest().mode == "fast"
    assert {(run.seed is None, run.mode) for run in fast.runs()} == {(True, "exact"), (False, "fast")}
    unigram = next(cell for cell in fast.manifest().cells if cell.label == "unigram")
    assert unigram.run_ids == {"fitted": "e52b72e02c22"}  # that of the committed record


def test_a_counted_model_in_fast_mode_is_refused():
    config = find_experiment("paper").cells[-1].config
    with pytest.raises(ValueError, match=r"mode='fast': 'kneser_ney' is counted.*leave --mode out"):
        Run(label="kneser_ney", config=config, seed=None, mode="fast")


def test_on_a_gpu_a_counted_model_is_run_without_a_mode_of_its_own_and_a_trained_one_in_fast():
    gpu = torch.device("cuda")
    assert run_of_cell("paper", "unigram", [], None, None, gpu).mode == "exact"
    assert run_of_cell("paper", "k_operators", [], 42, None, gpu).mode == "fast"
    with pytest.raises(ConfigError, match="leave --mode out"):
        run_of_cell("paper", "unigram", [], None, "fast", gpu)


def test_an_older_record_of_a_counted_model_in_fast_mode_can_still_be_run_again():
    config = json.loads(json.dumps(dataclasses.asdict(find_experiment("paper").cells[3].config)))
    older = make_record("unigram", None, mode="fast", config=config)
    assert run_of(older).run_id == "e52b72e02c22"


def test_a_launch_of_fast_fits_the_counted_model_once_for_both_modes(tmp_path):
    store = Store(tmp_path)
    (counted,) = [run for run in launch(store, asked("fast")).runs if run.seed is None]
    assert find_run(counted.run_id, store).mode == "exact"
    record_run(store, counted)
    assert [run.label for run in launch(store, asked("exact")).runs] == ["tiny"]
    assert [run.label for run in launch(store, asked("fast")).runs] == ["tiny"]


def test_a_relaunch_adds_seeds_and_keeps_the_hash_of_the_rules_that_held_at_the_first(tmp_path):
    store = Store(tmp_path)
    path = store.write_manifest(asked().manifest().model_copy(update={"claim_rules_sha256": "a" * 64}))
    launch(store, asked("exact", (69,)))
    again = written(store, "exact")
    assert (seeds_of(again), again.claim_rules_sha256) == (["42", "69"], "a" * 64)
    before = path.read_bytes(), path.stat().st_mtime_ns
    launch(store, asked())  # which adds nothing
    launch(store, asked("fast", (42, 420)))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    fast = written(store, "fast")  # a first launch, of that mode
    assert (seeds_of(fast), fast.claim_rules_sha256) == (["42", "420"], rules_sha256())


def test_a_relaunch_may_add_an_arm(tmp_path):
    store = Store(tmp_path)
    launch(store, asked())
    more = dataclasses.replace(asked(), cells=(*asked().cells, tiny_cell("other")))
    launch(store, more)
    assert [cell.label for cell in written(store, "exact").cells] == ["tiny", "unigram", "other"]


@pytest.fixture
def both(tmp_path) -> Store:
    """An experiment that was launched in both modes; its counted model is done, and one run of `fast` failed."""
    store = Store(tmp_path / "store")
    launch(store, asked("exact", (42, 69)))
    for run in launch(store, asked("fast", (42,))).runs:
        record_run(store, run, status="done" if run.seed is None else "failed")
    return store


def run_id_of(store: Store, mode: str, seed: str = "42") -> str:
    return written(store, mode).cells[0].run_ids[seed]


def test_status_lists_the_runs_of_both_modes_and_a_counted_model_once(both, capsys):
    assert call(app, "status", "--store", both.root) == 3
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [line[:3] for line in lines] == [
        ["paper,", "exact", "tiny-s42"],
        ["paper,", "exact", "tiny-s69"],
        ["paper,", "exact", "unigram-fitted"],
        ["paper,", "fast", "tiny-s42"],
    ]
    assert call(app, "status", "--store", both.root, "--experiment", "paper", "--json") == 3
    listed = json.loads(capsys.readouterr().out)
    assert {one["experiment"] for one in listed} == {"paper"}
    counted = written(both, "exact").cells[1].run_ids["fitted"]
    assert [(one["mode"], one["run_id"], one["state"]) for one in listed] == [
        ("exact", run_id_of(both, "exact"), "missing"),
        ("exact", run_id_of(both, "exact", "69"), "missing"),
        ("exact", counted, "done"),
        ("fast", run_id_of(both, "fast"), "failed"),
    ]


def test_a_name_that_is_a_run_of_each_mode_is_refused_with_both_ids_and_modes(both, capsys):
    assert call(app, "why", "tiny-s42", "--store", both.root) == 2
    said = capsys.readouterr().err
    for mode in ("exact", "fast"):
        assert f"{run_id_of(both, mode)} (tiny-s42, mode {mode})" in said


def test_why_and_retry_name_the_mode_to_launch_in(both, capsys):
    exact, fast = (run_id_of(both, mode) for mode in ("exact", "fast"))
    assert call(app, "why", exact, "--store", both.root) == 0
    assert "python -m jobs launch --experiment paper --mode exact --store" in capsys.readouterr().out
    assert call(app, "why", fast, "--store", both.root) == 0
    assert f"python -m jobs retry {fast} --store" in capsys.readouterr().out


def test_cancelling_an_experiment_cancels_the_runs_of_both_modes(both, capsys):
    for path in both.record_paths():
        path.unlink()
    assert call(app, "cancel", "--experiment", "paper", "--store", both.root) == 0
    every = {run_id for one in both.manifests()[0] for cell in one.cells for run_id in cell.run_ids.values()}
    assert len(every) == 4
    assert all((both.run_folder(run_id) / CANCEL_FILE).exists() for run_id in every)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_retry_in_one_mode_says_how_to_launch_that_mode(both, capsys, monkeypatch):
    fast, config = run_id_of(both, "fast"), tiny_cell("tiny").config
    (failed,) = [path for path in both.record_paths() if fast in path.name]
    failed.unlink()
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    both.write_record(make_record("tiny", 42, run_id=fast, mode="fast", status="failed", config=plain))
    monkeypatch.setattr("jobs.grid.fingerprint", lambda _: "0" * 64)
    assert call(app, "retry", fast, "--store", both.root) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == [f"python -m jobs launch --experiment paper --mode fast --store {both.root}"]


def test_with_one_mode_no_command_names_it(tmp_path: Path, capsys):
    store = Store(tmp_path / "store")
    launch(store, asked("exact", (42,), name="smoke"))
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    assert f"python -m jobs launch --experiment smoke --store {store.root}" in capsys.readouterr().out
    call(app, "status", "--store", store.root)
    assert "smoke," not in capsys.readouterr().out
