"""Both published schedules, against values calculated by hand from their formulas."""

import math

import pytest

from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT
from bench.schedule import learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-2 / 2000),  # max(s, 1) / 2000: the first two updates share a rate
        (1, 1e-2 / 2000),
        (2, 2e-2 / 2000),
        (1999, 1e-2 * 1999 / 2000),
        (2000, 1e-2),
        (2750, 3.5e-4 + (1e-2 - 3.5e-4) / 2),  # half-way down the cosine
        (3499, 3.5e-4 + (1e-2 - 3.5e-4) * 0.5 * (1 + math.cos(math.pi * 1499 / 1500))),
    ],
)
def test_k_operators_schedule(step, expected):
    assert learning_rate(step, K_OPERATORS_PAPER.training) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-3 / 101),  # (step + 1) / 101
        (99, 1e-3 * 100 / 101),
        (100, 1e-3),
        (2550, 1e-4 + 9e-4 / 2),
        (5000, 1e-4),
    ],
)
def test_nanogpt_schedule(step, expected):
    assert learning_rate(step, NANOGPT.training) == pytest.approx(expected, rel=1e-12)
