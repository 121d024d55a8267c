"""What others made and second records of a run are shown beside ours, and change no number of ours."""

import math
from pathlib import Path
from typing import Any

import pytest

from bench.record import Record, to_bytes
from bench.report.mixing import MixedRunsError
from bench.report.output import make_tables, write_tables
from bench.store import Store
from tests.records import make_environment, make_record, manifest_of
from tests.stores import cells, five_seeds, kinds_of, make_store, table_of

OURS = five_seeds()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of five runs of ours."""
    return make_store(tmp_path / "store", OURS)


def put(store: Store, folder: str, *records: Record) -> None:
    """Lay records into a folder of a store, as a merge would."""
    (store.root / folder).mkdir(exist_ok=True)
    for n, record in enumerate(records):
        (store.root / folder / f"{record.file_name.removesuffix('.json')}-{n}.json").write_bytes(to_bytes(record))


def again(record: Record, perplexity: float, **changes: Any) -> Record:
    """A second record of a run."""
    return make_record(record.label, record.seed, perplexity, run_id=record.run_id, **changes)


def other_seed(seed: int, perplexity: float, device_name: str = "Another GPU", **changes: Any) -> Record:
    """A record of our arm at a seed that nobody here ran."""
    environment = make_environment(device_name=device_name)
    return make_record("k_operators", seed, perplexity, environment=environment, **changes)


def test_a_store_without_them_has_no_table_of_them(store):
    assert not {"replications", "contributed"} & set(kinds_of(store))


def test_records_beside_ours_change_no_table_and_no_figure_of_ours(store, tmp_path):
    before = {table.name: table.markdown() for table in make_tables(store).tables}
    put(store, "replications", again(OURS[0], 9.0))
    put(store, "contributed", other_seed(7, 9.0), other_seed(8, 9.0), make_record("new arm", 42, 9.0))
    after = {table.name: table.markdown() for table in make_tables(store).tables}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"laptop-replications", "laptop-contributed"}


def test_a_replication_stands_beside_the_record_that_it_repeats(store):
    put(store, "replications", again(OURS[1], 4.6, environment=make_environment(instructions="AVX2")))
    row = cells(table_of(store, "replications"))
    assert row == {
        "arm": "k_operators",
        "mode": "exact",
        "seed": "69",
        "differs in": "nothing",  # the first record does not say its instructions
        "bits": "first steps",
        "sweep, best, first record": "4.500",
        "sweep, best, replication": "4.600",
        "difference, nats per token": f"{math.log(4.6 / 4.5):+.4f}",
    }


CIRCUMSTANCES: dict[str, tuple[dict[str, Any], str]] = {
    "device": ({"environment": make_environment(device_name="Fast GPU", instructions="AVX512")}, "Fast GPU"),
    "instructions": ({"environment": make_environment(instructions="AVX2")}, "AVX2 instructions"),
    "threads": ({"environment": make_environment(n_threads=9, instructions="AVX512")}, "9 threads"),
    "torch": ({"environment": make_environment(packages={"torch": "2.11.0"})}, "torch 2.11.0"),
    "sources": ({"fingerprint": "a" * 64}, "sources aaaaaaaa"),
    "nothing": ({}, "nothing"),
}


@pytest.mark.parametrize("what", CIRCUMSTANCES)
def test_what_differs_of_a_replications_machine_and_sources_is_named(what, tmp_path):
    changes, listed = CIRCUMSTANCES[what]
    first = make_record(environment=make_environment(instructions="AVX512"))
    store = make_store(tmp_path / "store", [first])
    put(store, "replications", again(first, 4.6, **changes))
    assert cells(table_of(store, "replications"))["differs in"] == listed


def test_bits_are_equal_only_where_every_evaluation_and_the_parameters_are(store):
    first = OURS[0]
    assert first.result is not None
    other = first.result.model_copy(update={"parameters_sha256": "1" * 64})
    put(
        store,
        "replications",
        first.model_copy(update={"label": "equal"}),
        first.model_copy(update={"label": "parameters", "result": other}),
        first.model_copy(update={"label": "curve", "curve": first.curve[:-1]}),
        again(first, 4.6, diagnostics={"first_train_nats": [4.1] * 20, "by_step": {}}),
        again(first, 4.6, status="diverged", diagnostics={"first_train_nats": [], "by_step": {}}),
    )
    rows = table_of(store, "replications").rows
    assert sorted(row[4] for row in rows) == ["differ", "differ", "equal", "first steps", "first steps"]


def test_a_replication_that_diverged_is_shown_as_such(store):
    put(store, "replications", again(OURS[0], 4.6, status="diverged"))
    row = cells(table_of(store, "replications"))
    assert (row["sweep, best, replication"], row["difference, nats per token"]) == ("diverged", "–")


def test_contributed_runs_have_a_row_an_arm_mode_and_device_and_say_so(store):
    put(
        store,
        "contributed",
        other_seed(7, 4.0),
        other_seed(8, 5.0),
        other_seed(9, 4.2, "A third GPU"),
        other_seed(10, 4.3, mode="fast"),
        other_seed(11, 4.3, status="diverged"),
    )
    table = table_of(store, "contributed")
    assert [row[:6] for row in table.rows] == [
        ("k_operators", "exact", "A third GPU", "contributed", "1", "4.200"),
        ("k_operators", "exact", "Another GPU", "contributed", "2, 1 diverged", "4.500 ± 0.707"),
        ("k_operators", "fast", "Another GPU", "contributed", "1", "4.300"),
    ]
    assert "in no mean with ours" in table.notes[0]


def test_a_contributed_run_that_a_manifest_lists_needs_no_run_of_ours(tmp_path):
    theirs = make_record(seed=42)
    store = make_store(tmp_path / "store", [], manifest_of([theirs]))
    put(store, "contributed", theirs)
    put(store, "replications", again(theirs, 4.6))
    assert cells(table_of(store, "contributed"))["n"] == "1"
    assert cells(table_of(store, "replications"))["sweep, best, first record"] == "4.500"


def test_a_seed_that_lies_twice_in_contributed_is_refused(store):
    put(store, "contributed", other_seed(7, 4.0), other_seed(7, 4.1))
    with pytest.raises(MixedRunsError, match="2 records of k_operators at seed 7"):
        make_tables(store)


def test_what_belongs_to_no_experiment_is_counted_and_what_cannot_be_read_is_named(store):
    put(store, "contributed", other_seed(7, 4.0, context=64))
    put(store, "replications", make_record("stranger", 2, 4.0), make_record("stranger", 3, 4.0))
    (store.root / "replications" / "cut.json").write_text("{")
    made = make_tables(store)
    assert "1 record in contributed/ belongs to no experiment of this store: in no table." in made.notes
    assert "2 records in replications/ belong to no experiment of this store: in no table." in made.notes
    assert ["cut.json" in str(error) for error in made.errors] == [True]


def test_their_tables_go_when_they_do(tmp_path):
    store = make_store(tmp_path / "store", five_seeds(curve=[]))  # without a curve there is no figure to draw
    put(store, "replications", again(OURS[0], 4.6))
    write_tables(store, make_tables(store))
    assert (store.root / "tables" / "laptop-replications.md").exists()
    for path in (store.root / "replications").iterdir():
        path.unlink()
    write_tables(store, make_tables(store))
    assert not list((store.root / "tables").glob("*replications*"))
