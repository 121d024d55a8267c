"""One process at a time works on a run, and a run whose process died is taken up again, whatever any clock says."""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import files, lease
from bench.config import Run
from bench.corpus import load_corpus
from bench.environment import describe
from bench.errors import AlreadyDone, LeaseLost, RunIsTaken
from bench.lease import Holder, hold, living, look
from bench.record import Record, read, to_bytes
from bench.run import Settings, execute
from bench.store import Store
from bench.train import Trainer
from tests.command_line import ROOT

CPU = torch.device("cpu")
EVERY_STEP = Settings(device=CPU, n_threads=1, checkpoint_seconds=0)
N_LOOKS_AT_ONCE = 250  # far below LEASE_SECONDS at the pace of `quick_looks`, and far above what anything needs
ELSEWHERE = "another machine"
N_RACERS = 8
HOLDER = """
import sys, time
from pathlib import Path
from bench import lease
lease.HEARTBEAT_SECONDS = 0.02
with lease.hold(Path(sys.argv[1])) as held:
    print("held", flush=True)
    while True:
        time.sleep(0.02)
        held.check()
"""


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and beat often; LEASE_SECONDS stays, so that what is to be at once cannot be a short wait."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.02)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """LEASE_SECONDS, shortened: for leases that nobody keeps alive."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.4)
    return lease.LEASE_SECONDS


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without a lock service."""
    monkeypatch.setattr(fcntl, "flock", refuse_to_lock)


@pytest.fixture
def holder_process(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a real process that holds `tmp_path / "run"` until it has lost it, and wait until it does."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def refuse_to_lock(*_: object) -> None:
    """What `flock` does on a file system without a lock service."""
    raise OSError(errno.ENOLCK, "no locks available")


def leave(folder: Path, attempt: int = 1, *, boot: str = ELSEWHERE, **values: Any) -> Holder:
    """Write a lease as a process of another machine would."""
    holder = Holder(attempt=attempt, owner=f"owner {attempt}", boot=boot, node="elsewhere", pid=1, job_id=None)
    holder = dataclasses.replace(holder, **values)
    files.replace(folder / f"lease-{attempt}.json", json.dumps(dataclasses.asdict(holder)).encode())
    return holder


@contextmanager
def beating(folder: Path, *, file_time: float | None = None, counts: bool = True) -> Iterator[None]:
    """A process of another machine that holds the run: it rewrites its lease, and as a rule counts its heartbeats."""
    stop = threading.Event()

    def beat() -> None:
        heartbeat = 0
        while not stop.wait(0.02):
            heartbeat += counts
            leave(folder, heartbeat=heartbeat)
            if file_time is not None:
                os.utime(folder / "lease-1.json", (file_time, file_time))

    leave(folder)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def at_once() -> Iterator[None]:
    """Fail where the block waits for a lease to run out; looks are counted, since a busy machine may be slow."""
    n_looks = 0

    def sleep_and_count(seconds: float) -> None:
        nonlocal n_looks
        n_looks += 1
        assert n_looks <= N_LOOKS_AT_ONCE, "it waits"
        time.sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep_and_count))
        yield


def lease_files(folder: Path) -> list[str]:
    """The names of the leases in a run folder."""
    return sorted(path.name for path in folder.glob("lease-*"))


def state(folder: Path) -> tuple[int, bool] | None:
    """The attempt that a run folder's lease is of, and whether it was released."""
    found = look(folder)
    return None if found is None else (found.attempt, found.released)


# on one machine -------------------------------------------------------------------------------------------------------


@pytest.mark.fault("F8")
def test_a_run_that_a_process_of_this_machine_works_on_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)  # a lock says it, no sign of life
    with hold(tmp_path), at_once(), pytest.raises(RunIsTaken, match="wait for it or stop it"), hold(tmp_path):
        pass
    assert "waiting" not in capsys.readouterr().out


def test_a_refused_process_leaves_the_holder_undisturbed(tmp_path):
    with hold(tmp_path) as held:
        with pytest.raises(RunIsTaken), hold(tmp_path):
            pass
        held.check()
        assert lease_files(tmp_path) == ["lease-1.json"]
        assert look(tmp_path).owner == held.holder.owner


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


# between machines -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("F8")
def test_a_run_that_lives_on_another_machine_is_refused(tmp_path):
    with beating(tmp_path), at_once(), pytest.raises(RunIsTaken, match="a process on elsewhere"), hold(tmp_path):
        pass
    assert lease_files(tmp_path) == ["lease-1.json"]


