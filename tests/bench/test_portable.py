"""First losses under portable settings are the same on every x86 CPU: on this one, those that another one committed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from bench.config import Run
from bench.portable import MIN_STEPS, is_portable, n_portable_steps, portable_losses
from bench.recheck.workers import Workers
from bench.run import Settings, execute
from bench.sources import ROOT
from bench.store import Store
from bench.train import N_FIRST
from tests.conftest import TINY_MODELS
from tests.tiny import tiny_runs

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "portable_first_losses.json").read_text(encoding="utf-8"))
pytestmark = pytest.mark.skipif(not is_portable(), reason="portable settings are those of x86 CPUs")


def long_run(architecture: str = "k_operators", n_steps: int = MIN_STEPS) -> Run:
    (run,) = tiny_runs(n_steps=n_steps, eval_every=n_steps)
    config = dataclasses.replace(run.config, architecture=architecture, model=TINY_MODELS[architecture])
    return dataclasses.replace(run, config=config)


@pytest.mark.parametrize("architecture", GOLDEN["nats"])
def test_the_losses_are_those_of_another_cpu_bit_for_bit(architecture):
    with portable_losses(long_run(architecture), None) as losses:
        assert losses() == GOLDEN["nats"][architecture]


def test_a_run_keeps_its_portable_losses_and_they_differ_from_its_own(tmp_path):
    record = execute(long_run(), Store(tmp_path), Settings(device=torch.device("cpu"), n_threads=1))
    assert record.diagnostics.first_portable_train_nats == GOLDEN["nats"]["k_operators"]
    assert record.diagnostics.first_train_nats == pytest.approx(GOLDEN["nats"]["k_operators"], rel=1e-5)


def test_a_short_run_and_a_large_model_have_fewer():
    run = long_run()
    assert n_portable_steps(run) == N_FIRST == 20
    short = dataclasses.replace(run.config.training, n_steps=MIN_STEPS - 1)
    assert n_portable_steps(dataclasses.replace(run, config=dataclasses.replace(run.config, training=short))) == 0
    wide = dataclasses.replace(run.config.model, d_model=256, n_k2=12, rank=64)
    large = dataclasses.replace(
        run.config, model=wide, training=dataclasses.replace(run.config.training, batch_size=2**14)
    )
    assert n_portable_steps(dataclasses.replace(run, config=large)) == 1


def test_a_process_that_ends_leaves_none_and_says_why(capsys, monkeypatch):
    monkeypatch.setattr("bench.portable.SETTINGS", {"PYTHONHOME": "/nowhere"})
    with portable_losses(long_run(), None) as losses:
        assert losses() == []
    assert "no portable losses: the process ended" in capsys.readouterr().out


def test_a_run_that_ends_early_does_not_wait():
    with portable_losses(long_run(n_steps=10_000), None) as losses:
        pass
    assert losses() == []


def test_other_settings_need_another_process():
    workers = Workers()
    question = {"run": None, "device": "cpu", "n_threads": 1, "n_steps": 1, "data_dir": None}
    try:
        pids = []
        for settings in ({}, {"A": "1"}, {"A": "1"}):
            with pytest.raises(Exception, match="TypeError"):
                workers.ask(ROOT, question, settings)
            pids.append(workers._child.pid)
    finally:
        workers.close()
    assert pids[0] != pids[1] == pids[2]
