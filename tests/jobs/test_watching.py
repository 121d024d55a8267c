"""What a person asks about runs is answered from the store, and what they ask to be done is done and no more."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import checkpoint
from bench.config import Run, to_json
from bench.experiments.grid import Experiment
from bench.lease import Holder, boot_id, hold
from bench.store import Store
from jobs import doctor
from jobs.__main__ import app
from jobs.control import leftovers, remove
from jobs.cost import known_estimates, note_seconds, run_seconds, schedule_seconds, timeout_minutes
from jobs.launch import Todo, write_plan
from jobs.layout import CANCEL_FILE, LOG_FILE
from jobs.slurm import scheduler
from jobs.slurm.scheduler import SchedulerError, TaskState, read_duration, read_queue, tasks_by_run
from jobs.slurm.submission import Submission, note_job, patiently, submissions
from jobs.speeds import Place
from jobs.status import states
from jobs.worker import write_run
from tests.command_line import call, kill_if_alive, start, wait_until
from tests.records import make_manifest, make_record
from tests.tiny import NAME, submission_of, tiny_cell, tiny_runs

HERE = Place(device="cpu", n_threads=1, name="Plain CPU")


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SLURM is asked unless a test gives one."""
    monkeypatch.setattr(scheduler, "ask", lambda *command: no_slurm(command[0]))


def no_slurm(command: str) -> str:
    raise SchedulerError(f"{command}: not here")


@pytest.fixture
def launched(tmp_path: Path) -> tuple[Store, list[Run]]:
    """A store that knows of three runs, none of which has begun."""
    store, runs = Store(tmp_path / "store"), tiny_runs(seeds=(42, 69, 420))
    store.write_manifest(make_manifest(name="smoke", cells={"tiny": {str(run.seed): run.run_id for run in runs}}))
    for run in runs:
        write_run(run, store)
    return store, runs


def submitted(store: Store, tasks: list[list[Run]], **changes: object) -> Submission:
    """A submission of some tasks, as it lies on disk."""
    made = submission_of(store, *(tuple(run.run_id for run in task) for task in tasks), **changes)
    made.write(store)
    return made


def slurm_says(monkeypatch: pytest.MonkeyPatch, *lines: str, accounts: str | None = None) -> list[tuple[str, ...]]:
    """Have `squeue` answer these lines and `sacct` that text; the commands that are asked come into the list."""
    asked: list[tuple[str, ...]] = []

    def ask(*command: str) -> str:
        asked.append(command)
        if command[0] == "squeue":
            return "\n".join(lines)
        if command[0] == "sacct" and accounts is not None:
            return accounts
        if command[0] == "scancel":
            return ""
        return no_slurm(command[0])

    monkeypatch.setattr(scheduler, "ask", ask)
    return asked


def state_of(store: Store, run: Run) -> str:
    """The state that a run is shown with."""
    found = states(store, store.manifests()[0][0], store.records()[0])
    return next(one.state for one in found if one.run_id == run.run_id)


# what SLURM says ------------------------------------------------------------------------------------------------------


def test_a_line_of_the_queue_reads_as_a_task_and_foreign_jobs_do_not_count():
    found = read_queue(
        f"{NAME}|12|3|RUNNING|n1|1-02:03:04|None\n"
        f"{NAME}|12|4|PENDING||30:00|Resources\n"
        "kops-ffffffff|13|N/A|COMPLETED|n2|INVALID|None\n"
        "somebody|14|0|RUNNING|n1|0:10|None\n"
        "a line of another shape\n"
    )
    assert found == {
        (NAME, 3): TaskState(job_id="12_3", state="RUNNING", node="n1", seconds_left=93784, reason="None"),
        (NAME, 4): TaskState(job_id="12_4", state="PENDING", node="", seconds_left=1800, reason="Resources"),
        ("kops-ffffffff", 0): TaskState(job_id="13", state="COMPLETED", node="n2", seconds_left=None, reason="None"),
    }


