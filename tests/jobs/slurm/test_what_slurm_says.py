"""What SLURM says is never misread, whatever is exported, printed around it, or said in place of it.

No SLURM is needed: its programs are stand-ins.
"""

from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.experiments import smoke
from bench.store import Store
from jobs.app import app
from jobs.control import cancel_runs
from jobs.slurm import arrays as slurm
from jobs.slurm.arrays import submit_missing
from jobs.slurm.commands import MOVES_OURS
from jobs.slurm.scheduler import SchedulerError, max_array_size, tasks_by_run
from jobs.slurm.site import choose_site
from jobs.slurm.submission import note_job, read_job, submissions
from tests.command_line import call, mistake
from tests.jobs.slurm.stand_in import FILTERS, calls, given
from tests.sites import profile
from tests.tiny import request_of


def launch(store: Store, *assignments: str) -> None:
    """Submit what is missing of the smoke experiment."""
    submit_missing(smoke(), store, request_of(*assignments))


def job_of(store: Store) -> tuple[str, str | None] | None:
    """The job that the only submission of a store became, as noted."""
    [submission] = submissions(store)
    return read_job(submission.folder(store))


# which cluster -------------------------------------------------------------------------------------------------------


@pytest.mark.met("U22")
@pytest.mark.parametrize(
    ("variables", "assignments", "cluster"),
    [
        ({"SLURM_CLUSTERS": "c2"}, [], "c2"),
        ({"SBATCH_CLUSTERS": "c2"}, [], "c2"),
        ({"SLURM_CLUSTERS": "c2", "SBATCH_CLUSTERS": "c3"}, ["clusters=c1"], "c1"),
        ({}, ["clusters=c1"], "c1"),
        ({}, [], "home"),
    ],
)
def test_every_program_is_sent_to_the_same_cluster_and_no_run_is_submitted_twice(
    variables, assignments, cluster, fake_slurm, store, monkeypatch, capsys
):
    monkeypatch.setattr(slurm, "max_array_size", max_array_size)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    launch(store, *assignments)
    printed = capsys.readouterr().out
    assert given(fake_slurm, "cluster") == [cluster]
    assert all(f"{name}='{value}' is exported" in printed for name, value in variables.items())
    launch(store, *assignments)
    for name in variables:  # what was submitted is found from a shell without them, too
        monkeypatch.delenv(name)
    launch(store, *assignments)
    assert len(given(fake_slurm)) == 1
    cancel_runs(store, [run.run_id for run in smoke().runs()])
    option = [] if cluster == "home" else [f"--clusters={cluster}"]
    for program in ("squeue", "scontrol", "scancel"):
        assert calls(fake_slurm, program)
        assert all([one for one in words if "cluster" in one] == option for words in calls(fake_slurm, program))


@pytest.mark.met("U22")
def test_accounts_are_asked_on_the_cluster_that_took_the_job(fake_slurm, store):
    launch(store, "clusters=c1,c2")
    (fake_slurm / "1.json").unlink()  # the queue has forgotten it
    tasks_by_run(store)
    assert not calls(fake_slurm, "sacct")  # sbatch did not say which of both
    note_job(submissions(store)[0].folder(store), "101", "c2")
    tasks_by_run(store)
    assert [words[0] for words in calls(fake_slurm, "sacct")] == ["--clusters=c2"]


@pytest.mark.met("U22")
def test_jobs_are_found_on_each_of_several_clusters_and_cancelled_on_their_own(fake_slurm, store):
    launch(store, "clusters=c1,c2")
    content = (fake_slurm / "1.json").read_text()
    (fake_slurm / "1.json").write_text(content.replace('"c1,c2"', '"c2"'))  # SLURM chose
    launch(store, "clusters=c1,c2")
    assert len(given(fake_slurm)) == 1
    cancel_runs(store, [run.run_id for run in smoke().runs()])
    assert {words[0] for words in calls(fake_slurm, "scancel")} == {"--clusters=c2"}


