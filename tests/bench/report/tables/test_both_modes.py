"""An experiment that ran in both modes keeps both: each table has their rows, and no number mixes them."""

import math
from pathlib import Path

import pytest

from bench.record import Manifest, Record, to_bytes
from bench.report.claims import ledger
from bench.report.claims.verdicts import judge
from bench.report.explain import explain
from bench.report.figures import draw_all
from bench.report.mixing import MixedRunsError
from bench.report.output import make_tables
from bench.report.page.gather import gather
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import read_results
from bench.report.table import NOTHING, Table
from bench.report.tables import TABLES
from bench.report.tables.both_modes import interleaved
from bench.store import Store
from tests.pages import page_of
from tests.records import make_manifest, make_record, manifest_of
from tests.stores import cells, grouped, kinds_of, make_store, table_of
from tests.trained import make_run

SEEDS = (42, 69, 420, 666, 2137, 1, 2, 3, 4, 5)


def runs(label: str, mode: str, *perplexities: float, **changes) -> list[Record]:
    """One done run per seed."""
    return [
        make_record(label, seed, value, mode=mode, **changes) for seed, value in zip(SEEDS, perplexities, strict=False)
    ]


def floor() -> Record:
    """Of a model that is counted, so that it has no mode."""
    return make_record("unigram", None, 28.4, architecture="ngram")


def in_both(root: Path, exact: list[Record], fast: list[Record], name: str = "laptop", **changes) -> Store:
    """A store that has an experiment in both modes; a counted model of `exact` is in both manifests."""
    counted = [record for record in exact if record.seed is None]
    manifests = (
        manifest_of(exact, name, mode="exact", **changes),
        manifest_of([*fast, *counted], name, mode="fast", **changes),
    )
    return make_store(root, [*exact, *fast], *manifests)


# which mode is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "fast", "chosen"),
    [
        ({"a": 3, "b": 3}, {"a": 2, "b": 5}, "exact"),  # 3 against 2 in the smallest arm
        ({"a": 3, "b": 1}, {"a": 2, "b": 2}, "fast"),
        ({"a": 2, "b": 5}, {"a": 2, "b": 2}, "exact"),  # a tie
        ({"a": 5, "b": 0}, {"a": 1, "b": 1}, "fast"),
        ({"a": 3, "b": 0}, {"a": 5, "b": 0}, "fast"),  # an arm that has run in neither speaks for neither
        ({"a": 0, "b": 0}, {"a": 1, "b": 0}, "fast"),  # nothing can be judged on a mode without a run
        ({"a": 0, "b": 0}, {"a": 0, "b": 0}, "exact"),
    ],
)
def test_the_mode_whose_smallest_arm_has_the_most_done_seeds_is_chosen(tmp_path, exact, fast, chosen):
    done = {mode: [one for arm in "ab" for one in runs(arm, mode, *[4.5] * 5)] for mode in ("exact", "fast")}
    wanted = {"exact": exact, "fast": fast}
    kept = [one for mode in done for one in done[mode] if SEEDS.index(one.seed) < wanted[mode][one.label]]
    manifests = (manifest_of(done[mode], mode=mode) for mode in done)
    found = read_results(make_store(tmp_path, kept, *manifests))
    (experiment,), (other,) = found.experiments, found.in_other_mode
    assert experiment is found.experiment("laptop")
    assert [experiment.mode, other.mode] == sorted(("exact", "fast"), key=lambda mode: mode != chosen)


def test_a_diverged_seed_counts_for_its_mode_and_a_counted_model_or_a_failed_run_does_not(tmp_path):
    exact = [*runs("a", "exact", 4.5), floor()]
    diverged, failed = (make_record("a", 69, mode="fast", status=status) for status in ("diverged", "failed"))
    assert (
        read_results(in_both(tmp_path / "one", exact, [*runs("a", "fast", 4.5), diverged])).experiments[0].mode
        == "fast"
    )
    assert (
        read_results(in_both(tmp_path / "two", exact, [*runs("a", "fast", 4.5), failed])).experiments[0].mode == "exact"
    )
    assert read_results(in_both(tmp_path / "more", exact, runs("a", "fast", 4.5, 4.6))).experiments[0].mode == "fast"


