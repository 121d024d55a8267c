"""Means, spreads and intervals are the ones worked by hand, and say nothing where there is nothing to say."""

import itertools
import math

import pytest

from bench.statistics import mean, perplexity, sample_sd, summarise, t_interval

PRINTED = [4.41, 4.40, 4.43, 4.50, 4.43, 4.47, 4.36]  # the preprint's seven runs; the first three share seed 42
DISTINCT = [(4.41 + 4.40 + 4.43) / 3, 4.50, 4.43, 4.47, 4.36]


def test_the_seven_printed_runs_have_mean_4_4286_and_sd_0_0460():
    assert mean(PRINTED) == pytest.approx(4.4286, abs=5e-5)
    assert sample_sd(PRINTED) == pytest.approx(0.0460, abs=5e-5)


def test_five_distinct_seeds_have_mean_4_4347_and_sd_0_0538():
    assert mean(DISTINCT) == pytest.approx(4.4347, abs=5e-5)
    assert sample_sd(DISTINCT) == pytest.approx(0.0538, abs=5e-5)


def test_the_interval_of_the_distinct_seeds_is_4_368_to_4_503():
    assert t_interval(DISTINCT) == pytest.approx((4.3679, 4.5014), abs=2e-4)  # 2.7764 (t, 4 df) x 0.0538 / sqrt 5


def test_the_interval_of_two_values_uses_the_wide_t_of_one_degree_of_freedom():
    low, high = t_interval([1.0, 2.0]) or (0, 0)
    assert (low, high) == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), abs=1e-4)


def test_a_higher_confidence_gives_a_wider_interval():
    narrow, wide = t_interval(DISTINCT, 0.9), t_interval(DISTINCT, 0.99)
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_value_has_a_mean_but_no_spread_and_no_interval():
    one = summarise([4.5])
    assert (one.n, one.mean, one.sd, one.interval) == (1, 4.5, None, None)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no mean"):
        mean([])


def test_equal_values_have_zero_spread():
    assert summarise([4.1] * 5).sd == pytest.approx(0, abs=1e-15)


def test_the_order_of_the_values_changes_no_bit():
    assert len({repr(summarise(order)) for order in itertools.permutations(DISTINCT)}) == 1


def test_perplexity_is_exp_of_nats():
    assert perplexity(1.4697) == pytest.approx(4.348, abs=5e-4)
    assert perplexity(0) == 1


def test_a_perplexity_too_large_for_a_float_is_infinite_and_never_makes_a_nan():
    assert perplexity(1e4) == math.inf
    summary = summarise([perplexity(1e4), perplexity(1.5)])
    assert (summary.mean, summary.sd, summary.interval) == (math.inf, None, None)
    assert summarise([1e308, 1.7e308]).mean == math.inf
    assert summarise([1e200, -1e200]).sd is None
