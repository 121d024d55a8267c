"""No wrong clock and no slow or damaged file system gives a run to two processes."""

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from bench import lease
from bench.errors import LeaseLost, RunIsTaken
from bench.lease import hold, living, read_holder
from tests.leases import at_once, beating, leave, state


@pytest.mark.fault("F15")
@pytest.mark.parametrize("skew_seconds", [-86400.0, 86400.0])
def test_a_clock_that_is_a_day_off_changes_nothing(skew_seconds, tmp_path, short_lease, monkeypatch):
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
def test_heartbeats_are_counted_and_a_file_that_is_only_touched_has_none(tmp_path, short_lease):
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
def test_a_takeover_is_found_in_spite_of_a_stale_listing_of_the_folder(tmp_path, monkeypatch):
    with hold(tmp_path) as held:
        stale = {1: tmp_path / "lease-1.json"}
        monkeypatch.setattr(lease, "_leases", lambda _: stale)
        held.check()
        leave(tmp_path, 2)
        with pytest.raises(LeaseLost):
            held.check()


@pytest.mark.fault("F16")
def test_a_process_that_sees_an_empty_folder_does_not_take_a_held_run(tmp_path, monkeypatch):
    leave(tmp_path, 2)
    monkeypatch.setattr(lease, "_leases", lambda _: {})
    with pytest.raises((RunIsTaken, LeaseLost)), hold(tmp_path) as second:
        second.check()


@pytest.mark.fault("F16")
def test_a_listing_with_a_removed_lease_is_read_again(tmp_path, monkeypatch):
    leave(tmp_path, 2)
    listings = iter([{3: tmp_path / "lease-3.json"}] * 3)
    leases = lease._leases
    monkeypatch.setattr(lease, "_leases", lambda folder: next(listings, None) or leases(folder))
    assert read_holder(tmp_path).attempt == 2


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
