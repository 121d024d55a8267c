"""What is shown before a launch is what is submitted.

No SLURM is needed: its programs are stand-ins that write down what they are given.
"""

import json
import os
import re
from pathlib import Path

import pytest

from bench.experiments import smoke
from bench.store import Store
from jobs.app import app
from jobs.layout import JOBS_FOLDER, PLAN_FILE
from jobs.slurm import arrays as slurm
from jobs.slurm.arrays import make_arrays, script, submit, submit_missing
from jobs.slurm.scheduler import SchedulerError, max_array_size
from jobs.slurm.submission import read_submission, submissions
from jobs.worker import find_run
from tests.command_line import call
from tests.jobs.slurm.stand_in import given
from tests.sites import ALWAYS_ASKED, arrays_of, flags, profile, twenty
from tests.tiny import request_of
from tests.watched import record_run


@pytest.mark.fault("F17")
def test_a_grid_longer_than_slurms_arrays_goes_in_several_and_each_run_once(fake_slurm, store, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "max_array_size", max_array_size)  # asks `scontrol`, which says 7
    submit_missing(twenty(), store, request_of())
    assert [flags(text)["array"] for text in given(fake_slurm)] == ["0-6%7", "0-6%7", "0-5%6"]
    plans = submissions(store)
    assert [len(plan.tasks) for plan in plans] == [7, 7, 6]
    run_ids = [one for plan in plans for task in plan.tasks for one in task]
    assert sorted(run_ids) == sorted(run.run_id for run in twenty().runs())
    assert [find_run(one, store).run_id for one in run_ids] == run_ids
    assert len(re.findall("submitted kops-", capsys.readouterr().out)) == 3


@pytest.mark.fault("F17")
@pytest.mark.parametrize(("limit", "n_arrays"), [(1, 20), (7, 3), (20, 1), (21, 1)])
def test_the_limit_of_a_profile_cuts_the_grid(limit, n_arrays, tmp_path):
    arrays = make_arrays(twenty(), twenty().runs(), Store(tmp_path), request_of(f"max_array_size={limit}"), {})
    run_ids = [one for array in arrays for task in array.submission.tasks for one in task]
    assert len(arrays) == len({array.submission.name for array in arrays}) == n_arrays
    assert run_ids == [run.run_id for run in twenty().runs()]


@pytest.mark.parametrize("changes", [{}, {"runs_per_job": 6}, {"device": "cuda", "profile": "mysite"}])
def test_the_script_that_is_shown_is_the_script_that_is_submitted(changes, fake_slurm, store, capsys):
    profile('partition = "debug"\nsetup = ["module load x"]\n[gpu]\ngpus_per_node = 1')
    shown = submit_missing(smoke(), store, request_of(**changes), rehearse=True)
    printed = capsys.readouterr().out
    assert submit_missing(smoke(), store, request_of(**changes)) == shown
    assert given(fake_slurm) == [script(array, store) for array in shown]
    assert all(text in printed for text in given(fake_slurm))


def test_another_signal_of_submitits_is_shown_as_it_is_submitted(fake_slurm, store, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    [array] = submit_missing(smoke(), store, request_of())
    assert given(fake_slurm) == [script(array, store)]


def test_sbatch_sees_what_a_login_node_would_show_it(fake_slurm, store, monkeypatch):
    hidden = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "4", "SLURMD_NODENAME": "n1", "SUBMITIT_EXECUTOR": "slurm"}
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "theirs", "MINE": "x"}
    for name, value in {**hidden, **kept}.items():
        monkeypatch.setenv(name, value)
    submit_missing(smoke(), store, request_of())
    [seen] = given(fake_slurm, "environment")
    assert not hidden.keys() & seen.keys()
    assert kept.items() <= seen.items()
    assert {name: os.environ[name] for name in hidden} == hidden  # and are as before afterwards
    assert os.environ["SBATCH_PARTITION"] == "theirs"


def test_what_sbatch_refuses_is_an_error_with_its_own_words(fake_slurm, store):
    (fake_slurm / "words").write_text("sbatch: error: invalid partition specified: nowhere")
    [array] = arrays_of(store)
    with pytest.raises(SchedulerError, match="invalid partition specified: nowhere"):
        submit(array, store)
    assert submissions(store) == [array.submission]  # what was planned can be looked at


