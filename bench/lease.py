"""Which process works on a run: a lease in the run's folder, with a heartbeat, taken over only from ended processes.

Leases are numbered files, each made by one process only (a link that fails where the name is taken). Only the newest
counts, so a process that wakes up after it was taken for dead sees that it has lost the run. A holder is running if its
heartbeat changes within a time on the observer's monotonic clock; clocks of two machines are never compared. A holder
on the observer's machine is checked at once, by a lock that the kernel drops when the process ends.
"""

import errno
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from bench import files
from bench.errors import AlreadyDone, LeaseLost, RunIsTaken, StoreError

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 30.0  # without a heartbeat, before a lease may be taken over; longer than a slow file system's pause
POLL_SECONDS = 0.2
READ_TRIES, READ_WAIT_SECONDS = 5, 0.05
LOCK_TRIES, LOCK_WAIT_SECONDS = 5, 0.1  # `status` holds a machine's lock for a moment
NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # a shared file system without a lock service


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The content of a lease. `attempt` counts the processes that have held the run, this one included."""

    attempt: int
    owner: str  # unique to this process
    boot: str  # the machine and its start
    node: str
    pid: int
    job_id: str | None  # of the scheduler
    heartbeat: int = 0
    released: bool = False


HOLDERS = TypeAdapter(Holder)


class Lease:
    """A lease that this process holds; made by `hold`."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self.folder, self.holder = folder, holder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def attempt(self) -> int:
        """The number of processes that have held the run so far."""
        return self.holder.attempt

    def check(self) -> None:
        """LeaseLost where another process has taken the run over; called before anything of the run is written."""
        if _path(self.folder, self.attempt + 1).exists() or _newest(self.folder) > self.attempt:
            raise LeaseLost(
                f"another process took over {self.folder}, since this one had no heartbeat for {LEASE_SECONDS:g} s; "
                "the run continues there"
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self.holder = replace(self.holder, heartbeat=self.holder.heartbeat + 1)
            with suppress(OSError):  # a file system that stalls or is full: the run itself will fail with it
                if _newest(self.folder) <= self.attempt:
                    self._write()

    def _write(self) -> None:
        files.replace(_path(self.folder, self.attempt), json.dumps(asdict(self.holder)).encode())

    def start(self) -> None:
        """Start the heartbeat."""
        self._thread.start()

    def release(self) -> None:
        """Release the run, where this process still holds it."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError, LeaseLost):
            self.check()
            self.holder = replace(self.holder, released=True)
            self._write()


@contextmanager
def hold(folder: Path) -> Iterator[Lease]:
    """Hold the run of a folder, which is made if missing. RunIsTaken where another running process holds it.

    Waits LEASE_SECONDS where a process of another machine left a lease without a heartbeat.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _lock_name()).open("w", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"run folder {folder} cannot be written: {error.strerror}; set BENCH_RUNS_DIR") from error
    with lock:
        locked = _lock(lock.fileno(), folder)
        lease = _take(folder, after=_last_attempt(folder, locked=locked))
        lease.start()
        try:
            yield lease
        finally:
            lease.release()


def read_holder(folder: Path) -> Holder | None:
    """The newest lease of a run folder; None where there is none.

    A file that this code did not write counts as released. One that cannot be read at the moment gives an unknown
    holder, which is watched like any other.
    """
    attempt = 0
    for _ in range(READ_TRIES):
        if (attempt := _newest(folder)) == 0:
            return None
        try:
            return replace(HOLDERS.validate_json(_path(folder, attempt).read_bytes()), attempt=attempt)
        except ValueError:
            return replace(_unknown(attempt), released=True)
        except OSError:  # the next holder has just removed it, or a shared file system is replacing it
            time.sleep(READ_WAIT_SECONDS)
    return _unknown(attempt)


def living(folders: Iterable[Path], seconds: float = 2 * HEARTBEAT_SECONDS + 1) -> dict[Path, Holder]:
    """The holders that are running, by run folder. Watches up to `seconds` where one is on another machine."""
    found: dict[Path, Holder] = {}
    watched: dict[Path, Holder] = {}
    for folder in folders:
        holder = read_holder(folder)
        if holder is None or holder.released:
            continue
        alive = _is_locked(folder) if holder.boot == boot_id() else None
        if alive is None:
            watched[folder] = holder
        elif alive:
            found[folder] = holder
    deadline = time.monotonic() + seconds
    while watched and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        for folder, before in list(watched.items()):
            now = read_holder(folder)
            if now is not None and _moved(before, now):
                del watched[folder]
                if not now.released:
                    found[folder] = now
    return found


