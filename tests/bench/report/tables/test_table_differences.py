"""A difference to the reference arm comes with its interval, its tests and words no stronger than they allow."""

import csv
import io
import math

import pytest

from bench.record import Manifest, Record, Status
from bench.report.figures import draw_all
from bench.report.output import make_tables
from bench.report.table import NOTHING
from bench.store import Store
from tests.records import make_manifest, make_record, manifest_of
from tests.stores import cells, kinds_of, make_store, table_of

SEEDS = (42, 69, 420, 666, 2137, 1)


def runs(label: str, *nats: float, seeds: tuple[int, ...] = SEEDS, **changes) -> list[Record]:
    changes.setdefault("architecture", "k_operators" if label == "k_operators" else "transformer")
    return [make_record(label, seed, math.exp(each), **changes) for seed, each in zip(seeds, nats, strict=False)]


def against(records: list[Record], reference: str = "transformer", *, lost: tuple[Record, ...] = ()) -> Manifest:
    """A manifest with a reference arm; it lists `lost` records, too, that the store lacks."""
    return manifest_of([*records, *lost], reference=reference)


def stored(tmp_path, records: list[Record], **options) -> Store:
    return make_store(tmp_path, records, against(records, **options))


THEIRS = runs("transformer", 1.48, 1.49, 1.53)


def test_a_difference_reads_as_worked_by_hand(tmp_path):
    # means 1.52 and 1.50, sds 0.02 and 0.026458: error sqrt((0.0004 + 0.0007) / 3) = 0.019149, t = 1.0445, degrees of
    # freedom 0.0011^2 / ((0.0004^2 + 0.0007^2) / 2) = 3.723; there the quantiles are 2.8598 and 2.1782. Paired: the
    # differences 0.02, 0.03, 0.01 have error 0.01 / sqrt(3) = 0.005774, 2 degrees of freedom, quantile 4.3027,
    # t = 3.4641 and p = 1 - t / sqrt(t^2 + 2)
    table = table_of(stored(tmp_path, [*runs("k_operators", 1.50, 1.52, 1.54), *THEIRS]), "differences")
    row = cells(table)
    assert row == {
        "arm": "k_operators",
        "against": "transformer",
        "verdict": "not distinguishable",
        "runs": "3 done",
        "n": "3 against 3",
        "difference, nats per token": "+0.0200",
        "95 % interval": "−0.0348 to +0.0748",
        "90 % interval": "−0.0217 to +0.0617",
        "p": "0.359",
        "p, Holm": "primary",
        "p, permutation": NOTHING,
        "pairs": "3",
        "95 % interval, paired": "−0.0048 to +0.0448",
        "p, paired": "0.074",
        "95 % interval over the text, 2 kB": NOTHING,
        "over the text, 16 kB": NOTHING,
        "over the text, 2 kB within plays": NOTHING,
    }
    assert len(table.rows) == 1  # the reference is no row of its own


def test_the_check_pairs_seeds_by_their_number_and_not_by_their_order(tmp_path):
    ours = runs("k_operators", 1.54, 1.50, 1.52, seeds=(420, 42, 69))
    extra = runs("transformer", 9.0, seeds=(5,))  # no partner, so it counts in no pair; Welch takes it
    row = cells(table_of(stored(tmp_path, [*ours, *THEIRS, *extra]), "differences"))
    assert (row["pairs"], row["95 % interval, paired"], row["p, paired"]) == ("3", "−0.0048 to +0.0448", "0.074")
    assert (row["n"], row["difference, nats per token"]) == ("3 against 4", "−1.8550")


def test_without_common_seeds_there_is_no_check(tmp_path):
    ours = runs("k_operators", 1.50, 1.52, 1.54, seeds=(1, 2, 3))
    row = cells(table_of(stored(tmp_path, [*ours, *THEIRS]), "differences"))
    assert (row["n"], row["difference, nats per token"], row["p"]) == ("3 against 3", "+0.0200", "0.359")
    assert (row["pairs"], row["95 % interval, paired"], row["p, paired"]) == (NOTHING, NOTHING, NOTHING)


