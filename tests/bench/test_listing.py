"""`bench list` shows every experiment and what a store has of it; and what both programs say of themselves."""

import os
import subprocess
import sys
import tomllib

import pytest

from bench.app import app
from bench.config import to_json
from bench.experiments import EXPERIMENTS, FROM_RECORDS, smoke
from bench.store import Store
from jobs.app import app as jobs_app
from tests.command_line import ROOT, call, mistake
from tests.records import make_record
from tests.stores import make_store


@pytest.fixture
def store(tmp_path) -> Store:
    """Two of the runs of `smoke`, one of them diverged."""
    runs = smoke().runs()[:2]
    records = [make_record(run.label, run.seed, config=to_json(run.config), run_id=run.run_id) for run in runs]
    records[1] = records[1].model_copy(update={"status": "diverged", "result": None})
    return make_store(tmp_path / "store", records)


def test_every_experiment_is_listed_with_its_question_and_what_is_done(store, capsys):
    assert call(app, "list", "--store", store.root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1:2]] == [*EXPERIMENTS, *FROM_RECORDS]
    assert "smoke: 1 of 7 runs done in mode exact, 5 cells" in lines
    assert "    Does the complete pipeline work?" in lines
    assert lines[lines.index("matched: not yet") + 1] == "    the winners of tuning in mode exact are needed"


def test_of_one_experiment_the_cells_are_listed(store, capsys):
    assert call(app, "list", "smoke", "--store", store.root) == 0
    first, _, *cells = capsys.readouterr().out.splitlines()
    assert first.startswith("smoke: 1 of 7")
    assert cells[:2] == ["    k_operators  1 of 2  seeds 42, 69", "    transformer  0 of 2  seeds 42, 69"]
    assert cells[-1] == "    kneser_ney   0 of 1  fitted, no seed"


def test_a_list_of_a_store_that_does_not_exist_has_nothing_done(tmp_path, capsys):
    assert call(app, "list", "smoke", "--store", tmp_path / "none") == 0
    assert capsys.readouterr().out.startswith("smoke: 0 of 7 runs done")
    assert "there are paper, noise" in mistake(capsys, app, "list", "smok")


@pytest.mark.parametrize("program", [app, jobs_app])
def test_each_program_tells_its_version_and_its_options(program, capsys, monkeypatch):
    monkeypatch.setenv("BENCH_COMMIT", "0123456789")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert call(program, "--version") == 0
    assert capsys.readouterr().out.startswith(f"{project['name']} {project['version']}, commit ")
    assert call(program, "--help") == 0
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize(("module", "typed", "completed"), [("bench", "ver", "verify"), ("jobs", "can", "cancel")])
def test_a_shell_completes_the_installed_programs(module, typed, completed):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    program = f"kops-{module}"
    assert project["scripts"][program] == f"{module}.__main__:main"
    code = f"import sys; from {module}.__main__ import main; sys.argv[0] = {program!r}; main()"
    asked = {f"_KOPS_{module.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": f"{program} {typed}", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [completed], done.stderr
