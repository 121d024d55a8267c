"""The state that a run is shown with: of its record, its process, or what SLURM says of its task."""

import pytest

from bench.lease import hold
from jobs.app import app
from jobs.slurm.scheduler import TaskState, read_queues, tasks_by_run
from jobs.slurm.submission import note_job, submissions
from tests.command_line import call
from tests.tiny import NAME
from tests.watched import record_run, slurm_says, state_of, submitted

pytestmark = pytest.mark.usefixtures("no_scheduler")


def test_a_line_of_the_queue_reads_as_a_task_and_foreign_jobs_do_not_count():
    text = (
        f"{NAME}|12|3|RUNNING|n1|None\n"
        f"{NAME}|12|4|PENDING||Resources\n"
        "kops-ffffffff|13|N/A|COMPLETED|n2|None\n"
        "somebody|14|0|RUNNING|n1|None\n"
        "a line of another shape\n"
    )
    assert read_queues({None: text}) == {
        (NAME, 3): TaskState(job_id="12_3", state="RUNNING", node="n1", reason="None"),
        (NAME, 4): TaskState(job_id="12_4", state="PENDING", node="", reason="Resources"),
        ("kops-ffffffff", 0): TaskState(job_id="13", state="COMPLETED", node="n2", reason="None"),
    }


@pytest.mark.parametrize(
    "lines", [("5|CANCELLED", "7|RUNNING"), ("7|RUNNING", "5|CANCELLED"), ("7|RUNNING", "9|FAILED")]
)
def test_of_several_jobs_of_one_name_the_active_one_counts(lines):
    text = "\n".join(f"{NAME}|{job}|0|{state}||None" for job, state in (line.split("|") for line in lines))
    assert read_queues({None: text})[NAME, 0].job_id == "7_0"


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("PENDING||Priority", "queued"),
        ("RUNNING|n1|None", "queued"),  # its turn has not come
        ("CANCELLED||None", "cancelled"),
        ("TIMEOUT||None", "timeout"),
        ("NODE_FAIL||None", "missing"),
        ("COMPLETED|n1|None", "missing"),
    ],
)
def test_a_run_without_record_or_life_shows_what_slurm_says_of_its_task(line, state, store, runs, monkeypatch):
    submitted(store, [[runs[0]], [runs[1], runs[2]]])
    slurm_says(monkeypatch, f"{NAME}|5|1|{line}")
    assert [state_of(store, run) for run in runs] == ["missing", state, state]


def test_a_record_and_a_living_process_count_for_more_than_slurms_word(store, runs, monkeypatch):
    submitted(store, [[run] for run in runs])
    slurm_says(monkeypatch, *(f"{NAME}|5|{index}|CANCELLED||None" for index in range(3)))
    record_run(store, runs[0])
    with hold(store.run_folder(runs[1].run_id)):
        assert [state_of(store, run) for run in runs] == ["done", "running", "cancelled"]
    assert state_of(store, runs[1]) == "cancelled"


def test_what_slurm_said_of_an_ended_task_is_kept_after_it_has_forgotten(store, runs, monkeypatch):
    submitted(store, [[runs[0]]])
    slurm_says(monkeypatch, f"{NAME}|5|N/A|CANCELLED||None")
    assert state_of(store, runs[0]) == "cancelled"
    slurm_says(monkeypatch)  # an empty queue, and no accounts
    assert state_of(store, runs[0]) == "cancelled"


def test_accounts_are_asked_where_the_queue_has_forgotten(store, runs, monkeypatch):
    note_job(submitted(store, [[run] for run in runs]).folder(store), "77")
    listed = "JobID|State|NodeList\n77_0|TIMEOUT|n1\n77_0.batch|CANCELLED|n1\n77_[1-2]|CANCELLED by 0|None assigned\n"
    asked = slurm_says(monkeypatch, accounts=listed)
    assert [state_of(store, run) for run in runs] == ["timeout", "cancelled", "cancelled"]
    assert any(command[0] == "sacct" and "77" in command for command in asked)


def test_accounts_that_are_behind_do_not_keep_a_run_in_the_queue_for_ever(store, runs, monkeypatch):
    note_job(submitted(store, [[runs[0]]]).folder(store), "77")
    slurm_says(monkeypatch, accounts="JobID|State|NodeList\n77|RUNNING|n1\n")
    assert state_of(store, runs[0]) == "missing"


def test_a_cluster_that_cannot_be_asked_still_has_a_status(store, runs, capsys):
    submitted(store, [[runs[0]]])
    assert call(app, "status", "--store", store.root) == 3
    assert capsys.readouterr().out.splitlines()[-1] == "3 runs: 3 missing"


def test_of_several_submissions_of_a_run_an_active_task_counts_else_the_last(store, runs, monkeypatch):
    submitted(store, [[runs[0]], [runs[1]]])
    submitted(store, [[runs[0]], [runs[1]]], name="kops-aaaaaaaa", number=1)
    assert [one.number for one in submissions(store)] == [0, 1]
    slurm_says(
        monkeypatch,
        f"{NAME}|5|0|RUNNING|n1|None",
        f"{NAME}|5|1|FAILED||None",
        "kops-aaaaaaaa|6|0|FAILED||None",
        "kops-aaaaaaaa|6|1|CANCELLED||None",
    )
    found = tasks_by_run(store)
    assert (found[runs[0].run_id].job_id, found[runs[1].run_id].job_id) == ("5_0", "6_1")
