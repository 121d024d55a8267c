"""Means, spreads, differences and tests are the ones worked by hand, and say nothing where there is nothing to say.

Most are worked on two samples of five: A = 1 2 3 4 5, mean 3, squares about it 4 + 1 + 0 + 1 + 4 = 10; B = 3 3 3 5 6,
mean 4, squares 1 + 1 + 1 + 1 + 4 = 8; A - B = -2 -1 0 -1 -1, mean -1, squares 1 + 0 + 1 + 0 + 0 = 2.
Student's t with 4 degrees of freedom: quantiles 2.77645 (97.5 %) and 2.13185 (95 %); its tail has a closed form.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from bench.report.published import load_published
from bench.report.statistics import (
    MARGIN_NATS,
    anova_p,
    holm,
    lower_bound,
    mean,
    non_inferiority,
    one_sample,
    paired_t,
    perplexity,
    sample_sd,
    summarise,
    t_interval,
    tost,
    upper_bound,
    welch,
)

A, B = [1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 3.0, 3.0, 5.0, 6.0]
T_975, T_95 = 2.77645, 2.13185  # quantiles of Student's t, 4 degrees of freedom, from a printed table

PUBLISHED = load_published(Path(__file__).parents[3] / "results" / "published.toml")
(SEVEN,) = (figure.runs for figure in PUBLISHED.figure if "k_operators" in figure.arms)
PRINTED = [run.perplexity or 0.0 for run in SEVEN]


def by_seed(values: list[float]) -> list[float]:
    """One value a distinct seed of the published runs: same-seed runs averaged."""
    seeds = [run.seed for run in SEVEN]
    return [mean([value for value, other in zip(values, seeds, strict=True) if other == seed]) for seed in {*seeds}]


def tail_4(t: float) -> float:
    """P(T > t) of Student's t, 4 degrees of freedom, for t > 0: 1/2 - 3/8 u (1 - u²/12), where u² = t²/(1 + t²/4)."""
    u = t / math.sqrt(1 + t * t / 4)
    return 1 / 2 - 3 / 8 * u * (1 - u * u / 12)


def test_the_seven_published_runs_have_mean_4_4286_and_sd_0_0460():
    assert len(PRINTED) == 7
    assert mean(PRINTED) == pytest.approx(4.4286, abs=5e-5)
    assert sample_sd(PRINTED) == pytest.approx(0.0460, abs=5e-5)  # n - 1; the preprint rounds it to 0.05


def test_five_distinct_published_seeds_have_mean_4_4347_and_sd_0_0538():
    distinct = by_seed(PRINTED)
    assert len(distinct) == 5
    assert mean(distinct) == pytest.approx(4.4347, abs=5e-5)
    assert sample_sd(distinct) == pytest.approx(0.0538, abs=5e-5)
    assert t_interval(distinct) == pytest.approx((4.3679, 4.5014), abs=2e-4)  # ± 2.7764 x 0.0538 / sqrt 5


def test_from_cross_entropies_the_published_seeds_have_mean_4_4355_and_sd_0_0540():
    perplexities = by_seed([perplexity(run.nats_per_token) for run in SEVEN])
    assert mean(perplexities) == pytest.approx(4.4355, abs=5e-5)
    assert sample_sd(perplexities) == pytest.approx(0.0540, abs=5e-5)


def test_mean_spread_and_interval_of_five_values():
    assert mean(A) == 3
    assert sample_sd(A) == pytest.approx(math.sqrt(10 / 4))
    half_width = T_975 * math.sqrt(2.5 / 5)  # standard error sqrt(2.5)/sqrt(5) = 0.70711
    assert t_interval(A) == pytest.approx((3 - half_width, 3 + half_width), abs=1e-5)
    assert summarise(A).interval == t_interval(A)


def test_one_sided_bounds_put_the_whole_error_on_one_side():
    assert upper_bound(A) == pytest.approx(3 + T_95 * math.sqrt(0.5), abs=1e-5)
    assert lower_bound(A) == pytest.approx(3 - T_95 * math.sqrt(0.5), abs=1e-5)
    assert (lower_bound(A), upper_bound(A)) == t_interval(A, 0.9)


def test_the_interval_of_two_values_uses_the_wide_t_of_one_degree_of_freedom():
    assert t_interval([1.0, 2.0]) == pytest.approx((1.5 - 12.7062 * 0.5, 1.5 + 12.7062 * 0.5), abs=1e-4)


def test_paired_t_is_the_t_of_the_differences():
    paired = paired_t(A, B)
    error = math.sqrt(2 / 4 / 5)  # 0.31623, so t = -3.16228
    assert (paired.n_a, paired.n_b, paired.difference) == (5, 5, -1)
    assert paired.interval == pytest.approx((-1 - T_975 * error, -1 + T_975 * error), abs=1e-5)
    assert paired.p_value == pytest.approx(2 * tail_4(1 / error))  # u = 1.69031: 2 x (0.5 - 0.48294) = 0.0341
    assert paired.p_value == pytest.approx(scipy.stats.ttest_rel(A, B).pvalue)


