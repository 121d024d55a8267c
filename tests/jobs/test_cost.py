"""The time of runs is estimated from what was measured before, without training, and each estimate names its source."""

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.config import Run, RunConfig, TrainingConfig, to_json
from bench.experiments import backends, find_experiment
from bench.experiments.grid import REPORTING_SEEDS
from bench.experiments.laptop import laptop_arm
from bench.experiments.matched import arm
from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, changed
from bench.sources import ROOT
from bench.store import Store
from bench.train import Trainer
from bench.workload import n_evaluated_tokens, step_flops
from jobs import launch as launching
from jobs.app import app
from jobs.cost import (
    COMPILE_SECONDS,
    EVALUATION_SHARE,
    START_SECONDS,
    Estimate,
    known_estimates,
)
from jobs.launch import find_estimates, list_grid, total
from jobs.slots import Slot
from jobs.slurm import arrays as slurm
from jobs.slurm.task import note_seconds
from jobs.speeds import Platform
from tests import measurements
from tests.command_line import call
from tests.records import COST, make_environment, make_record
from tests.tiny import request_of, submission_of

HERE = Platform(device="cpu", n_threads=1, name="Plain CPU")
GPU = Platform(device="cuda", n_threads=1, name="Plain GPU")
COMMITTED = Store(ROOT / "results")


def a_run(config: RunConfig = K_OPERATORS_PAPER, seed: int = 1, mode: Any = "exact") -> Run:
    return Run(label="asked", config=config, seed=seed, mode=mode)


def recorded(
    store: Store,
    config: RunConfig = K_OPERATORS_PAPER,
    *,
    train_seconds: float,
    device: str = "cpu",
    name: str = "",
    n_threads: int = 1,
    runs_per_gpu: int | None = None,
    **changes: Any,
) -> None:
    """Put a record of a run into a store, made where `HERE` or `GPU` is unless said otherwise."""
    name = name or ("Plain CPU" if device == "cpu" else "Plain GPU")
    environment = make_environment(device=device, device_name=name, n_threads=n_threads)
    training = config.training
    assert training is not None
    attempt = {
        "started_at": "2026-01-01T00:00:00",
        "first_step": 0,
        "last_step": training.n_steps,
        "train_seconds": train_seconds,
        "environment": environment,
        "runs_per_gpu": runs_per_gpu,
    }
    cost = {**COST, "train_seconds": train_seconds, "train_flops": step_flops(config) * training.n_steps}
    changes |= {"config": to_json(config), "environment": environment, "attempts": [attempt], "cost": cost}
    store.write_record(make_record(f"known-{len(store.record_paths())}", **changes))


def whole(config: RunConfig, step_seconds: float, *, mode: Any = "exact", start: float = START_SECONDS["cpu"]) -> float:
    """A run's seconds at a step of that many: its start, its steps, and the tokens it evaluates."""
    training = config.training
    assert isinstance(training, TrainingConfig)
    token = EVALUATION_SHARE[mode] * step_seconds / (training.batch_size * config.context)
    return start + training.n_steps * step_seconds + n_evaluated_tokens(config) * token


def only(runs: list[Run], stores: list[Store], place: Platform = HERE, **options: Any) -> Estimate:
    """The one estimate of several runs that all take as long."""
    [found] = set(known_estimates(runs, stores, place, **options).values())
    return found


# what a run takes, from what others took ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "source"),
    [
        ({}, "records"),
        ({"learning_rate": 1e-3, "final_learning_rate": 1e-4}, "records of the same shape"),
        ({"schedule": "nanogpt", "warmup_steps": 10, "weight_decay": 0.3}, "records of the same shape"),
        ({"n_steps": 7000}, "records of the same shape"),
        ({"eval_every": 100}, "records of the same shape"),
    ],
)
def test_a_run_that_differs_in_seed_rates_schedule_or_length_is_known_from_records(change, source, tmp_path):
    store = Store(tmp_path)
    recorded(store, train_seconds=7000.0)  # 2 s per step
    config = changed(K_OPERATORS_PAPER, **change)
    estimate = only([a_run(config, seed) for seed in REPORTING_SEEDS], [store])
    assert estimate.source == source
    assert estimate.seconds == pytest.approx(whole(config, 2.0))


