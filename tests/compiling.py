"""Compile training steps of some runs for the CPU, as `fast` mode does for CUDA, and count the hits of the cache.

`python -m tests.compiling FILE` reads runs from a JSON file, resets the compiler for each, and prints a JSON.
"""

import json
import sys
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from bench import train
from bench.config import Run, read_run, to_json
from bench.corpus import load_corpus
from tests.bench.test_train import GraphOnPaper


def write_runs(path: Path, runs: list[Run]) -> Path:
    """Write runs for another process."""
    path.write_text(json.dumps([to_json(run) for run in runs]))
    return path


def main() -> None:
    """Do two steps of each run; print the loss of the second, and hits and misses of both caches."""
    torch.set_num_threads(1)
    train.set_numerics = lambda *_: None  # it refuses `fast` mode on a CPU
    train.StepGraph = GraphOnPaper  # type: ignore[assignment,attr-defined]  # CUDA's graphs need CUDA
    device = torch.device("cpu")
    corpus = load_corpus("synthetic", device)
    nats = []
    for run in map(read_run, json.loads(Path(sys.argv[1]).read_text())):
        torch.compiler.reset()  # as in a new process
        trainer = train.Trainer(run, corpus, device)
        trainer.warm_up()
        trainer.advance()
        nats.append(trainer.advance()[0].item())
    found = {f"{kind}_{what}": 0 for kind in ("graph", "autograd") for what in ("hits", "misses", "bypasses")}
    for kind, some, prefix in (("graph", "inductor", "fxgraph"), ("autograd", "aot_autograd", "autograd")):
        for what, word in (("hits", "hit"), ("misses", "miss"), ("bypasses", "bypass")):
            found[f"{kind}_{what}"] = counters[some][f"{prefix}_cache_{word}"]
    print(json.dumps({**found, "nats": nats}))


if __name__ == "__main__":
    main()
