"""What holds of the statistics whatever the values: order and side do not matter, and p and interval agree."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.statistics import anova_p, holm, non_inferiority, paired_t, summarise, tost, welch

losses = st.integers(0, 999).map(lambda hundredths: hundredths / 100)
samples = st.lists(losses, min_size=2, max_size=7)
pairs = st.lists(st.tuples(losses, losses), min_size=2, max_size=7)


@given(samples, samples, st.randoms())
@settings(deadline=None)  # other processes may hold the machine up
def test_the_order_of_the_values_changes_no_bit(a, b, random):
    shuffled = random.sample(a, len(a)), random.sample(b, len(b))
    assert summarise(shuffled[0]) == summarise(a)
    assert welch(*shuffled) == welch(a, b)
    assert anova_p(shuffled) == anova_p([a, b])


@given(pairs)
@settings(deadline=None)
def test_exchanging_the_arms_only_turns_the_sign(both):
    a, b = map(list, zip(*both, strict=True))
    for compare in (welch, paired_t):
        there, back = compare(a, b), compare(b, a)
        assert there.interval is not None
        assert (back.difference, back.interval) == (-there.difference, (-there.interval[1], -there.interval[0]))
        assert back.p_value == there.p_value


@given(pairs)
@settings(deadline=None)
def test_a_p_below_5_percent_says_that_the_95_percent_interval_leaves_0_out(both):
    a, b = map(list, zip(*both, strict=True))
    for compared in (welch(a, b), paired_t(a, b)):
        assert compared.interval is not None
        assert compared.p_value is not None
        assert 0 <= compared.p_value <= 1
        low, high = compared.interval
        assert low <= compared.difference <= high
        assert (compared.p_value < 0.05) == (not low <= 0 <= high)


@given(pairs, st.booleans())
@settings(deadline=None)
def test_equivalence_is_called_where_its_p_is_below_5_percent(both, paired):
    a, b = map(list, zip(*both, strict=True))
    two_sided, one_sided = tost(a, b, paired=paired, margin=1), non_inferiority(a, b, paired=paired, margin=1)
    assert two_sided.p_value is not None
    assert one_sided.p_value is not None
    assert (two_sided.verdict == "equivalent") == (two_sided.p_value < 0.05)
    assert (one_sided.verdict in ("non-inferior", "better")) == (one_sided.p_value < 0.05)


@given(st.lists(st.floats(0, 1), max_size=8))
@settings(deadline=None)
def test_holm_lowers_no_p_keeps_their_order_and_stays_below_bonferroni(p_values):
    adjusted = holm(p_values)
    for (p, after), (other, other_after) in itertools.product(zip(p_values, adjusted, strict=True), repeat=2):
        assert p <= after <= min(1, p * len(p_values)) or p == after
        assert after <= other_after or p > other
