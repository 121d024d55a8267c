"""Real processes run the first steps of real sources, and end with their parent."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import sources
from bench.config import to_json
from bench.corpus import load_corpus
from bench.recheck import workers
from bench.recheck.check import this_machine
from bench.recheck.workers import NoAnswer, in_parallel
from bench.sources import fingerprint
from bench.train import first_losses
from tests.command_line import git
from tests.rechecking import old_record, proved


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the code in a new repository, which recheck uses as the present sources."""
    folder = tmp_path / "project"
    for room in ("bench", "models"):
        shutil.copytree(sources.ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "made the records")
    monkeypatch.setattr("bench.recheck.check.ROOT", folder)
    monkeypatch.setattr("bench.recheck.check.current_fingerprint", lambda name: fingerprint(name, folder))
    fingerprint.cache_clear()
    return folder


def edit(project: Path, old: str, new: str) -> None:
    path = project / "bench" / "train.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def records(project, tiny_run):
    """One record of this machine, and one marked as of another machine."""
    run, here = tiny_run(), this_machine(torch.device("cpu"), None)
    made_by = git(project, "rev-parse", "HEAD")[:7], fingerprint(run.config.architecture)
    losses = first_losses(run, load_corpus("synthetic", torch.device("cpu")), torch.device("cpu"), n_steps=3)
    made = old_record(
        config=to_json(run.config),
        corpus="synthetic",
        diagnostics={"first_train_nats": losses, "by_step": {}},
        sources={"commit": made_by[0], "dirty": False, "fingerprint": made_by[1]},
    )
    made = made.model_copy(update={"environment": here.environments["cpu"]})
    elsewhere = made.environment.model_copy(update={"instructions": "of another machine"})
    return [made, made.model_copy(update={"environment": elsewhere, "label": "elsewhere"})]


def test_an_edit_that_changes_no_number_is_proved_in_both_ways(project, records):
    edit(project, "nats = trainer.advance()", "loss = trainer.advance()")
    edit(project, "math.isfinite(nats)", "math.isfinite(loss)")
    edit(project, "losses.append(nats)", "losses.append(loss)")
    outcomes = proved(records, this_machine(torch.device("cpu"), None))
    assert [outcome.proof and outcome.proof.kind for outcome in outcomes] == ["repeated", "sources compared"]
    assert git(project, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_an_edit_that_changes_a_number_is_found_in_both_ways(project, records):
    edit(project, "scaled = rate * group", "scaled = 1.0001 * rate * group")
    outcomes = proved(records, this_machine(torch.device("cpu"), None))
    assert [outcome.state for outcome in outcomes] == ["not confirmed"] * 2


@pytest.mark.parametrize(
    ("death", "how"), [("os._exit(9)", "ended with exit code 9"), ("os.kill(os.getpid(), 9)", "was killed by SIGKILL")]
)
def test_a_process_that_dies_is_an_error_and_the_next_run_has_a_new_one(death, how, tmp_path):
    bench = tmp_path / "bench"
    bench.mkdir()
    (bench / "__init__.py").write_text("")
    (bench / "sources.py").write_text(f"import os, sys; print('no memory', file=sys.stderr, flush=True); {death}")
    found = []

    def ask(number, crew):
        try:
            return str(crew.ask(tmp_path, {}))
        except NoAnswer as error:
            return f"{number}: {error}"

    in_parallel([1, 2], 1, ask, found.append)
    assert sorted(found) == [f"{n}: no first steps: the process {how}: no memory" for n in (1, 2)]


def test_a_folder_without_sources_is_an_error(tmp_path):
    crew = workers.Workers()
    with pytest.raises(NoAnswer, match="instead of those in"):
        crew.ask(tmp_path, {})
    crew.close()


@pytest.mark.met("U6")
def test_a_worker_ends_with_its_parent_also_during_a_run(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    (tmp_path / "bench" / "sources.py").write_text("import time; print('at work', flush=True); time.sleep(1000)")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", workers.SCRIPT.read_text()]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("{}\n")
        process.stdin.flush()
        assert process.stderr.readline() == "at work\n"  # output of the sources is not on stdout
        process.stdin.close()
        assert process.wait(timeout=60) == 0
