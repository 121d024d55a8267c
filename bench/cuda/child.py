"""A process that runs checks for its parent, which starts it by `CheckProcess`.

`python -m bench.cuda.child DEVICE` is the process. It ends when its parent ends, in any way.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any

from bench.child import Child
from bench.errors import first_line
from bench.sources import ROOT
from bench.store import RUNS_DIR_VARIABLE

START_SECONDS = 60.0  # to import torch, with a cold disk cache, while nine other processes do so
CHECKS_OF = "bench.cuda."  # the modules whose functions may be called


class CheckProcess:
    """A started process that answers requests for checks."""

    def __init__(self, device: str, n_threads: int) -> None:
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": str(n_threads), **os.environ}
        environment["OMP_NUM_THREADS"] = str(n_threads)
        environment.pop(RUNS_DIR_VARIABLE, None)  # its runs keep their files in their temporary store
        self.child = Child([sys.executable, "-m", "bench.cuda.child", device], ROOT, environment)
        self._ready = False

    def ask(self, function: str, arguments: dict[str, Any], seconds: float, until: float) -> dict[str, Any]:
        """The answer of `module:function` with `arguments`, as JSON values, and whether it `raised`.

        TimeoutError after `seconds`, not counting the process's own start, or when time.monotonic() reaches `until`;
        ChildEnded where the process ends without an answer.
        """
        if not self._ready:
            self.child.next_line(min(START_SECONDS, until - time.monotonic()))
            self._ready = True
        request = {"function": function, "arguments": arguments}
        return self.child.ask(request, min(seconds, until - time.monotonic()))

    def end(self) -> None:
        """End the process and everything that it started."""
        self.child.end()


def main() -> None:
    """Answer requests until stdin closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the output of checks goes to the log
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    import torch

    from bench.cuda.numbers import Context
    from bench.train import set_numerics

    context = Context(device=torch.device(sys.argv[1]))
    set_numerics("exact", context.device)  # before anything else: cuBLAS reads its settings when it starts
    print("ready", file=answers, flush=True)
    while True:
        print(json.dumps(perform(context, **json.loads(requests.get()))), file=answers, flush=True)


def perform(context: Any, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The answer of a check as JSON values; a check that raises has failed, with the first line of the error."""
    module, _, name = function.partition(":")
    if not module.startswith(CHECKS_OF):
        raise ValueError(f"{function} is not a check of {CHECKS_OF}*")
    started = time.monotonic()
    try:
        answer, raised = asdict(getattr(importlib.import_module(module), name)(context, **arguments)), False
    except Exception as error:
        traceback.print_exc()
        values = {"traceback": traceback.format_exc()}
        answer, raised = {"status": "failed", "text": first_line(error), "values": values}, True
    return {**answer, "raised": raised, "seconds": time.monotonic() - started}


def _read_requests(requests: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os.killpg(os.getpid(), signal.SIGKILL)  # the parent has ended; this process leads its group


if __name__ == "__main__":
    main()
