"""`bench run --config`: a run of a config in a file, or of a record's config, under a name of the user's."""

import json
from pathlib import Path

import pytest

from bench.app import app
from bench.config import read_config, to_json
from bench.record import Record, read
from bench.store import Store
from tests.command_line import call, mistake
from tests.conftest import tiny_config

RUN = ("run", "--seed", 42, "--device", "cpu", "--threads", 1)
pytestmark = pytest.mark.usefixtures("on_little_text")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my-config.json"
    path.write_text(json.dumps(to_json(tiny_config("transformer", n_steps=2, warmup_steps=0))))
    return path


def only_record(store: Store) -> Record:
    [path] = store.record_paths()
    return read(path, Record)


def test_a_config_in_a_file_is_what_runs_under_the_name_of_the_file_or_a_label(file, tmp_path, capsys):
    named, labelled = Store(tmp_path / "named"), Store(tmp_path / "labelled")
    assert call(app, *RUN, "--config", file, "--store", named.root) == 0
    change = ("--set", "training.batch_size=3")
    assert call(app, *RUN, "--config", file, *change, "--label", "mine", "--store", labelled.root) == 0
    plain = read_config(json.loads(file.read_text()))
    assert (only_record(named).label, read_config(only_record(named).config)) == ("my-config", plain)
    changed = only_record(labelled)
    assert (changed.label, changed.config["training"]["batch_size"]) == ("mine", 3)
    assert changed.config | {"training": {}} == to_json(plain) | {"training": {}}


def test_the_config_of_a_record_runs_again_with_its_label_and_its_id(file, tmp_path, capsys):
    first, again = Store(tmp_path / "first"), Store(tmp_path / "again")
    assert call(app, *RUN, "--config", file, "--label", "mine", "--store", first.root) == 0
    assert call(app, *RUN, "--config", *first.record_paths(), "--store", again.root) == 0
    assert (only_record(again).label, only_record(again).run_id) == ("mine", only_record(first).run_id)
    assert only_record(again).curve == only_record(first).curve


def test_a_cell_may_have_a_label_of_the_users_which_changes_no_number(tmp_path, capsys):
    cell = ("--experiment", "smoke", "--cell", "transformer", "--set", "training.n_steps=2")
    for name, label in (("a", ()), ("b", ("--label", "mine"))):
        assert call(app, *RUN, *cell, *label, "--store", tmp_path / name) == 0
    plain, labelled = only_record(Store(tmp_path / "a")), only_record(Store(tmp_path / "b"))
    assert (plain.label, labelled.label) == ("transformer", "mine")
    assert (plain.run_id, plain.curve) == (labelled.run_id, labelled.curve)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1]", "holds no config"),
        ('{"architecture": "transformr"}', "did you mean 'transformer'"),
        ('{"run_id": "abc", "config": {"architecture": "transformer", "modle": {}}}', "did you mean 'model'"),
        ('{"architecture": "transformer", "model": {}, "context": 0, "training": null}', "--config"),
    ],
)
def test_a_file_without_a_config_is_refused_in_a_line(content, reason, tmp_path, capsys):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    line = mistake(capsys, app, *RUN, "--config", path, "--store", tmp_path / "store")
    assert str(path) in line
    assert reason in line


def test_a_run_needs_a_cell_or_a_file_and_not_both(file, tmp_path, capsys):
    assert "--experiment and --cell" in mistake(capsys, app, *RUN)
    assert "--experiment and --cell" in mistake(capsys, app, *RUN, "--cell", "transformer")
    assert "not both" in mistake(capsys, app, *RUN, "--config", file, "--cell", "transformer")
    line = mistake(capsys, app, *RUN, "--config", file, "--label", "a b", "--store", tmp_path / "store")
    assert "label='a b'" in line
