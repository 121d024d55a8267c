"""An old record is proved by equal bits on a machine of its kind, else by comparing sources, else it is left."""

import json

import pytest

from bench.portable import SETTINGS
from bench.record import Record
from tests.rechecking import COMMIT, H200, LOSSES, OLD, OTHER_KINDS, fitted, machine, old_record, proved
from tests.records import FINGERPRINT, make_environment


def test_equal_losses_on_a_machine_of_its_kind_prove_a_record(sources_here):
    record = old_record(environment={"n_threads": 3})
    (outcome,) = proved([record])
    assert (outcome.state, sources_here.called) == ("proved", ["present"])
    assert outcome.proof.kind == "repeated"
    assert (outcome.proof.run_id, outcome.proof.fingerprint) == (record.run_id, FINGERPRINT)
    assert outcome.proof.environment.n_threads == 3
    question = sources_here.requests[0][1]
    assert (question["device"], question["n_threads"], question["n_steps"]) == ("cpu", 3, 20)
    assert question["run"]["config"] == record.config


def test_a_record_that_differs_in_one_bit_there_is_not_confirmed(sources_here):
    sources_here.present["first_train_nats"] = [4.2] * 19 + [4.200000000000001]
    (outcome,) = proved([old_record()])
    assert (outcome.state, outcome.proof) == ("not confirmed", None)
    assert "differ by up to 8.88e-16 nats; these sources do not confirm the record" in outcome.why


def test_a_gpu_repeats_a_record_of_the_same_model_of_gpu(sources_here):
    (outcome,) = proved([old_record(environment=H200, mode="fast")], machine(**H200))
    assert (outcome.state, outcome.proof.kind) == ("proved", "repeated")
    assert sources_here.requests[0][1]["device"] == "cuda"


def portable_record(**changes) -> Record:
    diagnostics = {"first_train_nats": [9.0] * 20, "by_step": {}, "first_portable_train_nats": LOSSES[:7]}
    return old_record(diagnostics=diagnostics, **changes)


@pytest.mark.parametrize("environment", [*OTHER_KINDS, H200])
def test_a_record_of_another_kind_of_machine_is_repeated_under_portable_settings(sources_here, environment):
    sources_here.present["first_train_nats"] = LOSSES[:7]
    (outcome,) = proved([portable_record(environment=environment)])
    assert (outcome.state, outcome.proof.kind, {*sources_here.called}) == ("proved", "portable", {"present"})
    question = sources_here.requests[-1][1]
    assert (question["device"], question["n_threads"], question["n_steps"]) == ("cpu", 1, 7)
    assert sources_here.settings[-1] == SETTINGS
    sources_here.present["first_train_nats"] = [*LOSSES[:6], 1.0]
    (outcome,) = proved([portable_record(environment=environment)])
    assert (outcome.state, outcome.proof) == ("not confirmed", None)
    assert "not equal under portable settings" in outcome.why


def test_a_record_of_this_kind_of_machine_is_repeated_as_it_was(sources_here):
    sources_here.present["first_train_nats"] = [9.0] * 20
    (outcome,) = proved([portable_record()])
    assert (outcome.proof.kind, sources_here.settings) == ("repeated", [None])


@pytest.mark.parametrize("cut", [1, 19])
def test_a_record_that_diverged_early_is_repeated_up_to_that_step(sources_here, cut):
    record = old_record(status="diverged", diagnostics={"first_train_nats": LOSSES[:cut], "by_step": {}})
    sources_here.present["first_train_nats"] = LOSSES[:cut]
    (outcome,) = proved([record])
    assert outcome.state == "proved"
    assert sources_here.requests[0][1]["n_steps"] == cut


def attempt(first_step: int, last_step: int, **environment) -> dict:
    return {
        "started_at": "2026-01-01T00:00:00+00:00",
        "first_step": first_step,
        "last_step": last_step,
        "train_seconds": 1.0,
        "environment": make_environment(**environment),
    }


def test_the_first_steps_are_repeated_in_the_environment_of_the_first_attempt(sources_here):
    attempts = [attempt(0, 347, n_threads=1), attempt(347, 500, n_threads=2, device_name="Another CPU")]
    (outcome,) = proved([old_record(environment={"n_threads": 2}, attempts=attempts)])
    assert (outcome.state, sources_here.requests[0][1]["n_threads"]) == ("proved", 1)


def test_first_steps_of_two_environments_cannot_be_repeated(sources_here):
    attempts = [attempt(0, 7, n_threads=1), attempt(7, 500, n_threads=2)]
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = [4.1] * 20
    (outcome,) = proved([old_record(attempts=attempts)])
    assert (outcome.state, outcome.proof.kind) == ("proved", "sources compared")


@pytest.mark.parametrize("environment", OTHER_KINDS)
def test_another_kind_of_machine_compares_the_sources_of_a_record(sources_here, environment):
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = [4.1] * 20
    (outcome,) = proved([old_record(environment=environment)])
    assert (outcome.state, outcome.proof.kind) == ("proved", "sources compared")
    assert (outcome.proof.commit, outcome.proof.seed) == (COMMIT, 42)
    assert outcome.proof.first_train_nats == [4.1] * 20
    assert sources_here.called[-2:] == ["committed", "present"]
    assert [question["device"] for _, question in sources_here.requests] == ["cpu"] * len(sources_here.requests)