def test_of_several_records_the_median_counts_and_for_a_time_limit_the_slowest(tmp_path):
    store = Store(tmp_path)
    for seconds in (3500.0, 3850.0, 7000.0):
        recorded(store, train_seconds=seconds)
    recorded(store, train_seconds=1.0, status="failed")  # which says nothing of how long a run takes
    assert only([a_run()], [store]).seconds == pytest.approx(whole(K_OPERATORS_PAPER, 1.1))
    assert only([a_run()], [store], longest=True).seconds == pytest.approx(whole(K_OPERATORS_PAPER, 2.0))


def test_records_of_this_machine_come_before_others_which_are_named(tmp_path):
    own, committed = Store(tmp_path / "own"), Store(tmp_path / "committed")
    recorded(committed, train_seconds=3500.0, name="Other CPU", n_threads=4)
    assert only([a_run()], [own, committed]).source == "records on Other CPU, 4 threads"
    recorded(committed, train_seconds=7000.0)
    assert only([a_run()], [own, committed]) == Estimate(seconds=whole(K_OPERATORS_PAPER, 2.0), source="records")
    recorded(own, train_seconds=10_500.0)
    assert only([a_run()], [own, committed]).seconds == pytest.approx(whole(K_OPERATORS_PAPER, 3.0))
    assert known_estimates([a_run()], [own, committed], GPU) == {}
    assert known_estimates([a_run(mode="fast")], [own, committed], HERE) == {}


def test_what_was_measured_on_purpose_comes_before_records(tmp_path, monkeypatch):
    store = Store(tmp_path)
    recorded(store, train_seconds=7000.0)
    monkeypatch.setattr("jobs.probe.pace", lambda *_: (1.0, 1.0))
    monkeypatch.setattr("jobs.slurm.task.run_seconds", lambda *_, **__: 123.0)
    note_seconds(a_run(), submission_of(store, (a_run().run_id,)), store)
    assert only([a_run()], [store]) == Estimate(seconds=123.0, source="measured with --measure")


def benchmark(store: Store, name: str, n_threads: int) -> None:
    """Leave a file of `make bench` in a store: half a second for a step of the paper's K-Operators."""
    training: Any = K_OPERATORS_PAPER.training
    facts: Any = {"batch_size": training.batch_size, "n_threads": n_threads, "flops": step_flops(K_OPERATORS_PAPER)}
    measurements.write(store.root, measurements.session(measurements.timed(median=0.5, **facts), device_name=name))


def test_throughput_of_this_machine_with_as_many_threads_tells_where_no_record_of_it_does(tmp_path):
    store = Store(tmp_path)
    for name, n_threads in (("Other CPU", 1), ("Plain CPU", 2)):
        benchmark(store, name, n_threads)
        assert known_estimates([a_run()], [store], HERE) == {}
    recorded(store, train_seconds=7000.0, name="Other CPU")
    benchmark(store, "Plain CPU", 1)
    assert only([a_run()], [store]) == Estimate(seconds=whole(K_OPERATORS_PAPER, 0.5), source="throughput")
    recorded(store, train_seconds=3500.0)
    assert only([a_run()], [store]).source == "records"


def test_the_committed_throughput_tells_the_time_of_the_models_that_it_measured():
    place = Platform(device="cpu", n_threads=2, name="AMD EPYC")
    mask = changed(K_OPERATORS_PAPER, model={"backend": "mask"})
    found = known_estimates([a_run(NANOGPT), a_run(mask)], [COMMITTED], place)
    assert [one.source for one in found.values()] == ["throughput", "throughput"]
    assert found[a_run(NANOGPT).run_id].seconds == pytest.approx(whole(NANOGPT, 7.555722827999489))
    assert found[a_run(mask).run_id].seconds == pytest.approx(whole(mask, 7.820952112000668))


def test_only_the_first_run_of_a_shape_compiles(tmp_path):
    store = Store(tmp_path)
    recorded(store, train_seconds=35.0, device="cuda", mode="fast", runs_per_gpu=1)
    runs = [a_run(seed=seed, mode="fast") for seed in (1, 2, 3)]
    first, *others = known_estimates(runs, [store], GPU).values()
    warm = whole(K_OPERATORS_PAPER, 0.01, mode="fast", start=START_SECONDS["cuda"])
    assert [one.seconds for one in others] == pytest.approx([warm, warm])
    assert first.seconds == pytest.approx(warm + COMPILE_SECONDS)


