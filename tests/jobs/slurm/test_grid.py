"""A grid on a real SLURM comes to its records, whatever happens to its jobs, its nodes and its launcher."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import checkpoint, lease
from bench.config import Run
from bench.experiments import smoke
from bench.experiments.grid import Experiment
from bench.process import STOP_SIGNALS
from bench.record import Record
from bench.run import execute
from bench.store import Store
from jobs.app import app
from jobs.cost import Estimate, known_estimates
from jobs.slurm import arrays as submitting
from jobs.slurm.arrays import Array, submit_missing
from jobs.slurm.scheduler import TaskState, queue, tasks_by_run
from jobs.speeds import Platform
from jobs.status import RunState, states
from tests.command_line import call, finish, start, wait_until, write_program
from tests.conftest import SELDOM
from tests.jobs.slurm.cluster import Cluster
from tests.tiny import request_of, tiny_cell
from tests.watched import assert_equal_bits

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 240.0
HURRY_SECONDS = 5.0
N_STEPS = 5_000  # of a run that is to be caught at work: some 15 s
SEEDS = (42, 69, 420)


@pytest.fixture(autouse=True)
def on_cluster(slurm: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Commands of this process and its children speak to the test cluster, whose queue is empty before and after."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(submitting, "array_estimates", as_known)
    slurm.wait_until_idle()
    yield slurm
    slurm.run("scancel", "--partition=debug")
    slurm.wait_until_idle(120)


def as_known(runs: list[Run], *_: object) -> dict[str, Estimate]:
    """Runs whose time is known."""
    return {run.run_id: Estimate(seconds=20.0, source="records") for run in runs}


def grid(*labels: str, n_steps: int = N_STEPS) -> Experiment:
    """Runs on the synthetic text, long enough to be caught; they differ in seed alone, and share clean twins."""
    cells = [
        tiny_cell(label, seeds=(seed,), n_steps=n_steps, eval_every=2_500)
        for label, seed in zip(labels, SEEDS, strict=False)
    ]
    return Experiment(name="caught", question="Does it come to its records?", cells=tuple(cells))


def submit(experiment: Experiment, store: Store, *assignments: str, **changes: Any) -> list[Array]:
    """Launch on the cluster as the command line does, from this process."""
    return submit_missing(experiment, store, request_of(*assignments, **{"checkpoint_seconds": 2.0, **changes}))


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Return once `condition()` holds; SLURM takes its time."""
    wait_until(condition, what, PATIENCE_SECONDS, pause=0.3)


def look(store: Store) -> dict[str, RunState]:
    """The state of every run by its label."""
    found = states(store, store.manifests()[0][0], store.records()[0])
    return {one.name.rsplit("-s", 1)[0]: one for one in found}


def task_of(run: Run, store: Store) -> TaskState:
    """The task that a run was last given to."""
    return tasks_by_run(store)[run.run_id]


def checkpoint_steps(store: Store, run: Run) -> list[int]:
    """The steps of the whole checkpoints of a run."""
    found = store.run_folder(run.run_id).glob("checkpoint-*.pt.sha256")
    return [checkpoint.step_of(path.with_suffix("")) for path in found]


def active() -> list[TaskState]:
    """The tasks that are queued or at work."""
    return [one for one in queue().values() if one.active]


def wait_for_steps(store: Store, label: str, least: int = 500) -> None:
    """Return once a run is well on its way."""
    wait_for(lambda: (s := look(store)[label]).state == "running" and (s.step or 0) >= least, f"steps of {label}")


def wait_for_records(store: Store, n: int) -> list[Record]:
    """The records of a store once there are as many."""
    wait_for(lambda: len(store.record_paths()) == n, f"{n} records")
    return store.records()[0]


def hurry_until(slurm: Cluster, condition: Callable[[], object], job_id: str) -> None:
    """Bring a requeued job forward, which SLURM holds back for two minutes, until `condition()` holds."""
    hurried = -math.inf

    def step() -> object:
        # again from time to time, for SLURM may hold it back after us; at every look it would always be a second away
        nonlocal hurried
        if time.monotonic() - hurried > HURRY_SECONDS and any(one.job_id == job_id and one.queued for one in active()):
            with contextlib.suppress(RuntimeError):  # it has just started
                slurm.hurry(job_id)
            hurried = time.monotonic()
        return condition()

    wait_for(step, f"job {job_id} to come to it")


def pause_until_told_to_stop(store: Store, run: Run) -> None:
    """Hold a run's worker still between two of its instructions until a signal to stop awaits it."""
    holder = lease.read_holder(store.run_folder(run.run_id))
    assert holder is not None
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        wait_for(lambda: pending_signals(holder.pid) & set(STOP_SIGNALS), f"a signal to {run.name}")
    finally:
        os.kill(holder.pid, signal.SIGCONT)