@pytest.mark.parametrize(
    "lines", [("5|CANCELLED", "7|RUNNING"), ("7|RUNNING", "5|CANCELLED"), ("7|RUNNING", "9|FAILED")]
)
def test_of_several_jobs_of_one_name_the_active_one_counts(lines):
    text = "\n".join(f"{NAME}|{job}|0|{state}||0:10|None" for job, state in (line.split("|") for line in lines))
    assert read_queue(text)[NAME, 0].job_id == "7_0"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:05", 5), ("30:00", 1800), ("2:00:00", 7200), ("1-00:00:00", 86400), ("UNLIMITED", None)]
)
def test_durations_are_read_as_slurm_writes_them(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("PENDING||30:00|Priority", "queued"),
        ("RUNNING|n1|29:00|None", "queued"),  # its turn has not come
        ("CANCELLED||0:00|None", "cancelled"),
        ("TIMEOUT||0:00|None", "timeout"),
        ("NODE_FAIL||0:00|None", "missing"),
        ("COMPLETED|n1|0:00|None", "missing"),
    ],
)
def test_a_run_without_record_or_life_shows_what_slurm_says_of_its_task(line, state, launched, monkeypatch):
    store, runs = launched
    submitted(store, [[runs[0]], [runs[1], runs[2]]])
    slurm_says(monkeypatch, f"{NAME}|5|1|{line}")
    assert [state_of(store, run) for run in runs] == ["missing", state, state]


def test_a_record_and_a_living_process_count_for_more_than_slurms_word(launched, monkeypatch):
    store, runs = launched
    submitted(store, [[run] for run in runs])
    slurm_says(monkeypatch, *(f"{NAME}|5|{index}|CANCELLED||0:00|None" for index in range(3)))
    store.write_record(make_record(run_id=runs[0].run_id, label="tiny"))
    with hold(store.run_folder(runs[1].run_id)):
        assert [state_of(store, run) for run in runs] == ["done", "running", "cancelled"]
    assert state_of(store, runs[1]) == "cancelled"


def test_what_slurm_said_of_an_ended_task_is_kept_after_it_has_forgotten(launched, monkeypatch):
    store, runs = launched
    submitted(store, [[runs[0]]])
    slurm_says(monkeypatch, f"{NAME}|5|N/A|CANCELLED||0:00|None")
    assert state_of(store, runs[0]) == "cancelled"
    slurm_says(monkeypatch)  # an empty queue, and no accounts
    assert state_of(store, runs[0]) == "cancelled"


def test_accounts_are_asked_where_the_queue_has_forgotten(launched, monkeypatch):
    store, runs = launched
    note_job(submitted(store, [[run] for run in runs]).folder(store), "77")
    told = "JobID|State|NodeList\n77_0|TIMEOUT|n1\n77_0.batch|CANCELLED|n1\n77_[1-2]|CANCELLED by 0|None assigned\n"
    asked = slurm_says(monkeypatch, accounts=told)
    assert [state_of(store, run) for run in runs] == ["timeout", "cancelled", "cancelled"]
    assert any(command[0] == "sacct" and "77" in command for command in asked)


def test_accounts_that_are_behind_do_not_keep_a_run_in_the_queue_for_ever(launched, monkeypatch):
    store, runs = launched
    note_job(submitted(store, [[runs[0]]]).folder(store), "77")
    slurm_says(monkeypatch, accounts="JobID|State|NodeList\n77|RUNNING|n1\n")
    assert state_of(store, runs[0]) == "missing"


def test_a_cluster_that_cannot_be_asked_still_has_a_status(launched, capsys):
    store, runs = launched
    submitted(store, [[runs[0]]])
    assert call(app, "status", "--store", store.root) == 3
    assert capsys.readouterr().out.count("missing") == 3


