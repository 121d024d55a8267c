"""Both command lines for tests: called in this process, or started as real ones; and git."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run_guarded
from bench.fetch import DATA_DIR_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 120.0  # a machine may be busy with other work


def call(app: Callable[[], Any], *arguments: object) -> int:
    """Run a command line as `python -m` would and return its exit code; its output is for capsys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["program", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run_guarded(app)
    return int(stop.value.code or 0)


def mistake(capsys: pytest.CaptureFixture[str], app: Callable[[], Any], *arguments: object, code: int = 2) -> str:
    """The one line on stderr of a command line with a mistake."""
    capsys.readouterr()
    assert call(app, *arguments) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert printed.err.startswith("error: "), printed.err
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def start(*arguments: object, data_dir: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m ARGUMENTS` from the root of the project, its output piped as text."""
    environment = dict(os.environ)
    if data_dir is not None:
        environment[DATA_DIR_VARIABLE] = str(data_dir.resolve())
    return start_python("-m", *arguments, env=environment, **options)


def start_python(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` from the root of the project, its output piped as text."""
    # background processes of a shell inherit an ignored SIGINT; here it must act
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, text=True, **{**pipes, **options})
    finally:
        signal.signal(signal.SIGINT, inherited)


def run_python(code: str, *arguments: object, **variables: str) -> str:
    """The output of a script with warnings as errors; `variables` are added to its environment."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that should end by itself."""
    try:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()  # no effect after its end
        process.wait()
    return process.returncode, output or "", errors or ""


def wait_until(
    condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS, pause: float = 0.01
) -> None:
    """Wait until `condition()` holds, called every `pause` seconds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(pause)


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether a process is running and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def write_program(path: Path, script: str) -> Path:
    """Write a shell script that can be executed."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return path


def kill_if_alive(pid: int) -> None:
    """Kill a process, if it is running, so that no test leaves one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def git(folder: Path, *arguments: str) -> str:
    """The output of git in a folder, without the variables of a hook."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
