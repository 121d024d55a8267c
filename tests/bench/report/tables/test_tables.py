"""Tables say what the records say: the same bytes each time, and nothing hidden."""

import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.errors import StoreError
from bench.record import Record
from bench.report.output import RUNS, make_tables, write_tables
from bench.report.resampling import block_bootstrap
from bench.report.statistics import mean, sample_sd
from bench.report.table import NOTHING
from bench.store import Store
from tests.command_line import run_python
from tests.records import make_environment, make_manifest, make_record, manifest_of
from tests.stores import DISTINCT, SEEDS, cells, five_seeds, make_store, many_records, table_of, write_without_sync

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """They have tests of their own, and take seconds."""
    monkeypatch.setattr("bench.report.output.all_figures", lambda *_: {})


def test_a_row_reads_as_worked_by_hand(tmp_path):
    records = [
        make_record(seed=seed, perplexity=value, final=value + 0.1, cross_fitted=value + 0.05)
        for seed, value in zip(SEEDS, DISTINCT, strict=True)
    ]
    assert cells(table_of(make_store(tmp_path, records))) == {
        "arm": "k_operators",
        "mode": "exact",
        "parameters": "1,137,869",
        "n": "5",
        "sweep, best": "4.435 ± 0.054",
        "95 % interval of sweep, best": "4.368 to 4.501",
        "sweep, final": "4.535 ± 0.054",
        "sweep, cross-fitted": "4.485 ± 0.054",
        "published": "–",
    }


def test_the_mean_is_over_perplexities_not_over_nats(tmp_path):
    records = [make_record(seed=42, perplexity=2.0), make_record(seed=69, perplexity=8.0)]
    assert cells(table_of(make_store(tmp_path, records)))["sweep, best"] == "5.000 ± 4.243"  # not exp(mean) = 4


def test_the_other_protocols_stand_under_their_own_names(tmp_path):
    store = make_store(tmp_path, [make_record(perplexity=4.5, final=4.6, sampled=4.4, strided=4.2)])
    row = cells(table_of(store, "protocols"))
    assert (row["sampled, best"], row["strided, best"]) == ("4.400", "4.200")
    assert row["sampled, final"] == f"{4.4 * 4.6 / 4.5:.3f}"


def test_two_lost_seeds_of_five_show_as_3_of_5_and_are_not_averaged(tmp_path):
    records = five_seeds()
    records[1] = make_record(seed=69, status="diverged")
    store = make_store(tmp_path, [record for record in records if record.seed != 666], manifest_of(records))
    table = table_of(store)
    row = cells(table)
    kept = [DISTINCT[0], DISTINCT[2], DISTINCT[4]]
    assert row["n"] == "3 of 5"
    assert row["sweep, best"] == f"{mean(kept):.3f} ± {sample_sd(kept):.3f} (3 of 5)"
    assert "k_operators: 3 of 5 runs done (diverged: seed 69 at step 120; missing: seed 666)." in table.notes


def test_a_table_made_from_half_of_the_grid_says_so_in_every_cell_that_would_be_another(tmp_path):
    def values(arm: int) -> list[Record]:
        label = ("k_operators", "transformer", "lstm")[arm]
        return [
            make_record(
                label,
                seed,
                4.4 + arm / 10 + 0.01 * (i * i % 5),
                cross_fitted=4.45 + 0.01 * (i * i % 5),
                sampled=4.42 + 0.01 * (i * i % 5),
                strided=4.3 + 0.01 * (i * i % 5),
                real_size=True,
                cost={
                    **make_record().cost.model_dump(),
                    "train_seconds": 100.0 + i * i,
                    "peak_bytes": 2**29 + i * 2**20,
                },
            )
            for i, seed in enumerate(SEEDS)
        ]

    every = [record for arm in range(3) for record in values(arm)]
    manifests = [manifest_of(every, name, reference="transformer") for name in ("laptop", "paper")]
    whole = make_tables(make_store(tmp_path / "whole", every, *manifests)).tables
    half = make_tables(
        make_store(tmp_path / "half", [one for one in every if one.seed in SEEDS[:3]], *manifests)
    ).tables
    assert [table.name for table in half] == [table.name for table in whole]
    changed = set()
    for before, after in zip(whole, half, strict=True):
        for ours, theirs in zip(before.rows, after.rows, strict=True):
            for column, one, other in zip(before.columns, ours, theirs, strict=True):
                if other not in (one, NOTHING):
                    changed.add((before.kind, column))
                    partial = ("3 of 5", "2 not run", "3 of 10")  # the last of the seeds that a claim needs
                    assert any(text in other for text in partial), (before.name, column, other)
    measured = {"sweep, best", "95 % interval of sweep, best", "sweep, final", "sweep, cross-fitted"}
    assert measured <= {column for kind, column in changed if kind == "perplexity"}
    others = {"perplexity", "protocols", "differences", "dynamics", "budgets", "relative-budgets", "cost", "results"}
    assert others | {"plays", "published", "ledger"} == {kind for kind, _ in changed}


