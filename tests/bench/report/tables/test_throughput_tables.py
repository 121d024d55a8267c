"""Throughput is shown as it was measured: ratios within a session alone, what is missing as missing, the same bytes."""

import csv
import io
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.report.figures.growth import growth_figure
from bench.report.output import make_tables, write_tables
from bench.report.table import Table
from bench.report.tables.throughput import digits, throughput_table
from bench.store import Store, ThroughputError
from tests.records import make_record, manifest_of

ROOT = Path(__file__).parents[4]
MIB, GIB = 2**20, 2**30
SLUG = "plain-cpu"


def timed(model: str = "K-Operators (paper)", backend: str = "chunked", median: float = 2.0, **changes) -> dict:
    """One benchmark as pytest-benchmark writes it: 1024 tokens a round; `changes` replace what was filed with it."""
    facts = {
        "phase": "training step",
        "model": model,
        "architecture": "k_operators",
        "backend": backend,
        "decoding": "",
        "context": 256,
        "batch_size": 4,
        "n_tokens": 1024,
        "tokens_per_second": 1024 / median,
        "seconds_per_step": median,
        "n_params": 1_137_869,
        "flops": 1e9,
        "floor_seconds": 0.5,
        "share_of_floor": 0.25,
        "matmul_gflops": 80.0,
        "peak_bytes": 300 * MIB,
        "predicted_bytes": None,
        "dtype": "float32",
        "n_threads": 2,
        "device": "cpu",
        "mode": "exact",
        **changes,
    }
    stats = {"min": 0.9 * median, "median": median, "max": 1.2 * median, "rounds": 5, "iqr": 0.1, "data": []}
    return {"name": "test", "group": facts["phase"], "params": {}, "stats": stats, "extra_info": facts}


def growing(backend: str, context: int, median: float, n_rounds: int = 5, **changes) -> dict:
    """One point of growth, of 8192 tokens."""
    known = {"phase": "growth", "context": context, "batch_size": 8192 // context, "n_tokens": 8192, "n_params": None}
    one = timed("recurrence alone", backend, median, **known, share_of_floor=None, **changes)
    one["stats"]["rounds"] = n_rounds
    return one


def not_run(backend: str = "mask", context: int = 2048, gib: float = 12.5, **changes) -> dict:
    return {
        "phase": "growth",
        "model": "recurrence alone",
        "architecture": "recurrence",
        "backend": backend,
        "context": context,
        "batch_size": 8192 // context,
        "predicted_bytes": int(gib * GIB),
        "free_bytes": 16 * GIB,
        **changes,
    }


def session(*benchmarks: dict, does_not_fit: tuple[dict, ...] = (), **changes) -> dict[str, Any]:
    machine = {
        "device": "cpu",
        "device_name": "Plain CPU",
        "n_threads": 2,
        "torch": "2.13.0",
        "python": "3.11.9",
        "platform": "Linux",
        "commit": "a1b2c3d4e5f6a7b8",
        "dirty": False,
        "matmul_gflops": 81.0,
        "does_not_fit": list(does_not_fit),
        **changes,
    }
    return {"machine_info": machine, "commit_info": {}, "benchmarks": list(benchmarks), "version": "5.3.1"}


def growth() -> dict[str, Any]:
    """Three backends, two of them not run at every length."""
    return session(
        growing("chunked", 512, 0.4),
        growing("chunked", 2048, 0.5),
        growing("mask", 512, 0.8, n_rounds=2, peak_bytes=704 * MIB),
        growing("block", 512, 8.0, n_rounds=2),
        does_not_fit=(not_run(), not_run("block", 1024, gib=13.0)),
    )


def write(root: Path, content: object, slug: str = SLUG) -> Store:
    path = root / "throughput" / f"{slug}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Store(root)


def table_of(root: Path, *benchmarks: dict, **machine) -> Table:
    write(root, session(*benchmarks, **machine))
    measured, errors = Store(root).measurements()
    assert not errors
    return throughput_table(measured[0])


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def column(table: Table, name: str) -> dict[str, str]:
    """The cells of a column by model and form."""
    return {f"{row[1]} {row[2]}": cell for row in table.rows for cell in [row[table.columns.index(name)]]}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for f in ("tables", "figures") for p in (root / f).glob("*")}