def test_two_holders_that_pretend_to_be_two_machines_exclude_each_other(tmp_path, monkeypatch):
    with hold(tmp_path) as held:
        monkeypatch.setattr(lease, "boot_id", lambda: ELSEWHERE)
        with at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
            pass
        held.check()


def test_a_run_that_died_on_another_machine_is_taken_once_the_lease_has_run_out(tmp_path, short_lease, capsys):
    leave(tmp_path)
    begun = time.monotonic()
    with hold(tmp_path) as held:
        assert time.monotonic() - begun >= short_lease
        assert held.attempt == 2
        assert lease_files(tmp_path) == ["lease-2.json"]
    assert "waiting 0.4 s for a sign of life of attempt 1 on elsewhere" in capsys.readouterr().out


def test_a_run_that_another_machine_releases_is_taken_before_the_lease_runs_out(tmp_path):
    leave(tmp_path)
    timer = threading.Timer(0.2, leave, [tmp_path], {"released": True})
    timer.start()
    with at_once(), hold(tmp_path) as held:
        assert held.attempt == 2
    timer.join()


@pytest.mark.fault("F8")
def test_of_eight_machines_that_find_one_dead_lease_exactly_one_takes_it(tmp_path, short_lease, monkeypatch):
    leave(tmp_path)
    everyone_has_judged, everyone_has_tried = threading.Barrier(N_RACERS), threading.Barrier(N_RACERS)
    wait = lease._wait_for_the_dead

    def wait_for_the_others_too(*arguments: Any, **options: Any) -> int:
        after = wait(*arguments, **options)
        everyone_has_judged.wait(60)
        return after

    monkeypatch.setattr(lease, "_wait_for_the_dead", wait_for_the_others_too)
    monkeypatch.setattr(lease, "boot_id", lambda: threading.current_thread().name)  # so that no lock decides
    outcomes: list[str] = []

    def take() -> None:
        try:
            with hold(tmp_path) as held:
                outcomes.append(f"attempt {held.attempt}")
                everyone_has_tried.wait(60)
                held.check()
        except RunIsTaken:
            outcomes.append("taken")
            everyone_has_tried.wait(60)

    threads = [threading.Thread(target=take, name=f"{number}-machine") for number in range(N_RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"attempt 2": 1, "taken": N_RACERS - 1}
    assert lease_files(tmp_path) == ["lease-2.json"]
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.fault("F8")
def test_a_lease_that_is_made_while_another_process_looks_is_not_taken_over(tmp_path, monkeypatch):
    look_there = lease.look

    def look_in_vain(folder: Path) -> None:
        monkeypatch.setattr(lease, "look", look_there)
        leave(folder)

    monkeypatch.setattr(lease, "look", look_in_vain)
    with at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
        pass


def test_an_observer_that_was_held_up_looks_again_before_it_takes_over(tmp_path, short_lease, monkeypatch):
    first, look_there = leave(tmp_path), lease.look

    def stall(folder: Path) -> Holder:
        if look_there(folder) == first:
            leave(folder, heartbeat=1)
            return first
        time.sleep(2 * short_lease)
        monkeypatch.setattr(lease, "look", look_there)
        return first

    monkeypatch.setattr(lease, "look", stall)
    with pytest.raises(RunIsTaken), hold(tmp_path):
        pass


# who was thought dead -------------------------------------------------------------------------------------------------


def test_a_holder_that_was_thought_dead_learns_that_it_has_lost(tmp_path, short_lease, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 3600.0)
    with hold(tmp_path) as lost:
        lost.check()
        monkeypatch.setattr(lease, "boot_id", lambda: ELSEWHERE)
        with hold(tmp_path) as held:
            assert held.attempt == 2
            with pytest.raises(LeaseLost, match="another process took over"):
                lost.check()
            lost.release()  # says nothing, since there is nothing left to release
            assert lease_files(tmp_path) == ["lease-2.json"]
            assert look(tmp_path) == held.holder
            held.check()


@pytest.mark.fault("F8")
def test_a_suspended_process_that_wakes_up_stops_and_says_why(tmp_path, holder_process, short_lease, monkeypatch):
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


def test_who_judged_long_ago_and_takes_only_now_holds_nothing(tmp_path, monkeypatch):
    wait = lease._wait_for_the_dead
    leave(tmp_path, released=True)

    def fall_asleep(*arguments: Any, **options: Any) -> int:
        after = wait(*arguments, **options)
        leave(tmp_path, 3)  # attempt 2 has come and gone, and its file with it
        (tmp_path / "lease-1.json").unlink()
        return after

    monkeypatch.setattr(lease, "_wait_for_the_dead", fall_asleep)
    with pytest.raises((RunIsTaken, LeaseLost)), hold(tmp_path) as late:
        late.check()
    assert state(tmp_path) == (3, False)


# clocks and file systems ----------------------------------------------------------------------------------------------


@pytest.mark.fault("F15")
@pytest.mark.parametrize("skew_seconds", [-86400.0, 86400.0])
def test_a_clock_that_is_a_day_off_changes_no_judgement(skew_seconds, tmp_path, short_lease, monkeypatch):
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew_seconds)
    dead, alive = tmp_path / "dead", tmp_path / "alive"
    leave(dead)
    os.utime(dead / "lease-1.json", (right() - skew_seconds, right() - skew_seconds))
    begun = time.monotonic()
    with at_once(), hold(dead) as held:
        assert held.attempt == 2
        assert time.monotonic() - begun >= short_lease
    monkeypatch.setattr(lease, "LEASE_SECONDS", 60.0)
    with beating(alive, file_time=right() - skew_seconds), pytest.raises(RunIsTaken), hold(alive):
        pass


