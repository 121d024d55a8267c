"""What a job executes survives the signals of a scheduler, through submitit's own controller and without a cluster."""

import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import submitit
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.slurm.slurm import SlurmJobEnvironment

from bench import lease
from bench.config import Run
from bench.errors import ConfigError
from bench.record import Record
from bench.run import execute
from bench.store import Store
from jobs.slurm.arrays import script
from jobs.slurm.site import LEAST_TIMEOUT_MINUTES, choose_site, timeout_minutes
from jobs.slurm.submission import Submission
from jobs.slurm.task import ARRAY_VARIABLES, RunsTask, make_task, start
from jobs.status import at_work
from jobs.worker import write_run
from tests.command_line import alive, children, kill_if_alive, wait_until
from tests.conftest import SELDOM
from tests.sites import array_of_twenty
from tests.tiny import tiny_runs
from tests.watched import assert_equal_bits, newest_step, record_run, submitted

N_STEPS = 8_000  # some twenty seconds


def planned(store: Store, *runs: Run) -> tuple[Submission, Path]:
    """A submission of one task that does `runs`, and its folder."""
    for run in runs:
        write_run(run, store)
    made = submitted(store, [[*runs]], experiment="caught", checkpoint_seconds=1e9)
    return made, made.folder(store)


def long_run(n_steps: int = N_STEPS, seed: int = 42) -> Run:
    """A run that is long enough to be caught at work."""
    [run] = tiny_runs("long", (seed,), n_steps=n_steps, eval_every=2_000)
    return run


@contextmanager
def submitted_locally(store: Store, run: Run) -> "Iterator[submitit.Job[dict[str, str]]]":
    """A task that does a run, under submitit's local controller, for whose process the block's end waits."""
    submission, folder = planned(store, run)
    executor = submitit.LocalExecutor(folder=folder, max_num_timeout=10)
    executor.update_parameters(timeout_min=10, signal_delay_s=5, stderr_to_stdout=True)
    job = executor.submit(make_task(submission, 0, folder))
    try:
        yield job
        job._process.wait(60)  # type: ignore[attr-defined]  # submitit leaves it to whoever started it
    finally:
        kill_if_alive(int(job.job_id))


def only_record(store: Store) -> Record:
    """The record of a store that has one."""
    [recorded], errors = store.records()
    assert not errors
    return recorded


@pytest.mark.slow
@pytest.mark.fault("F1")
def test_a_task_that_runs_out_of_time_is_requeued_until_done_and_loses_no_step(store, tmp_path):
    run = long_run()
    with submitted_locally(store, run) as job:
        for _ in range(2):
            end_attempt(job, store, run)
        assert job.result() == {run.run_id: "done"}  # waits for it
    recorded = only_record(store)
    assert len(recorded.attempts) == 3
    for before, after in pairwise(recorded.attempts):
        assert after.first_step == before.last_step > 0
    assert_equal_bits(recorded, execute(run, Store(tmp_path / "clean"), SELDOM))


@pytest.mark.fault("F21")
def test_the_signal_to_a_task_reaches_its_workers_and_leaves_no_orphan(store):
    run = long_run(n_steps=100_000)
    with submitted_locally(store, run) as job:
        wait_until(lambda: steps_written(store, run) > 0, "the worker's first steps")
        worker = at_work(store, [run.run_id])[run.run_id].pid
        [task] = children(int(job.job_id))  # a signal to the controller would kill it and orphan the task
        assert worker in children(task)
        os.kill(task, signal.SIGTERM)
        time.sleep(0.3)
        os.kill(task, signal.SIGTERM)  # schedulers repeat themselves
        wait_until(lambda: not alive(worker) and not alive(task), "task and worker to end")
    assert not at_work(store, [run.run_id])
    assert newest_step(store, run) > 0


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
def test_what_is_submitted_can_be_requeued_and_travels_light(store):
    submission, folder = planned(store, long_run())
    task = make_task(submission, 0, folder)
    requeued = task.checkpoint()  # what submitit looks for; a partial or a mere __submitit_checkpoint__ is passed by
    assert isinstance(requeued, DelayedSubmission)
    assert isinstance(requeued.function, RunsTask)
    assert set(vars(task)) == {"folder", "run_ids", "store"}
    assert len(pickle.dumps(task)) < 1_000


