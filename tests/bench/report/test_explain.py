"""`--explain` says which runs stand behind a row, what sets its config apart, and how to remake it."""

import pytest

from bench.app import app
from bench.dotted import config_differences
from bench.errors import UserError
from bench.record import Record
from bench.report.explain import explain
from tests.records import make_manifest, make_record, manifest_of
from tests.stores import five_seeds, make_store


def test_explain_lists_the_runs_behind_a_cell(tmp_path):
    records = five_seeds()
    records[1] = make_record(seed=69, status="diverged")
    store = make_store(tmp_path, records[:4], manifest_of(records))
    text = explain(store, "laptop", "k_operators")
    line = next(line for line in text.splitlines() if line.startswith(records[3].run_id))
    assert line.split() == [records[3].run_id, "666", "done", "4.470", "250", "4.470", "a1b2c3d", "current"]
    assert "diverged at 120" in text
    assert any(line.split() == ["2137", "missing"] for line in text.splitlines())
    assert str(store.root / "runs" / records[0].file_name) in text


def test_explain_says_what_there_is_where_the_cell_is_not(tmp_path):
    store = make_store(tmp_path, five_seeds())
    with pytest.raises(UserError, match="there are: laptop"):
        explain(store, "lapdog", "k_operators")
    with pytest.raises(UserError, match="there are: k_operators"):
        explain(store, "laptop", "k_operator")


def configured(label: str, **model) -> Record:
    plain = make_record(label)
    return plain.model_copy(update={"config": {**plain.config, "model": {"vocab_size": 65, **model}}})


def test_configs_are_compared_by_dotted_key_and_a_lacking_field_is_told():
    here = {"context": 256, "model": {"rank": 32, "alpha_cap": 0.8}, "training": {"betas": [0.8, 0.999]}}
    there = {"context": 256, "model": {"rank": 8}, "training": None}
    assert config_differences(here, there) == [
        ("model.alpha_cap", "0.8", "(absent)"),
        ("model.rank", "32", "8"),
        ("training", "(absent)", "null"),
        ("training.betas", "[0.8, 0.999]", "(absent)"),
    ]


@pytest.mark.parametrize(
    ("label", "reference", "neighbour"),
    [("c", "a", "a"), ("c", None, "b"), ("a", "a", "b"), ("a", None, "b"), ("b", "b", "a")],
)
def test_the_neighbour_is_the_reference_else_the_arm_before_else_the_one_after(tmp_path, label, reference, neighbour):
    ranks = {"a": 8, "b": 16, "c": 64}
    records = [configured(one, rank=rank) for one, rank in ranks.items()]
    text = explain(make_store(tmp_path, records, manifest_of(records, reference=reference)), "laptop", label)
    lines = [line.split() for line in text.splitlines()]
    assert ["field", label, neighbour] in lines
    assert ["model.rank", str(ranks[label]), str(ranks[neighbour])] in lines
    assert not any(line[:1] == ["model.vocab_size"] for line in lines)  # equal, so not shown


def test_explain_ends_with_the_commands_that_remake_the_cell(tmp_path):
    record = make_record()
    store = make_store(tmp_path / "a store", [record])
    text = explain(store, "laptop", "k_operators")
    assert f" -m jobs launch --experiment laptop -k k_operators --store '{store.root}'" in text
    assert f" -m bench rerun '{store.root / 'runs' / record.file_name}'" in text


def test_an_arm_that_has_not_run_is_explained_without_a_config(tmp_path):
    record = make_record()
    manifest = make_manifest({"k_operators": {"42": record.run_id}, "later": {"42": "0" * 12}})
    text = explain(make_store(tmp_path, [record], manifest), "laptop", "later")
    assert "later has no record, so its config cannot be compared with k_operators's." in text
    assert "0 of 1 runs done (missing: seed 42)." in text
    assert " -m jobs launch --experiment laptop -k later" in text


def test_the_command_explains_a_row_of_a_table(tmp_path, capsys):
    store = make_store(tmp_path, five_seeds())
    with pytest.raises(SystemExit) as stop:
        app(["table", "--store", str(store.root), "--explain", "laptop/k_operators"])
    assert (stop.value.code, capsys.readouterr().out.strip()) == (0, explain(store, "laptop", "k_operators").strip())