@pytest.mark.fault("F15")
def test_heartbeats_are_counted_and_a_file_that_is_only_touched_is_no_sign_of_life(tmp_path, short_lease):
    with beating(tmp_path, counts=False):
        assert living([tmp_path], seconds=0.3) == {}
        with hold(tmp_path) as held:
            assert held.attempt == 2


@pytest.mark.fault("F16")
@pytest.mark.parametrize("reason", lease.NO_LOCKS_HERE)
def test_without_locks_heartbeats_exclude_a_second_process(reason, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path) as held:
        with at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
            pass
        held.check()
    with at_once(), hold(tmp_path) as following:
        assert following.attempt == 2


def test_without_locks_a_dead_process_of_this_machine_is_waited_for(tmp_path, no_locks, short_lease):
    leave(tmp_path, boot=lease.boot_id())
    begun = time.monotonic()
    with hold(tmp_path) as held:
        assert time.monotonic() - begun >= short_lease
        assert held.attempt == 2


@pytest.mark.fault("F16")
def test_a_stale_listing_of_the_folder_hides_no_takeover(tmp_path, monkeypatch):
    with hold(tmp_path) as held:
        stale = {1: tmp_path / "lease-1.json"}
        monkeypatch.setattr(lease, "_leases", lambda _: stale)
        held.check()
        leave(tmp_path, 2)
        with pytest.raises(LeaseLost):
            held.check()


@pytest.mark.fault("F16")
def test_who_is_shown_an_empty_folder_takes_nothing_from_a_living_process(tmp_path, monkeypatch):
    leave(tmp_path, 2)
    monkeypatch.setattr(lease, "_leases", lambda _: {})
    with pytest.raises((RunIsTaken, LeaseLost)), hold(tmp_path) as misled:
        misled.check()


@pytest.mark.fault("F16")
def test_a_listing_that_still_names_a_removed_lease_is_asked_again(tmp_path, monkeypatch):
    leave(tmp_path, 2)
    listings = iter([{3: tmp_path / "lease-3.json"}] * 3)
    leases = lease._leases
    monkeypatch.setattr(lease, "_leases", lambda folder: next(listings, None) or leases(folder))
    assert look(tmp_path).attempt == 2


@pytest.mark.fault("F16")
def test_a_lease_that_cannot_be_read_for_a_moment_is_not_taken_over(tmp_path, monkeypatch):
    read_bytes, n_failures = Path.read_bytes, iter(range(3))

    def fail_at_first(path: Path) -> bytes:
        if next(n_failures, None) is not None:
            raise OSError(errno.ESTALE, "stale file handle")  # NFS, where the file was replaced after it was opened
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail_at_first)
    with beating(tmp_path), at_once(), pytest.raises(RunIsTaken), hold(tmp_path):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\x00", b'{"attempt": 3}', b'{"attempt": 3, "unheard": "of"}'],
    ids=["empty", "cut", "list", "null", "binary", "incomplete", "foreign"],
)
def test_a_damaged_lease_stops_nothing(content, tmp_path):
    (tmp_path / "lease-3.json").write_bytes(content)
    (tmp_path / "lease-x.json").write_bytes(b"of nobody")
    assert state(tmp_path) == (3, True)
    assert living([tmp_path]) == {}
    with at_once(), hold(tmp_path) as held:
        assert held.attempt == 4
        held.check()


