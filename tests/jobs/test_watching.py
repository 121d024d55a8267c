"""What a person asks about runs is answered from the store, and what they ask to be done is done and no more."""

import json
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import pytest

from bench import checkpoint
from bench.config import Run, to_json
from bench.experiments.grid import Experiment
from bench.files import wait_for
from bench.lease import Holder, boot_id, hold, read_holder
from bench.process import CANCEL_FILE
from bench.store import Store
from jobs.app import app
from jobs.control import leftovers, remove
from jobs.launch import Todo, write_plan
from jobs.layout import CAUSE_FILE, LAUNCHER_GONE, LOG_FILE
from jobs.worker import work, write_run
from tests.command_line import call, kill_if_alive, start, wait_until
from tests.records import make_manifest
from tests.tiny import NAME, tiny_cell, tiny_runs
from tests.watched import leave_checkpoints, record_run, slurm_says, state_of, submitted

pytestmark = pytest.mark.usefixtures("no_scheduler")


def died(store: Store, run: Run) -> None:
    """Leave what a process leaves that was killed on this machine."""
    holder = Holder(attempt=1, owner="a", boot=boot_id(), node="n1", pid=2**22 + 1, job_id=None, heartbeat=7)
    (store.run_folder(run.run_id) / "lease-1.json").write_text(json.dumps(asdict(holder)))
    progress = {"state": "training", "step": 3, "n_steps": 9, "train_nats": 2.5, "val_nats_per_token": 3.25}
    (store.run_folder(run.run_id) / "progress.json").write_text(json.dumps(progress))


@pytest.mark.parametrize(
    ("file", "text", "cause"),
    [
        # what went into the log; the errors of memory are those of test_pool.py
        (LOG_FILE, "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "out of memory"),
        (LOG_FILE, "CUDA error: all CUDA-capable devices are busy or unavailable", "use --runs-per-gpu 1"),
        (LOG_FILE, "OSError: [Errno 28] No space left on device", "disk or a quota is full"),
        (LOG_FILE, "ModuleNotFoundError: No module named 'einops'", "lacks a package"),
        (LOG_FILE, "Traceback (most recent call last):\nValueError: something", "the program failed"),
        (LOG_FILE, "step 3: validation 3.2500 nats per token", "was killed, or its machine failed"),
        # the class of our own error, which the worker noted
        (CAUSE_FILE, "EditedSources", "sources were edited"),
        (CAUSE_FILE, "CorpusError", "corpus is missing or altered"),
        (CAUSE_FILE, "DeviceError", "GPU or driver is not usable"),
        (CAUSE_FILE, LAUNCHER_GONE, "launcher was killed"),
    ],
)
def test_why_shows_one_screen_with_the_likely_cause_and_what_to_type(file, text, cause, store, runs, capsys):
    died(store, runs[0])
    (store.run_folder(runs[0].run_id) / file).write_text(text + "\n")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-s42: interrupted"
    assert lines[1] == f"attempt 1: process {2**22 + 1} on n1; heartbeat 7, no sign of life"
    nats = "training 2.5000 nats per token, validation 3.2500 nats per token"
    assert lines[2] == f"last word: training, step 3 of 9, {nats}"
    assert lines[3:-2] == ([f"  | {line}" for line in text.splitlines()] if file == LOG_FILE else [])
    assert cause in lines[-2]
    assert lines[-1].startswith(f"next: python -m jobs launch --experiment smoke --store {store.root}")


def test_a_worker_notes_the_class_of_the_error_that_ends_it_and_the_next_one_clears_it(store, runs, monkeypatch):
    noted = store.run_folder(runs[0].run_id) / CAUSE_FILE
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "edited")
    assert call(work, runs[0].run_id, "--store", store.root, "--device", "cpu") == 2
    assert noted.read_text() == "EditedSources"
    monkeypatch.undo()
    assert call(work, runs[0].run_id, "--store", store.root, "--device", "cpu") == 0
    assert not noted.exists()