def test_one_run_against_another_is_never_told_apart(tmp_path):
    row = cells(table_of(stored(tmp_path, [*runs("k_operators", 1.0), *runs("transformer", 2.0)]), "differences"))
    assert (row["verdict"], row["95 % interval"], row["p"]) == ("too few seeds to tell", NOTHING, NOTHING)
    assert row["difference, nats per token"] == "−1.0000"


def test_a_negative_difference_is_a_number_in_every_form(tmp_path):
    store = stored(tmp_path, [*runs("k_operators", 1.30, 1.32), *runs("transformer", 1.50, 1.51)])
    table = table_of(store, "differences")
    assert cells(table)["difference, nats per token"] == "−0.1950"
    (row,) = csv.DictReader(io.StringIO(table.csv()))
    assert float(row["difference, nats per token"]) == -0.195
    assert not row["95 % interval"].startswith(("-", "'"))
    assert "$-$0.1950" in table.latex()


BASE = (1.500, 1.502, 1.504, 1.506, 1.508)


def test_equivalence_needs_the_90_percent_interval_within_the_margin(tmp_path):
    def verdict(folder: str, shift: float, noise: float) -> str:
        ours = [nats + shift + noise * sign for nats, sign in zip(BASE, (1, -1, 0, 1, -1), strict=True)]
        store = stored(tmp_path / folder, [*runs("k_operators", *ours), *runs("transformer", *BASE)])
        return cells(table_of(store, "differences"))["verdict"]

    assert verdict("same", 0.0, 0.001) == "not distinguishable; equivalent within 0.02"
    assert verdict("small", 0.01, 0.001) == "worse; equivalent within 0.02"
    assert verdict("unsure", 0.0, 0.1) == "not distinguishable"
    assert verdict("better", -0.1, 0.001) == "better"


def test_equivalence_is_adjusted_too(tmp_path):
    # error sqrt(2) 0.0031623 / sqrt(5) = 0.002, 8 degrees of freedom: at 0.016 the upper test has t = 2, p = 0.040,
    # and twice that beside an arm with the same
    near = [nats + 0.016 for nats in BASE]
    alone = [*runs("transformer", *BASE), *runs("a", *near)]
    both = [*alone, *runs("b", *near)]
    words = [
        cells(table_of(stored(tmp_path / str(len(one)), one), "differences"), "a")["verdict"] for one in (alone, both)
    ]
    assert words == ["worse; equivalent within 0.02", "worse"]


def test_the_permutation_test_speaks_where_it_can_reach_5_percent(tmp_path):
    theirs = (1.50, 1.51, 1.52, 1.53, 1.54)
    ours = [nats + 1 for nats in theirs]
    for n, expected in ((5, "0.008"), (4, "0.029"), (3, NOTHING)):  # 2 of 252 splits, of 70, of 20
        records = [*runs("k_operators", *ours[:n]), *runs("transformer", *theirs[:n])]
        row = cells(table_of(stored(tmp_path / str(n), records), "differences"))
        assert row["p, permutation"] == expected


def test_the_first_arm_is_primary_and_the_others_are_adjusted_together(tmp_path):
    ours = [runs(label, 1.50 + at, 1.52 + at, 1.54 + at) for label, at in (("a", 0.0), ("b", 0.03), ("c", 0.1))]
    table = table_of(stored(tmp_path, [*ours[0], *THEIRS, *ours[1], *ours[2]]), "differences")
    rows = {label: cells(table, label) for label in "abc"}
    # error 0.019149 with 3.723 degrees of freedom: t = 1.0445, 2.6112, 6.2668. Holm over two: the smaller p twice,
    # then the larger once
    assert [rows[label]["p"] for label in "abc"] == ["0.359", "0.064", "0.004"]
    assert [rows[label]["p, Holm"] for label in "abc"] == ["primary", "0.064", "0.008"]
    assert "p, Holm: a is the primary comparison, chosen beforehand, and not adjusted; adjusted together: 2 " in (
        " ".join(table.notes)
    )


def k_operators(label: str, *nats: float, rate: float = 1e-2, **model: object) -> list[Record]:
    """Runs of a K-Operators arm with a learning rate and a changed model."""
    records = runs(label, *nats)
    config = {**records[0].config, "architecture": "k_operators"}
    config["model"] = {**config["model"], **model}
    config["training"] = {**config["training"], "learning_rate": rate}
    return [record.model_copy(update={"config": config}) for record in records]