# --- the table ---


def test_a_row_reads_as_worked_by_hand(tmp_path):
    # 10 steps in 2 s a round: 0.2 s a step; 1024 / 2 s = 512 tokens/s; rounds of 1.8 to 2.4 s: steps of 0.18 to 0.24 s
    assert cells(table_of(tmp_path, timed(seconds_per_step=0.2))) == {
        "phase": "training step",
        "model": "K-Operators (paper)",
        "form": "chunked",
        "context": "256",
        "batch": "4",
        "precision": "float32, exact",
        "tokens/s": "512",
        "seconds a step": "0.2000",
        "least to most": "0.1800 to 0.2400",
        "n": "5",
        "× nanoGPT": "–",
        "× mask": "–",
        "of floor": "25.0 %",
        "peak MiB": "300",
        "parameters": "1,137,869",
    }


def test_ratios_are_of_speed_to_nanogpt_and_to_the_same_models_mask(tmp_path):
    table = table_of(
        tmp_path,
        timed(median=2.0),
        timed(backend="mask", median=12.0),
        timed("nanoGPT", "", median=5.0),
        timed("other", "mask", median=1.0),  # another model's mask
        timed("other", "block", median=40.0),
    )
    assert column(table, "× nanoGPT") == {
        "K-Operators (paper) chunked": "2.50",  # 5 s over 2 s
        "K-Operators (paper) mask": "0.42",  # 5 over 12
        "nanoGPT –": "1.00",
        "other mask": "5.00",
        "other block": "0.12",  # 5 over 40, 0.125
    }
    assert column(table, "× mask") == {
        "K-Operators (paper) chunked": "6.00",  # 12 over 2
        "K-Operators (paper) mask": "1.00",
        "nanoGPT –": "–",
        "other mask": "1.00",
        "other block": "0.025",  # 1 over 40
    }


@pytest.mark.parametrize(
    "other",
    [
        {"phase": "forward"},
        {"context": 512},
        {"batch_size": 8},
        {"dtype": "bfloat16"},
        {"mode": "fast"},
        {"n_threads": 1},
        {"decoding": "cached"},
        {"device": "cuda"},
    ],
)
def test_no_ratio_is_formed_on_other_terms(tmp_path, other):
    table = table_of(tmp_path, timed(), timed("nanoGPT", "", **other), timed(backend="mask", **other))
    ours = next(index for index, row in enumerate(table.rows) if row[2] == "chunked")
    assert (cells(table, ours)["× nanoGPT"], cells(table, ours)["× mask"]) == ("–", "–")


def test_no_ratio_is_formed_between_two_files(tmp_path):
    write(tmp_path, session(timed("nanoGPT", ""), timed(backend="mask")), "a")
    write(tmp_path, session(timed()), "b")
    tables = make_tables(Store(tmp_path)).tables
    assert [table.name for table in tables] == ["throughput-a", "throughput-b"]
    assert (cells(tables[1])["× nanoGPT"], cells(tables[1])["× mask"]) == ("–", "–")


def test_generation_cached_and_recomputed_each_have_their_own_nanogpt(tmp_path):
    known = {"phase": "generation", "batch_size": 1, "n_tokens": 8}
    table = table_of(
        tmp_path,
        timed("nanoGPT", "", median=4.0, decoding="cached", **known),
        timed("nanoGPT", "", median=9.0, decoding="recomputed", **known),
        timed(median=1.0, decoding="cached", **known),
        timed(median=3.0, decoding="recomputed", **known),
    )
    assert column(table, "× nanoGPT") == {
        "K-Operators (paper) chunked, cached": "4.00",
        "K-Operators (paper) chunked, recomputed": "3.00",
        "nanoGPT cached": "1.00",
        "nanoGPT recomputed": "1.00",
    }
    assert column(table, "tokens/s")["nanoGPT recomputed"] == "0.889"  # 8 tokens in 9 s


