"""Progress as lines in a file: whole, with units, whatever a run's folder holds."""

import json

import pytest

from bench.process import PROGRESS_FILE
from bench.store import Store
from jobs.app import app
from jobs.display import Display
from tests.command_line import call
from tests.records import make_record
from tests.stores import make_store

PROGRESS = {
    "state": "training",
    "step": 259,
    "n_steps": 2000,
    "val_nats_per_token": 2.68724,
    "tokens_per_second": 11317.2,
    "seconds_left": 312.0,
}


@pytest.fixture
def shown(tmp_path, tiny_run, capsys, monkeypatch):
    """What a launch that writes to a file prints about a run with this progress file."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("jobs.display.PLAIN_SECONDS", 0.0)

    def show(content: str) -> str:
        store, run = Store(tmp_path), tiny_run()
        folder = store.run_folder(run.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROGRESS_FILE).write_text(content)
        with Display(store, 3, None) as display:
            display.tell([run], None)
        return capsys.readouterr().out.splitlines()[-1]

    return show


@pytest.mark.met("U19")
@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "k_operators-s42  step 259 of 2000  2.6872 nats  11,317 tokens/s  5 min left"),
        ({"seconds_left": 41.0}, "k_operators-s42  step 259 of 2000  2.6872 nats  11,317 tokens/s  41 s left"),
        (
            {"seconds_left": 9000.0, "val_nats_per_token": None},
            "k_operators-s42  step 259 of 2000  11,317 tokens/s  2.5 h left",
        ),
        ({"n_steps": None, "tokens_per_second": None}, "k_operators-s42  training  2.6872 nats  5 min left"),
    ],
)
def test_a_line_of_progress_has_its_units(changes, line, shown):
    assert shown(json.dumps({**PROGRESS, **changes})).split("  ", 1)[1] == line


@pytest.mark.parametrize(
    "content",
    [
        '{"state": 3, "step": "many", "n_steps": [1]}',
        '{"val_nats_per_token": "low", "tokens_per_second": {}, "seconds_left": true}',
        '{"seconds_left": 1e300, "tokens_per_second": NaN, "val_nats_per_token": Infinity}',
        "[1]",
        "\0\0",
    ],
)
def test_a_progress_file_that_nobody_wrote_stops_no_launch(content, shown):
    assert shown(content).split("  ", 1)[1] == "k_operators-s42  starting"


@pytest.mark.met("U19")
def test_lines_that_go_into_a_file_are_not_folded(tmp_path, tiny_run, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = "l" * 80
    with Display(Store(tmp_path), 1, None) as display:
        display.print(f"started  {long} {long}")
    assert capsys.readouterr().out.count("\n") == 1
    store = make_store(tmp_path, [make_record(long, seed=42)])
    assert call(app, "status", "--store", store.root) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3  # the head, the run and the totals