def test_a_store_can_be_looked_at_in_either_mode(tmp_path):
    records = runs("a", "exact", 4.5)
    store = in_both(tmp_path, records, runs("a", "fast", 4.5, 4.6))
    store.write_manifest(manifest_of(records, "smoke"))
    found = read_results(store)
    assert [one.mode for one in found.in_mode("exact").experiments] == ["exact", "exact"]
    assert [one.mode for one in found.in_mode("fast").experiments] == ["fast", "exact"]  # smoke ran in one alone
    assert found.in_mode("exact").in_mode("fast") == found


def test_two_manifests_of_one_experiment_and_mode_are_refused(tmp_path):
    records = runs("a", "fast", 4.5)
    store = make_store(tmp_path, records, manifest_of(records, mode="fast"))
    (store.root / "experiments" / "copy.json").write_bytes(to_bytes(manifest_of(records, mode="fast")))
    with pytest.raises(MixedRunsError, match="named laptop and of mode fast"):
        read_results(store)


# rows of both modes ---------------------------------------------------------------------------------------------------


def two_modes(root: Path) -> Store:
    """Three arms: one in both modes, one in `fast` alone, one in neither; and a counted one."""
    counted = floor()
    done = {
        "exact": runs("a", "exact", 4.5, 4.6),
        "fast": [*runs("a", "fast", 4.5, 4.6, 4.7), *runs("b", "fast", 4.2, 4.3, 4.4)],
    }
    manifests = []
    for mode, records in done.items():
        ran = {cell.label: cell.run_ids for cell in manifest_of([*records, counted]).cells}
        not_run = {
            label: {str(seed): f"{i}{seed:011x}" for seed in SEEDS[:2]} for i, label in enumerate(("b", "never"))
        }
        listed = {label: (not_run | ran)[label] for label in ("a", "b", "unigram", "never")}
        manifests.append(make_manifest(listed, mode=mode, reference="b"))
    return make_store(root, [*done["exact"], *done["fast"], counted], *manifests)


def rows_of(table: Table) -> list[tuple[str, str]]:
    """Arm and mode of each row."""
    return [(row[0], row[1]) for row in table.rows]


def test_an_arm_has_a_row_for_each_mode_that_it_ran_in_and_a_counted_one_has_one(tmp_path):
    expected = [("a", "fast"), ("a", "exact"), ("b", "fast"), ("unigram", NOTHING)]
    made = {table.kind: table for table in make_tables(two_modes(tmp_path)).tables if table.experiment == "laptop"}
    assert set(made) == {
        "perplexity",
        "differences",
        "protocols",
        "parameters",
        "budgets",
        "relative-budgets",
        "cost",
    } | {"modes"}
    for kind in ("perplexity", "protocols", "parameters", "budgets"):
        assert made[kind].columns[:2] == ("arm", "mode")
        assert rows_of(made[kind]) == expected, kind
    assert rows_of(made["cost"]) == expected[:3]  # counting costs nothing
    assert rows_of(made["relative-budgets"]) == [expected[0], *expected[2:]]  # in exact the reference has not run


def test_a_difference_is_taken_to_the_reference_of_the_same_mode(tmp_path):
    table = table_of(two_modes(tmp_path), "differences")
    assert [row[:4] for row in table.rows] == [("a", "fast", "b", "worse")]
    assert "Mode exact has no rows here." in table.notes  # its reference has not run
    assert table.rows[0][table.columns.index("n")] == "3 against 3"


