"""Training throughput, one thing a benchmark: `pytest --benchmark-only` prints tokens/s, `extra_info` holds them."""

import json
import subprocess
import sys

import pytest
import torch

from bench.budget import count_parameters
from bench.config import Run
from bench.corpus import load_corpus
from bench.experiments import laptop
from bench.sources import ROOT
from bench.train import Trainer

ARMS = {cell.label: cell.config for cell in laptop().cells if cell.config.training is not None}
N_STEPS = 3  # a round; the clock is read once the device is idle


@pytest.mark.benchmark(group="training step, laptop size")
@pytest.mark.parametrize("label", ARMS)
def test_training_step(benchmark, label):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(2)
    mode = "fast" if device.type == "cuda" else "exact"
    run = Run(label=label, config=ARMS[label], seed=42, mode=mode)
    trainer = Trainer(run, load_corpus("synthetic", device), device)

    def steps():
        for _ in range(N_STEPS):
            loss, _ = trainer.advance()
        return loss.item()  # waits for the device

    benchmark.pedantic(steps, rounds=5, warmup_rounds=2, iterations=1)
    n_tokens = N_STEPS * run.config.training.batch_size * run.config.context
    benchmark.extra_info |= {
        "n_tokens": n_tokens,
        "tokens_per_second": n_tokens / benchmark.stats.stats.median,
        "n_params": count_parameters(trainer.model).n_params,
        "device": device.type,
        "mode": mode,
        "n_threads": torch.get_num_threads(),
    }


ONE_PAPER_STEP = """
import dataclasses, json, resource, sys, time
import torch
from bench.config import Run
from bench.corpus import load_corpus
from bench.experiments import K_OPERATORS_PAPER
from bench.train import Trainer
torch.set_num_threads(2)
cpu = torch.device("cpu")
model = dataclasses.replace(K_OPERATORS_PAPER.model, backend=sys.argv[1])
config = dataclasses.replace(K_OPERATORS_PAPER, model=model, corpus="synthetic")
trainer = Trainer(Run(label="x", config=config, seed=1, mode="exact"), load_corpus("synthetic", cpu), cpu)
seconds = []
for _ in range(3):
    started = time.perf_counter()
    trainer.advance()
    seconds.append(time.perf_counter() - started)
print(json.dumps([sorted(seconds)[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


@pytest.mark.slow
def test_chunked_takes_a_quarter_of_masks_time_and_half_its_memory_at_paper_size():
    found = {}
    for backend in ("chunked", "mask"):  # one process each, since a process never gives its peak back
        command = [sys.executable, "-c", ONE_PAPER_STEP, backend]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found[backend] = json.loads(result.stdout)
    print("seconds a step, peak KiB:", found)
    assert found["mask"][0] / found["chunked"][0] >= 4
    assert found["chunked"][1] / found["mask"][1] < 0.5
