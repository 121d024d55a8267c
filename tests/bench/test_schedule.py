"""The published schedules, against values calculated by hand from their formulas."""

import dataclasses
import math

import pytest

from bench.experiments.recipes import K_OPERATORS_PAPER, NANOGPT, NANOGPT_2023
from bench.schedule import learning_rate


@pytest.mark.parametrize(
    ("recipe", "step", "expected"),
    [
        (K_OPERATORS_PAPER, 0, 1e-2 / 2000),  # max(s, 1) / 2000: the first two updates share a rate
        (K_OPERATORS_PAPER, 1, 1e-2 / 2000),
        (K_OPERATORS_PAPER, 2, 2e-2 / 2000),
        (K_OPERATORS_PAPER, 1999, 1e-2 * 1999 / 2000),
        (K_OPERATORS_PAPER, 2000, 1e-2),
        (K_OPERATORS_PAPER, 2750, 3.5e-4 + (1e-2 - 3.5e-4) / 2),  # half-way down the cosine
        (K_OPERATORS_PAPER, 3499, 3.5e-4 + (1e-2 - 3.5e-4) * 0.5 * (1 + math.cos(math.pi * 1499 / 1500))),
        (NANOGPT, 0, 1e-3 / 101),  # (step + 1) / 101
        (NANOGPT, 99, 1e-3 * 100 / 101),
        (NANOGPT, 100, 1e-3),
        (NANOGPT, 2550, 1e-4 + 9e-4 / 2),
        (NANOGPT, 5000, 1e-4),
        (NANOGPT_2023, 0, 0.0),  # step / 100: the first update has no rate
        (NANOGPT_2023, 1, 1e-5),
        (NANOGPT_2023, 50, 5e-4),
        (NANOGPT_2023, 99, 9.9e-4),
        (NANOGPT_2023, 100, 1e-3),  # the peak
        (NANOGPT_2023, 1325, 1e-4 + 9e-4 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the way: cos(45 degrees)
        (NANOGPT_2023, 2550, 5.5e-4),  # half the way
        (NANOGPT_2023, 3775, 1e-4 + 9e-4 * (1 - math.sqrt(0.5)) / 2),
        (NANOGPT_2023, 5000, 1e-4),
        (NANOGPT_2023, 6000, 1e-4),  # past the end it stays
    ],
)
def test_the_rate_at_a_step_is_that_of_the_formula(recipe, step, expected):
    assert learning_rate(step, recipe.training) == pytest.approx(expected, rel=1e-12)


def test_from_the_warm_up_on_the_schedules_of_nanogpt_agree():
    for step in range(100, 5000, 700):
        assert learning_rate(step, NANOGPT_2023.training) == learning_rate(step, NANOGPT.training)


@pytest.mark.parametrize("schedule", ["k_operators", "nanogpt", "nanogpt_2023"])
def test_no_schedule_needs_a_warm_up(schedule):
    training = dataclasses.replace(NANOGPT.training, schedule=schedule, warmup_steps=0)
    assert learning_rate(0, training) == pytest.approx(1e-3)