def test_what_is_missing_in_one_mode_is_said_with_the_mode_and_what_holds_in_both_is_said_once(tmp_path):
    notes = table_of(two_modes(tmp_path)).notes
    assert "Mode exact: Not run: b, never." in notes
    assert "Mode fast: Not run: never." in notes
    assert len(set(notes)) == len(notes)
    assert sum("A number is a validation perplexity" in note for note in notes) == 1
    assert "Made on Plain CPU (cpu, 1 thread), torch 2.13.0: 9 runs." in notes  # 2 + 6, and the counted one once


def test_a_mode_without_a_record_of_a_trained_run_changes_no_table(tmp_path):
    exact = [*runs("a", "exact", 4.5, 4.6), floor()]
    alone = make_store(tmp_path / "alone", exact)
    beside = make_store(tmp_path / "beside", exact)
    wanted = {"a": {"42": "0" * 12}, "unigram": {"fitted": exact[-1].run_id}}
    beside.write_manifest(make_manifest(wanted, mode="fast"))
    assert [one.markdown() for one in make_tables(beside).tables] == [
        one.markdown() for one in make_tables(alone).tables
    ]


def test_a_search_shows_the_trials_of_both_modes(tmp_path):
    def trials(mode: str, *values: float) -> list[Record]:
        plain = make_record().config
        return [
            make_record(
                f"a-lr{rate}",
                1000,
                value,
                mode=mode,
                config={**plain, "training": {"n_steps": 500, "learning_rate": rate}},
            )
            for rate, value in zip((0.001, 0.01, 0.1), values, strict=False)
        ]

    exact, fast = trials("exact", 4.8, 4.5), trials("fast", 4.7, 4.4, 4.9)
    manifests = [grouped(found, lambda _: "a", mode=found[0].mode) for found in (exact, fast)]
    store = make_store(tmp_path, [*exact, *fast], *manifests)
    table = table_of(store, "tuning")
    shown = [(row[1], row[2], row[table.columns.index("rank in its arm")]) for row in table.rows]
    assert shown == [
        ("fast", "a-lr0.001", "2 of 3"),
        ("fast", "a-lr0.01", "1 of 3"),
        ("fast", "a-lr0.1", "3 of 3"),
        ("exact", "a-lr0.001", "2 of 2"),
        ("exact", "a-lr0.01", "1 of 2"),
    ]
    best = table_of(store, "best-of-k")
    assert [row[:2] for row in best.rows] == [
        ("1", "fast"),
        ("1", "exact"),
        ("2", "fast"),
        ("2", "exact"),
        ("3", "fast"),
    ]


def test_replicates_are_set_against_the_seeds_of_their_own_mode(tmp_path):
    same = [make_record(f"a-replicate-{i}", 42, 4.4 + i / 100, mode="fast", replicate=i) for i in range(3)]
    exact, fast = runs("a", "exact", 5.0, 6.0, 7.0), runs("a", "fast", 4.4, 4.5)
    store = in_both(tmp_path, exact, fast, "paper")  # of which `exact` is the chosen one
    for record in same:
        store.write_record(record)
    store.write_manifest(grouped(same, lambda _: "a", name="noise", mode="fast"))
    assert cells(table_of(store, "noise", "noise"))["sweep, best, all seeds"] == "4.450 ± 0.071"


def test_a_published_figure_has_ours_of_both_modes_beside_it(tmp_path):
    exact, fast = runs("k_operators", "exact", 4.40, 4.44), runs("k_operators", "fast", 4.43, 4.45, 4.47)
    table = table_of(in_both(tmp_path, exact, fast, "paper"), "published", "paper")
    ours = [row[-4:] for row in table.rows if row[2] == "k_operators"]
    assert [(row[0], row[-1]) for row in ours] == [("4.450 ± 0.020", "fast"), ("4.420 ± 0.028", "exact")]


