"""`python -m bench verify`: one line per claim, and an exit code that a script can rely on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.app import app
from bench.errors import EXIT_FAILED
from bench.report.claims import ledger
from bench.report.claims.finding import Effect, Outcome
from bench.report.claims.verdicts import Verdict, judge
from bench.report.output import make_tables
from bench.report.published import PUBLISHED, load_published
from bench.report.runs import read_results
from bench.store import Store
from tests.command_line import call
from tests.records import manifest_of
from tests.stores import five_seeds, make_store


@pytest.fixture
def verdicts(tmp_path: Path) -> list[Verdict]:
    """Of an empty store: none has run."""
    return judge(read_results(Store(tmp_path)), load_published(PUBLISHED))


def with_outcomes(verdicts: list[Verdict], *outcomes: Outcome) -> list[Verdict]:
    """As many verdicts as outcomes."""
    return [replace(one, outcome=outcome) for one, outcome in zip(verdicts, outcomes, strict=False)]


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("reproduced", "reproduced"), 0),
        (("reproduced", "not reproduced", "inconclusive"), 3),
        (("not started", "not reproduced"), 3),
        (("reproduced", "inconclusive"), 3),
        (("reproduced", "pending"), 3),
        (("reproduced", "not started"), 3),
        (("reproduced", "not reproduced"), 4),
    ],
)
def test_an_open_claim_is_incomplete_and_one_that_is_not_reproduced_counts_once_all_are_decided(
    verdicts, outcomes, code
):
    assert ledger.exit_code(with_outcomes(verdicts, *outcomes)) == code


def test_each_claim_is_one_aligned_line_within_80_letters(verdicts):
    effect = Effect(what="gap", value=-0.12345, unit="nats", n="10 and 10")
    known = [replace(one, effect=effect) for one in with_outcomes(verdicts, *["not reproduced"] * 10)]
    title, _, headings, *lines = ledger.text(known).splitlines()
    assert "K-Operators" in title
    assert headings.index("verdict") == lines[0].index("not reproduced")
    assert [line.split()[0] for line in lines[:10]] == [f"C{i}" for i in range(1, 11)]
    assert max(map(len, lines)) <= 80
    start = lines[0].index("not reproduced")
    assert [line[start:] for line in lines[:10]] == ["not reproduced  −0.1235 nats    10 and 10"] * 10
    assert lines[11] == "0 reproduced, 10 not reproduced, 0 inconclusive, 0 pending, 0 not started."


def test_what_has_not_run_and_what_was_launched_under_other_rules_is_said(verdicts):
    assert "python -m jobs launch" in ledger.text(verdicts, verbose=True)
    changed = [replace(one, outcome="inconclusive", changed_since=("paper",)) for one in verdicts]
    assert "changed since paper was launched" in ledger.text(changed, verbose=True)


def test_what_is_in_is_read_but_decides_nothing_before_the_planned_seeds(tmp_path):
    three = five_seeds()[:3]
    store = make_store(tmp_path, three, manifest_of(three, "paper"))
    first, *_ = judge(read_results(store), load_published(PUBLISHED))
    assert (first.outcome, first.seeds_needed) == ("pending", None)
    assert first.numbers[0] == "k_operators 3 of 10 seeds"
    assert first.numbers[1].startswith("so far reproduced: sweep, best: ours minus theirs ")
    assert "n = 3 and 5" in first.numbers[1]


def test_the_command_prints_the_ledger_and_ends_with_its_code(tmp_path, capsys):
    store = make_store(tmp_path, five_seeds(), manifest_of(five_seeds(), "paper"))
    assert call(app, "verify", "--store", str(store.root)) == 3
    printed = capsys.readouterr().out
    assert printed.splitlines()[3].startswith("C1")
    assert "pending" in printed.splitlines()[3]
    assert call(app, "verify", "--store", str(store.root), "--verbose") == 3
    assert "changed since paper" in capsys.readouterr().out  # its manifest carries no hash
    assert call(app, "verify", "--store", str(store.root), "--json") == 3
    assert [one["claim"]["id"] for one in json.loads(capsys.readouterr().out)] == [f"C{i}" for i in range(1, 11)]
    store.record_paths()[0].write_text("{", encoding="utf-8")
    assert call(app, "verify", "--store", str(store.root)) == EXIT_FAILED  # a record cannot be read


def test_the_ledger_is_a_table_with_the_rules_below(tmp_path):
    store = make_store(tmp_path, five_seeds(), manifest_of(five_seeds(), "paper"))
    (table,) = [one for one in make_tables(store).tables if one.kind == "ledger"]
    assert (table.name, len(table.rows)) == ("claims-ledger", 10)
    assert table.rows[0][:3] == ("C1", "1.14M K-Operators reach perplexity 4.43", "pending")
    assert sum(note.startswith("C") and ": " in note for note in table.notes) >= 10
