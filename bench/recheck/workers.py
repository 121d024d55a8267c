"""Processes that take first steps with the sources of a folder, and threads that keep several of them at work."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import UserError
from bench.fetch import DATA_DIR_VARIABLE

SCRIPT = Path(__file__).parent / "first_steps.py"


class NoAnswer(UserError):
    """A run whose first steps could not be taken; the message says why."""


class Worker:
    """One process with the sources of one folder; it ends when this process does, whatever ends it."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        if data_dir := os.environ.get(DATA_DIR_VARIABLE):
            environment[DATA_DIR_VARIABLE] = str(Path(data_dir).resolve())  # it starts in another folder
        self.folder, self.dead = folder, False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.read_text(encoding="utf-8")],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the process that asks, which then ends this one
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of `first_steps.py`. NoAnswer where it is an error or the process died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.dead = True
            raise NoAnswer(f"the process that took its first steps ended with code {self._process.wait()}{self._why()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    def kill(self) -> None:
        """End the process, in the middle of a run too; whoever waits for its answer gets NoAnswer."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of what it held; nobody may be waiting for it."""
        self._process.kill()
        with suppress(BrokenPipeError), self._errors, self._process:  # a question that it never read is flushed again
            pass

    def _why(self) -> str:
        """The last line that it wrote to stderr."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


class Workers:
    """The worker of one thread: at any time one, since one that is done keeps the memory of its model."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._lock, self._stopped = threading.Lock(), False

    def ask(self, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
        """As `Worker.ask`, by a worker with the sources of a folder: the last one, if it has them."""
        with self._lock:
            if self._stopped:
                raise NoAnswer("stopped")
            if self._worker is None or self._worker.folder != folder or self._worker.dead:
                if self._worker is not None:
                    self._worker.close()
                self._worker = Worker(folder)
        return self._worker.ask(question)

    def kill(self) -> None:
        """End the worker, and start no more."""
        with self._lock:
            self._stopped = True
            if self._worker is not None:
                self._worker.kill()

    def close(self) -> None:
        """Let go of what the worker held; only where the thread has ended."""
        if self._worker is not None:
            self._worker.close()


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