def test_runs_that_share_a_gpu_take_turns_on_it(tmp_path):
    store = Store(tmp_path)
    recorded(store, train_seconds=35.0, device="cuda", runs_per_gpu=1)
    recorded(store, train_seconds=70.0, device="cuda", runs_per_gpu=1)  # other programs were there, unknown to it
    shared = dataclasses.replace(GPU, runs_per_gpu=9)
    estimate = only([a_run()], [store], shared)
    assert estimate.source == "records, times 9 that share the GPU"
    assert estimate.seconds == pytest.approx(whole(K_OPERATORS_PAPER, 0.09, start=START_SECONDS["cuda"]))
    recorded(store, train_seconds=210.0, device="cuda", runs_per_gpu=9, name="Other GPU")  # alike, but elsewhere
    assert only([a_run()], [store], shared) == estimate


def test_records_that_shared_a_gpu_with_more_runs_give_an_upper_estimate_that_says_so(tmp_path):
    store = Store(tmp_path)
    recorded(store, train_seconds=70.0, device="cuda", runs_per_gpu=3)
    for runs_per_gpu, step_seconds in ((1, 0.02), (6, 0.04)):
        estimate = only([a_run()], [store], dataclasses.replace(GPU, runs_per_gpu=runs_per_gpu))
        assert estimate.source == "records, shared GPU: at most"
        assert estimate.seconds == pytest.approx(whole(K_OPERATORS_PAPER, step_seconds, start=START_SECONDS["cuda"]))
    recorded(store, train_seconds=35.0, device="cuda", runs_per_gpu=1)
    assert only([a_run()], [store], GPU).source == "records"


def test_what_was_measured_on_this_kind_of_gpu_comes_before_what_was_measured_unshared_on_another(tmp_path):
    store = Store(tmp_path)
    recorded(store, train_seconds=7.0, device="cuda", runs_per_gpu=1, name="Other GPU")
    assert only([a_run()], [store], GPU).source == "records on Other GPU"
    recorded(store, train_seconds=70.0, device="cuda", runs_per_gpu=3)
    assert only([a_run()], [store], GPU).source == "records, shared GPU: at most"


def test_a_shape_that_is_not_known_is_scaled_by_flops_from_the_nearest_that_is(tmp_path):
    store = Store(tmp_path)
    recorded(store, NANOGPT, train_seconds=50_000.0)
    recorded(store, K_OPERATORS_PAPER, train_seconds=7000.0)
    twice = changed(K_OPERATORS_PAPER, model={"refine_steps": 3})
    estimate = only([a_run(twice)], [store])
    assert estimate.source == "scaled by FLOPs from known-1"
    assert estimate.seconds == pytest.approx(whole(twice, 2.0 * step_flops(twice) / step_flops(K_OPERATORS_PAPER)))
    assert known_estimates([a_run(twice)], [store], HERE, scaled=False) == {}
    # the LSTM's own architecture is not there, and K-Operators are nearer than nanoGPT
    assert only([a_run(arm("lstm"))], [store]).source == "scaled by FLOPs from known-1"


def test_a_form_of_the_recurrence_is_not_scaled_from_another_whose_flops_take_another_time():
    place = Platform(device="cpu", n_threads=1, name="AMD EPYC")
    found = known_estimates(backends().runs(), [COMMITTED], place)
    known = {run.label.split("-")[0] for run in backends().runs() if run.run_id in found}
    assert known == {"chunked"}


@pytest.mark.parametrize("config", [K_OPERATORS_PAPER, arm("transformer")], ids=["k_operators", "transformer"])
def test_flops_foretell_the_committed_records_from_those_of_the_laptop_within_a_factor_of_two(config, monkeypatch):
    place = Platform(device="cpu", n_threads=1, name="AMD EPYC")
    known = known_estimates([a_run(config)], [COMMITTED], place)[a_run(config).run_id]
    assert known.source == "records"
    records = COMMITTED.records()[0]
    small = [one for one in records if (one.config["training"] or {}).get("n_steps") == 2000]
    monkeypatch.setattr(Store, "records", lambda _: (small, []))
    guess = known_estimates([a_run(config)], [COMMITTED], place)[a_run(config).run_id]
    assert "scaled" in guess.source
    assert 0.5 < guess.seconds / known.seconds < 2


def test_a_smaller_step_is_not_that_much_faster_on_a_gpu_which_small_kernels_cannot_fill(tmp_path):
    store, small = Store(tmp_path), laptop_arm("transformer", 1e-3)
    recorded(store, NANOGPT, train_seconds=50.0, device="cuda")
    seconds = only([a_run(small)], [store], GPU).seconds
    linear = 0.01 * step_flops(small) / step_flops(NANOGPT)
    assert whole(small, 2 * linear, start=START_SECONDS["cuda"]) < seconds < whole(small, 0.01)


