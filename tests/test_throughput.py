"""Training throughput, one thing a benchmark: `pytest --benchmark-only` prints it, `extra_info` holds tokens/s."""

import pytest
import torch

from bench.budget import count_parameters
from bench.config import Run
from bench.corpus import load_corpus
from bench.experiments import laptop
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
