"""Stale records: which they are, how tables mark them, and the command that proves them."""

from pathlib import Path

import pytest

from bench.app import app
from bench.recheck.check import stale, summary
from bench.record import SCHEMA_VERSION, Recheck, Record, read
from bench.report.explain import explain
from bench.report.runs import read_results
from bench.sources import proofs_of, standing
from tests.command_line import call
from tests.rechecking import COMMIT, H200, LOSSES, OLD, OTHER_KINDS, fitted, machine, old_record, proved
from tests.records import FINGERPRINT, make_environment, make_record
from tests.stores import cells, make_store, table_of


def compared(record: Record, **changes) -> Recheck:
    fields = {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "fingerprint": FINGERPRINT,
        "first_train_nats": LOSSES,
        "equal": True,
        "environment": make_environment(),
        "kind": "sources compared",
        "commit": COMMIT,
        "seed": 42,
    }
    return Recheck.model_validate(fields | changes)


def test_a_record_compared_elsewhere_is_repeated_where_that_is_possible():
    here, elsewhere, fresh = old_record(42), old_record(69, H200), make_record(seed=420)
    proofs = proofs_of([compared(here), compared(elsewhere)])
    assert stale([here, elsewhere, fresh], proofs, machine()) == [here]
    assert stale([here, elsewhere, fresh], {}, machine()) == [here, elsewhere]
    assert stale([elsewhere], proofs, machine(**H200)) == [elsewhere]


@pytest.mark.parametrize("environment", OTHER_KINDS)
@pytest.mark.parametrize("make", [old_record, fitted])
def test_a_record_that_only_a_comparison_can_prove_here_is_compared_once(make, environment):
    record = make(environment=environment)
    assert stale([record], proofs_of([compared(record)]), machine()) == []


def test_a_repetition_counts_for_more_than_a_comparison(tmp_path):
    record = old_record()
    both = [compared(record), compared(record, kind="repeated", commit=None, seed=None)]
    for order in (both, both[::-1]):
        assert standing(record, proofs_of(order)) == "repeated"
    store = make_store(tmp_path, [record])
    assert len({store.write_recheck(one) for one in both}) == 2  # neither replaces the other
    assert read_results(store).experiments[0].compared == frozenset()


def test_a_proof_from_before_comparisons_is_a_repetition():
    path = Path(__file__).parents[2] / "golden" / "recheck_before_kinds.json"  # as it was committed then
    assert b'"kind"' not in path.read_bytes()
    assert read(path, Recheck).kind == "repeated"


def test_tables_mark_a_comparison_with_a_double_dagger_only(tmp_path):
    records = [old_record(42), old_record(69), make_record(label="other", seed=42)]
    store = make_store(tmp_path, records)
    store.write_recheck(compared(records[0]))
    table = table_of(store)
    assert (cells(table)["n"], cells(table, 1)["n"]) == ("2 †‡", "1")
    store.write_recheck(compared(records[1]))
    table = table_of(store)
    assert cells(table)["n"] == "2 ‡"
    (note,) = [note for note in table.notes if note.startswith("‡")]
    assert "compared on another machine" in note
    assert "does not prove the compiled step" in note
    assert "compared" in explain(store, "laptop", "k_operators")
    assert not any(note.startswith("†") for note in table.notes)


def test_the_bulk_command_proves_what_it_can_and_lists_what_is_left(sources_here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    edited = {"commit": "a1b2c3d", "dirty": True, "fingerprint": OLD}
    left = old_record(420, H200, sources=edited)
    records = [old_record(42), old_record(69, H200), make_record(seed=2137)]
    store = make_store(tmp_path, [*records, left])
    assert call(app, "recheck", "--stale", "--store", tmp_path) == 3
    output = capsys.readouterr().out
    assert "3 stale: 1 proved by repeating them, 1 by comparing sources, 0 not confirmed, 1 left" in output
    assert f"{left.file_name}: this machine cannot repeat it" in output
    assert output.startswith("to repeat here: 1 of 3; to prove by comparing sources: 2\n1/3 ")
    assert read_results(store).experiments[0].stale == {left.run_id}

    sources_here.requests.clear()
    (tmp_path / "runs" / left.file_name).unlink()
    assert call(app, "recheck", "--stale", "--store", tmp_path) == 0
    assert (capsys.readouterr().out, sources_here.requests) == ("no record is stale\n", [])


@pytest.mark.parametrize("how", ["one", "all"])
def test_a_record_that_is_not_confirmed_ends_with_1_and_no_proof(sources_here, tmp_path, monkeypatch, capsys, how):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    sources_here.present["first_train_nats"] = [4.3] * 20
    record = old_record()
    make_store(tmp_path, [record])
    path = tmp_path / "runs" / record.file_name
    assert call(app, "recheck", *([path] if how == "one" else ["--stale", "--store", tmp_path])) == 1
    assert "these sources do not confirm the record" in capsys.readouterr().out
    assert not (tmp_path / "rechecks").exists()


def test_a_record_of_the_present_sources_that_only_another_machine_can_repeat_needs_no_proof(
    sources_here, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("bench.recheck.check.this_machine", lambda *_: machine())
    store = make_store(tmp_path, [make_record(fingerprint=FINGERPRINT, environment=make_environment(**H200))])
    assert call(app, "recheck", store.record_paths()[0]) == 0
    assert "the present sources made it" in capsys.readouterr().out
    assert sources_here.requests == []


@pytest.mark.parametrize("arguments", [[], ["x.json", "--stale"]])
def test_either_one_record_or_all_of_them(arguments, capsys):
    assert call(app, "recheck", *arguments) == 2
    assert "name one RECORD, or give --stale" in capsys.readouterr().err


def test_a_summary_counts_records_and_groups_those_left_by_reason(sources_here):
    unknown = {"commit": None, "dirty": None, "fingerprint": OLD}
    records = [old_record(seed, H200, sources=unknown) for seed in (1, 2)]
    shown = summary(proved([old_record(), *records])).splitlines()
    assert len(shown) == 2
    assert all(record.file_name in shown[1] for record in records)