def test_no_table_ever_says_nan_none_or_inf(tmp_path):
    records = [
        make_record("all_lost", 42, status="failed"),
        make_record("one", 42),
        make_record("absurd", 42, math.exp(50)),
        make_record("absurd", 69, math.exp(60)),
        make_record("unigram", None, 28.4, architecture="ngram"),
    ]
    huge = make_record("beyond", 42)
    assert huge.result is not None
    best = huge.result.sweep.best.model_copy(update={"nats_per_token": 5000.0})
    sweep = huge.result.sweep.model_copy(update={"best": best})
    records.append(huge.model_copy(update={"result": huge.result.model_copy(update={"sweep": sweep})}))
    manifest = make_manifest({"never_ran": {"42": "0" * 12}, "empty": {}})
    made = make_tables(make_store(tmp_path, records, manifest_of(records, "matched"), manifest))
    words = made.text.replace("|", " ").split()
    assert not {"nan", "None", "inf", "NaN"} & set(words)
    assert "above 1e308" in made.text


def test_a_cell_of_one_run_has_no_spread_and_no_interval(tmp_path):
    row = cells(table_of(make_store(tmp_path, [make_record(perplexity=4.5)])))
    assert (row["n"], row["sweep, best"], row["95 % interval of sweep, best"]) == ("1", "4.500", "–")


def test_a_fitted_floor_is_exact(tmp_path):
    table = table_of(make_store(tmp_path, [make_record("unigram", None, 28.4, architecture="ngram")]))
    row = cells(table)
    assert (row["n"], row["sweep, best"], row["95 % interval of sweep, best"]) == ("exact", "28.400", "–")
    assert any(note.startswith("n = exact") for note in table.notes)


def test_perplexities_above_100_have_one_decimal(tmp_path):
    records = [make_record(seed=42, perplexity=250.04), make_record(seed=69, perplexity=252.04)]
    assert cells(table_of(make_store(tmp_path, records)))["sweep, best"] == "251.0 ± 1.4"


def test_the_legend_counts_windows_and_predictions_from_the_records(tmp_path):
    notes = " ".join(table_of(make_store(tmp_path, five_seeds())).notes)
    assert "in 435 windows of 256 that do not overlap; 111,360 predictions" in notes
    assert "tinyshakespeare" in notes


def test_rows_on_synthetic_text_say_so_and_give_its_least_perplexity(tmp_path):
    records = [make_record(corpus="synthetic", entropy_rate_nats=math.log(3.25))]
    table = table_of(make_store(tmp_path, records, manifest_of(records, corpus="synthetic")))
    assert cells(table)["arm"] == "k_operators (synthetic)"
    assert any("below perplexity 3.250" in note for note in table.notes)


def test_a_published_value_stands_beside_ours_in_the_paper_experiment_alone(tmp_path):
    records = [*five_seeds(), make_record("nanogpt_2023", 42)]
    store = make_store(tmp_path, records, manifest_of(records, "paper"), manifest_of(records))
    paper = table_of(store, experiment="paper")
    assert cells(paper)["published"] == "4.43 ± 0.05 (sweep, best; 7 runs of 5 seeds)"
    assert cells(paper, 1)["published"] == "4.348 (sampled, best; n = 1)"
    assert cells(table_of(store))["published"] == "–"
    assert cells(table_of(store, "parameters", "paper"), 1)["published"] == "10.65M without positions"


def test_a_published_value_never_stands_beside_synthetic_text(tmp_path):
    records = [make_record(corpus="synthetic", entropy_rate_nats=1.0)]
    store = make_store(tmp_path, records, manifest_of(records, "paper", corpus="synthetic"))
    assert cells(table_of(store, experiment="paper"))["published"] == "–"


def test_runs_by_other_sources_carry_a_dagger_and_a_footnote(tmp_path):
    records = [make_record(seed=42), make_record(seed=69, fingerprint="e" * 64), make_record("fresh", 42)]
    table = table_of(make_store(tmp_path, records))
    assert (cells(table)["n"], cells(table, 1)["n"]) == ("2 †", "1")
    assert any(note.startswith("† 1 run made from other sources") for note in table.notes)
    assert r"2 $\dagger$" in table.latex()