@pytest.mark.parametrize("how", ["null", "absent"])
def test_what_is_missing_stays_missing(tmp_path, how):
    one = timed()
    for key in ("n_params", "share_of_floor", "peak_bytes", "matmul_gflops", "floor_seconds", "flops"):
        one["extra_info"][key] = None
        if how == "absent":
            del one["extra_info"][key]
    table = table_of(tmp_path, one, commit=None, dirty=None, matmul_gflops=None)
    row = cells(table)
    assert [row[name] for name in ("of floor", "peak MiB", "parameters")] == ["–"] * 3
    assert not {"nan", "None", "inf", "0"} & set(table.markdown().replace("|", " ").split())
    assert any("commit unknown" in note for note in table.notes)
    assert not any("GFLOP" in note for note in table.notes)


def test_one_round_has_no_spread(tmp_path):
    one = timed()
    one["stats"]["rounds"] = 1
    row = cells(table_of(tmp_path, one))
    assert (row["n"], row["seconds a step"], row["least to most"]) == ("1", "2.000", "–")


def test_points_that_do_not_fit_stand_among_the_others(tmp_path):
    write(tmp_path, growth())
    (measured,), _ = Store(tmp_path).measurements()
    table = throughput_table(measured)
    assert [(row[2], row[3]) for row in table.rows] == [
        ("block", "512"),
        ("chunked", "512"),
        ("mask", "512"),
        ("block", "1,024"),
        ("chunked", "2,048"),
        ("mask", "2,048"),
    ]
    row = cells(table, 5)
    assert row.pop("peak MiB") == "does not fit (predicted 12.5 GiB, free 16.0 GiB)"
    assert list(row.values()) == ["growth", "recurrence alone", "mask", "2,048", "4", *["–"] * 9]


def test_phases_stand_in_their_order(tmp_path):
    phases = ("growth", "generation", "training step", "evaluation", "forward")
    table = table_of(tmp_path, *(timed(phase=phase) for phase in phases))
    assert [row[0] for row in table.rows] == ["training step", "forward", "evaluation", "generation", "growth"]


def test_the_legend_names_the_session(tmp_path):
    notes = table_of(tmp_path, timed(), timed("nanoGPT", "", matmul_gflops=90.5), dirty=True).notes
    assert "Measured on Plain CPU (cpu, 2 threads), torch 2.13.0; commit a1b2c3d4e5f6 with changes (dirty)." in notes
    assert "Matrix products ran at 80.0 to 90.5 GFLOP/s in float32." in notes
    assert any("packed onto one device never enter" in note for note in notes)


def test_rates_are_told_by_precision_and_fall_back_on_the_sessions(tmp_path):
    both = table_of(tmp_path, timed(), timed("nanoGPT", "", dtype="bfloat16", matmul_gflops=900_000.0)).notes
    assert "Matrix products ran at 900,000 GFLOP/s in bfloat16; 80.0 GFLOP/s in float32." in both
    assert "Matrix products ran at 81.0 GFLOP/s." in table_of(tmp_path, timed(matmul_gflops=None)).notes


def test_an_unknown_device_and_a_key_nobody_reads_are_no_error(tmp_path):
    table = table_of(tmp_path, timed(device="mps", fits=True), device="mps", device_name="Unheard of", new={"a": 1})
    assert any("Unheard of (mps, 2 threads)" in note for note in table.notes)


@pytest.mark.parametrize(
    ("value", "n", "text"),
    [
        (0.0123456, 4, "0.01235"),
        (0.000012, 4, "0.00001200"),
        (1.0, 4, "1.000"),
        (12_345.6, 4, "12,346"),
        (7, 3, "7.00"),
    ],
)
def test_numbers_keep_their_digits_without_an_exponent(value, n, text):
    assert digits(value, n) == text


# --- files that cannot be read ---