def test_status_is_json_for_scripts(launched, capsys):
    store, runs = launched
    assert call(app, "status", "--store", store.root, "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert [one["run_id"] for one in found] == [run.run_id for run in runs]
    assert {one["state"] for one in found} == {"missing"}


def test_of_several_submissions_of_a_run_an_active_task_counts_else_the_last(launched, monkeypatch):
    store, runs = launched
    submitted(store, [[runs[0]], [runs[1]]])
    submitted(store, [[runs[0]], [runs[1]]], name="kops-aaaaaaaa", number=1)
    assert [one.number for one in submissions(store)] == [0, 1]
    slurm_says(
        monkeypatch,
        f"{NAME}|5|0|RUNNING|n1|1:00|None",
        f"{NAME}|5|1|FAILED||0:00|None",
        "kops-aaaaaaaa|6|0|FAILED||0:00|None",
        "kops-aaaaaaaa|6|1|CANCELLED||0:00|None",
    )
    found = tasks_by_run(store)
    assert (found[runs[0].run_id].job_id, found[runs[1].run_id].job_id) == ("5_0", "6_1")


# why ------------------------------------------------------------------------------------------------------------------


def died(store: Store, run: Run) -> None:
    """Leave what a process leaves that was killed on this machine."""
    holder = Holder(attempt=1, owner="a", boot=boot_id(), node="n1", pid=2**22 + 1, job_id=None, heartbeat=7)
    (store.run_folder(run.run_id) / "lease-1.json").write_text(json.dumps(asdict(holder)))
    progress = {"state": "training", "step": 3, "n_steps": 9, "train_nats": 2.5, "val_nats_per_token": 3.25}
    (store.run_folder(run.run_id) / "progress.json").write_text(json.dumps(progress))


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory", "out of memory"),
        ("torch.AcceleratorError: CUDA error: out of memory", "out of memory"),
        ("RuntimeError: Triton Error [CUDA]: out of memory", "out of memory"),
        ("RuntimeError: CUDA driver error: out of memory", "out of memory"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "out of memory"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "use --runs-per-gpu 1"),
        ("OSError: [Errno 28] No space left on device", "disk or a quota is full"),
        ("ModuleNotFoundError: No module named 'einops'", "lacks a package"),
        ("error: the sources of transformer were edited after tiny-s42 was launched", "sources were edited"),
        ("Traceback (most recent call last):\nValueError: something", "the program failed"),
        ("the launcher is gone", "launcher was killed"),
        ("step 3: validation 3.2500 nats a token", "was killed, or its machine failed"),
    ],
)
def test_why_shows_one_screen_with_the_likely_cause_and_what_to_type(log, cause, launched, capsys):
    store, runs = launched
    died(store, runs[0])
    (store.run_folder(runs[0].run_id) / LOG_FILE).write_text(log + "\n")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-s42: interrupted"
    assert lines[1] == f"attempt 1: process {2**22 + 1} on n1; heartbeat 7, no sign of life"
    assert lines[2] == "last word: training, step 3 of 9, training 2.5000 nats a token, validation 3.2500 nats a token"
    assert [f"  | {line}" for line in log.splitlines()] == lines[3 : 3 + len(log.splitlines())]
    assert cause in lines[-2]
    assert lines[-1].startswith(f"next: python -m jobs launch --experiment smoke --store {store.root}")
    assert len(lines) <= 24