def test_the_committed_value_beside_ours_is_that_of_our_mode_else_it_says_which_it_is(tmp_path):
    committed = in_both(
        tmp_path / "theirs", runs("a", "exact", 4.5), [*runs("a", "fast", 4.6, 4.7), *runs("b", "fast", 4.8)]
    )
    ours = make_store(tmp_path / "ours", [*runs("a", "exact", 4.5), *runs("b", "exact", 4.6)])
    table = table_of(ours, compare=committed)
    assert [row[-1] for row in table.rows] == ["4.500 (n = 1, exact)", "4.800 (n = 1, fast)"]


def test_what_only_the_second_has_is_put_before_what_follows_it_there():
    assert interleaved("ace", "abcdf") == list("abcedf")
    assert interleaved("", "ab") == interleaved("ab", "") == interleaved("ab", "ab") == ["a", "b"]


# the difference between modes -----------------------------------------------------------------------------------------


def differing(differences: dict[int, float], **changes) -> tuple[list[Record], list[Record]]:
    """An arm in both modes: in `fast` it is worse by these nats, by seed."""
    exact = [make_record("a", seed, 4.0 + i) for i, seed in enumerate(differences)]
    fast = [
        make_record("a", seed, (4.0 + i) * math.exp(nats), mode="fast", **changes)
        for i, (seed, nats) in enumerate(differences.items())
    ]
    return exact, fast


def test_the_difference_between_modes_is_that_of_pairs_at_common_seeds(tmp_path):
    exact, fast = differing({42: 0.01, 69: 0.02, 420: 0.03})
    fast += [make_record("a", 666, 9.0, mode="fast"), *runs("b", "fast", 4.2)]  # without a partner
    row = cells(table_of(in_both(tmp_path, exact, fast), "modes"))
    assert row == {
        "arm": "a",
        "common seeds": "3",
        "fast minus exact, nats per token": "+0.0200 ± 0.0100",
        "95 % interval": "−0.0048 to +0.0448",  # 0.02 ± 4.3027 × 0.01 / √3
        "sweep, best, fast": f"{(4 * math.exp(0.01) + 5 * math.exp(0.02) + 6 * math.exp(0.03)) / 3:.3f}",
        "sweep, best, exact": "5.000",
    }


def test_one_common_seed_has_neither_a_spread_nor_an_interval(tmp_path):
    row = cells(table_of(in_both(tmp_path, *differing({42: 0.01})), "modes"))
    assert (row["fast minus exact, nats per token"], row["95 % interval"]) == ("+0.0100", NOTHING)


def test_a_pair_that_is_not_done_yet_marks_every_number(tmp_path):
    exact, fast = differing({42: 0.01, 69: 0.02, 420: 0.03})
    manifests = manifest_of(exact), manifest_of(fast, mode="fast")
    row = cells(table_of(make_store(tmp_path, [*exact, *fast[:2]], *manifests), "modes"))
    assert row.pop("arm") == "a"
    assert all("2 of 3" in text for text in row.values())


@pytest.mark.parametrize("changes", [{"context": 128}, {"corpus": "synthetic", "entropy_rate_nats": 1.0}])
def test_arms_that_differ_in_more_than_their_mode_are_not_compared(tmp_path, changes):
    assert "modes" not in kinds_of(in_both(tmp_path, *differing({42: 0.01, 69: 0.02}, **changes)))


def test_an_experiment_of_one_mode_has_no_table_of_modes(tmp_path):
    assert "modes" not in kinds_of(make_store(tmp_path, runs("a", "exact", 4.5, 4.6)))
    assert "modes" not in TABLES  # whose functions see one mode


# what is said of both -------------------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path) -> Store:
    """Claim C1 is not reproduced in `fast`, where there are more seeds, and open in `exact`."""
    exact = runs("k_operators", "exact", 4.40, 4.44, 4.43)
    return in_both(tmp_path, exact, runs("k_operators", "fast", *[5.1, 5.2, 5.0, 5.1, 5.2] * 2), "paper")


