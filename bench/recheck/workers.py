"""Processes that take first steps with the sources of a folder, and threads that keep several of them busy."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from bench.child import Child, ChildEnded
from bench.errors import UserError
from bench.fetch import DATA_DIR_VARIABLE

SCRIPT = Path(__file__).parent / "first_steps.py"


class NoAnswer(UserError):
    """The first steps of a run could not be taken; the message has the reason."""


class Workers:
    """The process of one thread: at any time one, since one that is done keeps the memory of its model."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._folder: Path | None = None
        self._lock, self._stopped = threading.Lock(), False

    def ask(self, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of `first_steps.py` with the sources of a folder, by the last process if it has them.

        NoAnswer where the answer is an error, or the process died.
        """
        with self._lock:
            if self._stopped:
                raise NoAnswer("stopped")
            if self._child is None or self._folder != folder or not self._child.alive:
                self.close()
                self._child, self._folder = start_child(folder), folder
        try:
            answer = self._child.ask(question)
        except ChildEnded as error:
            raise NoAnswer(f"no first steps: {error}") from error
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    def kill(self) -> None:
        """End the process, in the middle of a run too, and start no more."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """Release the resources of the process; not while a thread waits for its answer."""
        if self._child is not None:
            self._child.end()


def start_child(folder: Path) -> Child:
    """A process with the sources of one folder; it ends when this process ends, in any way."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    if data_dir := os.environ.get(DATA_DIR_VARIABLE):
        environment[DATA_DIR_VARIABLE] = str(Path(data_dir).resolve())  # it starts in another folder
    return Child([sys.executable, "-c", SCRIPT.read_text(encoding="utf-8")], folder, environment)


Task = TypeVar("Task")
Done = TypeVar("Done")


def in_parallel(
    tasks: Sequence[Task], n_at_once: int, do: Callable[[Task, Workers], Done], tell: Callable[[Done], None]
) -> None:
    """Do each task in one of `n_at_once` threads, with that thread's own workers, and tell what came of it here."""
    mine = threading.local()
    everyone: list[Workers] = []

    def work(task: Task) -> Done:
        if not hasattr(mine, "workers"):
            mine.workers = Workers()
            everyone.append(mine.workers)
        return do(task, mine.workers)

    pool = ThreadPoolExecutor(max_workers=n_at_once)
    try:
        for future in as_completed([pool.submit(work, task) for task in tasks]):
            tell(future.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for workers in everyone:
            workers.kill()
        pool.shutdown()
        for workers in everyone:
            workers.close()
