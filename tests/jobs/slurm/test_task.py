"""What a job executes survives the signals of a scheduler, through submitit's own controller and without a cluster."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import submitit
import torch
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmJobEnvironment

from bench.config import Run
from bench.errors import ConfigError
from bench.record import Record
from bench.run import Settings, execute
from bench.store import Store
from jobs.slurm.site import LEAST_TIMEOUT_MINUTES, choose_site, timeout_minutes
from jobs.slurm.submission import Submission
from jobs.slurm.task import RunsTask, make_task, start
from jobs.status import at_work
from jobs.worker import write_run
from tests.command_line import alive, children, kill_if_alive, wait_until
from tests.tiny import submission_of, tiny_runs

N_STEPS = 8_000  # some twenty seconds


def planned(store: Store, *runs: Run, timeout_min: int = 30) -> tuple[Submission, Path]:
    """A submission of one task that does `runs`, and its folder."""
    for run in runs:
        write_run(run, store)
    run_ids = tuple(run.run_id for run in runs)
    made = submission_of(store, run_ids, experiment="caught", timeout_min=timeout_min, checkpoint_seconds=1e9)
    return made, made.write(store)


def long_run(n_steps: int = N_STEPS, seed: int = 42) -> Run:
    """A run that is long enough to be caught at work."""
    [run] = tiny_runs("long", (seed,), n_steps=n_steps, eval_every=2_000)
    return run


def submit_locally(task: RunsTask, folder: Path, timeout_seconds: float) -> "submitit.Job[dict[str, str]]":
    """Start a task under submitit's local controller, which warns it five seconds before its time is over."""
    executor = submitit.LocalExecutor(folder=folder, max_num_timeout=10)
    executor.update_parameters(timeout_min=timeout_seconds / 60, signal_delay_s=5, stderr_to_stdout=True)
    return executor.submit(task)


def end(job: "submitit.Job[dict[str, str]]") -> None:
    """Wait for a job's controller, whose process submitit leaves to whoever started it."""
    job._process.wait(60)  # type: ignore[attr-defined]


def only_record(store: Store) -> Record:
    """The record of a store that has one."""
    [recorded], errors = store.records()
    assert not errors
    return recorded


def assert_as_undisturbed(recorded: Record, run: Run, folder: Path) -> None:
    """A record holds, bit for bit, what one process without interruption measures."""
    clean = execute(run, Store(folder / "clean"), Settings(device=torch.device("cpu"), n_threads=1))
    assert (recorded.status, recorded.result) == ("done", clean.result)
    assert (recorded.curve, recorded.diagnostics) == (clean.curve, clean.diagnostics)


@pytest.mark.slow
@pytest.mark.fault("F1")
def test_a_task_that_runs_out_of_time_is_requeued_until_done_and_loses_no_step(tmp_path, request):
    store, run = Store(tmp_path / "store"), long_run()
    submission, folder = planned(store, run)
    job = submit_locally(make_task(submission, 0, folder), folder, timeout_seconds=600)
    request.addfinalizer(lambda: kill_if_alive(int(job.job_id)))
    for _ in range(2):
        end_attempt(job, store, run)
    assert job.result() == {run.run_id: "done"}  # waits for it
    end(job)
    recorded = only_record(store)
    assert len(recorded.attempts) == 3
    for before, after in zip(recorded.attempts[:-1], recorded.attempts[1:], strict=True):
        assert after.first_step == before.last_step
    assert recorded.attempts[1].first_step > 0
    assert_as_undisturbed(recorded, run, tmp_path)


