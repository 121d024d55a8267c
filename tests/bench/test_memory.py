"""A model that cannot fit is refused before anything is allocated; one that does not fit after all leaves a record."""

import time
from unittest.mock import Mock

import pytest

from bench.app import app
from bench.errors import ConfigError
from bench.memory import BYTES_PER_PARAMETER, check_memory
from bench.run import execute
from bench.store import Store
from models import ARCHITECTURES, build
from tests.command_line import mistake
from tests.conftest import CPU, SELDOM, TINY_MODELS, tiny_config

RUN = ("run", "--experiment", "smoke", "--seed", 42, "--device", "cpu")
NO_MEMORY = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64000000000 bytes")


@pytest.mark.met("U3")
@pytest.mark.parametrize(
    ("cell", "setting", "reason"),
    [
        ("k_operators", "model.rank=1000000000", "take 1,056,000,159,824 bytes"),
        ("k_operators", "model.context=10000000", "take 3,200,000,000,131,280 bytes"),
        ("k_operators", "model.d_model=1000000", "bytes with their gradients and optimizer state"),
        ("k_operators", "model.d_model=2000000000", "cannot exist"),
        ("k_operators", "model.n_k2=1000000", "model.n_k2=1000000 must be at most 10,000"),
        ("transformer", "model.d_model=1000000", "bytes with their gradients and optimizer state"),
        ("transformer", "model.n_layers=20000", "model.n_layers=20000 must be at most 10,000"),
    ],
)
def test_a_size_that_cannot_exist_is_refused_in_a_line_with_its_bytes(cell, setting, reason, tmp_path, capsys):
    started = time.monotonic()
    line = mistake(capsys, app, *RUN, "--cell", cell, "--set", setting, "--store", tmp_path)
    assert reason in line
    assert time.monotonic() - started < 30, "something was allocated"
    assert not Store(tmp_path).record_paths()


@pytest.mark.met("U3")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_bytes_are_those_of_the_parameters_their_gradients_and_two_moments(architecture, monkeypatch):
    config = tiny_config(architecture)
    n_params = sum(parameter.numel() for parameter in build(TINY_MODELS[architecture]).parameters())
    monkeypatch.setattr("bench.memory.SURELY_FITS", 0)
    monkeypatch.setattr("bench.memory.host_bytes", lambda: BYTES_PER_PARAMETER * n_params)
    check_memory(config, CPU)
    monkeypatch.setattr("bench.memory.host_bytes", lambda: BYTES_PER_PARAMETER * n_params - 1)
    with pytest.raises(ConfigError, match=f"{n_params:,} parameters"):
        check_memory(config, CPU)


@pytest.mark.met("U3")
@pytest.mark.parametrize("builder", ["bench.recording.build", "bench.train.build"])
@pytest.mark.usefixtures("on_little_text")
def test_out_of_memory_while_a_model_is_built_is_in_the_record(builder, tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(), Store(tmp_path)
    with monkeypatch.context() as patches:
        patches.setattr(builder, Mock(side_effect=[NO_MEMORY, *[build(run.config.model)] * 2]))
        finished = execute(run, store, SELDOM)
    assert (finished.status, finished.stopped_at_step, finished.curve) == ("oom", 0, [])
    assert "64000000000 bytes" in (finished.error or "")
    assert finished.cost.parameters == execute(run, Store(tmp_path / "again"), SELDOM).cost.parameters
    assert store.statuses() == {run.run_id: "oom"}


@pytest.mark.met("U3")
@pytest.mark.usefixtures("on_little_text")
def test_out_of_memory_in_a_command_without_a_record_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bench.profile.profile_step", Mock(side_effect=NO_MEMORY))
    line = mistake(capsys, app, "profile", "--experiment", "smoke", "--cell", "transformer", code=1)
    assert "64000000000 bytes" in line
    assert "choose smaller sizes" in line
