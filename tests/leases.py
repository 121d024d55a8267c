"""Leases of processes on other machines, and a check that nothing waits, for tests of leases."""

import dataclasses
import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import files, lease
from bench.lease import Holder, read_holder

N_LOOKS_AT_ONCE = 250  # far fewer than in LEASE_SECONDS at the intervals of `quick_looks`, and more than needed
ELSEWHERE = "another machine"


def refuse_to_lock(*_: object) -> None:
    """`flock` on a file system without a lock service."""
    raise OSError(errno.ENOLCK, "no locks available")


def leave(folder: Path, attempt: int = 1, *, boot: str = ELSEWHERE, **values: Any) -> Holder:
    """Write a lease as a process of another machine would."""
    holder = Holder(attempt=attempt, owner=f"owner {attempt}", boot=boot, node="elsewhere", pid=1, job_id=None)
    holder = dataclasses.replace(holder, **values)
    files.replace(folder / f"lease-{attempt}.json", json.dumps(dataclasses.asdict(holder)).encode())
    return holder


@contextmanager
def beating(folder: Path, *, file_time: float | None = None, counts: bool = True) -> Iterator[None]:
    """A process of another machine that holds the run: it rewrites its lease, and counts heartbeats with `counts`."""
    stop = threading.Event()

    def beat() -> None:
        heartbeat = 0
        while not stop.wait(0.02):
            heartbeat += counts
            leave(folder, heartbeat=heartbeat)
            if file_time is not None:
                os.utime(folder / "lease-1.json", (file_time, file_time))

    leave(folder)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def at_once() -> Iterator[None]:
    """Fail where the block waits for the lease time; looks are counted, not seconds, since a machine may be slow."""
    n_looks = 0

    def sleep_and_count(seconds: float) -> None:
        nonlocal n_looks
        n_looks += 1
        assert n_looks <= N_LOOKS_AT_ONCE, "it waits"
        time.sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep_and_count))
        yield


def lease_files(folder: Path) -> list[str]:
    """The names of the leases in a run folder."""
    return sorted(path.name for path in folder.glob("lease-*"))


def state(folder: Path) -> tuple[int, bool] | None:
    """The attempt of a run folder's lease, and whether it was released."""
    found = read_holder(folder)
    return None if found is None else (found.attempt, found.released)
