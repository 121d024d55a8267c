"""Runs of one seed are set against runs of different seeds, and never mixed with them."""

import pytest

from bench.files import write_once
from bench.record import Manifest, Record, to_bytes
from bench.report.table import NOTHING
from tests.records import FINGERPRINT, make_record, manifest_of
from tests.stores import cells, grouped, kinds_of, make_store, table_of

REPLICATES = (4.41, 4.40, 4.43)


def replicates(n: int = 3) -> list[Record]:
    return [
        make_record(f"k_operators-replicate-{i}", 42, value, mode="fast", replicate=i)
        for i, value in enumerate(REPLICATES[:n])
    ]


def noise(records: list[Record]) -> Manifest:
    return grouped(records, lambda _: "k_operators", name="noise", mode="fast")


def seeds(**changes) -> list[Record]:
    values = zip((42, 69, 420), (4.40, 4.50, 4.45), strict=True)
    return [make_record("k_operators", seed, value, **{"mode": "fast", **changes}) for seed, value in values]


def test_the_spread_of_replicates_stands_beside_that_of_seeds(tmp_path):
    same, different = replicates(), seeds()
    store = make_store(tmp_path, [*same, *different], noise(same), manifest_of(different, "paper", mode="fast"))
    # sd of 4.41, 4.40, 4.43: sqrt(0.000233) = 0.0153; of 4.40, 4.50, 4.45: 0.05; (0.0153 / 0.05)^2 = 0.093
    assert cells(table_of(store, "noise", "noise")) == {
        "arm": "k_operators",
        "mode": "fast",
        "seed": "42",
        "runs": "3",
        "sweep, best, one seed": "4.413 ± 0.015",
        "sd, nats per token, one seed": "0.0035",  # of the logarithms: 0.0153 / 4.413
        "seeds": "3",
        "sweep, best, all seeds": "4.450 ± 0.050",
        "sd, nats per token, all seeds": "0.0112",  # 0.05 / 4.45
        "share of variance": "9%",
    }


@pytest.mark.parametrize("changes", [{"mode": "exact"}, {"context": 128}])
def test_seeds_of_another_mode_or_config_are_not_set_beside(tmp_path, changes):
    same, different = replicates(), seeds(**changes)
    paper = manifest_of(different, "paper", mode=different[0].mode)
    row = cells(table_of(make_store(tmp_path, [*same, *different], noise(same), paper), "noise", "noise"))
    assert (row["seeds"], row["sweep, best, all seeds"], row["share of variance"]) == (NOTHING, "not run", NOTHING)


def test_half_of_the_runs_marks_every_number(tmp_path):
    same, different = replicates(), seeds()
    manifests = noise(same), manifest_of(different, "paper", mode="fast")
    row = cells(table_of(make_store(tmp_path, [*same[:2], *different[:2]], *manifests), "noise", "noise"))
    assert row["runs"] == row["seeds"] == "2 of 3"
    assert row["sweep, best, one seed"] == "4.405 ± 0.007 (2 of 3)"
    assert row["sweep, best, all seeds"] == "4.450 ± 0.071 (2 of 3)"
    assert row["share of variance"].endswith("(2 of 3 and 2 of 3)")


def test_one_replicate_alone_makes_no_table(tmp_path):
    same = replicates()
    assert "noise" not in kinds_of(make_store(tmp_path, same[:1], noise(same)), "noise")


@pytest.mark.parametrize(
    ("device_name", "fingerprint", "n"),
    [("NVIDIA H200", FINGERPRINT, "4"), ("NVIDIA A100", FINGERPRINT, "3"), ("NVIDIA H200", "e" * 64, "3")],
)
def test_a_second_record_of_a_run_counts_as_a_run_of_its_seed_where_a_like_device_and_the_same_sources_made_it(
    tmp_path, device_name, fingerprint, n
):
    gpu = {"device": "cuda", "device_name": "NVIDIA H200"}
    same = [one.model_copy(update={"environment": one.environment.model_copy(update=gpu)}) for one in replicates()]
    second = same[0].model_copy(
        update={
            "environment": same[0].environment.model_copy(update={**gpu, "device_name": device_name}),
            "sources": same[0].sources.model_copy(update={"fingerprint": fingerprint}),
        }
    )
    store = make_store(tmp_path, same, noise(same))
    write_once(tmp_path / "replications" / "second.json", to_bytes(second))
    assert cells(table_of(store, "noise", "noise"))["runs"] == n