@pytest.mark.parametrize(
    ("status", "error", "cause", "following"),
    [
        ("diverged", "loss nan, gradient norm nan at step 5", "training diverged", "jobs retry RUN_ID"),
        ("oom", "OutOfMemoryError: CUDA out of memory", "out of memory", "jobs retry RUN_ID"),
        ("io_error", "OSError: [Errno 27] File too large", "disk or a quota", "jobs retry RUN_ID"),
        ("done", None, "none, it is done", "bench table"),
    ],
)
def test_why_of_a_recorded_run_tells_its_end(status, error, cause, following, launched, capsys):
    store, runs = launched
    recorded = make_record(run_id=runs[0].run_id, label="tiny", status=status, error=error)
    store.write_record(recorded)
    assert call(app, "why", runs[0].run_id, "--store", store.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"tiny-s42: {status}"
    assert cause in lines[-2]
    assert following.replace("RUN_ID", runs[0].run_id) in lines[-1]  # a name may be that of several runs


def test_why_of_a_run_in_the_queue_gives_slurms_reason(launched, monkeypatch, capsys):
    store, runs = launched
    submitted(store, [[runs[0]]])
    slurm_says(monkeypatch, f"{NAME}|5|N/A|PENDING||30:00|QOSMaxJobsPerUserLimit")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    printed = capsys.readouterr().out
    assert "SLURM: job 5 PENDING (QOSMaxJobsPerUserLimit)" in printed
    assert "it waits for SLURM" in printed
    assert "status" in printed.splitlines()[-1]


def test_control_characters_of_a_log_do_not_reach_the_terminal(launched, capsys):
    store, runs = launched
    (store.run_folder(runs[0].run_id) / LOG_FILE).write_bytes(b"\x1b[2Jgone\x07\xff\n")
    assert call(app, "why", "tiny-s42", "--store", store.root) == 0
    assert "\x1b" not in capsys.readouterr().out


# cancel, retry --------------------------------------------------------------------------------------------------------


def test_a_cancelled_run_saves_its_state_is_left_alone_and_is_taken_up_by_the_next_launch(tmp_path, request, capsys):
    store, [long] = Store(tmp_path / "store"), tiny_runs(n_steps=100_000, eval_every=100_000)
    store.write_manifest(make_manifest(name="smoke", cells={"tiny": {"42": long.run_id}}))
    folder = write_run(long, store)
    worker = start("jobs.worker", long.run_id, "--store", store.root, "--device", "cpu", "--threads", 1)
    request.addfinalizer(lambda: kill_if_alive(worker.pid))
    wait_until(lambda: (folder / "steps.jsonl").exists() and state_of(store, long) == "running", "the worker")
    assert call(app, "cancel", "tiny-s42", "--store", store.root) == 0
    assert "at work on" in capsys.readouterr().out
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


def test_a_job_is_cancelled_only_where_none_of_its_runs_is_wanted(launched, monkeypatch):
    store, runs = launched
    submitted(store, [[runs[0]], [runs[1], runs[2]]])
    asked = slurm_says(monkeypatch, f"{NAME}|5|0|PENDING||1:00|None", f"{NAME}|5|1|RUNNING|n1|1:00|None")
    assert call(app, "cancel", "tiny-s42", "tiny-s69", "--store", store.root) == 0
    assert [command for command in asked if command[0] == "scancel"] == [("scancel", "5_0")]
    assert call(app, "cancel", "tiny-s420", "--store", store.root) == 0
    assert [command for command in asked if command[0] == "scancel"] == [("scancel", "5_0"), ("scancel", "5_1")]
    assert {state_of(store, run) for run in runs} == {"cancelled"}


def test_a_recorded_run_is_not_cancelled_and_a_done_one_not_retried(launched, capsys):
    store, runs = launched
    store.write_record(make_record(run_id=runs[0].run_id, label="tiny"))
    assert call(app, "cancel", "tiny-s42", "--store", store.root) == 0
    assert "has its record (done)" in capsys.readouterr().out
    assert not (store.run_folder(runs[0].run_id) / CANCEL_FILE).exists()
    assert call(app, "retry", "tiny-s42", "--store", store.root) == 2
    assert "bench rerun" in capsys.readouterr().err


def test_a_retry_sets_the_record_aside_lifts_a_cancellation_and_says_what_to_type(launched, monkeypatch, capsys):
    store, runs = launched
    failed = make_record(run_id=runs[0].run_id, label="tiny", status="failed", config=to_json(runs[0].config))
    path = store.write_record(failed)
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "0" * 64)  # somebody has mended the sources
    for run in runs[1:]:
        (store.run_folder(run.run_id) / CANCEL_FILE).write_bytes(b"")
    assert call(app, "retry", "tiny-s42", "tiny-s69", "--store", store.root) == 0
    assert f"python -m jobs launch --experiment smoke --store {store.root}" in capsys.readouterr().out
    assert not path.exists()
    assert list(store.run_folder(runs[0].run_id).glob("earlier-record-*.json"))
    assert [state_of(store, run) for run in runs] == ["missing", "missing", "cancelled"]


