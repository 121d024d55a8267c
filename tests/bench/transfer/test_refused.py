"""A file is taken only where this suite would have written it, and a proof only with the record that it proves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.app import app
from bench.record import SCHEMA_VERSION, Recheck, Record, read, to_bytes
from bench.store import Store
from bench.transfer.merge import merge
from tests.command_line import call
from tests.merging import content_of, put, record_of, run_of
from tests.records import make_environment, make_manifest


def with_config(record: Record, **changes: Any) -> dict[str, Any]:
    return {"config": {**record.config, **changes}}


def with_corpus(record: Record, **changes: Any) -> dict[str, Any]:
    return {"corpus": record.corpus.model_copy(update=changes)}


WRONG: dict[str, tuple[Callable[[Record], dict[str, Any]], str]] = {
    "another id": (lambda _: {"run_id": "0123456789ab"}, "config and seed give"),
    "another seed": (lambda _: {"seed": 43}, "config and seed give"),
    "another mode": (lambda _: {"mode": "fast"}, "config and seed give"),
    "another config": (lambda one: with_config(one, n_sampled_batches=3), "config and seed give"),
    "an unknown key": (lambda one: with_config(one, secret=1), "unknown key secret"),
    "a text for a number": (lambda one: with_config(one, n_sampled_batches="2"), "should be a valid integer"),
    "no such model": (lambda one: with_config(one, architecture="os"), "not one of this suite's"),
    "another text": (lambda one: with_corpus(one, sha256="0" * 64), "sha256 is not the pinned one"),
    "another corpus": (lambda one: with_corpus(one, name="synthetic"), "config names another"),
    "other characters": (lambda one: with_corpus(one, vocab_size=66), "66 characters"),
    "another protocol": (lambda _: {"protocol_version": 99}, "protocol 99"),
    "another schema": (lambda _: {"schema_version": 99}, "schema version 99"),
    "no result": (lambda _: {"result": None}, "against its result"),
    "a path for a label": (lambda _: {"label": "../../x"}, "label="),
    "a seed of no run": (lambda _: {"seed": -1}, "seed=-1"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_record_that_this_suite_would_not_have_written_is_refused_and_its_siblings_are_taken(what, tmp_path, store):
    edit, reason = WRONG[what]
    good, bad = record_of(run_of(seed=69)), record_of(run_of())
    given = put(tmp_path / "some", good)
    (given / "bad.json").write_bytes(to_bytes(bad.model_copy(update=edit(bad))))
    merged = merge([given], store)
    [refusal] = merged.refused
    assert reason in refusal
    assert "bad.json" in refusal
    assert list(content_of(store.root)) == [f"runs/{good.file_name}"]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "edited": (lambda content: content.replace(b'"seed": 42', b'"seed": 43'), "sha256 differs"),
    "cut in its seal": (lambda content: content[:-20], "sha256 differs"),
    "cut before it": (lambda content: content[:500], "cut"),
    "empty": (lambda _: b"", "not a record"),
    "a pickle": (lambda _: b"\x80\x04cos\nsystem\n(S'touch pickled'\ntR.", "not a record"),
    "a manifest": (lambda _: to_bytes(make_manifest({})), "protocol_version"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_whose_seal_or_form_is_wrong_is_refused_with_exit_code_1(what, tmp_path, store, capsys):
    edit, reason = BROKEN[what]
    given = put(tmp_path / "some", record_of(run_of(seed=69)))
    (given / "bad.json").write_bytes(edit(to_bytes(record_of(run_of()))))
    assert call(app, "merge", given, "--into", store.root) == 1
    printed = capsys.readouterr()
    assert "1 record taken" in printed.out
    assert reason in printed.err
    assert printed.err.startswith("refused: ")


def test_a_source_that_is_not_there_or_of_no_kind_is_a_usage_error_before_anything_is_written(tmp_path, store, capsys):
    given = put(tmp_path / "some", record_of(run_of()))
    (tmp_path / "notes.txt").write_text("x")
    for wrong in (tmp_path / "nowhere", tmp_path / "notes.txt"):
        assert call(app, "merge", given, wrong, "--into", store.root) == 2
        assert str(wrong) in capsys.readouterr().err
    assert call(app, "merge", given, "--into", store.root, "--experiment", "papre") == 2
    assert not store.root.exists()


def test_a_source_without_a_record_is_refused(tmp_path, store, capsys):
    (tmp_path / "empty").mkdir()
    assert call(app, "merge", tmp_path / "empty", "--into", store.root) == 1
    printed = capsys.readouterr()
    assert printed.out == f"nothing new for {store.root}\n"
    assert "holds no record" in printed.err
    assert not store.root.exists()


def test_a_place_that_is_taken_by_a_file_that_cannot_be_read_stays_as_it_is(tmp_path, store):
    record = record_of(run_of())
    put(store.root / "runs", record)
    broken = store.root / "runs" / record.file_name
    broken.write_text("{")
    merged = merge([put(tmp_path / "some", record)], store)
    assert not merged.new
    assert len(merged.refused) == 2  # the store's file, and the record that finds it in its place
    assert broken.read_text() == "{"


def proof_of(record: Record) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": record.run_id,
        "fingerprint": "a" * 64,
        "first_train_nats": record.diagnostics.first_train_nats,
        "equal": True,
        "environment": make_environment(),
    }


def with_proof(root: Path, record: Record, **changes: Any) -> Path:
    """A store of one record and a recheck of it."""
    put(root / "runs", record)
    Store(root).write_recheck(Recheck.model_validate(proof_of(record) | changes))
    return root


def test_a_proof_comes_with_the_record_that_it_proves(tmp_path, store):
    record = record_of(run_of())
    given = with_proof(tmp_path / "from", record)
    merged = merge([given, given], store)
    assert (merged.count_in("rechecks"), merged.refused) == (1, [])
    assert store.rechecks()[0] == Store(given).rechecks()[0]


def test_a_proof_of_another_record_of_the_run_proves_nothing_here(tmp_path, store):
    put(store.root / "runs", record_of(run_of(), 4.4))
    merged = merge([with_proof(tmp_path / "from", record_of(run_of(), 4.5))], store)
    assert [one.folder for one in merged.new] == ["replications"]
    assert any("the record that it proves is not the one in runs/" in line for line in merged.skipped)


@pytest.mark.parametrize(
    "changes",
    [
        {"first_train_nats": [9.9] * 20},
        {"equal": False},
        {"kind": "sources compared", "commit": "b" * 40},
        {"kind": "sources compared", "commit": None},
    ],
)
def test_a_recheck_that_is_no_proof_of_its_record_is_refused(changes, tmp_path, store):
    merged = merge([with_proof(tmp_path / "from", record_of(run_of()), **changes)], store)
    assert (merged.count_in("runs"), merged.count_in("rechecks")) == (1, 0)
    assert "does not prove the record" in merged.refused[0]


def test_a_proof_cannot_name_a_file_outside_its_folder(tmp_path, store):
    given = with_proof(tmp_path / "from", record_of(run_of()))
    [path] = (given / "rechecks").glob("*.json")
    path.write_bytes(to_bytes(read(path, Recheck).model_copy(update={"fingerprint": "../../x/y/z"})))
    merged = merge([given], store)
    assert "is not called after its run" in merged.refused[0]
    assert not merged.count_in("rechecks")
