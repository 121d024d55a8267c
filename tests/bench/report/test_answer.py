"""What README, the page and the terminal say came out is what the records say, whatever these say."""

from pathlib import Path

import pytest

from bench.app import app
from bench.record import Record
from bench.report.answer import Bullet, bullets, status
from bench.report.claims.evidence import PLANNED_SEEDS
from bench.report.claims.verdicts import judge
from bench.report.families import FAMILIES, family_of, name_of
from bench.report.published import load_published
from bench.report.runs import read_results
from bench.store import Store
from tests.command_line import call
from tests.records import make_record, manifest_of
from tests.stores import cells, make_store, table_of

ROOT = Path(__file__).parents[3]


def arm(label: str, *perplexities: float, **changes) -> list[Record]:
    return [
        make_record(label, seed, value, **changes) for seed, value in zip(PLANNED_SEEDS, perplexities, strict=False)
    ]


def answers(root: Path, **experiments: list[Record]) -> list[Bullet]:
    """The bullets of a store with these experiments; the second arm of each is its reference."""
    manifests = [
        manifest_of(records, name.replace("_", "-"), reference=list(dict.fromkeys(one.label for one in records))[1])
        for name, records in experiments.items()
    ]
    every = {one.run_id: one for records in experiments.values() for one in records}
    ours, published = read_results(make_store(root, list(every.values()), *manifests)), load_published()
    return list(bullets(ours, published, judge(ours, published)))


def test_without_a_run_every_answer_says_so(tmp_path):
    first, second, third = answers(tmp_path)
    assert first.short == third.short == "Not run yet."
    assert second.short == "Not known yet. Searched: no."


def test_published_figures_are_reproduced_or_said_not_to_be(tmp_path):
    close = [4.43 + 0.001 * i for i in range(10)]
    nanogpt = arm("nanogpt_2023", *[4.348 + 0.001 * i for i in range(10)])
    first = answers(tmp_path / "both", paper=[*arm("k_operators", *close), *nanogpt])[0]
    assert first.short == "Yes, both."
    assert first.numbers.startswith("K-Operators 4.434 ± 0.003 (n = 10), published 4.43 ± 0.05; ")
    far = answers(tmp_path / "one", paper=[*arm("k_operators", *[5 + one for one in close]), *nanogpt])[0]
    assert far.short == "K-Operators: not reproduced; nanoGPT: reproduced."


def test_an_unsearched_comparison_is_undecided_until_matched_has_run(tmp_path):
    untuned = [*arm("k_operators", 4.4, 4.41), *arm("transformer-params", 4.9, 4.91)]
    second = answers(tmp_path / "untuned", matched_untuned=untuned)[1]
    assert second.short == "Not known yet. Searched: no."
    assert "K-Operators 4.405 ± 0.007 (n = 2) and Transformer 4.905 ± 0.007 (n = 2)" in second.numbers
    second = answers(tmp_path / "matched", matched_untuned=untuned, matched=untuned)[1]
    assert second.short == "K-Operators are better than the Transformer."


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        ((5.0, 5.01, 5.02), "K-Operators are worse than the Transformer."),
        ((4.0, 5.0, 4.5), "K-Operators are not distinguishable from the Transformer."),
        ((4.0,), "K-Operators are not yet told apart from the Transformer."),
    ],
)
def test_laptop_size_says_who_is_better_and_ranks_all(ours, words, tmp_path):
    counts = [
        make_record("bigram", None, 12.0, architecture="ngram"),
        make_record("kn", None, 4.8, architecture="ngram"),
    ]
    records = [
        *arm("k_operators", *ours),
        *arm("transformer", 4.5, 4.51, 4.52),
        *arm("lstm", 4.1, 4.3, 4.2, architecture="lstm"),
        *counts,
    ]
    third = answers(tmp_path, laptop_all=records)[2]
    assert third.short == f"{words} LSTM is better than it."
    if len(ours) == 3 and ours[0] == 5.0:
        assert "Others: LSTM 4.200; n-gram counts 4.800." in third.numbers


def test_the_status_counts_claims_and_dates_the_newest_record(tmp_path):
    attempt = {
        "started_at": "2026-11-27T10:00:00+00:00", "first_step": 0, "last_step": 1, "train_seconds": 1.0,
        "environment": make_record().environment.model_dump(),
    }  # fmt: skip
    records = [*arm("k_operators", 4.4), *arm("transformer", 4.3, attempts=[attempt])]
    ours = read_results(make_store(tmp_path, records))
    assert status(ours, judge(ours, load_published())) == (
        "Of the preprint's 10 claims: 0 decided (0 reproduced, 0 not reproduced), 0 inconclusive, 0 pending, "
        "10 not started. Newest record: 2026-11-27, at commit a1b2c3d."
    )


def test_every_committed_arm_has_a_plain_name():
    records, _ = Store(ROOT / "results").records()
    assert {family_of(one.config) for one in records} == set(FAMILIES) - {"other"}
    orders = {name_of(one.config) for one in records if one.seed is None}
    assert orders == {"1-gram counts", "2-gram counts", "6-gram counts"}


def test_make_table_prints_a_screen_and_says_where_the_rest_is(tmp_path, capsys):
    store = make_store(tmp_path, [*arm("k_operators", 4.4, 4.5), *arm("transformer", 4.3, 4.2)])
    assert call(app, "table", "--store", str(store.root)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) < 40
    assert f"--full --store {store.root}" in printed[-1]
    assert call(app, "table", "--store", str(store.root), "--experiment", "laptop") == 0
    assert "## laptop: perplexity" in capsys.readouterr().out
    assert call(app, "table", "--store", str(store.root), "--experiment", "absent") == 2
    assert "it has: laptop" in capsys.readouterr().err


def test_each_answer_from_the_committed_records_is_a_short_paragraph():
    ours, published = read_results(Store(ROOT / "results")), load_published()
    found = bullets(ours, published, judge(ours, published))
    assert [len(one.markdown) for one in found if len(one.markdown) > 500] == []


def test_results_are_ranked_with_plain_names(tmp_path):
    records = [
        *arm("k_operators", 4.5, 4.52),
        *arm("transformer", 4.3, 4.32),
        *arm("transformer-live", 4.4, 4.42),
        make_record("kn", None, 4.8, architecture="ngram"),
    ]
    table = table_of(make_store(tmp_path, records, manifest_of(records, reference="transformer")), "results")
    assert [row[:2] for row in table.rows] == [
        ("Transformer", "4.310 ± 0.014"),
        ("Transformer, equal live parameters", "4.410 ± 0.014"),
        ("K-Operators", "4.510 ± 0.014"),
        ("n-gram counts", "4.800"),
    ]
    assert cells(table, "K-Operators")["difference"] == "+0.0454"  # ln(4.5 4.52 / (4.3 4.32)) / 2
    assert cells(table)["difference"] == "reference"