# what nothing needs ---------------------------------------------------------------------------------------------------


def test_gc_keeps_both_checkpoints_of_a_run_that_may_be_retried(launched):
    store, runs = launched
    store.write_record(make_record(run_id=runs[0].run_id, label="tiny", status="io_error"))
    for step in (4, 8):
        (store.run_folder(runs[0].run_id) / f"checkpoint-{step:08d}.pt").write_bytes(b"x")
    assert leftovers(store) == []


def test_gc_leaves_submissions_that_slurm_may_still_need(launched, monkeypatch):
    store, runs = launched
    store.write_record(make_record(run_id=runs[0].run_id, label="tiny"))
    submitted(store, [[runs[0]]])
    submitted(store, [[runs[1]]], name="kops-aaaaaaaa", measures=True)
    (store.work_folder / "compile-cache").mkdir()
    (store.work_folder / "compile-cache" / "x").write_bytes(b"x")
    assert leftovers(store) == []  # SLURM cannot be asked
    slurm_says(monkeypatch, f"{NAME}|5|N/A|COMPLETING|n1|1:00|None", "kops-aaaaaaaa|6|N/A|PENDING||1:00|None")
    assert leftovers(store) == []
    slurm_says(monkeypatch, f"{NAME}|5|N/A|COMPLETED|n1|1:00|None")
    assert {one.path.name for one in leftovers(store)} == {NAME, "kops-aaaaaaaa", "compile-cache"}


def test_gc_removes_what_no_run_needs_and_nothing_else(launched, capsys, monkeypatch):
    store, (done, at_work, waiting) = launched
    slurm_says(monkeypatch)
    store.write_record(make_record(run_id=done.run_id, label="tiny"))
    for run in (done, at_work, waiting):
        folder = store.run_folder(run.run_id)
        for step in (4, 8):
            (folder / f"checkpoint-{step:08d}.pt").write_bytes(b"x" * 1000)
            (folder / f"checkpoint-{step:08d}.pt.sha256").write_bytes(b"y")
        (folder / ".checkpoint-1.tmp").write_bytes(b"half")
        (folder / LOG_FILE).write_text("kept")
    submitted(store, [[done]])
    submitted(store, [[waiting]], name="kops-aaaaaaaa")
    with hold(store.run_folder(at_work.run_id)):
        before = {path for path in store.root.rglob("*") if path.is_file()}
        assert call(app, "gc", "--store", store.root, "--dry-run") == 0
        assert {path for path in store.root.rglob("*") if path.is_file()} == before
        said = capsys.readouterr().out
        assert call(app, "gc", "--store", store.root) == 0
        assert capsys.readouterr().out == said
        gone = before - {path for path in store.root.rglob("*") if path.is_file()}
    assert {str(path.relative_to(store.work_folder)) for path in gone} == {
        f"{done.run_id}/checkpoint-00000004.pt",
        f"{done.run_id}/checkpoint-00000004.pt.sha256",
        f"{done.run_id}/.checkpoint-1.tmp",
        f"{waiting.run_id}/.checkpoint-1.tmp",
        f"jobs/{NAME}/plan.json",
    }
    assert "older checkpoint of a finished run: 2 files" in said
    remove(leftovers(store))
    assert checkpoint.paths(store.run_folder(done.run_id))
    assert call(app, "gc", "--store", store.root) == 0
    assert capsys.readouterr().out == "nothing to remove\n"


# doctor ---------------------------------------------------------------------------------------------------------------


