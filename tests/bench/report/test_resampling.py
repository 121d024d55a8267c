"""The exact test counts every split, and the bootstrap draws blocks of the text: five values, counted by hand."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.resampling import block_bootstrap, permutation_p

losses = st.integers(0, 999).map(lambda hundredths: hundredths / 100)


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_sums_that_are_equal_on_paper_tie_although_floats_round():
    # 0.1 + 0.2 is 0.3 on paper and 5.6e-17 more in floats
    assert permutation_p([0.1 + 0.2], [0.3, 0.3]) == 1


def test_permutation_counts_the_splits_at_least_as_far_on_the_observed_side():
    # 1 2 against 3 4 5: of the ten pairs, only 1 + 2 sums to 3 or less: 2 x 1/10
    assert permutation_p([1.0, 2.0], [3.0, 4.0, 5.0]) == pytest.approx(0.2)
    # 1 4 against 2 3 5: pairs sum to 3 4 5 5 6 6 7 7 8 9, four of them at most 5: 2 x 4/10
    assert permutation_p([1.0, 4.0], [2.0, 3.0, 5.0]) == pytest.approx(0.8)
    # the least p of five against five and of five against one
    assert permutation_p([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]) == pytest.approx(2 / 252)
    assert permutation_p([1.0, 2.0, 3.0, 4.0, 5.0], [60.0]) == pytest.approx(1 / 3)


def test_the_exact_test_is_scipys():
    a, b = [4.41, 4.36, 4.50, 4.44, 4.39], [4.35, 4.45, 4.34, 4.37, 4.31]

    def by_scipy(*data):
        return scipy.stats.permutation_test(data, lambda x, y: np.mean(x) - np.mean(y), vectorized=False).pvalue

    assert permutation_p(a, b) == pytest.approx(by_scipy(a, b))
    assert permutation_p(a, b[:3]) == pytest.approx(by_scipy(a, b[:3]))


def test_no_values_and_equal_values_are_no_evidence():
    assert permutation_p([], [1.0]) == permutation_p([1.0], [2.0]) == permutation_p([1.5] * 3, [1.5] * 4) == 1


def test_more_than_can_be_enumerated_is_refused_and_says_so():
    with pytest.raises(ValueError, match=r"10 values against 11 have 352,716 splits.*200,000"):
        permutation_p([1.0] * 10, [1.0] * 11)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_value_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="infinite"):
        permutation_p([1.0, value], [1.0])


@given(st.lists(losses, min_size=1, max_size=5), st.lists(losses, min_size=1, max_size=5), st.randoms())
@settings(deadline=None)  # other processes may hold the machine up
def test_exact_p_is_a_share_of_all_splits_whatever_the_order_sign_or_side(a, b, random):
    p = permutation_p(a, b)
    assert 1 / math.comb(len(a) + len(b), len(a)) <= p <= 1
    assert permutation_p(b, random.sample(a, len(a))) == pytest.approx(p)


def test_drawn_one_by_one_the_mean_of_five_windows_is_a_binomial_share():
    # one window of five holds 1: a resample holds Binomial(5, 1/5) of them. P(0) = 0.8^5 = 0.328 > 2.5 %, so the lower
    # end is 0; P(at most 2) = 0.942 < 97.5 % < P(at most 3) = 0.993, so the upper end is 3/5
    assert block_bootstrap([0, 0, 0, 0, 1], block=1) == pytest.approx((0, 0.6))


def test_in_blocks_of_two_five_windows_are_two_blocks_and_a_half():
    # windows 1 2 3 4 5: blocks 12 23 34 45, the third cut to its first window. The least resample is 12 12 1, mean 7/5,
    # the greatest 45 45 4, mean 22/5; each comes once in 4³ = 64, more often than the 0.5 % that 99 % leaves outside
    assert block_bootstrap([1, 2, 3, 4, 5], block=2, confidence=0.99) == pytest.approx((7 / 5, 22 / 5))


def test_windows_that_resemble_their_neighbours_give_a_wider_interval_in_blocks():
    scenes = np.repeat(np.random.default_rng(1).normal(size=54), 8)  # 54 scenes of 8 windows
    alone, blocks = (width(block_bootstrap(scenes.tolist(), block=block)) for block in (1, 8))
    assert blocks > 2 * alone  # the truth is sqrt 8 = 2.8 times; blocks that straddle two scenes lose some of it


def test_windows_that_do_not_resemble_their_neighbours_give_the_same_interval_in_blocks():
    texts = np.random.default_rng(0).normal(0.03, 0.3, size=(20, 435)).tolist()
    widths = [width(block_bootstrap(text)) for text in texts]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.3 / math.sqrt(435), rel=0.06)  # one text's varies by 8 %


def test_drawn_one_by_one_the_interval_is_scipys_percentile_bootstrap():
    windows = np.random.default_rng(1).normal(0.03, 0.3, size=435).tolist()
    by_scipy = scipy.stats.bootstrap([windows], np.mean, method="percentile", rng=0, n_resamples=2000)
    assert block_bootstrap(windows, block=1) == pytest.approx(tuple(by_scipy.confidence_interval), abs=2e-3)


def test_what_both_models_find_hard_cancels_in_the_differences():
    text = np.random.default_rng(2).normal(1.5, 0.3, size=435)  # the windows' own difficulty
    ours, theirs = text + 0.02, text
    assert block_bootstrap((ours - theirs).tolist()) == pytest.approx((0.02, 0.02))
    assert width(block_bootstrap(ours.tolist())) > 0.04


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    windows = np.random.default_rng(3).normal(size=100).tolist()
    assert block_bootstrap(windows) == block_bootstrap(windows)
    assert block_bootstrap(windows) != block_bootstrap(windows, seed=1)


@pytest.mark.parametrize("windows", [[], [0.5], [0.5] * 15, [0.5] * 20 + [math.inf]])
def test_less_text_than_two_blocks_gives_no_interval(windows):
    assert block_bootstrap(windows, block=8) is None


def test_two_blocks_give_one_and_equal_windows_a_width_of_0():
    assert block_bootstrap([0.5] * 16, block=8) == (0.5, 0.5)


def test_a_block_of_no_windows_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        block_bootstrap([1.0, 2.0], block=0)