def test_another_processor_with_the_same_instructions_proves_a_record_by_equal_bits(sources_here):
    (outcome,) = proved([old_record(environment={"device_name": "Another CPU"})])
    assert (outcome.proof.kind, sources_here.called) == ("repeated", ["present"])


def test_another_model_of_gpu_compares_the_sources_on_the_cpu(sources_here):
    (outcome,) = proved([old_record(environment=H200)], machine(**(H200 | {"device_name": "NVIDIA H100"})))
    assert outcome.proof.kind == "sources compared"
    assert outcome.proof.environment.device == "cpu"
    assert {(question["device"], question["n_threads"]) for _, question in sources_here.requests} == {("cpu", 1)}


def test_one_seed_of_a_config_serves_all_its_seeds(sources_here):
    records = [old_record(seed, H200) for seed in (42, 69, 420)] + [old_record(42, H200, label="wide", context=512)]
    outcomes = proved(records)
    assert sources_here.called == ["committed", "present"] * 2
    assert {outcome.proof.run_id for outcome in outcomes} == {record.run_id for record in records}
    assert {outcome.proof.seed for outcome in outcomes} == {42}


OTHERS = [{"mode": "fast"}, {"sources": {"commit": "a1b2c3d", "dirty": False, "fingerprint": "9" * 64}}]


@pytest.mark.parametrize("changes", OTHERS)
def test_a_comparison_does_not_serve_another_mode_or_other_sources(sources_here, changes):
    proved([old_record(42, H200), old_record(69, H200, **changes)])
    assert sources_here.called.count("committed") == 2


def test_sources_that_give_other_losses_confirm_no_record(sources_here):
    sources_here.present["first_train_nats"] = [4.2] * 19 + [4.3]
    outcomes = proved([old_record(seed, H200) for seed in (42, 69)])
    assert [outcome.state for outcome in outcomes] == ["not confirmed"] * 2
    assert "the sources of its commit a1b2c3d00000 and the present ones differ" in outcomes[0].why


@pytest.mark.parametrize(
    ("made_by", "why"),
    [
        ({"commit": None, "dirty": None}, "names no commit"),
        ({"commit": "a1b2c3d", "dirty": True}, "made from edited files of commit a1b2c3d"),
        ({"commit": "1234567", "dirty": False}, "commit 1234567 is not in this repository"),
    ],
)
def test_a_record_of_sources_that_are_not_available_is_left_with_the_reason(sources_here, made_by, why):
    (outcome,) = proved([old_record(42, H200, sources={**made_by, "fingerprint": OLD})])
    assert (outcome.state, sources_here.requests) == ("left", [])
    assert why in outcome.why
    assert "NVIDIA H200" in outcome.why


def test_a_commit_with_other_sources_than_the_record_proves_nothing(sources_here):
    sources_here.committed["fingerprint"] = "d" * 64
    (outcome,) = proved([old_record(42, H200)])
    assert (outcome.state, sources_here.called) == ("left", ["committed"])
    assert "other sources made it than those of its commit" in outcome.why


def test_no_loss_on_either_side_proves_nothing(sources_here):
    sources_here.present["first_train_nats"] = sources_here.committed["first_train_nats"] = []
    (outcome,) = proved([old_record(42, H200)])
    assert outcome.state == "left"


@pytest.mark.parametrize("environment", [{}, H200])
def test_sources_edited_meanwhile_prove_nothing(sources_here, environment):
    sources_here.present["fingerprint"] = "9" * 64
    (outcome,) = proved([old_record(42, environment)])
    assert (outcome.state, outcome.proof) == ("left", None)
    assert "edited meanwhile" in outcome.why


def result_of(record: Record, **changes):
    assert record.result is not None
    return {"result": {**json.loads(record.result.model_dump_json()), **changes}}


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_fitted_model_is_fitted_again_and_compared_completely(sources_here, mode):
    record = fitted(mode=mode)
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record)}
    (outcome,) = proved([record])
    assert (outcome.state, outcome.proof.kind, outcome.proof.first_train_nats) == ("proved", "repeated", [])
    assert sources_here.requests[0][1]["run"]["mode"] == "exact"
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record, parameters_sha256="1" * 64)}
    (outcome,) = proved([record])
    assert outcome.state == "not confirmed"


def test_a_number_missing_in_an_older_fit_is_no_difference(sources_here):
    record = fitted()
    sources_here.present = {"fingerprint": FINGERPRINT, **result_of(record, permuted={"step": 0}, newer=1)}
    assert proved([record])[0].state == "proved"


def test_a_fitted_model_of_another_machine_is_compared_where_its_numbers_differ(sources_here):
    record = fitted(environment={"instructions": "AVX512"})
    there = result_of(record, parameters_sha256="1" * 64)
    sources_here.present, sources_here.committed = {"fingerprint": FINGERPRINT, **there}, {"fingerprint": OLD, **there}
    (outcome,) = proved([record])
    assert (outcome.proof.kind, sources_here.called) == ("sources compared", ["present", "committed", "present"])
