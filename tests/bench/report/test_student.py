"""Power and the seeds it takes are those of the analysis plan, by closed form."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.statistics import welch
from bench.report.student import MAX_SEEDS, seeds_needed, welch_power


@pytest.mark.parametrize(
    ("n", "powers"),
    [
        (3, (0.16, 0.29, 0.46)),
        (5, (0.29, 0.55, 0.79)),
        (7, (0.41, 0.73, 0.93)),
        (10, (0.56, 0.89, 0.99)),
        (20, (0.87, 1.0, 1.0)),
    ],
)
def test_welchs_power_for_1_1_5_and_2_sd_is_the_simulated_one(n, powers):
    found = [welch_power(n, difference, 1, 1) for difference in (1, 1.5, 2)]
    assert found == pytest.approx(powers, abs=0.006)  # printed to two places


def test_power_of_five_against_five_is_the_tail_of_a_noncentral_t():
    # sd 1 each, difference 2: noncentrality 2/sqrt(1/5 + 1/5) = 3.16228, 2 x 4 = 8 degrees of freedom, 2.306 at 97.5 %
    expected = scipy.stats.nct.sf(2.306004, 8, 3.162278) + scipy.stats.nct.cdf(-2.306004, 8, 3.162278)
    assert welch_power(5, 2, 1, 1) == pytest.approx(expected, abs=1e-6)


def test_power_for_unequal_spreads_is_what_repeating_the_experiment_finds():
    rng = np.random.default_rng(0)
    found = [
        (welch(rng.normal(2, 1, 6).tolist(), rng.normal(0, 2, 6).tolist()).p_value or 0) < 0.05 for _ in range(2000)
    ]
    assert welch_power(6, 2, 1, 2) == pytest.approx(np.mean(found), abs=0.035)  # 3 standard errors of 2000 draws


def test_without_a_difference_the_power_is_the_error_that_was_allowed():
    assert welch_power(5, 0, 1, 2) == pytest.approx(0.05)
    assert welch_power(5, 0, 1, 2, alpha=0.2) == pytest.approx(0.2)


def test_the_published_gap_takes_eight_seeds_an_arm_and_more_power_or_a_stricter_test_takes_more():
    assert seeds_needed(1.6, 1, 1) == 8  # 1.6 sd at 80 %; seven give 0.785
    assert (seeds_needed(1.6, 1, 1, power=0.95) or 0) > 8
    assert (seeds_needed(1.6, 1, 1, alpha=0.01) or 0) > 8
    assert seeds_needed(0.0875, 0.054, 0.054) == 8  # 4.4355 against 4.348, in perplexity
    assert welch_power(7, 1.6, 1, 1) < 0.8 <= welch_power(8, 1.6, 1, 1)


def test_two_seeds_do_where_there_is_no_spread_and_no_number_does_where_there_is_no_difference():
    assert seeds_needed(0.1, 0, 0) == 2
    assert seeds_needed(0, 1, 1) is None
    assert seeds_needed(0, 0, 0) is None
    assert seeds_needed(math.inf, 1, 1) is None


def test_a_thousand_seeds_is_the_most_that_is_asked_for():
    # for large n, n = 2 (1.96 + 0.8416)²/difference² = 15.70/difference²: 997 for 0.1255, 1005 for 0.125
    assert seeds_needed(0.1255, 1, 1) == pytest.approx(997, abs=2)
    assert seeds_needed(0.125, 1, 1) is None
    assert MAX_SEEDS == 1000


def test_a_difference_of_many_errors_is_found_for_certain_and_is_no_nan():
    assert welch_power(10, 8, 1, 1) == welch_power(5, 15, 1, 1) == welch_power(5, 1, 0, 1e-200) == pytest.approx(1)


@given(st.integers(2, 40), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
@settings(deadline=None)
def test_power_is_a_probability_whatever_the_sign_and_whichever_arm_comes_first(n, difference, sd_a, sd_b):
    power = welch_power(n, difference, sd_a, sd_b)
    assert 0 <= power <= 1
    assert welch_power(n, -difference, sd_b, sd_a) == pytest.approx(power)
