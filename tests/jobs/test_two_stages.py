"""Both stages of a search and `matched`, trained at smoke size into one store: records alone choose."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bench.config import Run, RunConfig, read_config
from bench.corpus import Corpus
from bench.errors import ConfigError
from bench.experiments import find_experiment, search
from bench.experiments.grid import Experiment
from bench.experiments.recipes import changed
from bench.experiments.search import Recorded, points, with_point
from bench.record import Manifest, Record
from bench.run import execute
from bench.store import Store
from jobs.app import app
from jobs.launch import Todo, write_plan
from jobs.local import Ended, LocalPool
from jobs.slurm.arrays import submit_missing
from tests.command_line import call
from tests.conftest import SELDOM, tiny_config
from tests.records import make_record
from tests.searching import Made, by_number
from tests.sites import forget_site
from tests.stores import table_of
from tests.tiny import request_of

FAMILIES = ("k_operators", "transformer", "lstm")
SEEDS = (1000, 1001, 1002)
N_TRIALS = 6  # of the twenty
TIE = ("lstm-t02", "lstm-t04")  # equal on every seed, and better than any other
DIVERGED = "transformer-t05"


def small_arm(family: str, axis: str = "params") -> RunConfig:
    """An arm of `matched` at smoke size."""
    config = tiny_config(family, n_sampled_batches=1, n_steps=4, eval_every=4)
    width = {"params": 8, "live": 12, "flops": 16}[axis]
    return config if axis == "params" else changed(config, model={"d_model": width})


def altered(record: Record) -> Record:
    """The record of a run, with a tie or without a result where the test needs one."""
    if record.label == DIVERGED:
        changes = {"status": "diverged", "stopped_at_step": 2, "error": "the loss is not finite", "result": None}
        return record.model_copy(update=changes)
    if record.label in TIE:
        plain = record.model_dump()
        plain["result"]["sweep"]["best"]["nats_per_token"] = 0.5
        return Record.model_validate(plain)
    return record


@pytest.fixture
def at_smoke_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, corpus: Corpus) -> None:
    """Three families with tiny models and few trials and seeds, trained in this process."""

    def run_all(pool: LocalPool, runs: list[Run], _: Callable[..., None]) -> list[Ended]:
        ended = []
        for run in runs:
            record = altered(execute(run, Store(tmp_path / "scratch"), SELDOM))
            pool.store.write_record(record)
            ended.append(Ended(run=run, status=record.status, reason=""))
        return ended

    module = import_module("bench.experiments.matched")  # the package has a function of this name
    monkeypatch.setattr(module, "FAMILIES", FAMILIES)
    monkeypatch.setattr(module, "arm", small_arm)
    monkeypatch.setattr(module, "REPORTING_SEEDS", (42, 69))
    monkeypatch.setattr(search, "points", lambda: points()[:N_TRIALS])
    monkeypatch.setattr("bench.run.load_corpus", lambda *_: corpus)
    monkeypatch.setattr("bench.run.portable_losses", lambda *_: nullcontext(list))
    monkeypatch.setattr(LocalPool, "run", run_all)


def launch(store: Store, name: str, *options: str) -> int:
    return call(app, "launch", "--experiment", name, "--store", store.root, "--device", "cpu", *options)


def manifest_in(store: Store, name: str) -> Manifest:
    return next(one for one in store.manifests()[0] if one.name == name)


def losses_in(store: Store) -> dict[tuple[str, int], float]:
    """Best sweep losses as the files have them, by label and seed; infinite for a diverged run."""
    found = {}
    for path in (store.root / "runs").glob("*.json"):
        record: dict[str, Any] = json.loads(path.read_bytes())
        diverged = record["status"] == "diverged"
        nats = math.inf if diverged else record["result"]["sweep"]["best"]["nats_per_token"]
        found[record["label"], record["seed"]] = nats
    return found


def chosen(losses: dict[tuple[str, int], float], family: str) -> tuple[list[str], str]:
    """The finalists of a family, best first, and its winner, recomputed from the losses of the files."""
    trials = [f"{family}-t{i:02d}" for i in range(N_TRIALS)]
    finalists = sorted(trials, key=lambda label: (losses[label, 1000], label))[:3]
    return finalists, min(sorted(finalists), key=lambda label: sum(losses[label, seed] for seed in SEEDS))


@pytest.mark.usefixtures("at_smoke_size", "no_probe")
def test_a_launch_goes_through_both_stages_and_matched_takes_the_winners(tmp_path, capsys):
    store = Store(tmp_path / "store")
    assert launch(store, "matched") == 2
    refused = capsys.readouterr().err
    assert "k_operators lacks 6 runs of stage 1" in refused
    assert f"python -m jobs launch --experiment tuning --store {store.root}" in refused

    assert launch(store, "tuning", "-k", "k_operators") == 0  # one family goes through both stages by itself
    assert {label for label, _ in losses_in(store)} == {f"k_operators-t{i:02d}" for i in range(N_TRIALS)}
    assert len(losses_in(store)) == N_TRIALS + 6
    assert "Stage 1 lacks 18 runs: k_operators-t00-s1000 (missing)" in capsys.readouterr().out
    assert launch(store, "matched") == 2
    assert "transformer lacks 6 runs of stage 1; lstm" in capsys.readouterr().err

    assert launch(store, "tuning") == 0
    losses = losses_in(store)
    assert len(losses) == 3 * (N_TRIALS + 6)
    picked = {family: chosen(losses, family) for family in FAMILIES}
    for family, (finalists, _) in picked.items():
        assert {label for label, seed in losses if label.startswith(family) and seed > 1000} == set(finalists)
    assert picked["lstm"][0][:2] == ["lstm-t02", "lstm-t04"]
    assert picked["lstm"][1] == "lstm-t02"  # of a tie the lower number
    assert losses[DIVERGED, 1000] == math.inf
    assert DIVERGED not in picked["transformer"][0]

    assert launch(store, "tuning") == 0
    assert losses_in(store) == losses  # nothing is left to do

    assert launch(store, "matched") == 0
    assert "choose otherwise" not in capsys.readouterr().out
    check_matched(store, picked)
    check_manifests(store, picked)
    for name in ("tuning", "matched"):  # the reports choose from the records by themselves
        rows = table_of(store, "search", name).rows
        assert {row[0]: row[4] for row in rows} == {family: winner for family, (_, winner) in picked.items()}
        assert {row[2] for row in rows} == {"12"}


def check_matched(store: Store, picked: dict[str, tuple[list[str], str]]) -> None:
    """Every run of `matched` has the recipe of the winner of its family."""
    recipes = {}
    for record in store.records()[0]:
        if record.seed is not None and record.seed < 1000:
            recipes[record.label] = read_config(record.config)
    assert len(recipes) == 5
    for label, config in recipes.items():
        family, _, axis = label.partition("-")
        number = int(picked[family][1][-2:])
        assert config == with_point(small_arm(family, axis or "params"), points()[number])


def check_manifests(store: Store, picked: dict[str, tuple[list[str], str]]) -> None:
    """Manifests name the runs whose records chose."""
    named = {(one.label, one.seed): one.run_id for one in store.records()[0]}
    stage_1 = {family: [named[f"{family}-t{i:02d}", 1000] for i in range(N_TRIALS)] for family in FAMILIES}
    assert manifest_in(store, "tuning").chosen_by == stage_1
    by_family = manifest_in(store, "matched").chosen_by
    assert by_family is not None
    for family, (finalists, _) in picked.items():
        later = {named[label, seed] for label in finalists for seed in SEEDS[1:]}
        assert set(by_family[family]) == {*stage_1[family], *later}


@pytest.mark.usefixtures("at_smoke_size", "no_probe")
def test_a_failed_trial_keeps_stage_2_waiting_until_it_is_tried_again(tmp_path, capsys):
    store = Store(tmp_path / "store")
    assert launch(store, "tuning", "-k", "lstm") == 0
    trial = next(one for one in store.records()[0] if one.label == "lstm-t02" and one.seed == 1000)
    store.take_record(trial.run_id, tmp_path / "aside")
    changes = {"status": "failed", "stopped_at_step": 2, "error": "disk full", "result": None}
    store.write_record(trial.model_copy(update=changes))
    with pytest.raises(ConfigError, match=re.escape("lstm-t02-s1000 (failed), ")) as refused:
        find_experiment("matched", Recorded(store))
    assert f"--retry failed --store {store.root}" in str(refused.value)
    assert launch(store, "tuning", "-k", "lstm") == 1
    assert len([one for one in capsys.readouterr().out.splitlines() if one.startswith("lstm-t02-s1000: failed")]) == 1


@pytest.mark.usefixtures("at_smoke_size", "no_probe")
def test_a_dry_run_lists_the_stage_at_hand(tmp_path, capsys):
    assert launch(Store(tmp_path / "store"), "tuning", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "18 of 18 runs to do" in out
    assert out.count("Experiment tuning") == 1
    assert not (tmp_path / "store").exists()


def test_a_winner_that_changed_since_the_last_launch_is_reported(tmp_path, capsys):
    def of(best: str) -> Experiment:
        return find_experiment("matched", Made(lambda label, _: 1.0 if label == best else by_number(label, 0)))

    store, todo = Store(tmp_path / "store"), Todo(selected=[], runs=[], statuses={})
    write_plan(of("lstm-t04"), store, todo, any_sources=False)
    write_plan(of("lstm-t04"), store, todo, any_sources=False)
    assert capsys.readouterr().out == ""
    write_plan(of("lstm-t05"), store, todo, any_sources=False)
    assert capsys.readouterr().out.endswith("choose otherwise; other configs have lstm-params\n")


def test_on_slurm_stage_2_follows_when_the_same_command_is_given_again(tmp_path, monkeypatch, capsys):
    forget_site(monkeypatch, tmp_path)
    monkeypatch.setattr("jobs.slurm.arrays.tasks_by_run", lambda _: {})
    submit_missing(find_experiment("tuning"), Store(tmp_path / "store"), request_of(), rehearse=True)
    out = capsys.readouterr().out
    assert "Stage 1 lacks 120 runs" in out
    assert "on SLURM when this command is given again" in out


def test_choices_are_made_from_records_of_one_mode(tmp_path):
    store = Store(tmp_path / "store")
    (cell, *_) = find_experiment("tuning").cells
    run = cell.run(1000, "exact")
    plain = dataclasses.asdict(run.config)
    store.write_record(make_record(cell.label, 1000, 4.0, run_id=run.run_id, config=plain))
    assert Recorded(store, "exact").nats(cell, 1000) == pytest.approx(math.log(4.0))
    assert Recorded(store, "fast").nats(cell, 1000) is None