def test_the_doctor_prints_json_alone_without_slurm(tmp_path, data_dir, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert call(app, "doctor", "--json", "--store", tmp_path / "store", "--data-dir", data_dir) == 0
    printed = capsys.readouterr()
    found = {one["name"]: one["verdict"] for one in json.loads(printed.out)}
    assert printed.err == ""
    assert found["slurm"] == "note"
    assert {"python", "torch", "gpu", "corpus", "store", "clock", "accounting", "array size", "preemption"} <= set(
        found
    )
    assert not (tmp_path / "store").exists()
    assert not list(tmp_path.glob(".probe*"))


@pytest.mark.fault("F10")
def test_the_doctor_names_an_altered_corpus_and_a_folder_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    text = tmp_path / "tinyshakespeare" / "input.txt"
    text.parent.mkdir()
    text.write_bytes(b"altered")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    link = os.link

    def refuse(source: Path, target: Path) -> None:
        if blocked in target.parents:
            raise OSError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)
    assert call(app, "doctor", "--store", blocked, "--data-dir", tmp_path) == 1
    lines = {line[9:21].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "altered" in lines["corpus"]
    assert lines["corpus"].startswith("problem")
    assert lines["store"].startswith("problem")
    assert lines["torch"].startswith("ok")


def test_the_doctor_reads_what_slurm_says_of_preemption(monkeypatch):
    config = {"PreemptMode": "REQUEUE", "PreemptParameters": "", "MaxArraySize": "1001", "KillWait": "30 sec"}
    monkeypatch.setattr(doctor, "settings", lambda: config)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/x")
    assert doctor._preemption()[0] == "note"
    config["PreemptParameters"] = "send_user_signal"
    assert doctor._preemption()[0] == "ok"
    assert "1001" in doctor._setting("MaxArraySize", "")[1]


# how long -------------------------------------------------------------------------------------------------------------


def test_a_time_limit_is_half_again_what_was_measured_and_never_below_thirty_minutes():
    assert timeout_minutes(10.0) == 30
    assert timeout_minutes(3600.0) == 95  # 1.5 hours and 5 minutes
    assert timeout_minutes(None) == 240
    assert schedule_seconds([5, 3, 3, 1], 2) == 6


def test_a_runs_time_is_known_from_records_of_its_config_on_its_kind_of_device(tmp_path, monkeypatch):
    store, [run], [longer] = Store(tmp_path), tiny_runs(seeds=(7,)), tiny_runs(seeds=(7,), n_steps=5)
    recorded = make_record(run_id=run.run_id, config=to_json(run.config))
    store.write_record(recorded)
    known, here = known_estimates([run, longer], [store], HERE), recorded.cost.train_seconds
    assert known[run.run_id].seconds == pytest.approx(run_seconds(run, here / 4, HERE))  # it has four steps
    assert known[longer.run_id].seconds == pytest.approx(run_seconds(longer, here / 4, HERE))
    assert known_estimates([run], [store], replace(HERE, device="cuda")) == {}
    monkeypatch.setattr("jobs.probe.probe", lambda *_: 123.0)
    note_seconds(longer, submitted(store, [[longer]]), store)
    assert known_estimates([longer], [store], HERE)[longer.run_id].seconds == 123.0


# late files, refused tasks --------------------------------------------------------------------------------------------


@pytest.mark.fault("F16")
def test_a_file_that_a_shared_folder_shows_late_is_waited_for(tmp_path, monkeypatch):
    path, naps = tmp_path / "late", []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            path.write_text("there")

    clock = SimpleNamespace(monotonic=lambda: sum(naps), sleep=nap)
    monkeypatch.setattr("jobs.slurm.submission.time", clock)
    assert patiently(path.read_text, 10) == "there"
    assert len(naps) == 3
    naps.clear()
    with pytest.raises(FileNotFoundError):
        patiently((tmp_path / "never").read_text, 0.3)
    assert 0.1 < sum(naps) <= 0.3


@pytest.mark.fault("F16")
def test_a_record_that_is_not_listed_yet_is_not_lost_and_is_seen_later(launched, monkeypatch):
    store, runs = launched
    store.write_record(make_record(run_id=runs[0].run_id, label="tiny"))
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
