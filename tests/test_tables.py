"""Tables say what the records say: the same bytes each time, nothing hidden, nothing that could act as code."""

import csv
import io
import math
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bench import sources
from bench.errors import StoreError, UserError
from bench.published import PublishedError, load_published
from bench.record import Manifest, Record, to_bytes
from bench.render import Table
from bench.statistics import mean, sample_sd
from bench.store import Store
from bench.tables import PUBLISHED, explain, make_tables, write_tables
from tests.records import FINGERPRINT, make_environment, make_manifest, make_record, manifest_of

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (42, 69, 420, 666, 2137)
DISTINCT = ((4.41 + 4.40 + 4.43) / 3, 4.50, 4.43, 4.47, 4.36)


@pytest.fixture(autouse=True)
def _current_sources(monkeypatch):
    monkeypatch.setattr(sources, "fingerprint", lambda architecture: FINGERPRINT)


def five_seeds(label: str = "k_operators", **changes) -> list[Record]:
    return [make_record(label, seed, value, **changes) for seed, value in zip(SEEDS, DISTINCT, strict=True)]


def make_store(root: Path, records: list[Record], *manifests: Manifest) -> Store:
    store = Store(root)
    for record in records:
        store.write_record(record)
    for manifest in manifests or (manifest_of(records),):
        store.write_manifest(manifest)
    return store


def table_of(store: Store, kind: str = "perplexity", experiment: str = "laptop", **options) -> Table:
    tables = make_tables(store, **options).tables
    return next(table for table in tables if (table.experiment, table.kind) == (experiment, kind))


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


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
    assert row["sweep, best"] == f"{mean(kept):.3f} ± {sample_sd(kept):.3f}"
    assert "k_operators: 3 of 5 runs done (diverged: seed 69 at step 120; missing: seed 666)." in table.notes


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
    records = [*five_seeds(), make_record("nanogpt", 42)]
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
    assert len(pairs) == 5
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


def test_parameters_stand_under_every_convention(tmp_path):
    small = make_record("k_operators", 42)
    counts = {
        "n_params": 10_745_088,
        "n_live_params": 10_745_088,
        "n_params_without_positions": 10_646_784,
        "parts": {"blocks": 10_621_824, "positions": 98_304, "embedding": 24_960},
    }
    large = make_record("nanogpt", 42, cost={**small.cost.model_dump(), "parameters": counts})
    table = table_of(make_store(tmp_path, [small, large]), "parameters")
    assert cells(table, 1) == {
        "arm": "nanogpt",
        "total": "10,745,088",
        "without positions": "10,646,784",
        "live": "10,745,088",
        "relative to first row": "9.44 / 9.36 / 11.41",  # over 1,137,869, 1,137,869 and 942,029
        "published": "–",
        "by part": "blocks 10,621,824; positions 98,304; embedding 24,960",
    }


def test_a_run_that_diverged_still_has_a_parameter_count(tmp_path):
    store = make_store(tmp_path, [make_record(status="diverged")])
    assert cells(table_of(store, "parameters"))["total"] == "1,137,869"


def test_runs_by_other_sources_carry_a_dagger_and_a_footnote(tmp_path):
    records = [make_record(seed=42), make_record(seed=69, fingerprint="e" * 64), make_record("fresh", 42)]
    table = table_of(make_store(tmp_path, records))
    assert (cells(table)["n"], cells(table, 1)["n"]) == ("2 †", "1")
    assert any(note.startswith("† 1 run made by other sources") for note in table.notes)
    assert r"2 $\dagger$" in table.latex()


@pytest.mark.fault("F23")
def test_the_machines_are_named_and_a_change_of_machine_is_told(tmp_path):
    gpu = make_environment(device="cuda", device_name="Big GPU", n_threads=8)
    attempt = {"started_at": "", "first_step": 0, "last_step": 9, "train_seconds": 1.0, "environment": gpu}
    records = [make_record(seed=42), make_record(seed=69, environment=gpu), make_record(seed=420, attempts=[attempt])]
    notes = table_of(make_store(tmp_path, records)).notes
    machines = "Big GPU (cuda, 8 threads), torch 2.13.0: 1 run; Plain CPU (cpu, 1 thread), torch 2.13.0: 2 runs"
    assert f"Made on {machines}." in notes
    assert any(note.startswith("More than one machine") for note in notes)
    assert any(note.startswith("Resumed on another machine") and records[2].file_name in note for note in notes)