def pending_signals(pid: int) -> set[signal.Signals]:
    """The signals that were sent to a process, or to its main thread, and that it has not met yet; see proc(5)."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    mask = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return {one for one in signal.Signals if mask >> (one - 1) & 1}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Record]:
    """The record of a run that one process trained without interruption; each is trained once."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))

    def train(run: Run) -> Record:
        torch.set_num_threads(1)
        found = next((one for one in store.records()[0] if one.run_id == run.run_id), None)
        return found or execute(run, store, SELDOM)

    return train


def assert_resumed(recorded: Record, clean: Record) -> None:
    """A record is of a run that went on from a checkpoint, and holds the same measurements as one without a break."""
    assert recorded.attempts[-1].first_step > 0
    assert_equal_bits(recorded, clean)


# whole grids ----------------------------------------------------------------------------------------------------------


def test_the_smoke_grid_is_submitted_as_one_array_and_comes_to_its_records(tmp_path, data_dir, capsys):
    store = Store(tmp_path / "store")
    command = ["launch", "--experiment", "smoke", "--cluster", "slurm", "--store", store.root, "--data-dir", data_dir]
    started = time.monotonic()
    assert call(app, *command, "--slurm", "gres=gpu:1", "--device", "cpu") == 0
    assert time.monotonic() - started < 20, "a launch returns at once"
    printed = capsys.readouterr().out
    assert "7 of 7 runs to do" in printed
    assert "as job" in printed
    [script] = (store.work_folder / "jobs").glob("*/kops-*.sh")
    for line in ("--array=0-6%7", "--gres=gpu:1", "--requeue", "--time=30"):
        assert f"#SBATCH {line}\n" in script.read_text()

    assert call(app, *command, "--device", "cpu") == 0  # again at once: all are in the queue already
    assert "0 of 7 runs to do" in capsys.readouterr().out
    assert len(list((store.work_folder / "jobs").glob("*/plan.json"))) == 1
    assert call(app, "status", "--store", store.root) == 3

    wait_for_records(store, len(smoke().runs()))
    capsys.readouterr()
    assert call(app, "status", "--store", store.root) == 0
    assert call(app, *command, "--dry-run") == 0
    assert "0 of 7 runs to do (7 done already)" in capsys.readouterr().out
    records, settings = {one.run_id: one for one in store.records()[0]}, dataclasses.replace(SELDOM, data_dir=data_dir)
    for run in smoke().runs():
        assert_equal_bits(records[run.run_id], execute(run, Store(tmp_path / "clean"), settings))


def test_several_runs_of_a_job_go_one_after_the_other_or_side_by_side(tmp_path):
    experiment = grid("a", "b", "c", n_steps=4)
    for n_at_once in (1, 2):
        store = Store(tmp_path / f"{n_at_once}")
        [array] = submit(experiment, store, "cpus_per_task=2", runs_per_job=3, runs_at_once=n_at_once)
        assert [len(task) for task in array.submission.tasks] == [3]
        assert array.submission.n_threads == 2 // n_at_once
        assert {one.status for one in wait_for_records(store, 3)} == {"done"}


def test_a_job_that_asks_for_a_gpu_sees_one(on_cluster, tmp_path):
    line = f'setup = ["echo $CUDA_VISIBLE_DEVICES > {tmp_path}/seen"]\n'
    (tmp_path / "site.toml").write_text(line + "[cpu]\ngpus_per_node = 1\n")
    submit(grid("a", n_steps=4), Store(tmp_path / "store"), profile=str(tmp_path / "site.toml"))
    wait_for_records(Store(tmp_path / "store"), 1)
    assert (tmp_path / "seen").read_text() == "0\n"


def test_a_time_measured_on_a_node_is_what_the_next_launch_asks_for(tmp_path, monkeypatch):
    here = Platform(device="cpu", n_threads=1)
    known = functools.partial(known_estimates, platform=here, longest=True, scaled=False)
    monkeypatch.setattr(submitting, "array_estimates", lambda runs, store, _: known(runs, [store]))
    store, experiment = Store(tmp_path / "store"), grid("a", "b", n_steps=4)
    [array] = submit(experiment, store)
    assert (array.known, array.submission.timeout_min) == (False, submitting.timeout_minutes(None))
    wait_for_records(store, 2)
    store = Store(tmp_path / "measured")
    [array] = submit(experiment, store, measure=True)
    assert len(array.submission.tasks[0]) == 1  # one run a config
    wait_for(lambda: list((store.work_folder / "measured").glob("cpu-*.json")), "the measurement")
    [array] = submit(experiment, store)
    assert (array.known, array.submission.timeout_min) == (True, 30)
    assert {one.status for one in wait_for_records(store, 2)} == {"done"}


