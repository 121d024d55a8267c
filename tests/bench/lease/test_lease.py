"""One process at a time works on a run, and a run whose process died is taken over, with any clocks."""

import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import lease
from bench.errors import LeaseLost, RunIsTaken
from bench.lease import Holder, hold, living, read_holder
from bench.run import execute
from bench.store import Store
from bench.train import Trainer
from tests.conftest import EVERY_STEP
from tests.leases import ELSEWHERE, at_once, beating, lease_files, leave, state

N_RACERS = 8


@pytest.mark.fault("F8")
def test_a_run_held_on_this_machine_is_refused_at_once_and_stays_held(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)  # the lock decides, not the heartbeat
    with hold(tmp_path) as held:
        with at_once(), pytest.raises(RunIsTaken, match="wait for it or stop it"), hold(tmp_path):
            pass
        held.check()
        assert lease_files(tmp_path) == ["lease-1.json"]
        assert read_holder(tmp_path).owner == held.holder.owner
    assert "waiting" not in capsys.readouterr().out


def test_a_released_run_is_taken_at_once_as_the_next_attempt(tmp_path):
    for attempt in range(1, 4):
        with at_once(), hold(tmp_path) as held:
            assert held.attempt == attempt
            assert lease_files(tmp_path) == [f"lease-{attempt}.json"]
        assert state(tmp_path) == (attempt, True)
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_run_whose_process_was_killed_on_this_machine_is_taken_at_once(tmp_path, holder_process):
    process = holder_process()
    with at_once(), pytest.raises(RunIsTaken), hold(tmp_path / "run"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state(tmp_path / "run") == (1, False)
    with at_once(), hold(tmp_path / "run") as held:
        assert held.attempt == 2


@pytest.mark.fault("F8")
def test_a_run_that_another_machine_holds_is_refused(tmp_path):
    with beating(tmp_path), at_once(), pytest.raises(RunIsTaken, match="a process on elsewhere"), hold(tmp_path):
        pass
    assert lease_files(tmp_path) == ["lease-1.json"]


def test_two_holders_with_two_machine_ids_exclude_each_other(tmp_path, monkeypatch):
    with hold(tmp_path) as held:
        monkeypatch.setattr(lease, "boot_id", lambda: ELSEWHERE)
        with at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
            pass
        held.check()


def test_a_run_that_died_on_another_machine_is_taken_after_the_lease_time(tmp_path, short_lease, capsys):
    leave(tmp_path)
    begun = time.monotonic()
    with hold(tmp_path) as held:
        assert time.monotonic() - begun >= short_lease
        assert held.attempt == 2
        assert lease_files(tmp_path) == ["lease-2.json"]
    assert "waiting 0.4 s for a heartbeat of attempt 1 on elsewhere" in capsys.readouterr().out


def test_a_run_that_another_machine_releases_is_taken_before_the_lease_time_ends(tmp_path):
    leave(tmp_path)
    timer = threading.Timer(0.2, leave, [tmp_path], {"released": True})
    timer.start()
    with at_once(), hold(tmp_path) as held:
        assert held.attempt == 2
    timer.join()


@pytest.mark.fault("F8")
def test_of_eight_machines_that_find_one_dead_lease_exactly_one_takes_it(tmp_path, short_lease, monkeypatch):
    leave(tmp_path)
    all_have_decided, all_have_tried = threading.Barrier(N_RACERS), threading.Barrier(N_RACERS)
    wait = lease._last_attempt

    def wait_for_the_others(*arguments: Any, **options: Any) -> int:
        after = wait(*arguments, **options)
        all_have_decided.wait(60)
        return after

    monkeypatch.setattr(lease, "_last_attempt", wait_for_the_others)
    monkeypatch.setattr(lease, "boot_id", lambda: threading.current_thread().name)  # so that no lock decides
    outcomes: list[str] = []

    def take() -> None:
        try:
            with hold(tmp_path) as held:
                outcomes.append(f"attempt {held.attempt}")
                all_have_tried.wait(60)
                held.check()
        except RunIsTaken:
            outcomes.append("taken")
            all_have_tried.wait(60)

    threads = [threading.Thread(target=take, name=f"{number}-machine") for number in range(N_RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"attempt 2": 1, "taken": N_RACERS - 1}
    assert lease_files(tmp_path) == ["lease-2.json"]
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.fault("F8")
def test_a_lease_that_is_made_while_another_process_reads_is_not_taken_over(tmp_path, monkeypatch):
    read = lease.read_holder

    def read_nothing(folder: Path) -> None:
        monkeypatch.setattr(lease, "read_holder", read)
        leave(folder)

    monkeypatch.setattr(lease, "read_holder", read_nothing)
    with at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
        pass


def test_an_observer_that_was_suspended_reads_again_before_it_takes_over(tmp_path, short_lease, monkeypatch):
    first, read = leave(tmp_path), lease.read_holder

    def stall(folder: Path) -> Holder:
        if read(folder) == first:
            leave(folder, heartbeat=1)
            return first
        time.sleep(2 * short_lease)
        monkeypatch.setattr(lease, "read_holder", read)
        return first

    monkeypatch.setattr(lease, "read_holder", stall)
    with pytest.raises(RunIsTaken), hold(tmp_path):
        pass


def test_a_holder_that_was_taken_for_dead_gets_an_error(tmp_path, short_lease, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)
    with hold(tmp_path) as lost:
        lost.check()
        monkeypatch.setattr(lease, "boot_id", lambda: ELSEWHERE)
        with hold(tmp_path) as held:
            assert held.attempt == 2
            with pytest.raises(LeaseLost, match="another process took over"):
                lost.check()
            lost.release()  # no error, although there is nothing to release
            assert lease_files(tmp_path) == ["lease-2.json"]
            assert read_holder(tmp_path) == held.holder
            held.check()


@pytest.mark.fault("F8")
def test_a_suspended_process_that_wakes_up_stops_with_the_reason(tmp_path, holder_process, short_lease, monkeypatch):
    process = holder_process()
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lease, "boot_id", lambda: ELSEWHERE)
    with hold(tmp_path / "run") as held:
        assert held.attempt == 2
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
        assert "LeaseLost" in errors
        assert lease_files(tmp_path / "run") == ["lease-2.json"]
        held.check()


@pytest.mark.fault("F8")
@pytest.mark.usefixtures("on_little_text")
@pytest.mark.parametrize("moment", ["a step", "measuring"])
def test_a_training_that_was_taken_over_writes_no_checkpoint_and_no_record(moment, tmp_path, tiny_run, monkeypatch):
    run, store = tiny_run(n_steps=8), Store(tmp_path)
    folder = store.run_folder(run.run_id)
    at_takeover: dict[str, bytes] = {}

    def checkpoints() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*checkpoint-*")}

    def taken_over_before(function: Callable[..., Any], is_now: Callable[[Any], bool]) -> Callable[..., Any]:
        def call(first: Any, *others: Any) -> Any:
            if is_now(first):
                at_takeover.update(checkpoints())
                leave(folder, 2)
            return function(first, *others)

        return call

    if moment == "a step":
        monkeypatch.setattr(Trainer, "advance", taken_over_before(Trainer.advance, lambda trainer: trainer.step == 5))
    else:
        monkeypatch.setattr("bench.run.measure", taken_over_before(sys.modules["bench.run"].measure, lambda _: True))
    with pytest.raises(LeaseLost):
        execute(run, store, EVERY_STEP)
    assert at_takeover
    assert checkpoints() == at_takeover
    assert store.record_paths() == []
    assert state(folder) == (2, False)


def test_a_takeover_decided_long_ago_holds_nothing(tmp_path, monkeypatch):
    wait = lease._last_attempt
    leave(tmp_path, released=True)

    def fall_asleep(*arguments: Any, **options: Any) -> int:
        after = wait(*arguments, **options)
        leave(tmp_path, 3)  # attempt 2 has ended, and its file was removed
        (tmp_path / "lease-1.json").unlink()
        return after

    monkeypatch.setattr(lease, "_last_attempt", fall_asleep)
    with pytest.raises((RunIsTaken, LeaseLost)), hold(tmp_path) as late:
        late.check()
    assert state(tmp_path) == (3, False)


def test_holders_on_this_machine_are_found_at_once(tmp_path, monkeypatch, holder_process):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)
    here = tmp_path / "here"
    leave(tmp_path / "killed", boot=lease.boot_id())
    leave(tmp_path / "released", boot=lease.boot_id(), released=True)
    folders = [here, tmp_path / "run", tmp_path / "killed", tmp_path / "released", tmp_path / "never begun"]
    process = holder_process()
    with hold(here) as held, at_once():
        found = living(folders, seconds=60)
        assert set(found) == {here, tmp_path / "run"}
        assert found[here] == held.holder
        assert found[tmp_path / "run"].pid == process.pid


def test_holders_elsewhere_are_found_by_their_heartbeats(tmp_path):
    alive, dead, ends = tmp_path / "alive", tmp_path / "dead", tmp_path / "ends"
    leave(dead)
    leave(ends)
    timer = threading.Timer(0.2, leave, [ends], {"released": True})
    timer.start()
    with beating(alive):
        with at_once():
            assert set(living([alive], seconds=60)) == {alive}
        assert set(living([alive, dead, ends], seconds=1)) == {alive}
    timer.join()


def test_without_locks_holders_on_this_machine_are_found_by_their_heartbeats(tmp_path, no_locks):
    with hold(tmp_path), at_once():
        assert set(living([tmp_path], seconds=60)) == {tmp_path}


def test_looking_for_holders_disturbs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LOCK_TRIES", 500)  # here it looks without a pause
    stop = threading.Event()

    def keep_looking() -> None:
        while not stop.is_set():
            living([tmp_path], seconds=0)

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        for attempt in range(1, 6):
            with hold(tmp_path) as held:
                assert held.attempt == attempt
    finally:
        stop.set()
        thread.join()