def broken(kind: str) -> object:
    content = session(timed(), does_not_fit=(not_run(),))
    facts, stats = content["benchmarks"][0]["extra_info"], content["benchmarks"][0]["stats"]
    match kind:
        case "empty":
            return ""
        case "cut":
            return json.dumps(content)[:500]
        case "foreign":
            return [1, 2]
        case "no model":
            del facts["model"]
        case "no median":
            del stats["median"]
        case "no facts":
            del content["benchmarks"][0]["extra_info"]
        case "no machine":
            del content["machine_info"]
        case "text for a count":
            facts["context"] = "512"
        case "fraction for a count":
            facts["batch_size"] = 1.5
        case "nan":
            stats["median"] = float("nan")
        case "infinite":
            stats["max"] = float("inf")
        case "zero seconds":
            stats["median"] = 0.0
        case "negative memory":
            facts["peak_bytes"] = -1
        case "unknown phase":
            facts["phase"] = "dreaming"
        case "twice":
            content["benchmarks"].append(content["benchmarks"][0])
        case "no prediction":
            del content["machine_info"]["does_not_fit"][0]["predicted_bytes"]
    return content


BROKEN = ["empty", "cut", "foreign", "no model", "no median", "no facts", "no machine", "text for a count"]
BROKEN += ["fraction for a count", "nan", "infinite", "zero seconds", "negative memory", "unknown phase", "twice"]
BROKEN += ["no prediction"]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do_and_the_rest_stands(tmp_path, kind):
    write(tmp_path, session(timed()), "other")
    store = write(tmp_path, broken(kind))
    made = make_tables(store)
    (error,) = made.errors
    assert isinstance(error, ThroughputError)
    assert error.exit_code == 1
    assert f"{SLUG}.json" in str(error)
    assert "make bench" in str(error)
    assert "\n" not in str(error)
    assert (made.exit_code, [table.kind for table in made.tables]) == (1, ["other"])


def test_files_of_measurements_that_cannot_be_read_any_more_are_kept(tmp_path):
    store = write(tmp_path, growth())
    assert len(write_tables(store, make_tables(store))) == 5
    write(tmp_path, "{")
    assert write_tables(store, make_tables(store)) == []
    assert len(files_of(tmp_path)) == 5


def test_a_key_that_is_wrong_is_named(tmp_path):
    write(tmp_path, broken("text for a count"))
    _, (error,) = Store(tmp_path).measurements()
    assert "benchmarks.0.extra_info.context" in str(error)


def test_a_file_whose_name_would_not_do_for_a_table_is_refused(tmp_path):
    write(tmp_path, growth(), "a|b <c>")
    found, (error,) = Store(tmp_path).measurements()
    assert not found
    assert "rename it" in str(error)


# --- hostile words ---

NASTY = ["a|b", "=cmd()", "</script>", "R&D_50%", "$x^$\n\x1b[31m", "_hidden", "模型", "-"]


@pytest.fixture
def nasty(tmp_path) -> Store:
    points = [growing("chunked", 512, 0.4) for _ in NASTY]
    for one, name in zip(points, NASTY, strict=True):
        one["extra_info"] |= {"model": name, "backend": name, "dtype": name, "mode": name}
    return write(tmp_path, session(*points, device_name="<b>|$\\frac$</b>", does_not_fit=(not_run(model="$^_"),)))


def test_hostile_words_break_no_form_of_the_table(nasty):
    (table,) = make_tables(nasty).tables
    lines = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(NASTY) + 1
    assert {line.replace(r"\|", "").count("|") for line in lines} == {len(table.columns) + 1}
    assert "<b>" not in table.markdown()
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert {len(row) for row in rows} == {len(table.columns)}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    body = table.latex()[table.latex().index(r"\begin{tabular}") :]
    assert r"R\&D\_50\%" in body
    assert all(line.startswith("%") for line in table.latex().split(r"\begin{tabular}")[0].splitlines())


def test_hostile_words_break_no_figure(nasty):
    touched = write_tables(nasty, make_tables(nasty))
    svg = next(path for path in touched if path.suffix == ".svg").read_text()
    (measured,), _ = nasty.measurements()
    labels = [text.get_text() for text in growth_figure(measured).figure.legends[0].get_texts()]
    assert {"a|b, a|b", "_hidden, _hidden", "$^_, mask"} <= set(labels)
    assert "<b>" not in svg
    assert "\x1b" not in svg