def test_each_question_has_its_own_reference_and_its_own_adjustment(tmp_path):
    records = [
        *k_operators("k_operators", 1.50, 1.52, 1.54),
        *THEIRS,
        *runs("lstm", 1.53, 1.55, 1.57),
        *k_operators("no-base", 1.60, 1.62, 1.64, paths="recurrent"),
        *k_operators("positions", 1.60, 1.62, 1.64, rate=3e-2, position="learned"),  # its own rate: no stress
        *k_operators("refine-lr3", 1.70, 1.72, 1.74, rate=3e-2),
    ]
    table = table_of(stored(tmp_path, records), "differences")
    against = {row[0]: row[table.columns.index("against")] for row in table.rows}
    assert against == {
        "k_operators": "transformer",
        "lstm": "transformer",
        "no-base": "k_operators",
        "positions": "k_operators",
        "refine-lr3": "k_operators",
    }
    (note,) = [one for one in table.notes if one.startswith("p, Holm")]
    assert note.endswith(
        "adjusted together: 1 comparison (baselines), 2 comparisons (ablations), 1 comparison (wrong learning rates); "
        "each family by itself."
    )
    assert cells(table, "refine-lr3")["p"] == cells(table, "refine-lr3")["p, Holm"]
    headline = table_of(stored(tmp_path / "again", records))
    assert [one for one in headline.columns if one.startswith("difference")] == [
        "difference to transformer",
        "difference to k_operators",
    ]
    assert cells(headline, "no-base")["difference to transformer"] == NOTHING


def test_where_the_reference_stands_first_no_comparison_is_primary(tmp_path):
    records = [*THEIRS, *runs("a", 1.50, 1.52, 1.54), *runs("b", 1.53, 1.55, 1.57)]
    table = table_of(stored(tmp_path, records), "differences")
    assert [cells(table, label)["p, Holm"] for label in "ab"] == ["0.359", "0.128"]


def test_an_arm_that_only_holm_keeps_from_being_worse_says_so(tmp_path):
    # t = 0.08 / 0.019149 = 4.178 with p = 0.0164 alone; beside three others like it, 4 times that
    records = [*THEIRS, *(run for label in "abcd" for run in runs(label, 1.56, 1.58, 1.60))]
    table = table_of(stored(tmp_path, records), "differences")
    row = cells(table, "a")
    assert (row["p"], row["p, Holm"]) == ("0.016", "0.065")
    assert row["verdict"] == "worse, but not after Holm"


def ends(label: str, seed: int, status: Status) -> Record:
    return make_record(label, seed, status=status, architecture="transformer")


def test_seeds_that_diverged_are_counted_in_words_and_marked_in_every_cell(tmp_path):
    ours = [*runs("hot", 1.50, 1.52, 1.54), ends("hot", 666, "diverged"), ends("hot", 2137, "diverged")]
    lost = [ends("lost", seed, "diverged") for seed in SEEDS[:5]]
    records = [*ours, *runs("transformer", 1.48, 1.49, 1.53, 1.50, 1.51), *lost]
    table = table_of(stored(tmp_path, records), "differences")
    hot, gone = cells(table, "hot"), cells(table, "lost")
    assert (hot["runs"], hot["n"]) == ("3 done, 2 diverged", "3 of 5 against 5")
    for column in ("verdict", "difference, nats per token", "95 % interval", "90 % interval", "p"):
        assert hot[column].endswith("(3 of 5 against 5)"), column
    assert (gone["verdict"], gone["difference, nats per token"]) == ("5 diverged", NOTHING)