@pytest.fixture
def in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the environment of a job of SLURM that is no array."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in (("JOB_ID", "7"), ("RESTART_COUNT", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)


@pytest.fixture(autouse=True)
def handlers_are_put_back():
    """submitit installs its own, for good."""
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.fault("F4")
@pytest.mark.usefixtures("in_a_job")
def test_a_task_needs_no_pickle_ignores_a_foreign_one_and_clears_what_a_kill_left(store, tmp_path):
    _, folder = planned(store, long_run(n_steps=4))
    canary = tmp_path / "canary"
    (folder / "7_submitted.pkl").write_bytes(pickle.dumps(Canary(canary)))
    stale = folder / "7_submitted.pkl.save_tmp"  # where submitit would stop at an assertion
    stale.write_bytes(b"half")
    (folder / "7_0_result.pkl.save_tmp").write_bytes(b"half")
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


@pytest.mark.usefixtures("in_a_job")
def test_a_task_does_only_what_has_no_record(store, monkeypatch):
    run, other = long_run(n_steps=4), long_run(n_steps=4, seed=69)
    _, folder = planned(store, run, other)
    path = record_run(store, run)
    before = path.stat().st_mtime_ns
    assert start(folder) == 0
    assert store.statuses() == {run.run_id: "done", other.run_id: "done"}
    assert path.stat().st_mtime_ns == before
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a worker was started"))
    assert start(folder) == 0  # a requeued task whose runs are all done


@pytest.mark.usefixtures("in_a_job")
def test_a_task_with_a_run_that_it_cannot_do_does_the_others_and_fails(store, capsys):
    run, lost = long_run(n_steps=4), long_run(n_steps=4, seed=69)
    _, folder = planned(store, lost, run)
    (store.run_folder(lost.run_id) / "run.json").write_text("{")
    assert start(folder) == 1
    assert only_record(store).run_id == run.run_id
    assert lost.run_id in capsys.readouterr().out


@pytest.mark.met("U21")
@pytest.mark.parametrize("index", ["0", "3"])
@pytest.mark.usefixtures("in_a_job")
def test_a_job_submitted_from_within_an_array_does_its_own_task_and_requeues_itself(index, store, monkeypatch):
    for name, value in (("ARRAY_JOB_ID", "77"), ("ARRAY_TASK_ID", index), ("CLUSTERS", "elsewhere")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = long_run(n_steps=4)
    _, folder = planned(store, run)
    seen: list[tuple[object, ...]] = []

    def requeue(command: list[str], **_: object) -> None:
        seen.append((*command, lease.job_id(), os.environ.get("SLURM_CLUSTERS")))

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.check_call", requeue)
        patch.setattr(RunsTask, "__call__", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
        with pytest.raises(SystemExit):
            start(folder)
    assert seen == [("scontrol", "requeue", "7", "7", None)]
    assert start(folder) == 0
    assert only_record(store).run_id == run.run_id


@pytest.mark.met("U21")
@pytest.mark.parametrize("index", ["2", "-1", "x", "", None])
@pytest.mark.usefixtures("in_a_job")
def test_an_index_outside_the_plan_is_an_error_that_names_it(index, store, monkeypatch):
    folder = submitted(store, [[long_run()], [long_run(seed=69)]]).folder(store)
    if index is not None:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
    with pytest.raises(ConfigError, match=f"SLURM_ARRAY_TASK_ID='{index or ''}'.* 0 to 1"):
        start(folder)


@pytest.mark.met("U21")
def test_a_script_of_one_task_forgets_the_array_that_it_was_submitted_from(store, tmp_path):
    (tmp_path / "site.toml").write_text("python = \"env | grep -c '^SLURM_ARRAY' #\"")
    single, several = (array_of_twenty(store, profile=str(tmp_path / "site.toml"), n_runs=n) for n in (1, 2))
    inherited = {"PATH": os.environ["PATH"]} | dict.fromkeys(ARRAY_VARIABLES, "3")
    for array, n_left in ((single, 0), (several, len(ARRAY_VARIABLES))):
        text = script(array, store).replace("exec env", "env")
        done = subprocess.run(["bash"], input=text, env=inherited, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [str(n_left)]
