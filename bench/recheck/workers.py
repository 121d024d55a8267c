"""Processes that run first steps with the sources of a folder, and threads that use several of them."""

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from bench.child import Child, ChildEnded
from bench.errors import UserError
from bench.fetch import DATA_DIR_VARIABLE
from bench.files import named_folder

SCRIPT = Path(__file__).parent / "first_steps.py"


class NoAnswer(UserError):
    """The first steps of a run failed; the message has the reason."""


class Workers:
    """The child process of one thread: one at a time, since an idle one would keep the memory of its model."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._started: tuple[Path, dict[str, str]] | None = None
        self._lock, self._stopped = threading.Lock(), False

    def ask(self, folder: Path, question: dict[str, Any], settings: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The answer of `first_steps.py` with the sources of a folder; reuses the last process if it has them.

        `settings` are more variables of its environment.

        NoAnswer where the answer is an error, or the process ended.
        """
        with self._lock:
            if self._stopped:
                raise NoAnswer("stopped")
            started = folder, dict(settings or {})
            if self._child is None or self._started != started or not self._child.alive:
                self.close()
                self._child, self._started = start_child(*started), started
        try:
            answer = self._child.ask(question)
        except ChildEnded as error:
            raise NoAnswer(f"no first steps: {error}") from error
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    def kill(self) -> None:
        """End the process, also during a run, and start no other."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """End the process and release its resources; not while a thread waits for its answer."""
        if self._child is not None:
            self._child.end()


def start_child(folder: Path, settings: Mapping[str, str] | None = None) -> Child:
    """A process with the sources of one folder and more environment variables; it ends when this process ends."""
    environment = {**os.environ, "PYTHONPATH": str(folder), **(settings or {})}
    if data_dir := named_folder(DATA_DIR_VARIABLE):
        environment[DATA_DIR_VARIABLE] = str(data_dir.resolve())  # the child runs in another folder
    return Child([sys.executable, "-c", SCRIPT.read_text(encoding="utf-8")], folder, environment)


Task = TypeVar("Task")
Done = TypeVar("Done")


def in_parallel(
    tasks: Sequence[Task], n_at_once: int, do: Callable[[Task, Workers], Done], report: Callable[[Done], None]
) -> None:
    """Do each task in one of `n_at_once` threads, with that thread's workers; call `report` in this thread."""
    of_thread = threading.local()
    all_workers: list[Workers] = []

    def work(task: Task) -> Done:
        if not hasattr(of_thread, "workers"):
            of_thread.workers = Workers()
            all_workers.append(of_thread.workers)
        return do(task, of_thread.workers)

    pool = ThreadPoolExecutor(max_workers=n_at_once)
    try:
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            report(future.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for workers in all_workers:
            workers.kill()
        pool.shutdown()
        for workers in all_workers:
            workers.close()
