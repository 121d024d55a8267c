"""A step is compiled once for all slots, launches and seeds: what one worker made, the next finds."""

import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.config import Run
from bench.experiments import find_experiment, smoke
from bench.experiments.recipes import changed
from bench.store import Store
from jobs.cache import CACHE_DIR_VARIABLE, FOLDER_NAME, UNUSED_DAYS, cache_environment, compile_cache
from jobs.control import leftovers, remove
from jobs.local import LocalPool
from jobs.queue import step_key
from jobs.slots import Slot
from tests.command_line import start_python
from tests.compiling import write_runs

COMPILE_SECONDS = 1800  # of a test that does: some minutes on a busy machine
SLOT = Slot(device="cuda", n_threads=1, kind="nvidia-h200")

pytestmark = pytest.mark.usefixtures("cache")


def small(run: Run) -> Run:
    """A run of K-Operators in `fast` mode, so small that its step compiles in seconds."""
    model = {"d_model": 8, "rank": 2, "n_k2": 1, "context": 16}
    config = changed(run.config, model=model, batch_size=2, warmup_steps=0)
    return dataclasses.replace(run, config=dataclasses.replace(config, corpus="synthetic"), mode="fast")


def compiling(path: Path) -> "subprocess.Popen[str]":
    """A process that compiles the runs of a file, with the cache of this test."""
    return start_python("-W", "ignore", "-m", "tests.compiling", path, env={**os.environ, **cache_environment("cpu")})


def counted(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it counted."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def test_every_slot_store_and_launch_has_the_same_cache(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/another")
    environments: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda _, *, env, **__: environments.append(env))
    for name in ("one", "other"):
        pool = LocalPool(Store(tmp_path / name), [SLOT, SLOT])
        for index, run in enumerate(smoke().runs()[:2]):
            pool.start(index, run)
    assert len(environments) == 4
    folder = compile_cache(SLOT.kind)
    assert folder.parent == cache
    for environment in environments:
        assert environment["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "inductor")
        assert environment["TRITON_CACHE_DIR"] == str(folder / "triton")
        assert environment["TORCHINDUCTOR_FX_GRAPH_CACHE"] == environment["TORCHINDUCTOR_AUTOGRAD_CACHE"] == "1"
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/tmp/another"


def test_each_torch_version_and_kind_of_device_has_a_folder_of_its_own(monkeypatch):
    folders = [compile_cache("nvidia-h200"), compile_cache("nvidia-a100-sxm4-80gb")]
    monkeypatch.setattr("torch.__version__", "2.11.0+cu130")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    folders.append(compile_cache("nvidia-h200"))
    assert folders[-1].name == "torch-2.11.0-cuda-13.0-nvidia-h200"
    assert len(set(folders)) == 3
    assert all(FOLDER_NAME.fullmatch(folder.name) for folder in folders)


def test_the_cache_lies_beside_the_corpora_where_none_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_DIR_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert compile_cache("cpu").parent == tmp_path / "xdg" / "k-operators-bench" / "compiled"


def test_runs_on_the_cpu_need_no_cache(cache, tmp_path):
    LocalPool(Store(tmp_path / "store"), [Slot(device="cpu", n_threads=1)])
    assert not cache.exists()


def test_gc_removes_what_no_launch_has_used_for_a_month_and_no_other_folder(cache, tmp_path):
    recent, old = compile_cache("nvidia-h200"), compile_cache("nvidia-a100")
    strange = cache / "My Documents"
    strange.mkdir()
    for folder in (recent, old, strange):
        (folder / "file").write_bytes(b"x" * 1000)
    long_ago = time.time() - 86400 * (UNUSED_DAYS + 1)
    for folder in (old, strange):
        os.utime(folder, (long_ago, long_ago))
    found = leftovers(Store(tmp_path / "store"))
    assert [(one.path, one.n_files, one.n_bytes) for one in found] == [(old, 1, 1000)]
    remove(found)
    assert sorted(cache.iterdir()) == sorted([recent, strange])
    os.utime(recent, (long_ago, long_ago))
    compile_cache("nvidia-h200")  # a launch uses it
    assert leftovers(Store(tmp_path / "store")) == []


def test_runs_that_differ_in_rates_schedule_or_seed_have_one_compiled_step():
    runs = find_experiment("stress").on(corpus=None, mode="fast", seeds=(42, 69)).runs()
    assert len({run.config.training for run in runs}) == 4
    assert len({step_key(run, SLOT) for run in runs}) == 3  # refine, plain, frozen
    assert {step_key(dataclasses.replace(run, mode="exact"), SLOT) for run in runs} == {None}
    other = {"betas": (0.5, 0.6), "weight_decay": 0.5, "schedule": "nanogpt", "n_steps": 9999, "clip_norm": 7.0}
    for name, value in {**other, "batch_size": 128}.items():
        config = changed(runs[0].config, **{name: value})
        same = step_key(dataclasses.replace(runs[0], config=config), SLOT) == step_key(runs[0], SLOT)
        assert same == (name in other)


@pytest.mark.slow
@pytest.mark.timeout(COMPILE_SECONDS)
def test_all_of_stress_at_two_seeds_compiles_three_steps_one_a_shape(tmp_path):
    """Nothing that differs among learning rates and seeds is a constant of the graph: it would miss the cache."""
    runs = [small(run) for run in find_experiment("stress").on(corpus=None, mode="fast", seeds=(42, 69)).runs()]
    shapes = {step_key(run, SLOT) for run in runs}
    assert (len(runs), len(shapes)) == (24, 3)
    found = counted(compiling(write_runs(tmp_path / "runs.json", runs)))
    assert (found["autograd_misses"], found["autograd_hits"], found["autograd_bypasses"]) == (3, 21, 0)
    assert (found["graph_misses"], found["graph_hits"], found["graph_bypasses"]) == (6, 42, 0)  # forward and backward
    for shape in shapes:  # each rate and seed has its own numbers all the same
        nats = [one for one, run in zip(found["nats"], runs, strict=True) if step_key(run, SLOT) == shape]
        assert len(set(nats)) == len(nats) == 8


@pytest.mark.slow
@pytest.mark.timeout(COMPILE_SECONDS)
def test_two_workers_that_compile_the_same_step_at_once_harm_nothing_and_a_third_finds_it(tmp_path):
    run = small(find_experiment("stress").on(corpus=None, mode="fast", seeds=(42,)).runs()[4])
    path = write_runs(tmp_path / "runs.json", [run])
    pair = [compiling(path), compiling(path)]
    first, second = (counted(one) for one in pair)
    third = counted(compiling(path))
    assert first["nats"] == second["nats"] == third["nats"]
    assert (third["autograd_hits"], third["autograd_misses"]) == (1, 0)
    assert (third["graph_hits"], third["graph_misses"]) == (2, 0)
    assert max(first["autograd_misses"], second["autograd_misses"]) == 1  # the cache was empty