@pytest.mark.fault("F23")
def test_the_machines_are_named_and_a_change_of_machine_is_told(tmp_path):
    gpu = make_environment(device="cuda", device_name="Big GPU", n_threads=8)
    attempt = {"started_at": "", "first_step": 0, "last_step": 9, "train_seconds": 1.0, "environment": gpu}
    records = [make_record(seed=42), make_record(seed=69, environment=gpu), make_record(seed=420, attempts=[attempt])]
    notes = table_of(make_store(tmp_path, records)).notes
    machines = "Big GPU (cuda, 8 threads), torch 2.13.0: 1 run; Plain CPU (cpu, 1 thread), torch 2.13.0: 2 runs"
    assert f"Made on {machines}." in notes
    assert any(note.startswith("These runs were made on more than one machine") for note in notes)
    assert any(note.startswith("Resumed with another machine") and records[2].file_name in note for note in notes)


def bytes_of(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.root / "tables").iterdir()}


def test_a_rerun_writes_nothing_and_a_shuffled_store_gives_the_same_bytes(tmp_path, monkeypatch):
    records = [*five_seeds(), *five_seeds("transformer"), make_record("unigram", None, 28.4)]
    compared = manifest_of(records, reference="transformer")
    store = make_store(tmp_path, records, compared, manifest_of(records, "paper"))
    made = make_tables(store)
    assert len(write_tables(store, made)) == 3 * len(made.tables) + 1 == 3 * (8 + 6 + 3) + 1  # and runs.csv
    before = bytes_of(store)
    assert write_tables(store, make_tables(store)) == []

    rng = random.Random(1)

    def shuffled(method):
        def read_shuffled(self):
            contents, errors = method(self)
            return rng.sample(contents, len(contents)), errors

        return read_shuffled

    for name in ("records", "manifests", "rechecks"):
        monkeypatch.setattr(Store, name, shuffled(getattr(Store, name)))
    for _ in range(5):
        again = make_tables(store)
        assert again.text == made.text
        assert write_tables(store, again) == []
    assert bytes_of(store) == before


def test_tables_of_an_experiment_that_is_gone_are_removed_and_other_files_stay(tmp_path):
    records = five_seeds()
    store = make_store(tmp_path, records, manifest_of(records), manifest_of(records, "smoke"))
    write_tables(store, make_tables(store))
    (tmp_path / "tables" / "notes.md").write_text("mine")
    (tmp_path / "experiments" / "smoke.json").unlink()
    touched = [path for path in write_tables(store, make_tables(store)) if path.name != RUNS]
    assert {path.name.split("-")[0] for path in touched} == {"smoke"}
    assert {path.split("-")[0] for path in bytes_of(store)} == {"laptop", "paper", "claims", "notes.md"}


def test_tables_of_a_manifest_that_cannot_be_read_are_kept(tmp_path):
    records = five_seeds()
    store = make_store(tmp_path, records, manifest_of(records), manifest_of(records, "smoke"))
    write_tables(store, make_tables(store))
    (tmp_path / "experiments" / "smoke.json").write_text("{")
    made = make_tables(store)
    assert (made.exit_code, write_tables(store, made)) == (1, [])


def test_a_cut_record_is_named_and_the_other_rows_stand(tmp_path):
    records = five_seeds()
    store = make_store(tmp_path, records)
    path = tmp_path / "runs" / records[0].file_name
    path.write_bytes(path.read_bytes()[:1000])
    made = make_tables(store)
    assert made.exit_code == 1
    assert [str(path) in str(error) for error in made.errors] == [True]
    assert cells(made.tables[0])["n"] == "4 of 5"


def test_records_of_no_experiment_get_one_line(tmp_path):
    records = five_seeds()
    made = make_tables(make_store(tmp_path, records, manifest_of(records[:3])))
    assert made.notes[0] == "2 records of this store belong to no experiment and are in no table."
    assert made.notes[0] in made.text


def test_an_experiment_that_a_store_lacks_is_named_as_not_run(tmp_path):
    records = five_seeds()
    lacking = make_tables(make_store(tmp_path / "lacking", records))
    assert any(note.startswith("Not run: paper") for note in lacking.notes)
    whole = make_tables(make_store(tmp_path / "whole", records, manifest_of(records, "paper")))
    assert not any("paper" in note for note in whole.notes)