def test_costs_are_means_over_the_done_runs_and_leave_fitted_models_out(tmp_path):
    def costing(seed: int, seconds: float, speed: float) -> Record:
        cost = {**make_record().cost.model_dump(), "train_seconds": seconds, "tokens_per_second": speed}
        return make_record(seed=seed, cost=cost)

    records = [costing(42, 100.0, 10_000.0), costing(69, 110.0, 12_000.0), make_record("unigram", None, 28.4)]
    table = table_of(make_store(tmp_path, records), "cost")
    row = cells(table)
    assert (row["train seconds"], row["tokens/s"], row["peak MiB"]) == ("105.0 ± 7.1", "11,000", "512")
    assert len(table.rows) == 1


def test_runs_that_shared_a_gpu_count_in_no_table_of_times(tmp_path):
    def costing(seed: int, seconds: float, *runs_per_gpu: int | None) -> Record:
        """A record whose attempts shared their GPU with that many runs."""
        attempt = {"started_at": "", "first_step": 0, "last_step": 9, "train_seconds": 1.0}
        gpu = make_environment(device="cuda")
        attempts = [{**attempt, "environment": gpu, "runs_per_gpu": n} for n in runs_per_gpu]
        cost = {**make_record().cost.model_dump(), "train_seconds": seconds, "tokens_per_second": 2e6 / seconds}
        return make_record(seed=seed, attempts=attempts, cost=cost)

    lone = [costing(42, 100.0, None), costing(69, 100.0, 1)]  # None: a record older than the count
    table = table_of(make_store(tmp_path / "some", [*lone, costing(420, 400.0, 4), costing(666, 300.0, 1, 2)]), "cost")
    row = cells(table)
    assert (row["n"], row["train seconds"], row["tokens/s"]) == ("4", "100.0 ± 0.0", "20,000")
    left_out = [note for note in table.notes if "are left out" in note]
    assert [note.split(": ", 1)[1] for note in left_out] == ["k_operators: 2 runs."]
    assert not [note for note in table_of(make_store(tmp_path / "none", lone), "cost").notes if "left out" in note]


def bytes_of(store: Store) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store.root / "tables").iterdir()}


def test_a_rerun_writes_nothing_and_a_shuffled_store_gives_the_same_bytes(tmp_path, monkeypatch):
    records = [*five_seeds(), *five_seeds("transformer"), make_record("unigram", None, 28.4)]
    store = make_store(tmp_path, records, manifest_of(records), manifest_of(records, "paper"))
    made = make_tables(store)
    assert len(write_tables(store, made)) == 2 * 4 * 3
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
    assert {path.name.split("-")[0] for path in write_tables(store, make_tables(store))} == {"smoke"}
    assert {path.split("-")[0] for path in bytes_of(store)} == {"laptop", "notes.md"}


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
    assert made.notes == ("2 records of this store belong to no experiment and are in no table.",)
    assert made.notes[0] in made.text


def test_an_empty_store_says_how_to_start(tmp_path):
    made = make_tables(Store(tmp_path))
    assert (made.tables, made.exit_code) == ((), 0)
    assert "python -m jobs launch" in made.text


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path):
    store = make_store(tmp_path, five_seeds())
    (tmp_path / "tables").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="--store"):
        write_tables(store, make_tables(store))


NASTY = ["a|b", "=cmd()", "</script>", "R&D_50%", "`code`", "+1", "@sum", "-2", "$x$\n\x1b[31m#", "[a](b)"]


@pytest.fixture
def nasty(tmp_path) -> Table:
    manifest = make_manifest({label: {"42": "0" * 12} for label in NASTY}, question="a | <b>\n% c")
    return table_of(make_store(tmp_path, [make_record()], manifest))


def test_markdown_cells_cannot_break_the_table_or_become_html(nasty):
    lines = nasty.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(NASTY)
    assert {row.replace(r"\|", "").count("|") for row in rows} == {len(nasty.columns) + 1}
    text = nasty.markdown()
    assert r"a\|b" in text
    assert r"\</script\>" in text
    assert r"\`code\`" in text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert r"\[a\](b)" in text


