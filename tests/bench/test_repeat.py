"""A rerun compares every number that both records have, and none that the older record lacks."""

from bench.record import Measurement, Permuted, Record
from bench.repeat import record_differences
from tests.records import make_record


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
