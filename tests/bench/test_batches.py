"""Batches are a function of (seed, step): equal on every machine, uniform, and different for each seed and stream."""

import torch

from bench.batches import STREAMS, rows_at_once, stream_seed, train_batch, window_starts, windows

CPU = torch.device("cpu")
N_STARTS = 1_003_854 - 256  # Tiny Shakespeare at context 256


def test_the_first_starts_of_seed_42_are_pinned():
    starts = window_starts(42, "batches", 0, 8, N_STARTS, CPU)
    assert starts.tolist() == [73184, 262358, 772595, 819633, 541975, 81132, 731489, 321398]


def splitmix64(state: int) -> int:
    """The output of the published generator for one state, in Python integers."""
    word = 2**64 - 1
    z = state & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return z ^ (z >> 31)


def test_tensor_arithmetic_is_splitmix64_in_plain_integers():
    golden = 0x9E3779B97F4A7C15
    key = splitmix64(splitmix64(7 * 256 + STREAMS["batches"] + golden))
    expected = [(splitmix64(key + golden * (3 * 2**20 + row)) & (2**63 - 1)) % N_STARTS for row in range(5)]
    assert window_starts(7, "batches", 3, 5, N_STARTS, CPU).tolist() == expected


def test_seeds_steps_and_streams_do_not_share_starts():
    seen = [
        tuple(window_starts(seed, stream, step, 4, N_STARTS, CPU).tolist())
        for seed in (0, 1, 42)
        for stream in ("batches", "sampled")
        for step in (0, 1, 1000)
    ]
    assert len(set(seen)) == len(seen)
    assert len({stream_seed(1, stream, step) for stream in STREAMS for step in range(100)}) == 100 * len(STREAMS)


def test_starts_are_uniform_over_their_whole_range():
    starts = torch.cat([window_starts(3, "batches", step, 64, 100, CPU) for step in range(1000)])
    counts = torch.bincount(starts, minlength=100)
    assert len(counts) == 100
    assert ((counts - 640) ** 2 / 640).sum().item() < 180  # chi-squared, 99 degrees of freedom: p < 1e-6


def test_targets_are_inputs_shifted_by_one_and_the_last_window_fits():
    tokens = torch.arange(40, dtype=torch.uint8)
    x, y = windows(tokens, torch.tensor([0, 40 - 16 - 1]), 16)
    assert torch.equal(y, x + 1)
    assert y[-1, -1] == 39
    x, y = train_batch(tokens, seed=1, step=0, batch_size=500, context=16)
    assert x.min() == 0
    assert y.max() == 39


def test_a_cpu_takes_as_many_rows_as_fit_its_cache_and_a_gpu_the_whole_batch():
    cuda = torch.device("cuda")
    assert [rows_at_once(64, context, CPU) for context in (16, 256, 1024, 8192)] == [64, 16, 4, 1]
    assert rows_at_once(4, 256, CPU) == 4
    assert rows_at_once(64, 256, cuda) == 64
