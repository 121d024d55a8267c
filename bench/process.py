"""The process itself: a clean stop on a signal, its progress file, and the cores it may use."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bench.files import make_way, replace

if TYPE_CHECKING:
    from torch import nn

PROGRESS_FILE = "progress.json"
PROGRESS_SECONDS = 1.0
CANCEL_FILE = "cancelled"  # in the folder of a run that was cancelled, until it is started again
CANCEL_SECONDS = 1.0  # between looks for it
LARGEST_PROGRESS = 1e12  # of any number in a progress file
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # SLURM sends the last before its time limit


class Interrupted(BaseException):
    """The process received a stop signal, and the run's state is saved."""


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Make signals call `handler`. No effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest(threading.Event):
    """Set by a stop signal, so that a run stops between steps; within `between_batches` or `at_once` before that."""

    def __init__(self) -> None:
        super().__init__()
        self.handled = False  # whether signals come here
        self._reason: str | None = None  # within `at_once`

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal. Interrupted at the first within `at_once`; KeyboardInterrupt at a second Ctrl-C."""
        if self.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt("stopped at once; the same command continues from what was saved before")
            return  # the first is being answered: another must not cut that short
        self.set()
        if self._reason is not None:
            raise Interrupted(self._reason)

    @contextmanager
    def between_batches(self, model: "nn.Module", reason: str) -> Iterator[None]:
        """Raise Interrupted with `reason` before the next batch of a model, where changes to it can still be undone."""

        def look(*_: object) -> None:
            if self.is_set():
                raise Interrupted(reason)

        hook = model.register_forward_pre_hook(look)
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def at_once(self, reason: str) -> Iterator[None]:
        """Raise Interrupted with `reason` wherever the process is: for work after which nothing of it is saved."""
        self._reason = reason
        try:
            if self.is_set():
                raise Interrupted(reason)
            yield
        finally:
            self._reason = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """What stop signals set; never set by them outside the main thread."""
    request = StopRequest()
    with on_signals(request.receive, *STOP_SIGNALS):
        request.handled = threading.current_thread() is threading.main_thread()
        yield request


@contextmanager
def cancel_requests(folder: Path, request: StopRequest) -> Iterator[None]:
    """Request a stop once the run of a folder is marked as cancelled: whoever started it, on whatever machine."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(CANCEL_SECONDS):
            if (folder / CANCEL_FILE).exists():
                if request.handled:
                    signal.raise_signal(signal.SIGTERM)  # only a signal interrupts the main thread
                else:
                    request.set()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Progress:
    """The progress file of a run: a small JSON in its folder, written at most once per second."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PROGRESS_FILE
        self._written_at = -PROGRESS_SECONDS
        self._n_written = 0

    def write(self, state: str, *, now: bool = False, **values: Any) -> None:
        """Write the run's state, if the last write was a second ago or with `now`."""
        if not now and time.monotonic() - self._written_at < PROGRESS_SECONDS:
            return
        self._n_written += 1
        content = json.dumps({"state": state, "heartbeat": self._n_written, **values}).encode()
        try:
            make_way(self.path)
            replace(self.path, content)
        except OSError as error:  # no number depends on it, and a full disk fails the next checkpoint
            print(f"{self.path} cannot be written: {error.strerror}", flush=True)
        self._written_at = time.monotonic()


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The content of a run's progress file; None where there is none yet. Values that `Progress` cannot have written,
    as after a power cut or an edit, are left out.
    """
    try:
        content = json.loads((folder / PROGRESS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    return {
        key: value for key, value in content.items() if isinstance(value, str) == (key == "state") and _plain(value)
    }


def _plain(value: object) -> bool:
    """Whether it is a text, or a number of a size that a run can have."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) < LARGEST_PROGRESS
    return isinstance(value, str)


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