def test_a_submission_is_on_disk_with_its_job_before_the_launcher_returns(fake_slurm, store):
    [array] = submit_missing(smoke(), store, request_of())
    folder = array.submission.folder(store)
    assert read_submission(folder) == array.submission
    assert json.loads((folder / "job.json").read_text()) == {"job_id": "101", "cluster": None}


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any program on its PATH."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(slurm, "max_array_size", max_array_size)


def launch(store: Path, data_dir: Path, *more: object) -> int:
    """`launch` the smoke experiment on SLURM."""
    fixed = ("launch", "--experiment", "smoke", "--cluster", "slurm", "--device", "cpu")
    return call(app, *fixed, "--store", store, "--data-dir", data_dir, *more)


@pytest.mark.usefixtures("no_slurm")
def test_a_rehearsal_needs_neither_slurm_nor_a_profile_lists_every_run_and_writes_nothing(
    store, tmp_path, data_dir, capsys
):
    runs = smoke().runs()
    record_run(store, runs[0])
    before = sorted(tmp_path.rglob("*"))
    assert launch(store.root, data_dir, "--dry-run") == 0
    output = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    for run in runs:
        line = next(line for line in output.splitlines() if run.run_id in line)
        assert run.name in line
        assert line.endswith("done") == (run == runs[0])
    shown = output[output.index("\n--- kops-") :]
    assert set(flags(shown)) == ALWAYS_ASKED | {"array"}
    assert flags(shown)["array"] == f"0-{len(runs) - 2}%{len(runs) - 1}"
    assert launch(store.root, data_dir, "--dry-run") == 0
    assert capsys.readouterr().out == output


@pytest.mark.usefixtures("no_slurm")
def test_scripts_are_written_without_slurm_and_hold_what_a_rehearsal_shows(store, tmp_path, data_dir, capsys):
    scripts = tmp_path / "with space"
    assert launch(store.root, data_dir, "--dry-run", "--slurm", "partition=debug") == 0
    shown = capsys.readouterr().out
    assert launch(store.root, data_dir, "--emit-scripts", scripts, "--slurm", "partition=debug") == 0
    [path] = scripts.iterdir()
    assert f"--- {path.name}\n{path.read_text()}" in shown
    assert f"sbatch '{path}'" in capsys.readouterr().out
    assert path.stat().st_mode & 0o077 == 0
    [plan] = submissions(store)
    assert path.stem == plan.name
    assert str(store.work_folder / JOBS_FOLDER / plan.name) in path.read_text()
    assert (store.work_folder / JOBS_FOLDER / plan.name / PLAN_FILE).is_file()
    assert [find_run(run_id, store) for task in plan.tasks for run_id in task] == smoke().runs()
    assert launch(store.root, data_dir, "--dry-run") == 0
    assert "what is in the queue is not known" in capsys.readouterr().out


@pytest.mark.usefixtures("no_slurm")
def test_without_slurm_a_launch_is_an_error_in_one_line_that_names_what_is_missing(tmp_path, data_dir, capsys):
    assert launch(tmp_path / "store", data_dir) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "sbatch" in line
    assert launch(tmp_path / "other", data_dir, "--test-only") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "sbatch" in line


def test_slurm_can_be_asked_when_jobs_would_start(fake_slurm, tmp_path, data_dir, capsys):
    assert launch(tmp_path / "store", data_dir, "--test-only") == 0
    assert re.search("kops-[0-9a-f]{8}: Submitted batch job 101", capsys.readouterr().out)
    assert not list((tmp_path / "store").rglob(PLAN_FILE))


@pytest.mark.parametrize("option", ["--slurm=partition=x", "--test-only", "--emit-scripts=folder", "--measure"])
def test_options_of_slurm_without_slurm_are_refused(option, tmp_path, capsys):
    assert call(app, "launch", "--experiment", "smoke", "--store", tmp_path, option) == 2
    assert "slurm" in capsys.readouterr().err