def test_an_arm_or_a_reference_that_did_not_run_stays_visible(tmp_path):
    ran = runs("k_operators", 1.5, 1.6)
    cell = {record.label: {str(one.seed): one.run_id for one in ran} for record in ran}
    missing = {"42": "0" * 12, "69": "1" * 12}
    manifest = make_manifest({**cell, "absent": missing}, reference="k_operators")
    assert "Not run: absent." in table_of(make_store(tmp_path / "arm", ran, manifest)).notes
    manifest = make_manifest({**cell, "absent": missing}, reference="absent")
    table = table_of(make_store(tmp_path / "reference", ran, manifest), "differences")
    assert cells(table, "k_operators")["verdict"] == "reference: not run"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mode": "fast"}, "not compared: modes fast and exact"),
        ({"context": 128}, "not compared: measured differently"),
        ({"corpus": "synthetic", "entropy_rate_nats": 1.0}, "not compared: measured differently"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(tmp_path, changes, why):
    row = cells(table_of(stored(tmp_path, [*runs("k_operators", 1.5, 1.6, **changes), *THEIRS]), "differences"))
    assert (row["verdict"], row["difference, nats per token"]) == (why, NOTHING)


def with_windows(records: list[Record], windows: list[float]) -> list[Record]:
    """The same with these losses by window at the best step."""
    return [
        record.model_copy(update={"result": record.result.model_copy(update={"window_nats": {250: windows}})})
        for record in records
        if record.result is not None
    ]


def test_the_interval_over_the_text_is_of_the_difference_window_by_window(tmp_path):
    windows = [1.5 + 0.3 * math.sin(i) for i in range(435)]
    shifted = with_windows(runs("k_operators", 1.55, 1.55), [nats + 0.05 for nats in windows])
    wavering = with_windows(
        runs("wavering", 1.55, 1.55), [nats + 0.05 + 0.1 * (i % 2) for i, nats in enumerate(windows)]
    )
    theirs = with_windows(runs("transformer", 1.5, 1.5), windows)
    table = table_of(stored(tmp_path, [*shifted, *theirs, *wavering]), "differences")
    for column in table.columns[-3:]:
        assert cells(table)[column] == "+0.0500 to +0.0500"  # wherever the blocks fall
        low, high = map(float, cells(table, "wavering")[column].split(" to "))
        assert 0.09 < low <= high < 0.11


def test_a_table_says_how_many_seeds_would_tell_apart_and_the_headline_the_difference_in_words(tmp_path):
    store = stored(tmp_path, [*runs("k_operators", 1.50, 1.52, 1.54), *THEIRS])
    (needed,) = (note for note in table_of(store, "differences").notes if note.startswith("Seeds needed"))
    assert "k_operators, gap 0.0200, sd 0.0200 and 0.0265: " in needed
    assert needed.endswith("seeds per arm (you have 3).")
    headline = table_of(store)
    assert any("(you have 3)." in note for note in headline.notes)
    assert [row[headline.columns.index("difference to transformer")] for row in headline.rows] == [
        "+0.0200, p = 0.359; not distinguishable",
        "reference",
    ]


def test_without_a_reference_there_is_no_table_of_differences(tmp_path):
    records = [*runs("k_operators", 1.50, 1.52), *THEIRS]
    assert "differences" not in kinds_of(make_store(tmp_path, records))


def test_fitted_models_are_in_no_family_of_tests(tmp_path):
    floor = make_record("unigram", None, 28.4, architecture="ngram")
    table = table_of(stored(tmp_path, [*runs("a", 1.50, 1.52, 1.54), *THEIRS, floor]), "differences")
    assert [row[0] for row in table.rows] == ["a"]


def test_the_correlation_at_common_seeds_is_shown_from_five_pairs_on(tmp_path):
    """Ours are theirs mirrored, so -1; another arm has four seeds."""
    ours = runs("a", 1.52, 1.53, 1.54, 1.55, 1.56)
    theirs = runs("transformer", 1.56, 1.55, 1.54, 1.53, 1.52)
    store = stored(tmp_path, [*ours, *theirs, *runs("b", 1.52, 1.53, 1.54, 1.56)])
    (note,) = [one for one in table_of(store, "differences").notes if one.startswith("Correlation")]
    assert note.endswith(": a −1.00.")


def test_of_a_superseded_experiment_two_tables_and_no_figure_are_kept(tmp_path):
    records = [*runs("k_operators", 1.50, 1.52, 1.54), *THEIRS]
    made = make_tables(make_store(tmp_path / "kept", records, against(records)))
    assert draw_all(made.results, made.measurements, made.published)
    why = "Superseded by another design."
    old = against(records).model_copy(update={"superseded": True, "remark": why})
    made = make_tables(make_store(tmp_path / "superseded", records, old))
    tables = [one for one in made.tables if one.experiment == old.name]
    assert [one.kind for one in tables] == ["perplexity", "differences"]
    assert all(f"Remark: {why}" in one.notes for one in tables)
    assert not draw_all(made.results, made.measurements, made.published)