@pytest.mark.fault("F21")
def test_the_signal_to_a_task_reaches_its_workers_and_leaves_no_orphan(tmp_path, request):
    store, run = Store(tmp_path / "store"), long_run(n_steps=100_000)
    submission, folder = planned(store, run)
    job = submit_locally(make_task(submission, 0, folder), folder, timeout_seconds=600)
    request.addfinalizer(lambda: kill_if_alive(int(job.job_id)))
    wait_until(lambda: at_work(store, [run.run_id]), "the worker")
    wait_until(lambda: (store.run_folder(run.run_id) / "steps.jsonl").exists(), "its first steps")
    worker = at_work(store, [run.run_id])[run.run_id].pid
    [task] = children(int(job.job_id))  # job._interrupt() would signal the controller, which dies and orphans the task
    assert worker in children(task)
    os.kill(task, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(task, signal.SIGTERM)  # schedulers repeat themselves
    wait_until(lambda: not alive(worker) and not alive(task), "task and worker to end")
    end(job)
    assert not at_work(store, [run.run_id])
    newest = sorted(store.run_folder(run.run_id).glob("checkpoint-*.pt"))[-1]
    assert int(newest.stem.removeprefix("checkpoint-")) > 0


def end_attempt(job: "submitit.Job[dict[str, str]]", store: Store, run: Run) -> None:
    """Signal, once it has made steps, that an attempt's time is over: the controller's clock knows no busy machine."""
    before = steps_written(store, run)
    wait_until(lambda: steps_written(store, run) > before, "steps beyond those of the last attempt")
    [task] = children(int(job.job_id))
    os.kill(task, signal.SIGUSR2)
    wait_until(lambda: not alive(task), "the task to end")


def steps_written(store: Store, run: Run) -> int:
    """How many steps a run has logged so far."""
    path = store.run_folder(run.run_id) / "steps.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.fault("F2")
def test_submitit_takes_any_signal_to_a_short_job_for_a_time_out_so_short_ones_are_refused(tmp_path):
    def timed_out(minutes: int) -> bool:
        delayed = DelayedSubmission(RunsTask(tmp_path, (), tmp_path))
        delayed.set_timeout(minutes, 3)
        return SignalHandler(SlurmJobEnvironment(), JobPaths(tmp_path, "1"), delayed).has_timed_out()

    assert timed_out(5)  # at once: this is the trap
    assert not timed_out(LEAST_TIMEOUT_MINUTES)
    assert timeout_minutes(1.0) >= LEAST_TIMEOUT_MINUTES
    with pytest.raises(ConfigError, match="30"):
        choose_site(None, ["timeout_min=29"], "cpu")
    assert choose_site(None, ["timeout_min=30"], "cpu").site.timeout_min == 30


@pytest.mark.fault("F20")
def test_what_is_submitted_can_be_requeued_and_travels_light(tmp_path):
    submission, folder = planned(Store(tmp_path / "store"), long_run())
    task = make_task(submission, 0, folder)
    assert hasattr(
        task, "checkpoint"
    )  # what submitit looks for; a partial or a mere __submitit_checkpoint__ is passed by
    requeued = task.checkpoint()
    assert isinstance(requeued, DelayedSubmission)
    assert isinstance(requeued.function, RunsTask)
    assert set(vars(task)) == {"folder", "run_ids", "store"}
    assert len(pickle.dumps(task)) < 1_000


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give this process the environment of a task of a SLURM array."""

    def enter(index: int = 0, restarts: int = 0) -> None:
        for name, value in {
            "SLURM_JOB_ID": 7,
            "SLURM_ARRAY_JOB_ID": 7,
            "SLURM_ARRAY_TASK_ID": index,
            "SLURM_RESTART_COUNT": restarts,
            "SUBMITIT_EXECUTOR": "slurm",
        }.items():
            monkeypatch.setenv(name, str(value))

    return enter


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    """submitit installs its own, for good."""
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.fault("F4")
def test_a_task_needs_no_pickle_ignores_a_foreign_one_and_clears_what_a_kill_left(tmp_path, in_a_job):
    store, run = Store(tmp_path / "store"), long_run(n_steps=4)
    _, folder = planned(store, run)
    canary = tmp_path / "canary"
    (folder / "7_0_submitted.pkl").write_bytes(pickle.dumps(Canary(canary)))
    stale = folder / "7_0_submitted.pkl.save_tmp"  # where submitit would stop at an assertion
    stale.write_bytes(b"half")
    (folder / "7_0_0_result.pkl.save_tmp").write_bytes(b"half")
    in_a_job()
    assert start(folder) == 0
    assert only_record(store).status == "done"
    assert not canary.exists()
    assert not stale.exists()


class Canary:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_task_does_only_what_has_no_record(tmp_path, in_a_job, monkeypatch):
    store, run, other = Store(tmp_path / "store"), long_run(n_steps=4), long_run(n_steps=4, seed=69)
    _, folder = planned(store, run, other)
    execute(run, store, Settings(device=torch.device("cpu"), n_threads=1))
    before = store.record_paths()[0].stat().st_mtime_ns
    in_a_job()
    assert start(folder) == 0
    assert len(store.record_paths()) == 2
    assert min(path.stat().st_mtime_ns for path in store.record_paths()) == before
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a worker was started"))
    assert start(folder) == 0  # a requeued task whose runs are all done


def test_a_task_with_a_run_that_it_cannot_do_does_the_others_and_fails(tmp_path, in_a_job, capsys):
    store, run, lost = Store(tmp_path / "store"), long_run(n_steps=4), long_run(n_steps=4, seed=69)
    _, folder = planned(store, lost, run)
    (store.run_folder(lost.run_id) / "run.json").write_text("{")
    in_a_job()
    assert start(folder) == 1
    assert only_record(store).run_id == run.run_id
    assert lost.run_id in capsys.readouterr().out
