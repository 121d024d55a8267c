"""A rerun compares every number that both records have, and none that the older record lacks."""

import pytest

from bench import environment
from bench.app import app
from bench.record import Environment, Measurement, Permuted, Record
from bench.repeat import record_differences
from bench.run import execute
from bench.store import Store
from tests.command_line import call
from tests.conftest import CPU, SELDOM
from tests.records import make_environment, make_record


def with_result(record: Record, **changes) -> Record:
    assert record.result is not None
    return record.model_copy(update={"result": record.result.model_copy(update=changes)})


def permuted(nats: float) -> Permuted:
    return Permuted(step=500, nats_per_token=1.5, nats_per_token_permuted=nats, n_tokens=55_744)


def test_a_number_missing_in_an_older_record_is_no_difference():
    old = make_record()
    assert record_differences(old, with_result(old, permuted=permuted(1.6))) == []
    assert record_differences(with_result(old, permuted=permuted(1.6)), old) == []


def test_a_number_that_differs_is_listed():
    old = with_result(make_record(), permuted=permuted(1.6))
    assert record_differences(old, old) == []
    assert record_differences(old, with_result(old, permuted=permuted(1.7))) == ["a number of another protocol differs"]
    assert old.result is not None
    strided = old.result.strided.model_copy(update={"final": Measurement(step=500, nats_per_token=1.4, n_tokens=9)})
    assert record_differences(old, with_result(old, strided=strided)) == ["a number of another protocol differs"]
    windows = with_result(old, window_nats={500: [1.5]})
    assert record_differences(windows, with_result(old, window_nats={})) == ["a number of another protocol differs"]
    bits = with_result(old, parameters_sha256="1" * 64)
    assert record_differences(old, bits) == ["the final parameters differ in their bits"]


MOVING = {
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F",
}


@pytest.mark.met("U17")
def test_what_can_move_a_number_is_recorded_without_a_path(monkeypatch):
    for name in environment.settings():
        monkeypatch.delenv(name)
    assert environment.describe_machine(CPU).settings == {}
    for name, value in {**MOVING, "TORCH_HOME": "/home/somebody", "HF_TOKEN": "secret"}.items():
        monkeypatch.setenv(name, value)
    assert environment.describe_machine(CPU).settings == MOVING


@pytest.mark.met("U17")
def test_two_processors_of_one_name_are_told_apart(tmp_path, monkeypatch):
    def machine(family: int, model: int) -> Environment:
        path = tmp_path / str(family)
        facts = ("vendor_id\t: AuthenticAMD", f"cpu family\t: {family}", f"model\t: {model}", "model name\t: AMD EPYC")
        path.write_text("\n".join((*facts, "", "vendor_id\t: of the second core")))
        monkeypatch.setattr(environment, "CPU_FACTS", path)
        return environment.describe_machine(CPU)

    older, newer = machine(23, 49), machine(26, 2)
    assert older.device_name == newer.device_name == "AMD EPYC"
    assert older.processor == "vendor_id AuthenticAMD, cpu family 23, model 49"
    assert older.changes(newer) == [f"processor: {older.processor} then, {newer.processor} now"]


@pytest.mark.met("U17")
def test_changes_are_named_by_variable_and_what_an_older_record_lacks_is_not_known_to_differ():
    older, plain = (Environment.model_validate(make_environment(**facts)) for facts in ({}, {"settings": {}}))
    later = Environment.model_validate(make_environment(settings=MOVING, processor="AMD", n_threads=2))
    assert older.changes(plain) == plain.changes(older) == []
    assert plain.changes(later) == [
        "n_threads: 1 then, 2 now",
        *(f"{name}: not set then, {value} now" for name, value in sorted(MOVING.items())),
    ]
    assert later.changes(plain)[-1] == "OPENBLAS_CORETYPE: Haswell then, not set now"
    assert "MKL_CBWR: not recorded then, COMPATIBLE now" in older.changes(later)


@pytest.mark.met("U17")
def test_rerun_names_the_setting_that_moves_bits(tmp_path, capsys, tiny_run, monkeypatch, on_little_text):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    store = Store(tmp_path)
    execute(tiny_run(n_steps=2), store, SELDOM)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert call(app, "rerun", store.record_paths()[0]) == 0
    assert "note: MKL_CBWR: not set then, COMPATIBLE now" in capsys.readouterr().out
