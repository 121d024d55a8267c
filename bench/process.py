"""What a worker process owes the others: one worker a run, a clean stop on a signal, a sign of life."""

import fcntl
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import RunIsTaken, StoreError
from bench.files import replace

PROGRESS_FILE = "progress.json"
PROGRESS_SECONDS = 1.0
LOCK_TRIES, LOCK_WAIT_SECONDS = 5, 0.1  # `status` holds a run's lock for a moment when it looks


class Interrupted(BaseException):
    """The process was asked to stop, and the run's state is saved."""


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if need be. RunIsTaken where a living process holds it; a dead one's hold is gone."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"run folder {folder} cannot be written: {error.strerror}; set BENCH_RUNS_DIR") from error
    with file:
        for tries_left in reversed(range(LOCK_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not tries_left:
                    raise RunIsTaken(f"another process is working in {folder}; wait for it or stop it") from error
                time.sleep(LOCK_WAIT_SECONDS)
        yield


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a worker stops between steps. Main thread only; else never set."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """A run's sign of life: a small JSON in its folder, at most one a second."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS_FILE
        self._written_at = -PROGRESS_SECONDS
        self._n_written = 0

    def write(self, state: str, *, now: bool = False, **values: Any) -> None:
        """Say what the run is doing; `now` skips the wait."""
        if not now and time.monotonic() - self._written_at < PROGRESS_SECONDS:
            return
        self._n_written += 1
        replace(self.path, json.dumps({"state": state, "heartbeat": self._n_written, **values}).encode())
        self._written_at = time.monotonic()


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The last sign of life of a run; None where there is none yet."""
    try:
        content = json.loads((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
