"""Short waits, file systems without locks, and a real process that holds a run."""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import lease
from tests.command_line import ROOT
from tests.leases import refuse_to_lock

HOLDER = """
import sys, time
from pathlib import Path
from bench import lease
lease.HEARTBEAT_SECONDS = 0.02
with lease.hold(Path(sys.argv[1])) as held:
    print("held", flush=True)
    while True:
        time.sleep(0.02)
        held.check()
"""


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll and write heartbeats often; LEASE_SECONDS is unchanged, so that no wait for it counts as `at_once`."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """A shorter LEASE_SECONDS, for leases without a holder."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.4)
    return lease.LEASE_SECONDS


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without a lock service."""
    monkeypatch.setattr(fcntl, "flock", refuse_to_lock)


@pytest.fixture
def holder_process(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a real process that holds `tmp_path / "run"` until it loses it, and wait until it holds it."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