def test_csv_cells_cannot_become_formulas_and_read_back_whole(nasty):
    rows = list(csv.reader(io.StringIO(nasty.csv())))
    assert [row[0] for row in rows[1:]] == [
        "a|b",
        "'=cmd()",
        "</script>",
        "R&D_50%",
        "`code`",
        "'+1",
        "'@sum",
        "'-2",
        "$x$ [31m#",
        "[a](b)",
    ]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    assert {len(row) for row in rows} == {len(nasty.columns)}


def test_latex_specials_are_escaped_and_comments_stay_on_their_line(nasty):
    text = nasty.latex()
    assert r"R\&D\_50\%" in text
    assert r"\$x\$ [31m\#" in text
    body = text[text.index(r"\begin{tabular}") :]
    rows = body.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == len(NASTY)
    assert {row.replace(r"\&", "").count("&") for row in rows} == {len(nasty.columns) - 1}
    assert all(line.startswith("%") for line in text[: text.index(r"\begin{tabular}")].splitlines())


def test_latex_writes_plus_minus_as_a_command(tmp_path):
    text = table_of(make_store(tmp_path, five_seeds())).latex()
    assert r"4.435 $\pm$ 0.054" in text
    assert "±" not in text[text.index(r"\begin{tabular}") :]


def test_numbers_keep_their_trailing_zeros_in_every_form(tmp_path):
    table = table_of(make_store(tmp_path, [make_record(perplexity=4.5)]))
    for text in (table.markdown(), table.csv(), table.latex()):
        assert "4.500" in text


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


def test_explain_lists_the_runs_behind_a_cell(tmp_path):
    records = five_seeds()
    records[1] = make_record(seed=69, status="diverged")
    store = make_store(tmp_path, records[:4], manifest_of(records))
    text = explain(store, "laptop", "k_operators")
    line = next(line for line in text.splitlines() if line.startswith(records[3].run_id))
    assert line.split() == [records[3].run_id, "666", "done", "4.470", "250", "4.470", "a1b2c3d", "current"]
    assert "diverged at 120" in text
    assert any(line.split() == ["2137", "missing"] for line in text.splitlines())
    assert str(store.root / "runs" / records[0].file_name) in text


def test_explain_says_what_there_is_where_the_cell_is_not(tmp_path):
    store = make_store(tmp_path, five_seeds())
    with pytest.raises(UserError, match="there are: laptop"):
        explain(store, "lapdog", "k_operators")
    with pytest.raises(UserError, match="there are: k_operators"):
        explain(store, "laptop", "k_operator")


def run_python(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout


MAKE_TABLES = (
    "import sys; from pathlib import Path; from bench.store import Store\n"
    "from bench.tables import make_tables, write_tables\n"
    "store = Store(Path(sys.argv[1])); made = make_tables(store); write_tables(store, made); print(made.text)\n"
)


def test_making_tables_imports_neither_torch_nor_the_models(tmp_path):
    make_store(tmp_path, five_seeds())
    out = run_python(MAKE_TABLES + "print(sorted({'torch', 'models'} & set(sys.modules)))", str(tmp_path))
    assert "k_operators" in out
    assert out.splitlines()[-1] == "[]"


def test_a_thousand_records_of_real_size_take_less_than_three_seconds(tmp_path):
    originals = [make_record(seed=seed, perplexity=4 + seed / 10, real_size=True) for seed in range(10)]
    records = [
        record.model_copy(update={"label": f"arm{arm}", "run_id": f"{arm * 10 + index:012x}"})
        for arm in range(100)
        for index, record in enumerate(originals)
    ]
    runs = tmp_path / "runs"
    runs.mkdir()
    for record in records:
        (runs / record.file_name).write_bytes(to_bytes(record))  # without the fsync of a thousand writes
    Store(tmp_path).write_manifest(manifest_of(records))

    def cpu_seconds() -> float:
        """Of one process with one thread: what a clock shows where nothing else runs."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "arm99" in run_python(MAKE_TABLES, str(tmp_path))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(2)) < 3
