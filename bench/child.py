"""A child process that reads requests on its stdin and writes answers on its stdout, one JSON line each.

A crash, a hang or a lack of memory there ends only that process.
"""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


class ChildEnded(Exception):
    """The process has ended. The message has its exit code or signal, and the last line of its log."""


class Child:
    """A started process, its log (its stderr), and the thread that reads its answers."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._log: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            env=environment,
            start_new_session=True,  # so that Ctrl-C does not reach it, and what it starts can be ended with it
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """The answer to a request. ChildEnded where the process ends without one; TimeoutError after `seconds`."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ChildEnded("the process was ended")
        with suppress(BrokenPipeError):  # then no answer comes, and the log has the reason
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.next_line(seconds))
        return answer

    def next_line(self, seconds: float | None = None) -> str:
        """The next line that the process writes; raises as `ask`."""
        try:
            line = self._answers.get(timeout=None if seconds is None else max(seconds, 0))
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None
        if line is None:
            self._answers.put(None)  # for the next call
            raise ChildEnded(self._reason())
        return line

    def kill(self) -> None:
        """End the process and everything that it started; a thread that waits for an answer gets ChildEnded."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """As `kill`, and release the resources of the process."""
        self.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):  # a request that was not read
                pipe.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _reason(self) -> str:
        """How the process ended, and the last line of its log."""
        code = self._process.wait()
        if self._log.closed:
            return "the process was ended"
        self._log.seek(0)
        last = "".join(self._log.read().strip().splitlines()[-1:])[:300]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"the process {how}{': ' if last else ''}{last}"
