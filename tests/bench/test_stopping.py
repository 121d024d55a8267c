"""A stop request is met within a batch while a run is measured or evaluated, and loses nothing that was saved."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from bench import batches, checkpoint, evaluate
from bench.config import Run
from bench.process import CANCEL_FILE, Interrupted, StopRequest, read_progress
from bench.run import execute, with_portable
from bench.store import Store
from tests.bench.test_resume import measured
from tests.command_line import finish, start, wait_until
from tests.conftest import SELDOM
from tests.records import make_record
from tests.tiny import counted_cell


@contextmanager
def at_batch(number: int, action: Callable[[], object]) -> Iterator[Mock]:
    """Call `action` before the batch of this number, from 0, of all that evaluation reads."""
    counted, windows = count(), batches.windows

    def read(*arguments: object) -> object:
        if next(counted) == number:
            action()
        return windows(*arguments)  # type: ignore[arg-type]

    with patch.object(evaluate, "windows", side_effect=read) as reads:
        yield reads


@contextmanager
def in_evaluation(number: int, saved: list[object], action: Callable[[], object]) -> Iterator[None]:
    """Call `action` once, in the evaluation of this number, from 0, given what was saved so far."""
    done, windows = Mock(side_effect=action), batches.windows

    def read(*arguments: object) -> object:
        if len(saved) == number and not done.called:
            done()
        return windows(*arguments)  # type: ignore[arg-type]

    with patch.object(evaluate, "windows", side_effect=read):
        yield


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.met("U2")
@pytest.mark.usefixtures("on_little_text")
def test_a_run_stopped_at_any_batch_of_its_evaluations_and_measurements_ends_with_the_same_bits(tiny_run, tmp_path):
    run = tiny_run()
    with at_batch(-1, interrupt) as reads:
        expected = measured(execute(run, Store(tmp_path / "whole"), SELDOM))
    n_batches = reads.call_count
    assert n_batches > 30
    for number in (*range(0, n_batches, 4), n_batches - 1):
        store = Store(tmp_path / str(number))
        with at_batch(number, interrupt) as reads, pytest.raises(Interrupted, match=r"evaluation of step|measured"):
            execute(run, store, SELDOM)
        assert reads.call_count == number + 1, "it read on after the stop"
        assert not store.record_paths()
        assert measured(execute(run, store, SELDOM)) == expected, f"stopped at batch {number}"


@pytest.mark.met("U2")
@pytest.mark.usefixtures("on_little_text")
def test_a_stop_while_a_part_is_knocked_out_saves_the_whole_model(tiny_run, tmp_path, monkeypatch):
    run, store, replaced = tiny_run(), Store(tmp_path / "store"), evaluate.replaced
    expected = measured(execute(run, Store(tmp_path / "whole"), SELDOM))

    @contextmanager
    def interrupted(replacements: evaluate.Replacements) -> Iterator[None]:
        knocked_out = replaced(replacements)
        knocked_out.__enter__()
        if replacements:
            interrupt()  # between the change and what would undo it
        try:
            yield
        finally:
            knocked_out.__exit__(None, None, None)

    with monkeypatch.context() as patches:
        patches.setattr(evaluate, "replaced", interrupted)
        with pytest.raises(Interrupted, match="evaluation of step 0"):
            execute(run, store, SELDOM)
    assert measured(execute(run, store, SELDOM)) == expected


@pytest.mark.met("U2")
@pytest.mark.usefixtures("on_little_text")
def test_a_second_ctrl_c_ends_at_once_with_the_state_that_was_saved_before(tiny_run, tmp_path):
    run, store = tiny_run(), Store(tmp_path / "store")
    expected = measured(execute(run, Store(tmp_path / "whole"), SELDOM))
    save, saved = checkpoint.save, []

    def interrupted_save(*arguments: object) -> None:
        if saved:  # by the first evaluation; this is the answer to the first Ctrl-C
            interrupt()
        saved.append(save(*arguments))

    stopped = pytest.raises(KeyboardInterrupt, match="stopped at once")
    with patch.object(checkpoint, "save", interrupted_save), in_evaluation(1, saved, interrupt), stopped:
        execute(run, store, SELDOM)
    newest, _ = checkpoint.load_newest(store.run_folder(run.run_id))
    assert newest is not None
    assert newest["trainer"]["step"] == 0
    assert measured(execute(run, store, SELDOM)) == expected


@pytest.mark.met("U2")
@pytest.mark.usefixtures("on_little_text")
def test_a_run_that_is_cancelled_while_it_is_measured_stops_within_a_batch(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.process.CANCEL_SECONDS", 0.01)
    run, store = tiny_run(n_steps=2), Store(tmp_path)
    mark = store.run_folder(run.run_id) / CANCEL_FILE

    def cancel_and_wait() -> None:
        mark.touch()
        wait_until(lambda: False, "the stop")  # which Interrupted ends

    with at_batch(20, cancel_and_wait), pytest.raises(Interrupted, match="measured"):
        execute(run, store, SELDOM)
    assert not store.record_paths()


@pytest.mark.met("U2")
@pytest.mark.usefixtures("on_little_text")
def test_a_fitted_model_stops_while_it_is_measured(tmp_path):
    cell = counted_cell()
    run = Run(label=cell.label, config=cell.config, seed=None, mode="exact")
    with at_batch(2, interrupt), pytest.raises(Interrupted, match="counts again"):
        execute(run, Store(tmp_path), SELDOM)


@pytest.mark.met("U2")
def test_a_finished_run_is_not_lost_to_a_stop_while_it_waits_for_its_portable_losses():
    request, finished = StopRequest(), make_record("k_operators", 42)

    def waits() -> list[float]:
        request.receive(signal.SIGTERM)
        raise AssertionError("it went on")

    assert with_portable(finished, waits, request) is finished
    assert with_portable(finished, Mock(), request) is finished, "requested before it waited"
    assert with_portable(finished, lambda: [4.0], StopRequest()).diagnostics.first_portable_train_nats == [4.0]


def is_measured(folder: Path) -> bool:
    return (read_progress(folder) or {}).get("state") == "measuring"


@pytest.mark.met("U2")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_would_be_measured_for_minutes_ends_at_a_signal(number, tmp_path):
    process = start(
        *("bench", "run", "--experiment", "smoke", "--cell", "transformer", "--seed", 42, "--device", "cpu"),
        *("--threads", 1, "--store", tmp_path, "--set", "corpus=synthetic", "--set", "n_sampled_batches=2000000"),
    )
    wait_until(lambda: any(map(is_measured, Store(tmp_path).work_folder.glob("*"))), "the end of training")
    process.send_signal(number)
    code, _, errors = finish(process)
    assert (code, errors.startswith("interrupted: stopped while it was measured")) == (130, True), errors