@pytest.mark.parametrize(
    ("status", "error", "cause", "following"),
    [
        ("diverged", "loss nan, gradient norm nan at step 5", "training diverged", "jobs retry RUN_ID"),
        ("oom", "OutOfMemoryError: CUDA out of memory", "out of memory", "jobs retry RUN_ID"),
        ("io_error", "OSError: [Errno 27] File too large", "disk or a quota", "jobs retry RUN_ID"),
        ("done", None, "none, it is done", "bench table"),
    ],
)
def test_why_of_a_recorded_run_tells_its_end(status, error, cause, following, store, runs, capsys):
    record_run(store, runs[0], status=status, error=error)
    assert call(app, "why", runs[0].run_id, "--store", store.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"tiny-s42: {status}"
    assert cause in lines[-2]
    assert following.replace("RUN_ID", runs[0].run_id) in lines[-1]  # a name may be that of several runs


def test_why_of_a_run_in_the_queue_gives_slurms_reason(store, runs, monkeypatch, capsys):
    submitted(store, [[runs[0]]])
    slurm_says(monkeypatch, f"{NAME}|5|N/A|PENDING||QOSMaxJobsPerUserLimit")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    printed = capsys.readouterr().out
    assert "SLURM: job 5 PENDING (QOSMaxJobsPerUserLimit)" in printed
    assert "it waits for SLURM" in printed
    assert "status" in printed.splitlines()[-1]


def test_control_characters_of_a_log_do_not_reach_the_terminal(store, runs, capsys):
    (store.run_folder(runs[0].run_id) / LOG_FILE).write_bytes(b"\x1b[2Jgone\x07\xff\n")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_cancelled_run_saves_its_state_is_left_alone_and_is_taken_up_by_the_next_launch(tmp_path, request, capsys):
    store, [long] = Store(tmp_path / "store"), tiny_runs(n_steps=100_000, eval_every=100_000)
    store.write_manifest(make_manifest(name="smoke", cells={"tiny": {"42": long.run_id}}))
    folder = write_run(long, store)
    worker = start("jobs.worker", long.run_id, "--store", store.root, "--device", "cpu", "--threads", 1)
    request.addfinalizer(lambda: kill_if_alive(worker.pid))
    wait_until(lambda: (folder / "steps.jsonl").exists() and state_of(store, long) == "running", "the worker")
    assert call(app, "cancel", "tiny-s42", "--store", store.root) == 0
    assert "running on" in capsys.readouterr().out
    assert worker.wait(60) == 130
    worker.communicate()
    assert list(folder.glob("checkpoint-*.pt"))
    assert not store.record_paths()
    assert state_of(store, long) == "cancelled"
    assert call(app, "cancel", "tiny-s42", "--store", store.root) == 0  # again changes nothing
    with hold(store.run_folder(long.run_id)):
        assert state_of(store, long) == "running"
    cell = tiny_cell("tiny", n_steps=100_000, eval_every=100_000)
    todo = Todo(selected=[long], runs=[long], statuses={})
    write_plan(Experiment(name="smoke", question="?", cells=(cell,)), store, todo, any_sources=False)
    assert state_of(store, long) == "interrupted"


@pytest.mark.met("U5")
def test_a_run_that_was_started_inside_an_allocation_looks_at_its_mark_itself(
    tmp_path, request, capsys, monkeypatch, data_dir
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # so that no signal is sent
    store = Store(tmp_path / "store")
    command = ["bench", "run", "--experiment", "smoke", "--cell", "k_operators", "--seed", 42, "--device", "cpu"]
    for _ in range(2):  # starting it again lifts the mark
        process = start(*command, "--set", "training.n_steps=999999", "--store", store.root)
        request.addfinalizer(partial(kill_if_alive, process.pid))
        wait_until(partial(is_held_by, store, process.pid), "the run to begin")
        [folder] = store.work_folder.iterdir()
        assert not (folder / CANCEL_FILE).exists()
        assert call(app, "cancel", folder.name, "--store", store.root) == 0
        assert "stops within seconds" in capsys.readouterr().out
        assert process.wait(60) == 130
        process.communicate()
        assert list(folder.glob("checkpoint-*.pt"))


def is_held_by(store: Store, pid: int) -> bool:
    """Whether a process holds a run of a store that has taken steps."""
    found = [read_holder(path.parent) for path in store.work_folder.glob("*/steps.jsonl")]
    return any(one is not None and one.pid == pid for one in found)


def test_a_job_is_cancelled_only_where_none_of_its_runs_is_wanted(store, runs, monkeypatch):
    submitted(store, [[runs[0]], [runs[1], runs[2]]])
    asked = slurm_says(monkeypatch, f"{NAME}|5|0|PENDING||None", f"{NAME}|5|1|RUNNING|n1|None")
    assert call(app, "cancel", "tiny-s42", "tiny-s69", "--store", store.root) == 0
    assert [command for command in asked if command[0] == "scancel"] == [("scancel", "5_0")]
    assert call(app, "cancel", "tiny-s420", "--store", store.root) == 0
    assert [command for command in asked if command[0] == "scancel"] == [("scancel", "5_0"), ("scancel", "5_1")]
    assert {state_of(store, run) for run in runs} == {"cancelled"}


def test_a_recorded_run_is_not_cancelled_and_a_done_one_not_retried(store, runs, capsys):
    record_run(store, runs[0])
    assert call(app, "cancel", "tiny-s42", "--store", store.root) == 0
    assert "has its record (done)" in capsys.readouterr().out
    assert not (store.run_folder(runs[0].run_id) / CANCEL_FILE).exists()
    assert call(app, "retry", "tiny-s42", "--store", store.root) == 2
    assert "bench rerun" in capsys.readouterr().err


def test_a_retry_sets_the_record_aside_lifts_a_cancellation_and_says_what_to_type(store, runs, monkeypatch, capsys):
    path = record_run(store, runs[0], status="failed", config=to_json(runs[0].config))
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "0" * 64)  # somebody has mended the sources
    for run in runs[1:]:
        (store.run_folder(run.run_id) / CANCEL_FILE).write_bytes(b"")
    assert call(app, "retry", "tiny-s42", "tiny-s69", "--store", store.root) == 0
    assert f"python -m jobs launch --experiment smoke --store {store.root}" in capsys.readouterr().out
    assert not path.exists()
    assert list(store.run_folder(runs[0].run_id).glob("earlier-record-*.json"))
    assert [state_of(store, run) for run in runs] == ["missing", "missing", "cancelled"]


def test_gc_keeps_both_checkpoints_of_a_run_that_may_be_retried(store, runs):
    record_run(store, runs[0], status="io_error")
    leave_checkpoints(store, runs[0], 4, 8)
    assert leftovers(store) == []


def test_gc_leaves_submissions_that_slurm_may_still_need(store, runs, monkeypatch):
    record_run(store, runs[0])
    submitted(store, [[runs[0]]])
    submitted(store, [[runs[1]]], name="kops-aaaaaaaa", measures=True)
    (store.work_folder / "compile-cache").mkdir()
    (store.work_folder / "compile-cache" / "x").write_bytes(b"x")
    assert leftovers(store) == []  # SLURM cannot be asked
    slurm_says(monkeypatch, f"{NAME}|5|N/A|COMPLETING|n1|None", "kops-aaaaaaaa|6|N/A|PENDING||None")
    assert leftovers(store) == []
    slurm_says(monkeypatch, f"{NAME}|5|N/A|COMPLETED|n1|None")
    assert {one.path.name for one in leftovers(store)} == {NAME, "kops-aaaaaaaa", "compile-cache"}


def test_gc_removes_what_no_run_needs_and_nothing_else(store, runs, capsys, monkeypatch):
    done, at_work, waiting = runs
    slurm_says(monkeypatch)
    record_run(store, done)
    for run in (done, at_work, waiting):
        folder = store.run_folder(run.run_id)
        leave_checkpoints(store, run, 4, 8)
        for path in checkpoint.paths(folder):
            path.with_name(f"{path.name}.sha256").write_bytes(b"y")
        (folder / ".checkpoint-1.tmp").write_bytes(b"half")
        (folder / LOG_FILE).write_text("kept")
    submitted(store, [[done]])
    submitted(store, [[waiting]], name="kops-aaaaaaaa")
    with hold(store.run_folder(at_work.run_id)):
        before = {*store.root.rglob("*")}
        assert call(app, "gc", "--store", store.root, "--dry-run") == 0
        assert {*store.root.rglob("*")} == before
        said = capsys.readouterr().out
        assert call(app, "gc", "--store", store.root) == 0
        assert capsys.readouterr().out == said
        gone = before - {*store.root.rglob("*")}
    assert {str(path.relative_to(store.work_folder)) for path in gone} == {
        f"{done.run_id}/checkpoint-00000004.pt",
        f"{done.run_id}/checkpoint-00000004.pt.sha256",
        f"{done.run_id}/.checkpoint-1.tmp",
        f"{waiting.run_id}/.checkpoint-1.tmp",
        f"jobs/{NAME}",
        f"jobs/{NAME}/plan.json",
    }
    assert "older checkpoint of a finished run: 2 files" in said
    remove(leftovers(store))
    assert checkpoint.paths(store.run_folder(done.run_id))
    assert call(app, "gc", "--store", store.root) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


@pytest.mark.fault("F16")
def test_a_file_that_a_shared_folder_shows_late_is_waited_for(tmp_path, monkeypatch):
    path, naps = tmp_path / "late", []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            path.write_text("there")

    clock = SimpleNamespace(monotonic=lambda: sum(naps), sleep=nap)
    monkeypatch.setattr("bench.files.time", clock)
    assert wait_for(path.read_text, 10) == "there"
    assert len(naps) == 3
    naps.clear()
    with pytest.raises(FileNotFoundError):
        wait_for((tmp_path / "never").read_text, 0.3)
    assert 0.1 < sum(naps) <= 0.3


@pytest.mark.fault("F16")
def test_a_record_that_is_not_listed_yet_is_not_lost_and_is_seen_later(store, runs, monkeypatch):
    record_run(store, runs[0])
    with monkeypatch.context() as stale:
        stale.setattr(Store, "record_paths", lambda _: [])
        assert state_of(store, runs[0]) == "missing"  # not failed
    assert state_of(store, runs[0]) == "done"


def test_a_retry_of_nothing_names_what_to_do(tmp_path, capsys):
    store = Store(tmp_path)
    store.write_manifest(make_manifest({"a": {"1": "0" * 12}}))
    assert call(app, "retry", "--store", tmp_path) == 2
    assert "jobs status" in capsys.readouterr().err
    assert call(app, "cancel", "--experiment", "other", "--store", tmp_path) == 2