def test_an_empty_store_says_how_to_start(tmp_path):
    made = make_tables(Store(tmp_path))
    assert (made.tables, made.exit_code) == ((), 0)
    assert "python -m jobs launch" in made.text


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path):
    store = make_store(tmp_path, five_seeds())
    (tmp_path / "tables").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="--store"):
        write_tables(store, make_tables(store))


def test_the_committed_value_stands_beside_the_same_arm_of_the_same_experiment(tmp_path):
    ours = make_store(tmp_path / "ours", [make_record(perplexity=4.6), make_record("new", 42)])
    theirs = make_store(tmp_path / "theirs", five_seeds())
    table = table_of(ours, compare=theirs)
    assert cells(table)["committed (sweep, best)"] == "4.435 ± 0.054 (n = 5, exact)"
    assert cells(table, 1)["committed (sweep, best)"] == "–"
    assert "committed (sweep, best)" not in table_of(ours).columns


@pytest.mark.parametrize("changes", [{"corpus": "synthetic", "entropy_rate_nats": 1.0}, {"context": 128}])
def test_a_committed_value_on_another_text_or_protocol_is_not_put_beside_ours(tmp_path, changes):
    ours = make_store(tmp_path / "ours", [make_record(**changes)])
    theirs = make_store(tmp_path / "theirs", five_seeds())
    assert cells(table_of(ours, compare=theirs))["committed (sweep, best)"] == "–"


MAKE_ALL = """
import sys
from pathlib import Path
from bench.report.output import make_tables, write_tables
from bench.report.page.gather import gather, write_report
from bench.store import Store

store = Store(Path(sys.argv[1]))
made = make_tables(store)
write_tables(store, made)
write_report(store, gather(Store(Path("results"))))  # the tables, figures and verdicts of what was measured
print(made.text, sorted({"torch", "models"} & set(sys.modules)), sep="\\n")
"""


def test_tables_figures_verdicts_and_the_page_are_made_without_torch_and_the_models(tmp_path):
    make_store(tmp_path, five_seeds())
    out = run_python(MAKE_ALL, tmp_path)
    assert "k_operators" in out
    assert out.splitlines()[-1] == "[]"


# what is done once, however many tables there are ---------------------------------------------------------------------


def test_each_record_is_read_and_parsed_once_for_all_tables(tmp_path, monkeypatch):
    records = many_records(6, 3)
    store = write_without_sync(tmp_path, records, manifest_of(records, reference="arm1"))
    n_read, n_parsed = Counter(), Counter()

    def read_and_count(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        n_read[path.name] += path.parent.name == "runs"
        return read(path)

    def parse_and_count(content: Any, parse: Callable[..., Record] = Record.model_validate_json, **how: Any) -> Record:
        record = parse(content, **how)
        n_parsed[record.run_id] += 1
        return record

    monkeypatch.setattr(Path, "read_bytes", read_and_count)
    monkeypatch.setattr(Record, "model_validate_json", parse_and_count)
    assert len(make_tables(store).tables) > 5
    assert +n_read == dict.fromkeys((one.file_name for one in records), 1)
    assert n_parsed == dict.fromkeys((one.run_id for one in records), 1)


def test_each_difference_is_resampled_once_for_all_tables(tmp_path, monkeypatch):
    records = many_records(6, 3)
    store = write_without_sync(tmp_path, records, manifest_of(records, reference="arm1"))
    resampled = []

    def resample_and_note(*parts: list[float], **options: Any) -> tuple[float, float] | None:
        resampled.append(parts)
        return block_bootstrap(*parts, **options)

    monkeypatch.setattr("bench.report.over_text.block_bootstrap", resample_and_note)
    make_tables(store)
    assert len(resampled) == 3 * 5  # three intervals; six arms, one of them the reference


def n_calls(store: Store) -> int:
    """Of functions, ours and others', until the tables are made: work that no machine's speed changes."""
    n, before = 0, sys.getprofile()

    def count(_: object, event: str, __: object) -> None:
        nonlocal n
        n += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        make_tables(store)
    finally:
        sys.setprofile(before)
    return n


@pytest.mark.parametrize("reference", [None, "arm1"])
def test_as_many_arms_again_take_as_much_work_again(tmp_path, reference):
    stores = []
    for n_arms in (4, 8, 12):
        records = many_records(n_arms, 2)
        stores.append(write_without_sync(tmp_path / str(n_arms), records, manifest_of(records, reference=reference)))
    make_tables(stores[0])  # the first one imports
    four, eight, twelve = map(n_calls, stores)
    assert twelve - eight == pytest.approx(eight - four, rel=0.003)  # what sorts may do a little more
