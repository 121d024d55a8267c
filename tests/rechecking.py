"""Records made by other sources, and machines that can or cannot repeat them, for tests of recheck."""

from bench.recheck.check import Outcome, RecheckMachine, prove
from bench.record import Environment, Record
from tests.records import make_environment, make_record

OLD, COMMIT = "e" * 64, "a1b2c3d" + "0" * 33
LOSSES = [4.2] * 20
H200 = {"device": "cuda", "device_name": "NVIDIA H200", "n_threads": 16, "instructions": "AVX512", "cuda": "13.0"}
OTHER_KINDS = [
    {"instructions": "AVX512"},
    {"platform": "Darwin-arm64"},
    {"packages": {"torch": "2.11.0"}},
    {"device_name": "Another CPU"},
    H200,
]


def machine(**changes) -> RecheckMachine:
    environment = make_environment(**changes)
    known = {"cpu": make_environment(), environment["device"]: environment}
    return RecheckMachine(
        devices={kind: kind for kind in known},
        environments={kind: Environment.model_validate(one) for kind, one in known.items()},
        data_dir=None,
    )


def old_record(seed: int | None = 42, environment: dict | None = None, **changes) -> Record:
    made_on = make_environment(**(environment or {}))
    return make_record(seed=seed, fingerprint=OLD, environment=made_on, **changes)


def proved(records, on: RecheckMachine | None = None):
    outcomes: list[Outcome] = []
    prove(records, on or machine(), None, outcomes.append)
    return outcomes


def fitted(**changes) -> Record:
    return old_record(None, architecture="ngram", **changes)
