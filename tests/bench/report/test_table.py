"""A table reads the same in every form it is written in, and nothing in it can act as code."""

import csv
import io

import pytest

from bench.report.table import Table
from tests.records import make_manifest, make_record
from tests.stores import five_seeds, make_store, table_of

NASTY = ["a|b", "=cmd()", "</script>", "R&D_50%", "`code`", "+1", "@sum", "-2", "$x$\n\x1b[31m#", "[a](b)"]


@pytest.fixture
def nasty(tmp_path) -> Table:
    run_ids = {label: f"{i:012x}" for i, label in enumerate(NASTY)}
    manifest = make_manifest({label: {"42": one} for label, one in run_ids.items()}, question="a | <b>\n% c")
    return table_of(make_store(tmp_path, [make_record(run_id=one) for one in run_ids.values()], manifest))


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
    shown = {"=cmd()": "'=cmd()", "+1": "'+1", "@sum": "'@sum", "-2": "'-2", "$x$\n\x1b[31m#": "$x$ [31m#"}
    assert [row[0] for row in rows[1:]] == [shown.get(name, name) for name in NASTY]
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
