"""The figure of growth shows what was measured, marks what was only predicted, and is the same bytes each time."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from bench.report.figures.growth import growth_figure
from bench.report.output import make_tables, write_tables
from bench.store import Store
from tests.measurements import growing, growth, not_run, only, session, write

NASTY = ["a|b", "=cmd()", "</script>", "R&D_50%", "$x^$\n\x1b[31m", "_hidden", "模型", "-"]


def test_hostile_words_break_no_figure(tmp_path):
    points = [growing("chunked", 512, 0.4) for _ in NASTY]
    for one, name in zip(points, NASTY, strict=True):
        one["extra_info"] |= {"model": name, "backend": name, "dtype": name, "mode": name}
    machine = {"device_name": "<b>|$\\frac$</b>", "does_not_fit": (not_run(model="$^_"),)}
    store = write(tmp_path, session(*points, **machine))
    touched = write_tables(store, make_tables(store))
    svg = next(path for path in touched if path.suffix == ".svg").read_text()
    labels = [text.get_text() for text in growth_figure(only(store)).figure.legends[0].get_texts()]
    assert {"a|b, a|b", "_hidden, _hidden", "$^_, mask"} <= set(labels)
    assert "<b>" not in svg
    assert "\x1b" not in svg


def drawn(root: Path) -> tuple[dict[str, list], dict[str, list]]:
    """The points of the two panels by marker: of the left one, then of the right."""
    panels = []
    for axes in growth_figure(only(Store(root))).figure.axes:
        lines = [line for line in axes.lines if line.get_marker() != "_"]
        keys = [f"{line.get_marker()}{' hollow' if line.get_markerfacecolor() == 'none' else ''}" for line in lines]
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
    measured = only(write(tmp_path, session(growing("chunked", 512, 0.4))))
    (bars,) = growth_figure(measured).figure.axes[0].collections
    ((_, low), (_, high)) = bars.get_segments()[0]
    assert (low, high) == pytest.approx((1e6 * 0.36 / 8192, 1e6 * 0.48 / 8192))  # 0.9 and 1.2 times the median


def test_the_figure_says_what_was_timed_how_often_and_where(tmp_path):
    measured = only(write(tmp_path, growth()))
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


def test_images_carry_neither_a_date_nor_a_version(tmp_path):
    measured = only(write(tmp_path, growth()))
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