# --- the figure ---


def drawn(root: Path) -> tuple[dict[str, list], dict[str, list]]:
    """The points of the two panels by marker: of the left one, then of the right."""
    (measured,), _ = Store(root).measurements()
    panels = []
    for axes in growth_figure(measured).figure.axes:
        lines = [line for line in axes.lines if line.get_marker() != "_"]
        keys = [f"{line.get_marker()}{' hollow' if line.get_markerfacecolor() == 'white' else ''}" for line in lines]
        panels.append({key: np.asarray(line.get_xydata()).tolist() for key, line in zip(keys, lines, strict=True)})
    time, memory = panels
    return time, memory


def test_the_figure_shows_microseconds_a_token_and_mebibytes(tmp_path):
    write(tmp_path, growth())
    time, memory = drawn(tmp_path)
    assert time == {
        "o": [[512, pytest.approx(1e6 * 0.4 / 8192)], [2048, pytest.approx(1e6 * 0.5 / 8192)]],
        "s": [[512, pytest.approx(1e6 * 0.8 / 8192)]],
        "^": [[512, pytest.approx(1e6 * 8 / 8192)]],
    }
    assert memory == {
        "o": [[512, 300], [2048, 300]],
        "o hollow": [],
        "s": [[512, 704]],
        "s hollow": [[2048, 12.5 * 1024]],  # as predicted
        "^": [[512, 300]],
        "^ hollow": [[1024, 13 * 1024]],
    }


def test_bars_run_from_the_least_round_to_the_most(tmp_path):
    write(tmp_path, session(growing("chunked", 512, 0.4)))
    (measured,), _ = Store(tmp_path).measurements()
    (bars,) = growth_figure(measured).figure.axes[0].collections
    ((_, low), (_, high)) = bars.get_segments()[0]
    assert (low, high) == pytest.approx((1e6 * 0.36 / 8192, 1e6 * 0.48 / 8192))  # 0.9 and 1.2 times the median


