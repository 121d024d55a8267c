"""A record is read complete and unaltered, or refused by name; of several writers exactly one writes it."""

import functools
import hashlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import record
from bench.app import app as bench_app
from bench.errors import AlreadyDone, RecordError
from bench.files import write_atomically, write_once
from bench.record import Manifest, Record, to_bytes
from bench.store import Store
from jobs.app import app as jobs_app
from tests.command_line import call
from tests.records import make_manifest, make_record
from tests.stores import make_store

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for the examples of a property."""
    return tmp_path_factory.mktemp("records")


def seal(body: bytes) -> bytes:
    """JSON with its sha256, as if it was written by this suite."""
    body = body.rstrip().removesuffix(b"}")
    return body + b', "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def signed(plain: dict[str, Any], **changes: Any) -> bytes:
    """The bytes of a record with changed content and a new seal."""
    return seal(json.dumps({**plain, **changes}).encode())


def plain_record(**changes: Any) -> dict[str, Any]:
    """A valid record as JSON values."""
    plain: dict[str, Any] = json.loads(to_bytes(make_record(**changes)))
    return {key: value for key, value in plain.items() if key != "sha256"}


def refusal(path: Path, content: bytes) -> str:
    """The message of the RecordError for a file of these bytes: one line that names the file."""
    path.write_bytes(content)
    with pytest.raises(RecordError) as error:
        record.read(path, Record)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert error.value.exit_code == 1
    return message


@settings(max_examples=50, deadline=None)
@given(perplexity=st.floats(1.0, 1e6), seed=st.integers(0, 2**31 - 1), model=st.dictionaries(st.text(), JSON))
def test_a_written_record_is_read_unchanged(folder: Path, perplexity: float, seed: int, model: dict[str, Any]) -> None:
    config = {**make_record().config, "model": model}
    written, path = make_record(seed=seed, perplexity=perplexity, config=config), folder / "record.json"
    path.write_bytes(to_bytes(written))
    assert record.read(path, Record) == written


def test_records_and_a_manifest_are_read_unchanged_from_a_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = [make_record(real_size=True), make_record(seed=69, status="failed"), make_record("bigram", None)]
    for one in records:
        store.write_record(one)
    manifest = make_manifest({"k_operators": {"42": records[0].run_id}})
    store.write_manifest(manifest)
    read, errors = store.records()
    assert ({one.run_id: one for one in read}, errors) == ({one.run_id: one for one in records}, [])
    assert store.manifests() == ([manifest], [])
    assert store.statuses() == {one.run_id: one.status for one in records}


def test_a_record_has_the_same_bytes_each_time_and_only_finite_numbers() -> None:
    content = make_record(real_size=True)
    assert to_bytes(content) == to_bytes(content)
    json.loads(to_bytes(content), parse_constant=lambda name: pytest.fail(name))
    with pytest.raises(ValueError, match="finite"):
        make_record(config={}, cost={**make_record().cost.model_dump(), "train_seconds": float("nan")})


def test_an_empty_a_foreign_and_a_sealed_file_without_a_record_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    texts = (b"", b"\0\0", b"\xff\xfe", b"<html>404</html>", b"[1, 2]", b"3", b"{}", b'"sha256"', b"[" * 100_000)
    sealed = ("[1]}", "3}", "{}", "{", "", "[" * 100_000, '{"schema_version": 1}', '{"a": "\\ud800"}')
    for content in (*texts, *(seal(body.encode()) for body in sealed)):
        refusal(path, content)
    assert "cut" in refusal(path, to_bytes(make_record())[:100])
    refusal(path, to_bytes(make_record())[:-20])


def test_a_hand_edit_is_refused_even_where_the_result_is_a_valid_record(tmp_path: Path) -> None:
    text = to_bytes(make_record()).decode()
    assert '"seed": 42' in text
    edited = text.replace('"seed": 42', '"seed": 43').encode()
    assert "not what was written" in refusal(tmp_path / "record.json", edited)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused_in_any_field(number: str, tmp_path: Path) -> None:
    plain = plain_record()
    for place in ({"config": {"rate": "HERE"}}, {"cost": {**plain["cost"], "train_seconds": "HERE"}}, {"seed": "HERE"}):
        text = json.dumps({**plain, **place})
        assert '"HERE"' in text
        refusal(tmp_path / "record.json", seal(text.replace('"HERE"', number).encode()))


def test_an_unknown_field_a_wrong_type_or_another_schema_version_is_refused_by_name(tmp_path: Path) -> None:
    path, plain = tmp_path / "record.json", plain_record()
    path.write_bytes(signed(plain))
    assert record.read(path, Record) == make_record()  # signing changes nothing
    assert "surprise" in refusal(path, signed(plain, surprise=1))
    assert "cost.surprise" in refusal(path, signed(plain, cost={**plain["cost"], "surprise": 1}))
    assert "status" in refusal(path, signed(plain, status="finished"))
    assert "seed" in refusal(path, signed(plain, seed="many"))
    assert "schema version 2" in refusal(path, signed(plain, schema_version=2))
    without_status = {key: value for key, value in plain.items() if key != "status"}
    assert "status" in refusal(path, signed(without_status))


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(RecordError, match=path.name):
            record.read(path, Record)


def test_a_record_is_no_manifest_and_a_manifest_no_record(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(to_bytes(make_record()))
    with pytest.raises(RecordError):
        record.read(path, Manifest)
    refusal(path, to_bytes(make_manifest({"a": {"42": "0" * 12}})))


def read_or_refusal(path: Path, content: bytes) -> Record | RecordError:
    """The record or the RecordError of reading these bytes; other exceptions are raised."""
    path.write_bytes(content)
    try:
        return record.read(path, Record)
    except RecordError as error:
        return error


@pytest.mark.fault("F6")
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_cut_or_changed_byte_gives_the_record_or_a_record_error(folder: Path, data: st.DataObject) -> None:
    original = make_record()
    content = to_bytes(original)
    at = data.draw(st.integers(0, len(content) - 1), "at")
    new = data.draw(st.binary(max_size=3), "put there")
    end = data.draw(st.sampled_from([at, at + 1, len(content)]), "up to")
    path = folder / "changed.json"
    found = read_or_refusal(path, content[:at] + new + content[end:])
    assert found == original or str(path) in str(found)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_json_in_any_field_gives_a_record_or_a_record_error(folder: Path, data: st.DataObject) -> None:
    plain = plain_record()
    key = data.draw(st.sampled_from([*plain, "surprise"]), "key")
    value = data.draw(JSON, "value")
    path = folder / "field.json"
    found = read_or_refusal(path, signed(plain, **{key: value}))
    assert isinstance(found, Record) or str(path) in str(found)


@settings(max_examples=100, deadline=None)
@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_other_file_gives_a_record_error(folder: Path, content: bytes) -> None:
    refusal(folder / "foreign.json", content)


@pytest.mark.fault("F6")
def test_one_bad_record_does_not_hide_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good, bad = make_record(), make_record(seed=69)
    store.write_record(good)
    path = store.write_record(bad)
    path.write_bytes(path.read_bytes()[:-5])
    (tmp_path / "runs" / ".left-over.tmp").write_bytes(b"a part")  # a temporary file of a killed writer is not a record
    read, errors = store.records()
    assert read == [good]
    assert len(errors) == 1
    assert path.name in str(errors[0])
    assert store.statuses() == {good.run_id: "done"}
    with pytest.raises(RecordError, match=path.name):  # before the run is trained
        store.check_free(bad.label, bad.seed, bad.run_id)


def race(write: Callable[[Path, bytes], None], path: Path, n_writers: int = 8) -> list[bool]:
    """Start writers of different contents on one path at once; return which of them succeeded."""
    ready = threading.Barrier(n_writers)

    def attempt(number: int) -> bool:
        ready.wait()
        try:
            write(path, f"writer {number}".encode() * 1000)
        except AlreadyDone:
            return False
        return True

    with ThreadPoolExecutor(n_writers) as pool:
        return list(pool.map(attempt, range(n_writers)))


@pytest.mark.fault("F8")
def test_of_eight_writers_exactly_one_writes_and_no_other_file_stays(tmp_path: Path) -> None:
    for turn in range(20):
        path = tmp_path / "runs" / f"{turn}.json"
        succeeded = race(write_once, path)
        assert succeeded.count(True) == 1
        assert path.read_bytes() == f"writer {succeeded.index(True)}".encode() * 1000
    assert len(list((tmp_path / "runs").iterdir())) == 20


def test_writers_that_only_check_first_are_more_than_one(tmp_path: Path) -> None:
    def check_then_write(path: Path, content: bytes) -> None:
        if path.exists():
            raise AlreadyDone
        write_atomically(path, content)

    assert any(race(check_then_write, tmp_path / f"{turn}.json").count(True) > 1 for turn in range(50))


def test_a_record_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write_record(make_record())
    before = path.read_bytes()
    with pytest.raises(AlreadyDone, match=path.name):
        store.write_record(make_record(perplexity=1.5))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_checking_that_a_store_can_be_written_leaves_no_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.check_writable()
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


@pytest.mark.met("U10")
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("config.context", "many"),
        ("config.training", [1]),
        ("config.training.n_steps", True),
        ("config.model", None),
        ("diagnostics.by_step.250.eta", "high"),
        ("diagnostics.by_step.250.gamma_quantiles", [[]]),
        ("cost.train_seconds", "3"),
        ("environment.n_threads", 1.0),
    ],
)
def test_every_command_gets_a_record_of_the_right_types_or_an_error_that_names_the_file(
    place, value, tmp_path, capsys
) -> None:
    records = [make_record(seed=seed, real_size=True) for seed in (42, 69, 420)]
    store = make_store(tmp_path, records)
    path, plain = store.record_paths()[0], json.loads(store.record_paths()[0].read_bytes())
    del plain["sha256"]
    *parents, key = place.split(".")
    functools.reduce(dict.__getitem__, parents, plain)[key] = value
    path.write_bytes(signed(plain))
    for app, command in ((bench_app, "table"), (bench_app, "verify"), (jobs_app, "status")):
        assert call(app, command, "--store", store.root) == 1
        printed = capsys.readouterr()
        assert printed.err.replace(": ", ".").startswith(f"error.{path}.{place}")
        assert printed.err.count("\n") == 1
        assert command != "table" or "2 of 3" in printed.out