def test_welch_adds_the_two_squared_errors_and_counts_its_own_degrees_of_freedom():
    unpaired = welch(A, B)
    # squared errors 2.5/5 = 0.5 and 2/5 = 0.4: error sqrt 0.9 = 0.94868, t = -1.05409,
    # degrees of freedom 0.9²/(0.5²/4 + 0.4²/4) = 0.81/0.1025 = 7.902, where the 97.5 % quantile is 2.311
    assert (unpaired.n_a, unpaired.n_b, unpaired.difference) == (5, 5, -1)
    assert unpaired.interval == pytest.approx((-1 - 2.311 * 0.94868, -1 + 2.311 * 0.94868), abs=5e-4)
    by_scipy = scipy.stats.ttest_ind(A, B, equal_var=False)
    assert unpaired.p_value == pytest.approx(by_scipy.pvalue)
    assert unpaired.interval == pytest.approx(tuple(by_scipy.confidence_interval(0.95)))


def test_welch_of_unequal_sizes_and_spreads_is_scipys():
    few, many = [4.41, 4.36, 4.50], [4.35, 4.36, 4.35, 4.34, 4.37, 4.36]
    by_scipy = scipy.stats.ttest_ind(few, many, equal_var=False)
    assert welch(few, many).p_value == pytest.approx(by_scipy.pvalue)
    assert welch(few, many, 0.8).interval == pytest.approx(tuple(by_scipy.confidence_interval(0.8)))


def test_one_sample_compares_with_a_number_taken_as_exact():
    compared = one_sample(A, 1)
    assert (compared.n_a, compared.n_b, compared.difference) == (5, 0, 2)
    assert compared.p_value == pytest.approx(2 * tail_4(2 / math.sqrt(0.5)))  # t = 2.82843, u = 1.63299: 0.0474
    assert compared.p_value == pytest.approx(scipy.stats.ttest_1samp(A, 1).pvalue)
    assert one_sample(by_seed(PRINTED), 4.348).p_value == pytest.approx(0.022, abs=1e-3)  # the analysis plan's


def test_tost_takes_the_weaker_of_its_two_one_sided_tests():
    # differences -1, error 0.31623; to the lower margin -2 it is t = 3.16228, to the upper one 9.49
    within_two = tost(A, B, paired=True, margin=2)
    assert within_two.p_value == pytest.approx(tail_4(3.162278))
    assert within_two.interval_90 == pytest.approx((-1 - T_95 * 0.316228, -1 + T_95 * 0.316228), abs=1e-5)
    assert within_two.verdict == "equivalent"


@pytest.mark.parametrize(
    ("margin", "two_sided", "one_sided"),
    [
        (2.0, "equivalent", "non-inferior"),
        (1.5, "undecided", "non-inferior"),  # the 90 % interval, -1.674 to -0.326, crosses -1.5
        (0.3, "better", "better"),  # it lies below -0.3
    ],
)
def test_the_verdict_on_a_margin_is_where_the_90_percent_interval_lies(margin, two_sided, one_sided):
    assert tost(A, B, paired=True, margin=margin).verdict == two_sided
    assert non_inferiority(A, B, paired=True, margin=margin).verdict == one_sided


def test_with_the_arms_exchanged_better_is_worse_and_non_inferiority_is_lost():
    assert tost(B, A, paired=True, margin=0.3).verdict == "worse"
    assert non_inferiority(B, A, paired=True, margin=0.3).verdict == "worse"
    assert non_inferiority(B, A, paired=True, margin=1.5).verdict == "undecided"
    assert non_inferiority(B, A, paired=True, margin=2).verdict == "non-inferior"


def test_non_inferiority_is_one_test_against_the_upper_margin():
    one_sided = scipy.stats.ttest_ind(A, [b + 0.5 for b in B], equal_var=False, alternative="less")
    assert non_inferiority(A, B, paired=False, margin=0.5).p_value == pytest.approx(one_sided.pvalue)


def test_the_margin_is_two_hundredths_of_a_nat_unless_told_otherwise():
    assert tost(A, B, paired=False).margin == MARGIN_NATS == 0.02
    assert 4.4 * (perplexity(MARGIN_NATS) - 1) == pytest.approx(0.09, abs=2e-3)