def test_a_verdict_is_that_of_the_chosen_mode_and_what_the_other_says_stands_beside_it(judged):
    first, *_, last = verdicts = judge(read_results(judged), load_published(PUBLISHED))
    assert (first.outcome, first.mode) == ("not reproduced", "fast")
    (other,) = first.in_other_mode
    assert (other.mode, other.outcome, other.numbers[0]) == ("exact", "pending", "k_operators 3 of 10 seeds")
    assert other.numbers[1].startswith("so far reproduced: sweep, best: ours minus theirs ")
    assert last.in_other_mode == ()  # of experiments that have not run
    text = ledger.text(verdicts, verbose=True)
    assert "    in mode exact: pending; k_operators 3 of 10 seeds; so far reproduced: " in text.split("\nC2")[0]
    assert ledger.exit_code(verdicts) == 3
    assert '"in_other_mode": [\n      {\n        "mode": "exact",\n' in ledger.as_json(verdicts)


def test_the_table_of_claims_has_a_column_of_the_other_mode_only_where_there_is_one(judged, tmp_path):
    row = cells(table_of(judged, "ledger", "claims"))
    assert (row["mode"], row["in the other mode"][:22]) == ("fast", "in mode exact: pending")
    alone = make_store(tmp_path / "alone", *_of_mode(judged, "fast"))
    assert "in the other mode" not in table_of(alone, "ledger", "claims").columns


def _of_mode(store: Store, mode: str) -> tuple[list[Record], Manifest]:
    records = [one for one in store.records()[0] if one.mode == mode]
    return records, manifest_of(records, "paper", mode=mode)


def test_the_report_tells_how_far_each_mode_is_and_which_one_decided(judged):
    (paper,) = [one for one in gather(judged).questions if one.name == "paper"]
    assert paper.state == "Mode fast: 10 of 10 runs done. Mode exact: 3 of 3 runs done."
    assert "modes" in [table.kind for table in paper.tables]
    page = page_of(judged).decode()
    assert "Judged on mode fast." in page
    assert "in mode exact: pending; k_operators 3 of 10 seeds" in page
    assert page.count("exact</td>") >= 2


def test_explain_lists_the_runs_of_both_modes_and_how_to_train_each(judged):
    text = explain(judged, "paper", "k_operators")
    records = judged.records()[0]
    assert all(record.run_id in text for record in records)
    assert text.index("mode fast:") < text.index("mode exact:")
    for mode in ("fast", "exact"):
        assert f"launch --experiment paper -k k_operators --mode {mode} --store" in text


def test_explain_lists_a_counted_model_once(tmp_path):
    store = in_both(tmp_path, [*runs("a", "exact", 4.5), floor()], runs("a", "fast", 4.5, 4.6))
    text = explain(store, "laptop", "unigram")
    assert (text.count("fitted"), "--mode" in text) == (2, False)  # its row, and the name of its file


def test_a_figure_is_of_the_chosen_mode_and_says_so_where_there_is_another(tmp_path):
    def trained(mode: str, n_seeds: int) -> list[Record]:
        kinds = {"a": "k_operators", "b": "transformer"}
        made = [
            make_run(label, seed, readings=(), mode=mode, architecture=kind)
            for label, kind in kinds.items()
            for seed in SEEDS[:n_seeds]
        ]
        ids = [make_record(one.label, one.seed, mode=mode).run_id for one in made]
        return [one.model_copy(update={"run_id": run_id}) for one, run_id in zip(made, ids, strict=True)]

    def captions(store: Store) -> dict[str, str]:
        made = draw_all(read_results(store), (), load_published())
        return {drawn.name: drawn.caption for drawn in made if drawn.kind}

    fast = trained("fast", 3)
    both = captions(in_both(tmp_path / "both", trained("exact", 2), fast))
    alone = captions(make_store(tmp_path / "alone", fast, manifest_of(fast, mode="fast")))
    assert both
    assert both == {name: f"{caption} Runs of mode fast only." for name, caption in alone.items()}