def test_slurm_says_when_a_rehearsed_array_would_start_and_nothing_is_written(tmp_path, capsys):
    store = Store(tmp_path / "store")
    submit_missing(grid("a"), store, request_of(), test_only=True)
    assert "to start at" in capsys.readouterr().out
    assert not store.root.exists()
    assert not active()


@pytest.mark.met("U21")
@pytest.mark.parametrize("runs_per_job", [1, 2])
def test_a_script_submitted_by_hand_from_within_an_array_does_its_runs(runs_per_job, on_cluster, tmp_path, monkeypatch):
    store, experiment, comment = Store(tmp_path / "store"), grid("a", "b", n_steps=4), "it's #1 --uid=\"0\" '"
    request = request_of(f"comment={comment}", runs_per_job=runs_per_job)
    submit_missing(experiment, store, request, scripts=tmp_path / "scripts")
    assert not active()
    [script] = (tmp_path / "scripts").glob("*.sh")
    for name, value in (("JOB_ID", "78"), ("ARRAY_JOB_ID", "77"), ("ARRAY_TASK_ID", "3")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    job = on_cluster.run("sbatch", "--parsable", str(script)).strip()
    assert f"Comment={comment}" in map(str.strip, on_cluster.run("scontrol", "show", "job", job).splitlines())
    assert {one.status for one in wait_for_records(store, 2)} == {"done"}


def test_the_doctor_of_a_cluster_without_accounts_prints_json_alone(data_dir, tmp_path, capsys):
    call(app, "doctor", "--json", "--store", tmp_path / "store", "--data-dir", data_dir)
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "slurm" in found["slurm"]["finding"]
    assert "none" in found["accounting"]["finding"]
    assert "1001" in found["array size"]["finding"]


# what happens to jobs -------------------------------------------------------------------------------------------------


@pytest.mark.fault("F1")
def test_a_run_that_meets_its_time_limit_is_requeued_and_loses_nothing(on_cluster, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(submitting, "timeout_minutes", lambda _: 1)  # which a launch would refuse
    store, experiment = Store(tmp_path / "store"), grid("limited")
    submit(experiment, store, "signal_delay_s=10", checkpoint_seconds=1e9)
    [run] = experiment.runs()
    wait_for_steps(store, "limited")
    pause_until_told_to_stop(store, run)  # however fast the machine, the run does not end before its limit
    wait_for(lambda: task_of(run, store).queued, "the job to be requeued")
    hurry_until(on_cluster, lambda: store.record_paths(), task_of(run, store).job_id)
    [recorded] = wait_for_records(store, 1)
    for before, after in pairwise(recorded.attempts):
        assert after.first_step == before.last_step > 0  # saved at the signal, not by the clock
    assert_resumed(recorded, undisturbed(run))


@pytest.mark.fault("F18")
def test_scancel_of_one_run_leaves_the_others_and_shows_as_cancelled(on_cluster, tmp_path, undisturbed):
    store, experiment = Store(tmp_path / "store"), grid("kept", "dropped")
    submit(experiment, store)
    wait_for_steps(store, "dropped")
    dropped = next(run for run in experiment.runs() if run.label == "dropped")
    on_cluster.run("scancel", task_of(dropped, store).job_id)
    wait_for(lambda: look(store)["dropped"].state == "cancelled", "the cancellation to show")
    [kept] = wait_for_records(store, 1)
    assert (kept.label, kept.status) == ("kept", "done")
    submit(experiment, store)  # takes it up where it stopped
    records = {one.label: one for one in wait_for_records(store, 2)}
    assert_resumed(records["dropped"], undisturbed(dropped))


def test_jobs_cancel_stops_one_run_of_a_job_and_leaves_those_beside_it(tmp_path):
    store, experiment = Store(tmp_path / "store"), grid("kept", "dropped")
    submit(experiment, store, "cpus_per_task=2", runs_per_job=2, runs_at_once=2)
    wait_for_steps(store, "dropped")
    assert call(app, "cancel", "dropped-s69", "--store", store.root) == 0
    wait_for(lambda: look(store)["dropped"].state == "cancelled", "the cancellation to show")
    assert [one.label for one in wait_for_records(store, 1)] == ["kept"]
    submit(experiment, store)
    assert {one.status for one in wait_for_records(store, 2)} == {"done"}


@pytest.mark.fault("F1")
def test_a_run_whose_node_dies_goes_on_on_the_other_from_its_last_checkpoint(on_cluster, tmp_path, undisturbed):
    store, experiment = Store(tmp_path / "store"), grid("orphan")
    submit(experiment, store)
    [run] = experiment.runs()
    wait_for_steps(store, "orphan")
    # the kill may meet the writing of a checkpoint, and the one before is then what counts
    wait_for(lambda: min(checkpoint_steps(store, run), default=0) > 0, "two checkpoints after the one of step 0")
    first = look(store)["orphan"].node
    on_cluster.kill_node(first)
    try:
        wait_for(lambda: task_of(run, store).queued, "SLURM to notice")
        hurry_until(on_cluster, lambda: look(store)["orphan"].state == "running", task_of(run, store).job_id)
        assert look(store)["orphan"].node == {"n1": "n2", "n2": "n1"}[first]
        [recorded] = wait_for_records(store, 1)
    finally:
        on_cluster.start_node(first)
    assert_resumed(recorded, undisturbed(run))


def test_a_launcher_killed_while_it_submits_leaves_what_the_next_one_needs(tmp_path, data_dir):
    store = Store(tmp_path / "store")
    command = ["jobs", "launch", "--experiment", "smoke", "--cluster", "slurm", "--device", "cpu"]
    process = start(*command, "--store", store.root, data_dir=data_dir)
    wait_for(lambda: list((store.work_folder / "jobs").glob("*/kops-*.sh")) or active(), "the submission")
    process.send_signal(signal.SIGKILL)  # before, in or after sbatch
    process.communicate()
    for pattern in ("*/job.json", "*/*.pkl"):  # as if it had come to nothing; and no task needs submitit's pickle
        for path in (store.work_folder / "jobs").glob(pattern):
            path.unlink()
    code, _, errors = finish(start(*command, "--store", store.root, data_dir=data_dir))
    assert (code, errors) == (0, "")
    wait_for_records(store, len(smoke().runs()))
    assert store.statuses() == {run.run_id: "done" for run in smoke().runs()}


@pytest.mark.fault("F22")
def test_a_requeue_that_is_refused_loses_the_job_and_not_the_run(on_cluster, tmp_path, undisturbed):
    store, experiment = Store(tmp_path / "store"), grid("refused")
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "scontrol", "exit 1")
    (tmp_path / "site.toml").write_text(f'setup = ["export PATH={tmp_path}/bin:$PATH"]\n')
    submit(experiment, store, profile=str(tmp_path / "site.toml"), checkpoint_seconds=1e9)
    [run] = experiment.runs()
    wait_for_steps(store, "refused", 100)
    on_cluster.run("scancel", "--signal=USR2", "--batch", task_of(run, store).job_id)
    wait_for(lambda: not task_of(run, store).active, "the job to fail")
    assert look(store)["refused"].state == "interrupted"
    submit(experiment, store)
    [recorded] = wait_for_records(store, 1)
    assert_resumed(recorded, undisturbed(run))


def test_a_queued_run_refuses_sources_that_were_edited_after_it_was_launched(on_cluster, tmp_path, capsys):
    store, experiment = Store(tmp_path / "store"), grid("edited", n_steps=4)
    on_cluster.run("scontrol", "update", "PartitionName=debug", "State=DOWN")  # it has to wait
    try:
        submit(experiment, store)
        [run] = experiment.runs()
        path = store.run_folder(run.run_id) / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "sources": "0" * 64}))
    finally:
        on_cluster.run("scontrol", "update", "PartitionName=debug", "State=UP")
    wait_for(lambda: not task_of(run, store).active, "the job to end")
    assert not store.record_paths()
    capsys.readouterr()
    assert call(app, "why", "edited-s42", "--store", store.root) == 0
    printed = capsys.readouterr().out
    assert "the sources were edited while the run waited" in printed
    assert "python -m jobs launch --experiment caught" in printed
    submit(experiment, store)
    wait_for_records(store, 1)


def test_a_launch_from_within_a_job_is_as_one_from_a_login_node(on_cluster, tmp_path):
    store = Store(tmp_path / "store")
    code = (
        "from tests.jobs.slurm.test_grid import *\n"
        "submitting.find_estimates = as_known\n"
        f"submit(grid('inner', n_steps=4), Store(Path({str(store.root)!r})))\n"
    )
    (tmp_path / "inner.py").write_text(code)
    python = f"cd {Path.cwd()} && PYTHONPATH=. {os.sys.executable} {tmp_path}/inner.py"
    options = ["--wait", "--ntasks=2", "--mem=200M", f"--output={tmp_path}/out"]
    subprocess.run(["sbatch", *options, f"--wrap={python}"], check=True, capture_output=True)
    assert "submitted" in (tmp_path / "out").read_text()
    assert {one.status for one in wait_for_records(store, 1)} == {"done"}