# who is alive ---------------------------------------------------------------------------------------------------------


def test_who_works_here_is_seen_without_watching(tmp_path, monkeypatch, holder_process):
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


def test_who_works_elsewhere_is_seen_by_its_heartbeats(tmp_path):
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


def test_without_locks_who_works_here_is_seen_by_its_heartbeats(tmp_path, no_locks):
    with hold(tmp_path), at_once():
        assert set(living([tmp_path], seconds=60)) == {tmp_path}


def test_looking_disturbs_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LOCK_TRIES", 500)  # looks follow one another without a pause here
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


# eight real processes -------------------------------------------------------------------------------------------------


@contextmanager
def no_lease(_: Path) -> Iterator[SimpleNamespace]:
    """What `hold` would be without any exclusion."""
    yield SimpleNamespace(attempt=1, check=lambda: None)


def write_naively(store: Store, record: Record) -> Path:
    """What `Store.write_record` would be without a thought of others."""
    path = store.root / "runs" / record.file_name
    with path.open("wb") as file:
        file.write(to_bytes(record))
    return path


def race(root: Path, run: Run, n_rounds: int, without: tuple[str, ...], barrier: Any, outcomes: Any) -> None:
    """What each of the processes does: go for the same run at the same moment, round after round."""
    torch.set_num_threads(1)
    whole = load_corpus("synthetic", CPU)
    little = dataclasses.replace(whole, train=whole.train[:2_000], val=whole.val[:300])
    ends: list[str] = []
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr("bench.run.load_corpus", lambda *_: little)
        patch.setattr("bench.recording.describe", functools.cache(describe))
        patch.setattr(lease, "LOCK_WAIT_SECONDS", 0.01)
        patch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
        if "locks" in without:
            patch.setattr(fcntl, "flock", refuse_to_lock)
        if "leases" in without:
            patch.setattr("bench.run.hold", no_lease)
        if "links" in without:
            patch.setattr(Store, "write_record", write_naively)
        for number in range(n_rounds):
            barrier.wait(100)
            try:
                execute(run, Store(root / str(number)), Settings(device=CPU, n_threads=1))
                ends.append("recorded")
            except (AlreadyDone, RunIsTaken):
                ends.append("refused")
            except Exception as error:
                ends.append(repr(error))
    outcomes.put(ends)


def race_of_eight(root: Path, run: Run, n_rounds: int, without: tuple[str, ...] = ()) -> list[Counter[str]]:
    """How often each end was met, round by round."""
    context = multiprocessing.get_context("forkserver")  # a clean process imports torch once and is forked from
    context.set_forkserver_preload(["bench.run", "torch._dynamo"])  # the optimizer imports the second when it is made
    barrier, outcomes = context.Barrier(N_RACERS), context.Queue()
    arguments = (root, run, n_rounds, without, barrier, outcomes)
    racers = [context.Process(target=race, args=arguments, daemon=True) for _ in range(N_RACERS)]
    for racer in racers:
        racer.start()
    try:
        ends = [outcomes.get(timeout=200) for _ in racers]
        for racer in racers:
            racer.join(timeout=60)
    finally:
        for racer in racers:
            racer.kill()  # does nothing to one that has ended
    return [Counter(one[number] for one in ends) for number in range(n_rounds)]


@pytest.mark.fault("F8")
@pytest.mark.parametrize(
    ("n_rounds", "without"),
    [
        pytest.param(50, (), marks=pytest.mark.slow),
        (10, ("locks",)),
        pytest.param(10, ("leases",), marks=pytest.mark.slow),
    ],
    ids=["as it is", "without locks", "without leases"],
)
def test_of_eight_processes_that_race_for_one_run_one_writes_its_record(n_rounds, without, tmp_path, tiny_run):
    run = tiny_run(n_steps=1, warmup_steps=0)
    rounds = race_of_eight(tmp_path, run, n_rounds, without)
    assert rounds == [{"recorded": 1, "refused": N_RACERS - 1}] * n_rounds
    for number in range(n_rounds):
        (path,) = Store(tmp_path / str(number)).record_paths()
        assert read(path, Record).run_id == run.run_id
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob(".probe-*"))


@pytest.mark.slow
def test_a_race_without_leases_and_links_is_seen_as_one(tmp_path, tiny_run):
    rounds = race_of_eight(tmp_path, tiny_run(n_steps=1, warmup_steps=0), 5, ("leases", "links"))
    assert any(ends["recorded"] > 1 for ends in rounds)  # or the tests above could not fail
