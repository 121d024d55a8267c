"""What others published is shown whole, beside what we measured the same way, and never mixed with it."""

import math

import pytest

from bench.report.published import PUBLISHED, PublishedError, load_published
from bench.report.statistics import mean, sample_sd
from bench.report.table import NOTHING
from tests.records import make_record, manifest_of
from tests.stores import cells, five_seeds, make_store, table_of

K_OPERATORS, NANOGPT = "K-Operators preprint v1", "nanoGPT, character-level Shakespeare"


def test_the_published_runs_give_the_published_mean():
    (figure,) = load_published(PUBLISHED).beside("paper", "tinyshakespeare", "k_operators")
    values = [run.perplexity for run in figure.runs]
    assert (len(values), len({run.seed for run in figure.runs})) == (figure.n_runs, figure.n_distinct_seeds) == (7, 5)
    assert mean(values) == pytest.approx(figure.perplexity, abs=0.005)
    assert sample_sd(values) == pytest.approx(figure.perplexity_sd, abs=0.005)
    assert all(math.exp(run.nats_per_token) == pytest.approx(run.perplexity, abs=0.006) for run in figure.runs)


def test_published_cross_entropies_and_perplexities_agree():
    figures = load_published(PUBLISHED).figure
    pairs = [(each.nats_per_token, each.perplexity) for each in figures if each.nats_per_token is not None]
    assert len(pairs) == 6
    for nats, perplexity in pairs:
        assert math.exp(nats) == pytest.approx(perplexity, abs=0.005)


@pytest.mark.parametrize("text", ["figure = 3", "not toml", "experiment = 'a'\ncorpus = 'b'\nfigure = []\nnew = 1"])
def test_a_wrong_file_of_published_values_is_one_named_error(tmp_path, text):
    path = tmp_path / "published.toml"
    path.write_text(text)
    with pytest.raises(PublishedError, match=r"published\.toml"):
        load_published(path)
    with pytest.raises(PublishedError, match="cannot be read"):
        load_published(tmp_path / "missing.toml")


def test_each_published_figure_has_a_row_with_ours_under_its_own_protocol(tmp_path):
    records = [*five_seeds(), make_record("nanogpt_2023", 42, 4.3, sampled=4.5)]
    table = table_of(make_store(tmp_path, records, manifest_of(records, "paper")), "published", "paper")
    assert {row[0] for row in table.rows} == {figure.system for figure in load_published(PUBLISHED).figure}
    assert cells(table, K_OPERATORS) == {
        "system": K_OPERATORS,
        "protocol": "sweep, best",
        "our arm": "k_operators",
        "parameters": "1.14M",
        "published": "4.43 ± 0.05",
        "its n": "7 runs of 5 seeds",
        "ours": "4.435 ± 0.054",
        "our n": "5",
        "ours minus published": "+0.005",
        "our mode": "exact",
    }
    row = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[2] == "nanogpt_2023")
    assert (row["protocol"], row["ours"], row["ours minus published"]) == ("sampled, best", "4.500", "+0.152")


def test_figures_without_an_arm_of_ours_are_shown_as_such(tmp_path):
    records = five_seeds()
    table = table_of(make_store(tmp_path, records, manifest_of(records, "paper")), "published", "paper")
    alone = [cells(table, i) for i, row in enumerate(table.rows) if row[2] == NOTHING]
    assert alone
    assert {row["ours"] for row in alone} == {"no arm of ours"}


def test_before_the_paper_experiment_has_run_every_row_says_so(tmp_path):
    table = table_of(make_store(tmp_path, five_seeds()), "published", "paper")  # of laptop, which is not it
    assert {row[6] for row in table.rows} == {"not run", "no arm of ours"}


def test_half_of_the_seeds_marks_ours_and_its_difference(tmp_path):
    records = five_seeds()
    store = make_store(tmp_path, records[:3], manifest_of(records, "paper"))
    row = cells(table_of(store, "published", "paper"), K_OPERATORS)
    assert row["our n"] == "3 of 5"
    assert row["ours"].endswith("(3 of 5)")
    assert row["ours minus published"].endswith("(3 of 5)")


def test_ours_on_another_text_stands_beside_nothing(tmp_path):
    records = [make_record(corpus="synthetic", entropy_rate_nats=1.0)]
    store = make_store(tmp_path, records, manifest_of(records, "paper", corpus="synthetic"))
    row = cells(table_of(store, "published", "paper"), K_OPERATORS)
    assert (row["ours"], row["ours minus published"]) == ("on another text", NOTHING)
