"""`bench cuda-check`: the line of a check has its result, and the other checks run after any failure."""

import importlib
import inspect
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.app import app
from bench.child import ChildEnded
from bench.cuda import check as cuda_check
from bench.cuda import numbers as cuda_numbers
from bench.cuda.check import CHECKS, CheckResult, GpuCheck, exit_code, run_checks, write_results
from bench.cuda.child import CheckProcess, perform
from bench.cuda.numbers import Answer, Context
from models.decay import BACKENDS
from tests.command_line import PATIENCE_SECONDS, ROOT, call, wait_until

HERE = Context(device=torch.device("cpu"))


class StandIn(CheckProcess):
    """Replaces a process: answers with given values, or raises a given error."""

    def __init__(self, answers: dict[str, Any], requests: list[str]) -> None:
        self.answers, self.requests, self.ended = answers, requests, False

    def ask(self, function: str, arguments: dict[str, Any], seconds: float, until: float) -> dict[str, Any]:
        assert not self.ended
        self.requests.append(function)
        answer = self.answers[function]
        if isinstance(answer, Exception):
            raise answer
        return {"status": "held", "text": function, "values": {}, "raised": False, "seconds": 1.0, **answer}

    def end(self) -> None:
        self.ended = True


class Session:
    """Runs checks with stand-ins, and keeps the requests, the processes and the results."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.requests, self.shown = answers, [], []  # type: ignore[var-annotated]
        self.children: list[StandIn] = []

    def start(self) -> StandIn:
        self.children.append(StandIn(self.answers, self.requests))
        return self.children[-1]

    def run(self, *checks: GpuCheck, seconds: float = 60.0) -> dict[str, CheckResult]:
        run_checks(checks, seconds=seconds, start=self.start, n_lanes=1, report=self.shown.append)
        assert all(child.ended for child in self.children)
        return {one.name: one for one in self.shown}


def check(name: str, lane: str = "one", **fields: Any) -> GpuCheck:
    return GpuCheck(name=name, lane=lane, function=name, **fields)


def test_checks_of_a_lane_share_a_process_and_prepared_checks_run_last():
    session = Session(a={}, b={}, warm={"text": "compiled in 5 s"}, timed={})
    found = session.run(check("a"), check("timed", "two", prepare="warm"), check("b", "three"))
    assert session.requests == ["a", "warm", "b", "timed"]
    assert [one.name for one in session.shown] == ["a", "b", "timed"]
    assert found["timed"].text == "timed; compiled in 5 s"
    assert len(session.children) == 3
    session = Session(a={}, b={})
    session.run(check("a"), check("b"))
    assert len(session.children) == 1


def test_a_check_that_cannot_be_prepared_is_not_timed():
    session = Session(warm={"status": "failed", "text": "RuntimeError: no"}, timed={})
    found = session.run(check("timed", prepare="warm"))
    assert (found["timed"].line, session.requests) == ("failed     timed: RuntimeError: no", ["warm"])


@pytest.mark.parametrize(
    ("answer", "fields", "line"),
    [
        (ChildEnded("the process was killed by SIGSEGV"), {}, "failed     a: the process was killed by SIGSEGV"),
        (TimeoutError("no answer within 5 s"), {}, "failed     a: no answer within 5 s"),
        (TimeoutError("no answer within 5 s"), {"late": "not tried"}, "not tried  a: no answer within 5 s"),
        ({"raised": True, "status": "failed", "text": "RuntimeError: CUDA"}, {}, "failed     a: RuntimeError: CUDA"),
    ],
)
def test_after_a_check_that_fails_the_next_one_has_a_new_process(answer, fields, line):
    session = Session(a=answer, b={})
    found = session.run(check("a", **fields), check("b"))
    assert (found["a"].line, found["b"].line) == (line, "held       b: b")
    assert len(session.children) == 2


def test_checks_without_time_left_are_not_tried():
    session = Session(a={}, b={})
    found = session.run(check("a"), check("b"), seconds=0)
    assert found["b"].line == "not tried  b: no time left; --seconds gives more"
    assert not session.children


def test_an_interruption_ends_every_process_and_starts_no_check():
    def interrupt(result: CheckResult) -> None:
        shown.append(result.line)
        if len(shown) == 1:
            raise KeyboardInterrupt

    session, shown = Session(a={}, b={}, warm={}, timed={}), []
    checks = [check("timed", "one", prepare="warm"), check("a", "two"), check("b", "two")]
    with pytest.raises(KeyboardInterrupt):
        run_checks(checks, seconds=60, start=session.start, n_lanes=1, report=interrupt)
    assert (session.requests, shown) == (["warm", "a"], ["held       a: a"])
    assert all(child.ended for child in session.children)


def test_a_missing_optional_package_is_no_failure(monkeypatch):
    monkeypatch.setitem(cuda_check.INSTALL, "no_such_package", "install it")
    found = Session().run(check("a", package="no_such_package"))
    assert found["a"].line == "not tried  a: install it"


def test_every_check_calls_a_function_that_takes_its_arguments():
    assert len({one.name for one in CHECKS}) == len(CHECKS)
    for one in CHECKS:
        calls = [(one.prepare, one.arguments), (one.function, {})] if one.prepare else [(one.function, one.arguments)]
        for function, arguments in calls:
            module, _, name = function.partition(":")
            inspect.signature(getattr(importlib.import_module(module), name)).bind(HERE, **arguments)
        if "cell" in one.arguments:
            assert cuda_numbers.published_run(**one.arguments, mode="exact").config.corpus == "synthetic"


def test_every_form_of_the_recurrence_is_checked():
    checked = {one.arguments["form"] for one in CHECKS if one.function.endswith(":recurrence")}
    assert checked == {*BACKENDS, cuda_numbers.BOUNDED}


def test_the_line_of_a_check_that_raises_has_the_error(monkeypatch):
    def broken(_: Context) -> Answer:
        raise RuntimeError("CUDA error: an illegal memory access\nmore lines")

    monkeypatch.setattr(cuda_numbers, "batches", broken)
    answer = perform(HERE, "bench.cuda.numbers:batches", {})
    assert (answer["status"], answer["raised"]) == ("failed", True)
    assert answer["text"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "Traceback" in answer["values"]["traceback"]


@pytest.fixture
def child() -> Iterator[CheckProcess]:
    """A real process; it needs some seconds to import torch."""
    started = CheckProcess("cpu", 1)
    yield started
    started.end()


@pytest.mark.slow
def test_a_process_answers_until_it_is_ended(child):
    until = time.monotonic() + PATIENCE_SECONDS
    assert child.ask("bench.cuda.numbers:batches", {}, PATIENCE_SECONDS, until)["status"] == "held"
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        child.ask("bench.cuda.numbers:recurrence", {"form": "mask"}, 0, until)
    child.end()
    with pytest.raises(ChildEnded, match="the process was ended"):
        child.ask("bench.cuda.numbers:batches", {}, PATIENCE_SECONDS, until)


@pytest.mark.slow
def test_a_process_that_ends_by_itself_gives_its_reason(child):
    with pytest.raises(ChildEnded, match=r"ended with exit code 1: ValueError: os:abort is not a check"):
        child.ask("os:abort", {}, PATIENCE_SECONDS, time.monotonic() + PATIENCE_SECONDS)


@pytest.mark.slow
def test_a_process_ends_with_its_parent(tmp_path: Path):
    code = "import time; from bench.cuda.child import CheckProcess as P; print(P('cpu', 1).child.pid); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process to end")


def test_without_cuda_every_check_is_not_tried(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call(app, "cuda-check", "--json", tmp_path / "found.json") == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1
    assert all("not tried" in line and "torch sees no CUDA device here" in line for line in lines[:-1])
    assert lines[-1] == f"0 held, 0 failed, {len(CHECKS)} not tried; written to {tmp_path / 'found.json'}"
    written = json.loads((tmp_path / "found.json").read_text())
    assert [one["name"] for one in written["checks"]] == [one.name for one in CHECKS]
    assert written["exit_code"] == 3


@pytest.mark.parametrize(
    ("statuses", "code"), [(["held"], 0), (["held", "failed", "not tried"], 1), (["held", "not tried"], 3)]
)
def test_failures_and_checks_not_tried_have_different_exit_codes(statuses, code, tmp_path: Path, monkeypatch):
    results = [CheckResult(name=str(i), status=one, text="") for i, one in enumerate(statuses)]
    monkeypatch.setattr(cuda_check, "check_all", lambda *_: results)
    monkeypatch.chdir(tmp_path)
    assert call(app, "cuda-check") == exit_code(results) == code
    assert [path.name[:11] for path in tmp_path.iterdir()] == ["cuda-check-"]


def test_the_json_has_strings_for_numbers_that_are_not_finite(tmp_path: Path):
    results = [CheckResult(name="a", status="failed", text="", values={"losses": [1.0, math.nan], "worst": math.inf})]
    write_results(tmp_path / "found.json", results, 1.0)
    values = json.loads((tmp_path / "found.json").read_text(), parse_constant=pytest.fail)["checks"][0]["values"]
    assert values == {"losses": [1.0, "nan"], "worst": "inf"}
