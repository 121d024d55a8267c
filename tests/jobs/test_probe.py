"""A probe times a few steps of one run of a shape, says so first, ends in time, and never outlives its launcher."""

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from bench.config import Run
from bench.experiments import smoke
from bench.store import Store
from bench.train import Trainer
from jobs import probe as probing
from jobs.cache import cache_environment
from jobs.cost import START_SECONDS
from jobs.deadline import Deadline
from jobs.launch import launch_missing
from jobs.probe import N_STEPS, estimate_seconds, pace
from jobs.slots import Slot
from tests.command_line import alive, kill_if_alive, start_python, wait_until
from tests.tiny import tiny_runs

SLOTS = [Slot(device="cpu", n_threads=1)] * 2


def runs_of_two_shapes() -> list[Run]:
    """Two seeds, another length, and another context, which is another shape."""
    longer, other = tiny_runs("longer", (1,), n_steps=4000), tiny_runs("other", (1,), context=8)
    return [*tiny_runs("first", (1, 2)), *longer, *other]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[SimpleNamespace]:
    """The processes that would time steps, each of which answers that a step takes half a second."""
    found: list[SimpleNamespace] = []

    def run(*_: object, input: str, env: dict[str, str], timeout: float, **__: object) -> Any:
        said = capsys.readouterr().out
        found.append(SimpleNamespace(label=json.loads(input)["label"], env=env, limit=timeout, said=said))
        return SimpleNamespace(stdout="[0.5, 0.0]")

    monkeypatch.setattr(subprocess, "run", run)
    return found


def test_one_run_of_each_shape_is_timed_in_one_process_which_is_said_before(asked):
    runs = runs_of_two_shapes()
    seconds = estimate_seconds(runs, SLOTS, None)
    assert [one.label for one in asked] == ["first", "other"]
    for one in asked:
        assert f"Timing a few steps of {one.label} on cpu, for {one.limit:.0f} s at most" in one.said
    start = START_SECONDS["cpu"]
    assert [seconds[run.run_id] for run in runs] == [start + 2, start + 2, start + 2000, start + 2]


def test_a_probe_answers_from_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(probing, "STEPS_SECONDS", 0.01)
    monkeypatch.setattr(probing, "LIMIT_SECONDS", 120.0)  # this machine may be busy with other work
    [run] = runs_of_two_shapes()[:1]
    assert estimate_seconds([run], SLOTS, None)[run.run_id] > START_SECONDS["cpu"]


@pytest.mark.parametrize(("limit", "program"), [(0.05, sys.executable), (20.0, shutil.which("false"))])
def test_a_probe_that_takes_too_long_or_fails_leaves_its_runs_unknown(limit, program, monkeypatch, capsys):
    monkeypatch.setattr(probing, "LIMIT_SECONDS", limit)  # no Python starts in 0.05 s
    monkeypatch.setattr(sys, "executable", program)
    assert estimate_seconds(runs_of_two_shapes(), SLOTS, None) == {}
    assert f"first could not be timed within {limit:.0f} s; what it takes stays unknown" in capsys.readouterr().out


def test_no_step_is_timed_after_a_tenth_of_a_deadline(asked, monkeypatch, capsys):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.5 + 6.0 * len(asked))
    seconds = estimate_seconds(runs_of_two_shapes(), SLOTS, None, Deadline(90.0, 1000.0).probe_until)
    assert [one.limit for one in asked] == [8.5]
    assert len(seconds) == 3
    assert "No time to time other before the deadline; what it takes stays unknown" in capsys.readouterr().out


def test_a_launch_with_a_deadline_says_until_when_steps_may_be_timed(monkeypatch, tmp_path):
    given: list[float | None] = []
    monkeypatch.setattr("jobs.launch.known_estimates", lambda *_: {})
    monkeypatch.setattr("jobs.launch.estimate_seconds", lambda _, __, ___, until: given.append(until) or {})
    started = time.monotonic()
    for deadline in (Deadline(3600.0, started), None):
        launch_missing(smoke(), Store(tmp_path), SLOTS, dry_run=True, probe=True, deadline=deadline)
    assert given == [started + 360.0, None]


@pytest.mark.parametrize("answer", ["", "no numbers", "[1.0", "3.0"])
def test_a_probe_whose_answer_cannot_be_read_estimates_nothing(answer, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=answer))
    assert estimate_seconds(runs_of_two_shapes()[:1], SLOTS, None) == {}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("mode", "n_variables"), [("exact", 0), ("fast", 4)])
def test_a_probe_compiles_into_the_cache_that_the_runs_use(mode, n_variables, asked, monkeypatch):
    caches = cache_environment("nvidia-h200")
    for name in caches:
        monkeypatch.delenv(name, raising=False)
    slot = Slot(device="cuda", n_threads=1, kind="nvidia-h200")
    assert estimate_seconds([dataclasses.replace(runs_of_two_shapes()[0], mode=mode)], [slot], None)
    assert sum(asked[0].env.get(name) == value for name, value in caches.items()) == n_variables


@pytest.mark.parametrize(("most", "n_steps"), [(0.0, 1), (1e9, N_STEPS + 1)])
def test_slow_steps_are_cut_short_and_quick_ones_are_repeated(most, n_steps):
    with patch.object(Trainer, "advance", autospec=True, side_effect=Trainer.advance) as advance:
        step, token = pace(runs_of_two_shapes()[0], "cpu", None, most=most, least=0.0)
    assert advance.call_count == n_steps
    assert min(step, token) > 0


TIED = """
import os, subprocess, sys, time
if len(sys.argv) == 2:
    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:], str(os.getpid())])
    child.wait()
else:
    sys.platform = sys.argv[1]
    from jobs.probe import end_with
    end_with(int(sys.argv[2]))
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


@pytest.mark.met("U6")
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_process_that_is_tied_to_its_parent_ends_when_that_is_killed(platform, request):
    parent = start_python("-c", TIED, platform, stderr=None)
    with parent:
        pid = int(parent.stdout.readline())
        request.addfinalizer(lambda: kill_if_alive(pid))
        assert alive(pid)
        parent.kill()
    wait_until(lambda: not alive(pid), "the process whose parent was killed")


LAUNCHER = """
import subprocess, sys
from bench.cli import run_guarded
from jobs import launch, probe
from jobs.app import app

class Noted(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print("process", self.pid, flush=True)

subprocess.Popen = Noted
launch.known_estimates = lambda *_, **__: {}
probe.STEPS_SECONDS = probe.LIMIT_SECONDS = 600.0
run_guarded(app)
"""  # `python -m jobs`, where nothing is known and a probe takes ten minutes; it names each process that it starts


@pytest.mark.met("U6")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_probe_ends_with_its_launcher_whatever_ends_that(number, tmp_path, data_dir):
    arguments = ["launch", "--experiment", "smoke", "-k", "k_operators", "--device", "cpu"]
    arguments += ["--store", tmp_path / "store", "--data-dir", data_dir]
    with contextlib.ExitStack() as stack:
        launcher = stack.enter_context(start_python("-c", LAUNCHER, *arguments, stderr=None, start_new_session=True))
        stack.callback(launcher.kill)
        assert launcher.stdout.readline().startswith("Timing a few steps of k_operators")
        pid = int(launcher.stdout.readline().removeprefix("process "))
        stack.callback(kill_if_alive, pid)
        assert alive(pid)
        launcher.send_signal(number)
        wait_until(lambda: not alive(pid), "the probe")
        assert launcher.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
