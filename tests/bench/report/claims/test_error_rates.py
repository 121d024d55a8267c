"""The committed error rates are those of the present rules."""

import pytest

from bench.report.claims.error_rates import FILE, ErrorRates, error_rates, error_rates_table
from bench.report.published import PUBLISHED, PublishedError, load_published, read_toml

WITHIN = 0.01  # another CPU may round a few of the 2,000 simulations across a bound


@pytest.mark.slow
def test_the_committed_rates_are_what_the_rules_give_in_simulations():
    committed, now = read_toml(FILE, ErrorRates, PublishedError), error_rates(load_published(PUBLISHED))
    assert [(one.claim, one.difference) for one in committed.rate] == [(one.claim, one.difference) for one in now.rate]
    for before, after in zip(committed.rate, now.rate, strict=True):
        assert before.reproduced == pytest.approx(after.reproduced, abs=WITHIN)
        assert before.not_reproduced == pytest.approx(after.not_reproduced, abs=WITHIN)


def test_a_claim_false_by_its_margin_is_called_reproduced_about_as_often_as_its_level():
    """One-sided 5 %, of C1 and C3; shares of 2,000 simulations have a standard error of 0.005. C1's few seeds: 7 %."""
    rates = {(one.claim, one.difference): one for one in read_toml(FILE, ErrorRates, PublishedError).rate}
    assert 0.03 < rates["C3", 0.02].reproduced < 0.07
    assert 0.03 < rates["C1", 0.02].reproduced < 0.08
    assert rates["C3", 0.0].not_reproduced == rates["C1", 0.0].not_reproduced == 0
    assert rates["C10", 0.0].reproduced < 0.01


def test_the_rates_are_a_table_and_without_the_file_there_is_none(tmp_path):
    table = error_rates_table()
    assert table is not None
    assert table.rows[0][:2] == ("C1", "+0.0000")
    assert error_rates_table(tmp_path / "none.toml") is None