def test_the_figure_says_what_was_timed_how_often_and_where(tmp_path):
    write(tmp_path, growth())
    (measured,), _ = Store(tmp_path).measurements()
    figure = growth_figure(measured).figure
    caption = figure.get_supxlabel()
    assert "8,192 tokens in float32; median of n = 2 to 5 rounds" in caption
    assert "Plain CPU (cpu, 2 threads), torch 2.13.0" in caption
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [f"recurrence alone, {name}" for name in ("chunked", "mask", "block")] + [
        "does not fit: predicted"
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["µs per token", "MiB"]


def test_a_backend_looks_alike_on_every_device(tmp_path):
    write(tmp_path, session(growing("block", 512, 0.4)))
    time, _ = drawn(tmp_path)
    assert list(time) == ["^"]


def test_unknown_memory_is_not_drawn(tmp_path):
    write(tmp_path, session(growing("chunked", 512, 0.4, peak_bytes=None), growing("mask", 512, 0.4, peak_bytes=0)))
    _, memory = drawn(tmp_path)
    assert (memory["o"], memory["s"]) == ([], [])


DRAW = (
    "import sys; from pathlib import Path; from bench.report.figures.growth import growth_figure\n"
    "from bench.store import Store\n"
    "(measured,), _ = Store(Path(sys.argv[1])).measurements()\n"
    "for form, image in growth_figure(measured).images.items(): Path(sys.argv[2] + form).write_bytes(image)\n"
)


def run_python(code: str, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment).stdout


def test_two_processes_draw_the_same_bytes_whatever_the_users_settings(tmp_path):
    write(tmp_path, growth())
    (tmp_path / "matplotlibrc").write_text("font.family: serif\naxes.linewidth: 9\nxtick.labelsize: 20\n")
    own = {"MATPLOTLIBRC": str(tmp_path), "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    run_python(DRAW, str(tmp_path), str(tmp_path / "one."), PYTHONHASHSEED="1")
    run_python(DRAW, str(tmp_path), str(tmp_path / "two."), **own)
    for form in ("svg", "png"):
        image = (tmp_path / f"one.{form}").read_bytes()
        assert len(image) > 10_000
        assert image == (tmp_path / f"two.{form}").read_bytes()


def test_images_carry_neither_a_date_nor_a_version(tmp_path):
    write(tmp_path, growth())
    (measured,), _ = Store(tmp_path).measurements()
    images = growth_figure(measured).images
    assert not [word for word in (b"dc:date", b"dc:creator", b"Matplotlib v") if word in images["svg"]]
    png, at, chunks = images["png"], 8, []
    while at < len(png):
        length, name = int.from_bytes(png[at : at + 4], "big"), png[at + 4 : at + 8]
        assert zlib.crc32(png[at + 4 : at + 8 + length]) == int.from_bytes(
            png[at + 8 + length : at + 12 + length], "big"
        )
        chunks.append(name.decode())
        at += length + 12
    assert set(chunks) == {"IHDR", "pHYs", "IDAT", "IEND"}


# --- the files ---


def test_a_rerun_writes_nothing_and_the_order_of_the_benchmarks_does_not_matter(tmp_path):
    content = growth()
    store = write(tmp_path, content)
    made = make_tables(store)
    names = {path.name for path in write_tables(store, made)}
    assert names == {
        *(f"throughput-{SLUG}.{suffix}" for suffix in ("md", "csv", "tex")),
        *(f"growth-{SLUG}.{suffix}" for suffix in ("svg", "png")),
    }
    before = files_of(tmp_path)
    assert write_tables(store, make_tables(store)) == []
    rng = random.Random(1)
    for _ in range(3):
        rng.shuffle(content["benchmarks"])
        write(tmp_path, content)
        assert make_tables(store).text == made.text
        assert write_tables(store, make_tables(store)) == []
    assert files_of(tmp_path) == before


def test_files_go_with_the_measurements_they_came_from_and_others_stay(tmp_path):
    record = make_record()
    store = Store(tmp_path)
    store.write_record(record)
    store.write_manifest(manifest_of([record]))
    write(tmp_path, growth(), "gone")
    write(tmp_path, growth(), "kept")
    write_tables(store, make_tables(store))
    (tmp_path / "figures" / "notes.svg").write_text("mine")
    before = set(files_of(tmp_path))
    (tmp_path / "throughput" / "gone.json").unlink()
    touched = {str(path.relative_to(tmp_path)) for path in write_tables(store, make_tables(store))}
    assert touched == {
        *(f"tables/throughput-gone.{suffix}" for suffix in ("md", "csv", "tex")),
        *(f"figures/growth-gone.{suffix}" for suffix in ("svg", "png")),
    }
    assert set(files_of(tmp_path)) == before - touched
    (tmp_path / "throughput" / "kept.json").unlink()
    write_tables(store, make_tables(store))
    assert not [name for name in files_of(tmp_path) if "kept" in name]
    assert (tmp_path / "figures" / "notes.svg").exists()
    assert (tmp_path / "tables" / "laptop-cost.md").exists()


def test_a_figure_goes_when_growth_is_no_longer_measured(tmp_path):
    store = write(tmp_path, growth())
    write_tables(store, make_tables(store))
    write(tmp_path, session(timed()))
    write_tables(store, make_tables(store))
    assert sorted(files_of(tmp_path)) == [f"tables/throughput-{SLUG}.{suffix}" for suffix in ("csv", "md", "tex")]


def test_the_command_prints_the_table_and_writes_the_figure(tmp_path):
    write(tmp_path, growth())
    code = "import sys; sys.argv = ['bench', 'table', '--store', sys.argv[1]]\nfrom bench.__main__ import app; app()"
    assert f"## throughput: {SLUG}" in run_python(code, str(tmp_path))
    assert (tmp_path / "figures" / f"growth-{SLUG}.png").exists()