@cache
def boot_id() -> str:
    """An id of this machine since its last start: processes with the same id share file locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def job_id() -> str | None:
    """The scheduler's name for the job that this process belongs to."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID")


def node() -> str:
    """The name of this machine, as the scheduler calls it where there is one."""
    return os.environ.get("SLURMD_NODENAME") or platform.node()


def _take(folder: Path, after: int) -> Lease:
    """Make the lease that follows attempt `after`. RunIsTaken where another process was first."""
    holder = Holder(
        attempt=after + 1, owner=uuid.uuid4().hex, boot=boot_id(), node=node(), pid=os.getpid(), job_id=job_id()
    )
    try:
        files.write_once(_path(folder, holder.attempt), json.dumps(asdict(holder)).encode())
    except AlreadyDone as error:
        raise RunIsTaken(f"another process has just started in {folder}; wait for it or stop it") from error
    except OSError as error:
        raise StoreError(f"run folder {folder} cannot be written: {error.strerror}; set BENCH_RUNS_DIR") from error
    lease = Lease(folder, holder)
    lease.check()  # others may have taken the run since `after` was read
    for attempt, path in _leases(folder).items():
        if attempt < holder.attempt:
            with suppress(OSError):  # a folder, say
                path.unlink(missing_ok=True)
    return lease


def _last_attempt(folder: Path, *, locked: bool) -> int:
    """The last attempt, once its holder has released the run or has ended. RunIsTaken where it is running."""
    first = read_holder(folder)
    if first is None:
        return 0  # if another process makes the first lease meanwhile, `_take` fails
    if first.released or (
        locked and first.boot == boot_id()
    ):  # this process has the lock that a running holder would have
        return first.attempt
    print(f"waiting {LEASE_SECONDS:g} s for a heartbeat of attempt {first.attempt} on {first.node}", flush=True)
    deadline, last_look = time.monotonic() + LEASE_SECONDS, False
    while not last_look:
        time.sleep(POLL_SECONDS)
        last_look = time.monotonic() >= deadline  # one look after the deadline, in case this process was suspended
        now = read_holder(folder)
        if now is not None and now.released:
            return now.attempt
        if now is not None and _moved(first, now):
            raise RunIsTaken(f"a process on {now.node} is working in {folder}; wait for it or stop it")
    return first.attempt


def _unknown(attempt: int) -> Holder:
    return Holder(attempt=attempt, owner="", boot="", node="an unknown machine", pid=0, job_id=None, heartbeat=-1)


def _moved(before: Holder, now: Holder) -> bool:
    return (before.attempt, before.heartbeat, before.released) != (now.attempt, now.heartbeat, now.released)


def _lock_name() -> str:
    """One lock per machine, so that it does not matter whether a file system shares locks between machines."""
    return f"lock-{boot_id()[:8]}"


def _lock(descriptor: int, folder: Path) -> bool:
    """Lock out the other processes of this machine; False where the file system has no locks."""
    for tries_left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if not tries_left:
                raise RunIsTaken(f"another process is working in {folder}; wait for it or stop it") from error
            time.sleep(LOCK_WAIT_SECONDS)
        except OSError as error:
            if error.errno in NO_LOCKS_HERE:
                return False
            raise StoreError(f"run folder {folder} cannot be locked: {error.strerror}; set BENCH_RUNS_DIR") from error
    return False


def _is_locked(folder: Path) -> bool | None:
    """Whether a process of this machine holds the run; None where there are no locks."""
    try:
        with (folder / _lock_name()).open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return None if error.errno in NO_LOCKS_HERE else False
    return False


def _path(folder: Path, attempt: int) -> Path:
    return folder / f"lease-{attempt}.json"


def _leases(folder: Path) -> dict[int, Path]:
    numbers = {path: path.stem.removeprefix("lease-") for path in folder.glob("lease-*.json")}
    return {int(number): path for path, number in numbers.items() if number.isdecimal()}


def _newest(folder: Path) -> int:
    return max(_leases(folder), default=0)
