"""What lies in a run's folder beside its checkpoints never fails the run, whatever it holds, nor moves a number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.files import write_atomically
from bench.lease import hold
from bench.process import PROGRESS_FILE, Interrupted
from bench.run import execute
from bench.step_curve import STEPS_FILE
from bench.store import Store
from jobs.attempt import start_attempt
from jobs.cost import known_estimates, measured_path
from jobs.layout import CAUSE_FILE, LOG_FILE
from jobs.slots import make_slots
from jobs.speeds import Platform
from jobs.why import cause, find_traces
from tests.command_line import PATIENCE_SECONDS
from tests.conftest import EVERY_STEP
from tests.faults import stopping_at
from tests.records import make_record

STEPS = [*range(12)]


def a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def garbage(content: bytes) -> Callable[[Path], None]:
    def append(path: Path) -> None:
        path.write_bytes((path.read_bytes() if path.exists() else b"") + content)

    return append


DAMAGES = [
    (STEPS_FILE, garbage(b'\0\0\0}\n[1]\n3}\n{"step": "one"}\n{}\n\xff}\n')),
    *((name, a_folder) for name in (STEPS_FILE, PROGRESS_FILE, "lease-1.json")),
    *((name, garbage(b"\0")) for name in (PROGRESS_FILE, "lease-1.json")),
]


@pytest.mark.met("U1")
@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_damaged_side_file_changes_nothing_in_a_resumed_run(
    name, damage, tmp_path, tiny_run, on_little_text, monkeypatch
):
    monkeypatch.setattr("bench.lease.LEASE_SECONDS", 0.2)
    run, whole, store = tiny_run(), Store(tmp_path / "whole"), Store(tmp_path / "store")
    expected = execute(run, whole, EVERY_STEP)
    with stopping_at(5), pytest.raises(Interrupted):
        execute(run, store, EVERY_STEP)
    folder = store.run_folder(run.run_id)
    damage(folder / name)
    found = execute(run, store, EVERY_STEP)
    assert (found.status, found.curve, found.result) == ("done", expected.curve, expected.result)
    steps = [json.loads(line)["step"] for line in (folder / STEPS_FILE).read_text().splitlines()]
    assert steps == (STEPS if damage is not a_folder or name != STEPS_FILE else STEPS[6:])


def test_steps_of_an_attempt_without_a_checkpoint_are_not_counted_twice(tmp_path, tiny_run, on_little_text):
    store, run = Store(tmp_path), tiny_run()
    folder = store.run_folder(run.run_id)
    folder.mkdir(parents=True)
    (folder / STEPS_FILE).write_text('{"step": 0, "train_nats": 1.0, "grad_norm": 1.0}\n')
    execute(run, store, EVERY_STEP)
    assert [json.loads(line)["step"] for line in (folder / STEPS_FILE).read_text().splitlines()] == STEPS


@pytest.mark.met("U1")
def test_a_worker_starts_whatever_lies_in_place_of_its_log_and_its_cause(tmp_path, tiny_run):
    store, run = Store(tmp_path), tiny_run()
    folder = store.run_folder(run.run_id)
    for name in (LOG_FILE, CAUSE_FILE):
        (folder / name).mkdir(parents=True)
    worker = start_attempt(run, make_slots("cpu", 1)[0], store, [], {})
    assert worker.process.wait(PATIENCE_SECONDS) == 0, worker.log_lines
    assert store.statuses() == {run.run_id: "done"}


@pytest.mark.met("U1")
@pytest.mark.parametrize("content", [b"\0", b"[1]", b'{"seconds": 1' + 400 * b"0" + b"}", b"[" * 100_000])
def test_a_note_of_measured_seconds_that_cannot_be_read_is_none(content, tmp_path, tiny_run):
    store, run = Store(tmp_path), tiny_run()
    platform = Platform(device="cpu", n_threads=1)
    path = measured_path(store, run, "cpu")
    write_atomically(path, b'{"seconds": 3.0}')
    assert known_estimates([run], [store], platform)[run.run_id].seconds == 3.0
    path.write_bytes(content)
    assert known_estimates([run], [store], platform) == {}


@pytest.mark.met("U1")
def test_a_failed_run_is_not_said_to_have_been_asked_to_stop(tmp_path):
    store, failed = Store(tmp_path), make_record(status="failed", error="JSONDecodeError: Expecting value")
    store.write_record(failed)
    folder = store.run_folder(failed.run_id)
    with hold(folder):
        pass  # and released
    assert cause(find_traces(store, failed.run_id), "failed") == "the program failed with the error of its record"
