"""A worker does its run alone, stops with its launcher or at a signal, and refuses what it was not launched for."""

import json
import os
import signal

import pytest

from bench import checkpoint
from bench.config import Run, to_json
from bench.errors import EditedSources
from bench.experiments import smoke
from bench.lease import hold
from bench.process import read_progress
from bench.run import Settings, execute
from bench.store import Store
from jobs import status
from jobs.app import app
from jobs.launch import summary
from jobs.layout import LOG_FILE, RUN_FILE
from jobs.local import LocalPool
from jobs.slots import Slot, make_slots
from jobs.worker import find_run, work, write_run
from tests.command_line import call, finish, kill_if_alive, start, start_python, wait_until
from tests.conftest import CPU
from tests.tiny import tiny_runs
from tests.watched import assert_equal_bits, newest_step, steps_done

ESCAPE = "\x1b"


def test_a_run_that_another_process_works_on_is_left_to_it(tmp_path):
    [run], store = tiny_runs("good"), Store(tmp_path)
    with hold(store.run_folder(run.run_id)):
        ended = LocalPool(store, make_slots("cpu", 1)).run([run], lambda *_: None)
    assert ended[0].status is None
    assert "another process" in ended[0].reason
    assert summary(ended, store) == 1
    assert not store.record_paths()
    assert "Traceback" not in (store.run_folder(run.run_id) / LOG_FILE).read_text()


LAUNCHER = """
import subprocess, sys, os
worker = subprocess.Popen([sys.executable, *sys.argv[1:], "--parent", str(os.getpid())], start_new_session=True)
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.mark.met("U6")
def test_workers_of_a_launcher_that_was_killed_save_and_stop(tmp_path, request):
    [run], store = tiny_runs("long", n_steps=100_000, eval_every=100_000), Store(tmp_path / "store")
    write_run(run, store)
    worker = ["-m", "jobs.worker", run.run_id, "--store", store.root, "--device", "cpu", "--threads", 1]
    worker += ["--checkpoint-seconds", 1e9]
    with (tmp_path / "log").open("w") as log, start_python("-c", LAUNCHER, *worker, stderr=log) as launcher:
        request.addfinalizer(launcher.kill)
        pid = int(launcher.stdout.readline())
        request.addfinalizer(lambda: kill_if_alive(pid))
        wait_until(lambda: steps_done(store, run) > 0, "the first steps")
        assert status.at_work(store, [run.run_id])
        launcher.kill()
    wait_until(lambda: not status.at_work(store, [run.run_id]), f"worker {pid} to stop")
    assert not store.record_paths()
    assert newest_step(store, run) > 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_ctrl_c_saves_every_run_and_exits_130_and_the_same_command_ends_with_the_same_numbers(tmp_path, data_dir):
    store = Store(tmp_path / "store")
    command = ["jobs", "launch", "--experiment", "smoke", "-k", "s42 !trans", "--store", store.root, "--device", "cpu"]
    command += ["--workers", os.cpu_count(), "--seeds", "42", "--checkpoint-seconds", 1e9]  # one thread each
    run = next(run for run in smoke().runs() if run.label == "k_operators" and run.seed == 42)
    process = start(*command, data_dir=data_dir, start_new_session=True)
    wait_until(lambda: read_progress(store.run_folder(run.run_id)) is not None, "the first evaluation")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group of processes
    code, output, errors = finish(process)
    assert (code, errors) == (130, "")
    assert "state saved" in output
    assert not store.record_paths()
    assert checkpoint.paths(store.run_folder(run.run_id))
    assert not status.at_work(store, [run.run_id])

    code, output, errors = finish(start(*command, data_dir=data_dir))
    assert (code, errors) == (0, "")
    assert "done" in output
    assert ESCAPE not in output
    assert "\r" not in output
    recorded = store.records()[0][0]
    settings = Settings(device=CPU, n_threads=recorded.environment.n_threads, data_dir=data_dir)
    clean = execute(run, Store(tmp_path / "clean"), settings)
    assert_equal_bits(recorded, clean)
    assert len(recorded.attempts) == 2


def test_a_worker_refuses_a_run_folder_that_is_missing_or_of_another_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jobs.worker.RUN_FILE_SECONDS", 0.01)
    [run], store = tiny_runs("good"), Store(tmp_path)
    for content in (None, json.dumps({**to_json(run), "seed": 43}), "{"):
        if content is not None:
            (write_run(run, store) / RUN_FILE).write_text(content)
        assert call(work, run.run_id, "--store", store.root) == 2
        [error] = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ")
        assert "launch the run again" in error


@pytest.mark.fault("F14")
def test_a_run_that_waited_refuses_sources_that_were_edited_meanwhile_unless_told_otherwise(tmp_path, monkeypatch):
    [run], store = tiny_runs("good"), Store(tmp_path)
    write_run(run, store)
    assert find_run(run.run_id, store) == run
    monkeypatch.setattr("jobs.worker.fingerprint", lambda _: "0" * 64)
    with pytest.raises(EditedSources, match=r"good-s42 was launched.*launch it again"):
        find_run(run.run_id, store)
    write_run(run, store, any_sources=True)
    assert find_run(run.run_id, store) == run


def test_runs_trained_side_by_side_have_the_bits_of_runs_trained_alone(tmp_path):
    runs = tiny_runs("pair", (42, 69), n_steps=300, eval_every=150)
    slot, n_at_work = Slot(device="cpu", n_threads=1), []

    def watch(active: list[Run], _: object) -> None:
        n_at_work.append(len(status.at_work(together, [run.run_id for run in active])))  # not just started

    together, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    LocalPool(together, [slot, slot]).run(runs, watch)
    LocalPool(alone, [slot]).run(runs[:1], lambda *_: None)
    assert max(n_at_work) == 2
    lone = alone.records()[0][0]
    packed = next(one for one in together.records()[0] if one.run_id == lone.run_id)
    assert_equal_bits(packed, lone)
    assert [one.runs_per_gpu for one in packed.attempts] == [None]  # each had a core of its own


def test_packing_a_gpu_is_refused_where_runs_are_on_the_cpu(tmp_path, data_dir, capsys):
    command = ["launch", "--experiment", "smoke", "--device", "cpu", "--runs-per-gpu", 2, "--data-dir", data_dir]
    assert call(app, *command, "--store", tmp_path / "store") == 2
    assert "use --workers" in capsys.readouterr().err
