"""Throughput is shown as it was measured: ratios within a session alone, what is missing as missing, the same bytes."""

import functools
import json
import math
import operator
from pathlib import Path
from typing import Any

import pytest

from bench.report.output import make_tables
from bench.report.table import Table
from bench.report.tables.throughput import AS_PUBLISHED, digits, throughput_table
from bench.store import Store, ThroughputError
from tests.measurements import SLUG, growth, in_turn, not_run, only, session, timed, write


def table_of(root: Path, *benchmarks: dict, **machine) -> Table:
    write(root, session(*benchmarks, **machine))
    return throughput_table(only(Store(root)))


def cells(table: Table, row: int = 0) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def column(table: Table, name: str) -> dict[str, str]:
    """The cells of a column by model and form."""
    return {f"{row[1]} {row[2]}": cell for row in table.rows for cell in [row[table.columns.index(name)]]}


# --- the table ---


def test_a_row_reads_as_worked_by_hand(tmp_path):
    # 10 steps in 2 s: 0.2 s per step; 1024 / 2 s = 512 tokens/s; rounds of 1.8 to 2.4 s: steps of 0.18 to 0.24 s
    assert cells(table_of(tmp_path, timed(seconds_per_step=0.2))) == {
        "phase": "training step",
        "model": "K-Operators (paper)",
        "form": "chunked",
        "context": "256",
        "batch": "4",
        "precision": "float32, exact",
        "tokens/s": "512",
        "seconds per step": "0.2000",
        "minimum to maximum": "0.1800 to 0.2400",
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


def test_published_forms_are_compared_with_the_published_mask(tmp_path):
    both = in_turn({"seconds": [2.0], "mebibytes": 300}, {"seconds": [2.0], "mebibytes": 300})
    both[1]["stats"]["median"] = 4.0
    table = table_of(tmp_path, timed(backend="mask", median=1.0), *both)
    assert [(row[2], row[5], row[11]) for row in table.rows] == [
        ("block, as published", "bfloat16, eager", "1.00"),
        ("block, as published", "float32, eager", "0.50"),
        ("mask", "float32, exact", "1.00"),
        ("mask, as published", "bfloat16, eager", "1.00"),
        ("mask, as published", "float32, eager", "1.00"),
    ]
    assert AS_PUBLISHED in table.notes
    assert AS_PUBLISHED not in table_of(tmp_path, timed()).notes


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
    assert (row["n"], row["seconds per step"], row["minimum to maximum"]) == ("1", "2.000", "–")


def test_points_that_do_not_fit_stand_among_the_others(tmp_path):
    table = throughput_table(only(write(tmp_path, growth())))
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
    assert any("runs that share a device are left out" in note for note in notes)


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


DELETED = object()
FACTS, STATS = ("benchmarks", 0, "extra_info"), ("benchmarks", 0, "stats")
BROKEN = {  # what is wrong: where it stands in the file, and the value there
    "no model": (*FACTS, "model", DELETED),
    "no median": (*STATS, "median", DELETED),
    "no facts": (*FACTS, DELETED),
    "no machine": ("machine_info", DELETED),
    "text for a count": (*FACTS, "context", "512"),
    "fraction for a count": (*FACTS, "batch_size", 1.5),
    "nan": (*STATS, "median", math.nan),
    "infinite": (*STATS, "max", math.inf),
    "zero seconds": (*STATS, "median", 0.0),
    "negative memory": (*FACTS, "peak_bytes", -1),
    "unknown phase": (*FACTS, "phase", "dreaming"),
    "twice": ("benchmarks", [timed(), timed()]),
    "no prediction": ("machine_info", "does_not_fit", 0, "predicted_bytes", DELETED),
}
UNREADABLE = {"empty": "", "cut": json.dumps(session(timed()))[:500], "foreign": [1, 2]}


def broken(kind: str) -> object:
    if kind in UNREADABLE:
        return UNREADABLE[kind]
    content = session(timed(), does_not_fit=(not_run(),))
    *path, key, value = BROKEN[kind]
    place: Any = functools.reduce(operator.getitem, path, content)  # type: ignore[arg-type]
    if value is DELETED:
        del place[key]
    else:
        place[key] = value
    return content


@pytest.mark.parametrize("kind", [*UNREADABLE, *BROKEN])
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
    assert kind != "text for a count" or "benchmarks.0.extra_info.context" in str(error)
    assert (made.exit_code, [table.kind for table in made.tables]) == (1, ["other"])


def test_a_file_whose_name_would_not_do_for_a_table_is_refused(tmp_path):
    write(tmp_path, growth(), "a|b <c>")
    found, (error,) = Store(tmp_path).measurements()
    assert not found
    assert "rename it" in str(error)
