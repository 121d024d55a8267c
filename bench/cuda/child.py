"""A process that does checks for another: it takes requests on its standard input, and answers one line each.

A check that crashes CUDA, hangs or runs out of memory takes only its own process along. `Child` is the side that asks;
`python -m bench.cuda.child DEVICE` is the side that answers. Whatever ends the asking process ends this one, too.
"""

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from bench.sources import ROOT
from bench.store import RUNS_DIR_VARIABLE

START_SECONDS = 60.0  # to import torch, with nine others beside it and a cold disk
CHECKS_OF = "bench.cuda."  # the modules whose functions may be asked for


class ChildEnded(Exception):
    """The process ended without an answer."""


class Child:
    """A started process, and the thread that reads its answers."""

    def __init__(self, device: str, n_threads: int) -> None:
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": str(n_threads), **os.environ}
        environment["OMP_NUM_THREADS"] = str(n_threads)
        environment.pop(RUNS_DIR_VARIABLE, None)  # what its runs leave lies in their temporary store
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # `end` closes it
        self._log: IO[str] = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.cuda.child", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # so that what it starts can be ended with it
        )
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._ready = False

    def ask(self, function: str, arguments: dict[str, Any], seconds: float, until: float) -> dict[str, Any]:
        """The answer to `module:function` with `arguments`: a finding as JSON values, and whether it `raised`.

        TimeoutError after `seconds`, not counting the process's own start, or when time.monotonic() reaches `until`;
        ChildEnded where the process ends without an answer.
        """
        if not self._ready:
            self._next(min(START_SECONDS, until - time.monotonic()))
            self._ready = True
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ChildEnded("the process was ended")
        with suppress(BrokenPipeError):  # then no answer comes, and the log says why
            self._process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._next(min(seconds, until - time.monotonic())))
        return answer

    def end(self) -> None:
        """End the process and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError):  # a request that nobody read
                pipe.close()  # type: ignore[union-attr]

    def _next(self, seconds: float) -> str:
        try:
            line = self._answers.get(timeout=max(seconds, 0))
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None
        if line is None:
            self._answers.put(None)  # for whoever asks again
            raise ChildEnded(self._reason())
        return line

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


def main() -> None:
    """Answer requests until they end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a check prints goes to the log
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    import torch

    from bench.cuda.numbers import Context
    from bench.train import set_numerics

    context = Context(device=torch.device(sys.argv[1]))
    set_numerics("exact", context.device)  # first: cuBLAS reads its settings when it starts
    print("ready", file=answers, flush=True)
    while True:
        print(json.dumps(perform(context, **json.loads(requests.get()))), file=answers, flush=True)


def perform(context: Any, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The finding of a check as JSON values; one that raises has failed, with the error's line."""
    module, _, name = function.partition(":")
    if not module.startswith(CHECKS_OF):
        raise ValueError(f"{function} is not a check of {CHECKS_OF}*")
    started = time.monotonic()
    try:
        finding = asdict(getattr(importlib.import_module(module), name)(context, **arguments))
        raised = False
    except Exception as error:
        traceback.print_exc()
        line = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        finding = {"status": "failed", "text": line, "values": {"traceback": traceback.format_exc()}}
        raised = True
    return {**finding, "raised": raised, "seconds": time.monotonic() - started}


def _read_requests(requests: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os.killpg(os.getpid(), signal.SIGKILL)  # nobody asks any more; a session of its own is a group of its own


if __name__ == "__main__":
    main()