# what a launch does with them -----------------------------------------------------------------------------------------


def test_a_dry_run_of_a_search_trains_nothing_starts_no_process_and_names_the_source_of_each_time(
    tmp_path, data_dir, monkeypatch, capsys
):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr(Trainer, "advance", lambda _: pytest.fail("a step was trained"))
    monkeypatch.setattr("jobs.speeds.cpu_name", lambda: "AMD EPYC")  # as in the committed records
    command = ["launch", "--experiment", "tuning", "--dry-run", "--device", "cpu", "--data-dir", data_dir]
    assert call(app, *command, "--store", tmp_path / "store") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("Experiment tuning: about ")
    assert "unknown" not in first
    runs = {line.split()[1]: line for line in lines if line.startswith("  ")}
    assert f"{len(runs)} of {len(runs)} runs to do" in lines[1]
    assert [line.split()[0] for line in runs.values()] == [run.run_id for run in find_experiment("tuning").runs()]
    assert all("about " in line and line.endswith(")") for line in runs.values())
    assert "(records" in runs["k_operators-t01-s1000"]
    assert "(scaled by FLOPs from transformer-params" in runs["modern-t00-s1000"]
    assert not (tmp_path / "store").exists()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Run]:
    """The runs that are timed, where nothing is committed."""
    found: list[Run] = []

    def note(runs: list[Run], *_: object) -> dict[str, float]:
        found.extend(runs)
        return {run.run_id: 9.0 for run in runs}

    for module in (launching, slurm):
        monkeypatch.setattr(module, "estimate_seconds", note)
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return found


@pytest.mark.parametrize(
    ("mode", "dry_run", "probe", "timed"),
    [
        ("exact", True, False, False),
        ("exact", True, True, True),
        ("exact", False, False, True),
        ("fast", False, False, False),  # a probe would compile for a minute a shape
        ("fast", False, True, True),
    ],
)
def test_only_what_is_unknown_is_timed_and_only_when_asked_or_before_a_real_launch(
    mode, dry_run, probe, timed, asked, tmp_path
):
    store = Store(tmp_path / "store")
    known, unknown = a_run(mode=mode), a_run(changed(K_OPERATORS_PAPER, model={"backend": "mask"}), mode=mode)
    recorded(store, train_seconds=7000.0, mode=mode)
    slots = [Slot(device="cpu", n_threads=1)]
    found = find_estimates([known, unknown], store, slots, None, probe=probe, dry_run=dry_run)
    assert asked == ([unknown] if timed else [])
    assert known.run_id in found
    assert found.get(unknown.run_id) == (Estimate(seconds=9.0, source="timed just now") if timed else None)


def test_a_probe_that_has_nothing_to_time_is_said(tmp_path, capsys):
    store = Store(tmp_path)
    recorded(store, train_seconds=7000.0)
    find_estimates([a_run()], store, [Slot(device="cpu", n_threads=1)], None, probe=True, dry_run=True)
    assert capsys.readouterr().out == "--probe: the time of every run is known already\n"


def test_the_total_counts_what_is_known_and_says_how_many_runs_are_not():
    runs = [a_run(seed=seed) for seed in (1, 2)]
    assert total(runs, 60.0, {run.run_id for run in runs}) == "about 0:01:00"
    assert total(runs, 60.0, {runs[0].run_id}) == "about 0:01:00, and 1 run of unknown time"
    assert total(runs, 0.0, set()) == "an unknown time"
    assert total([], 0.0, set()) == "about 0:00:00"


def test_a_run_of_unknown_time_names_the_option_that_times_it(capsys):
    run = a_run()
    todo = launching.Todo(selected=[run], runs=[run], statuses={})
    list_grid(todo, {})
    assert capsys.readouterr().out.endswith("an unknown time; --probe times a few steps\n")
    list_grid(todo, {run.run_id: Estimate(seconds=130.0, source="records")})
    assert capsys.readouterr().out.endswith("about 0:02:10 (records)\n")


def test_a_time_limit_is_not_made_from_flops_and_a_rehearsal_times_nothing(asked, tmp_path):
    store, unknown = Store(tmp_path / "store"), a_run(changed(K_OPERATORS_PAPER, model={"refine_steps": 3}))
    recorded(store, train_seconds=7000.0)
    assert list(slurm.array_estimates([a_run(), unknown], store, request_of())) == [a_run().run_id]
    assert asked == []
    slurm.array_estimates([a_run(), unknown], store, request_of(probe=True))
    assert asked == [unknown]