@pytest.mark.met("U22")
@pytest.mark.parametrize(
    ("variables", "assignments", "words"),
    [
        ({"SLURM_CLUSTERS": "a", "SBATCH_CLUSTERS": "b"}, [], "SLURM_CLUSTERS=a and SBATCH_CLUSTERS=b"),
        ({"SLURM_CLUSTERS": "a b"}, [], r"clusters \(SLURM_CLUSTERS\)"),
        ({}, ["clusters=all"], "name each"),
    ],
)
def test_clusters_that_leave_a_doubt_are_refused(variables, assignments, words, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        choose_site(None, assignments, "cpu")


# what is exported ----------------------------------------------------------------------------------------------------


@pytest.mark.met("U23")
@pytest.mark.parametrize("variable", [*(f"SQUEUE_{name}" for name in FILTERS), "SBATCH_JOB_NAME"])
def test_no_exported_variable_hides_our_jobs_and_has_them_submitted_again(variable, fake_slurm, store, monkeypatch):
    monkeypatch.setenv(variable, "other")
    launch(store)
    launch(store)
    assert len(given(fake_slurm)) == 1


@pytest.mark.met("U23")
@pytest.mark.parametrize("variable", ["SACCT_FORMAT", "SCONTROL_ALL", "SCANCEL_INTERACTIVE", *MOVES_OURS])
def test_programs_run_without_variables_that_move_what_we_ask(variable, fake_slurm, store, monkeypatch):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("SLURM_JWT", "token")  # without which some sites let nobody in
    launch(store)
    [seen] = given(fake_slurm, "environment")
    assert variable not in seen
    assert seen["SLURM_JWT"] == "token"


# what is printed -----------------------------------------------------------------------------------------------------

GREETING = b"Bienvenue sur la machine \xe9tendue | a | b | c | d | e\n"


@pytest.mark.met("U24")
def test_a_job_with_a_name_in_latin_1_is_no_error_and_hides_none_of_ours(fake_slurm, store, tmp_path):
    launch(store)
    (fake_slurm / "squeue").write_bytes(b"caf\xe9|7|N/A|RUNNING|n1|None\n" + GREETING)
    (fake_slurm / "sacct").write_bytes(GREETING)
    (fake_slurm / "scontrol").write_bytes(GREETING)
    assert {one.state for one in tasks_by_run(store).values()} == {"PENDING"}
    assert max_array_size() == 7
    assert call(app, "status", "--store", store.root) == 3
    launch(store)
    assert len(given(fake_slurm)) == 1


@pytest.mark.met("U24")
def test_a_greeting_of_sacct_is_not_taken_for_its_answer(fake_slurm, store):
    launch(store)
    (fake_slurm / "1.json").unlink()
    lines = r"JobID of the day: \351\n101_[0-6]|TIMEOUT|n1\n101_0.batch|FAILED|n1\n"
    (fake_slurm.parent / "programs" / "sacct").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    assert {one.state for one in tasks_by_run(store).values()} == {"TIMEOUT"}


@pytest.mark.met("U25")
@pytest.mark.parametrize(
    ("answer", "job"),
    [
        (b"15786755\n", ("15786755", None)),
        (b"75168975;c\n", ("75168975", "c")),
        (GREETING + b"75168975\n\n", ("75168975", None)),
        (b"Your job 4 of 10 today\nSubmitted batch job 519605\n", ("519605", None)),
        (b"Submitted batch job 519605 on cluster c1\nSee you, job 5\n", ("519605", "c1")),
    ],
)
def test_the_id_of_a_job_is_read_from_whatever_sbatch_prints(answer, job, fake_slurm, store, capsys):
    (fake_slurm / "sbatch").write_bytes(answer)
    launch(store)
    assert job_of(store) == job
    assert f"as job {job[0]}" in capsys.readouterr().out
    assert [words[0] for words in calls(fake_slurm, "sbatch")] == ["--parsable"]


@pytest.mark.met("U25")
@pytest.mark.parametrize("answer", [b"", GREETING, b"2 jobs of yours wait\n"])
def test_a_job_that_was_accepted_without_an_id_is_found_by_its_name(answer, fake_slurm, store, capsys):
    (fake_slurm / "sbatch").write_bytes(answer)
    launch(store)
    assert job_of(store) == ("101", None)
    launch(store)
    assert len(given(fake_slurm)) == 1


@pytest.mark.met("U25")
def test_a_job_that_is_not_found_yet_is_said_to_be_accepted(fake_slurm, store, capsys, monkeypatch):
    (fake_slurm / "sbatch").write_bytes(b"")
    monkeypatch.setattr(slurm, "found_in_queue", lambda _: None)
    launch(store)
    assert job_of(store) is None
    assert "accepted, id unknown" in capsys.readouterr().out
    launch(store)
    assert len(given(fake_slurm)) == 1


@pytest.mark.met("U25")
@pytest.mark.parametrize("before", [b"", b"x" * 2000 + b"\n", GREETING])
def test_a_refusal_shows_slurms_own_words(before, fake_slurm, store):
    own = "sbatch: error: Batch job submission failed: Invalid account"
    (fake_slurm / "words").write_bytes(before + own.encode() + b"\n" + before)
    with pytest.raises(SchedulerError, match=own) as refused:
        launch(store)
    assert "xx" not in str(refused.value)


# what the submit host has --------------------------------------------------------------------------------------------


@pytest.mark.met("U27")
@pytest.mark.parametrize("use_srun", ["false", "true"])
def test_srun_is_needed_on_nodes_alone(use_srun, fake_slurm, store):
    assert not (fake_slurm.parent / "programs" / "srun").exists()
    launch(store, f"use_srun={use_srun}")
    [text] = given(fake_slurm)
    assert ("\nsrun " in text) == (use_srun == "true")


@pytest.mark.usefixtures("fake_slurm")
def test_without_sbatch_the_error_names_it(store, tmp_path, data_dir, capsys):
    (tmp_path / "programs" / "sbatch").unlink()
    profile("")
    words = ("launch", "--experiment", "smoke", "--cluster", "slurm", "--device", "cpu", "--data-dir", data_dir)
    assert "sbatch" in mistake(capsys, app, *words, "--store", Path(store.root))
