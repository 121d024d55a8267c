"""A process that does checks for another. `CheckProcess` is the side that asks.

`python -m bench.cuda.child DEVICE` is the side that answers. Whatever ends the asking process ends this one, too.
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

START_SECONDS = 60.0  # to import torch, while nine others do so and with a cold disk cache
CHECKS_OF = "bench.cuda."  # the modules whose functions may be asked for


class CheckProcess:
    """A started process that answers requests for checks."""

    def __init__(self, device: str, n_threads: int) -> None:
        environment = {"TORCHINDUCTOR_COMPILE_THREADS": str(n_threads), **os.environ}
        environment["OMP_NUM_THREADS"] = str(n_threads)
        environment.pop(RUNS_DIR_VARIABLE, None)  # the files of its runs are in their temporary store
        self.child = Child([sys.executable, "-m", "bench.cuda.child", device], ROOT, environment)
        self._ready = False

    def ask(self, function: str, arguments: dict[str, Any], seconds: float, until: float) -> dict[str, Any]:
        """The answer to `module:function` with `arguments`: a finding as JSON values, and whether it `raised`.

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
        finding = {"status": "failed", "text": first_line(error), "values": {"traceback": traceback.format_exc()}}
        raised = True
    return {**finding, "raised": raised, "seconds": time.monotonic() - started}


def _read_requests(requests: "queue.Queue[str]") -> None:
    for line in sys.stdin:
        requests.put(line)
    os.killpg(os.getpid(), signal.SIGKILL)  # no more requests will come; its own session is its own group


if __name__ == "__main__":
    main()