@pytest.mark.parametrize(("n", "power"), [(5, 0.76), (7, 0.94)])
def test_equivalence_within_two_sd_is_found_as_often_as_the_analysis_plan_says(n, power):
    rng = np.random.default_rng(0)
    found = [
        tost(rng.normal(size=n).tolist(), rng.normal(size=n).tolist(), paired=False, margin=2).verdict == "equivalent"
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(power, abs=0.03)  # 3 standard errors of 2000 draws


def test_holm_multiplies_the_least_by_five_the_next_by_four_and_never_steps_back():
    # in order: 0.005 x 5 = 0.025; 0.01 x 4 = 0.04; 0.03 x 3 = 0.09; 0.04 x 2 = 0.08, held at 0.09; 0.2 x 1
    assert holm([0.01, 0.04, 0.03, 0.005, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.2])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_anova_weighs_the_spread_between_groups_against_that_within():
    # five values in three groups, means 1.5, 3, 5.5 about 3.4: between 2 x 1.9² + 0.4² + 2 x 2.1² = 16.2, within
    # 0.5 + 0 + 0.5 = 1: F(2, 2) = 8.1/0.5 = 16.2, whose tail with 2 and 2 degrees of freedom is 1/(1 + F)
    groups = [[1.0, 2.0], [3.0], [5.0, 6.0]]
    assert anova_p(groups) == pytest.approx(1 / 17.2)
    assert anova_p(groups) == pytest.approx(scipy.stats.f_oneway(*groups).pvalue)


def test_anova_of_two_groups_is_the_t_test_of_equal_variances():
    assert anova_p([A, B]) == pytest.approx(scipy.stats.ttest_ind(A, B).pvalue)


@pytest.mark.parametrize("groups", [[], [A], [[1.0], [2.0]], [A, []], [A, [1.0, math.inf]], [[1e200, -1e200], A]])
def test_anova_says_nothing_of_groups_it_cannot_test(groups):
    assert anova_p(groups) is None


def test_one_value_has_a_mean_but_no_spread_and_no_interval():
    one = summarise([4.5])
    assert (one.n, one.mean, one.sd, one.interval) == (1, 4.5, None, None)
    assert (upper_bound([4.5]), lower_bound([4.5])) == (None, None)


@pytest.mark.parametrize("compared", [welch([4.5], B), welch(A, [4.5]), paired_t([4.5], [4.4]), one_sample([4.5], 1)])
def test_a_side_of_one_run_gives_a_difference_but_no_interval_no_p_and_no_equivalence(compared):
    assert compared.difference != 0
    assert (compared.interval, compared.p_value) == (None, None)
    alone = tost([1.5], [1.5], paired=False)
    assert (alone.difference, alone.interval_90, alone.p_value, alone.verdict) == (0, None, None, "undecided")


@pytest.mark.parametrize(
    ("function", "samples", "message"),
    [
        (mean, [[]], "mean of an empty list"),
        (paired_t, [A, B[:4]], "zip"),  # one lacks a partner
        *((compare, [[math.inf, 1.0], [math.inf, 1.0]], "infinite|NaN") for compare in (welch, paired_t)),
        *((compare, [[math.nan, 1.0], [1.0, 1.0]], "infinite|NaN") for compare in (welch, paired_t)),
    ],
)
def test_what_has_no_mean_or_no_difference_is_refused_rather_than_nan(function, samples, message):
    with pytest.raises(ValueError, match=message):
        function(*samples)


@pytest.mark.parametrize("n", [2, 5, 7, 49])
def test_equal_values_have_exactly_no_spread(n):
    for value in (4.1, 1.602, 1.149, 1.309):  # a rounded sum of 5, 7 or 49 of the last three, divided, misses them
        assert summarise([value] * n).interval == (value, value)
        assert sample_sd([value] * n) == 0


def test_two_arms_without_spread_differ_surely_or_not_at_all():
    for compared in (welch([1.5] * 5, [1.25] * 7), paired_t([1.5] * 5, [1.25] * 5), one_sample([1.5] * 5, 1.25)):
        assert (compared.difference, compared.interval, compared.p_value) == (0.25, (0.25, 0.25), 0)
    same = welch([4.1] * 5, [4.1] * 7)
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)
    assert (anova_p([[4.1] * 5, [4.1] * 7]), anova_p([[4.1] * 5, [4.2] * 7])) == (1, 0)


def test_without_spread_a_difference_within_the_margin_is_equivalent_and_one_at_it_is_not():
    assert tost([1.0, 1.0], [1.25, 1.25], paired=True, margin=0.5).p_value == 0
    assert tost([1.0, 1.0], [1.25, 1.25], paired=True, margin=0.5).verdict == "equivalent"
    assert tost([1.0, 1.0], [1.25, 1.25], paired=True, margin=0.25).verdict == "undecided"


def test_one_arm_without_spread_leaves_the_other_arms():
    assert welch(A, [4.0] * 5).p_value == pytest.approx(one_sample(A, 4.0).p_value)


def test_perplexity_is_exp_of_nats():
    assert perplexity(1.4697) == pytest.approx(4.348, abs=5e-4)
    assert perplexity(0) == 1


def test_a_perplexity_too_large_for_a_float_is_infinite_and_never_makes_a_nan():
    assert perplexity(1e4) == math.inf
    summary = summarise([perplexity(1e4), perplexity(1.5)])
    assert (summary.mean, summary.sd, summary.interval) == (math.inf, None, None)
    assert summarise([1e308, 1.7e308]).mean == math.inf
    assert summarise([1e200, -1e200]).sd is None
    for compared in (welch([math.inf, 1.0], A), paired_t([math.inf, 1.0], [1.0, 1.0]), one_sample([math.inf, 1.0], 1)):
        assert (compared.difference, compared.interval, compared.p_value) == (math.inf, None, None)
    assert upper_bound([math.inf, 1.0]) is None
