"""What was submitted to a scheduler, as stored on disk: which runs are which task of which array.

Written before the array is submitted, so that a launcher that dies in between loses nothing: the array carries the
submission's name, by which the scheduler finds it.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bench.errors import ConfigError, RecordError, StoreError
from bench.files import wait_for, write_atomically
from bench.record import SCHEMA_VERSION, Strict, read, to_bytes
from bench.store import RUN_ID, Store
from jobs.layout import ENDED_FILE, JOB_FILE, JOBS_FOLDER, PLAN_FILE

NAME_PREFIX = "kops-"


class Submission(Strict):
    """One array. `tasks` are its run ids by array index; the rest is how a task executes them."""

    schema_version: int = SCHEMA_VERSION
    name: str
    experiment: str
    store: str  # its folder, absolute
    tasks: tuple[tuple[str, ...], ...]
    device: str
    n_threads: int  # CPU threads of each run
    runs_at_once: int  # runs of a task that go side by side
    timeout_min: int
    checkpoint_seconds: float
    data_dir: str | None
    number: int  # counts the submissions of a store
    measures: bool = False  # times some steps of each run in place of doing it
    clusters: tuple[str, ...] = ()  # that it may go to; none: the one of the machine that submits

    def folder(self, store: Store) -> Path:
        """The folder of its plan, its scripts and its tasks' logs."""
        return store.work_folder / JOBS_FOLDER / self.name

    def write(self, store: Store) -> Path:
        """Put the plan on disk, in a folder that only its owner may enter."""
        folder = self.folder(store)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        check_private(folder)
        folder.chmod(0o700)
        for name in (JOB_FILE, ENDED_FILE):  # of a submission that once had this name
            (folder / name).unlink(missing_ok=True)
        write_atomically(folder / PLAN_FILE, to_bytes(self))
        return folder


def make_name(store: Store, tasks: Iterable[Iterable[str]], number: int) -> str:
    """A submission's name, the same for a rehearsal and the real one."""
    content = json.dumps([str(store.root.resolve()), [list(task) for task in tasks], number])
    return NAME_PREFIX + hashlib.sha256(content.encode()).hexdigest()[:8]


def read_submission(folder: Path) -> Submission:
    """The plan in a folder. ConfigError where it cannot be read, StoreError where others may write there."""
    try:
        wait_for(folder.lstat)
        check_private(folder)
        wait_for((folder / PLAN_FILE).stat)
        found = read(folder / PLAN_FILE, Submission)
    except (OSError, RecordError) as error:
        raise ConfigError(f"{folder / PLAN_FILE} cannot be read: {error}; launch again") from error
    if not all(RUN_ID.fullmatch(run_id) for task in found.tasks for run_id in task):
        raise ConfigError(f"{folder / PLAN_FILE}: not every run id is one; launch again")
    return found


def submissions(store: Store) -> list[Submission]:
    """Every submission of a store, oldest first; a folder whose plan cannot be read is skipped."""
    found = []
    for path in (store.work_folder / JOBS_FOLDER).glob(f"{NAME_PREFIX}*/{PLAN_FILE}"):
        with suppress(ConfigError):  # it was being written when its launcher died, and nothing was submitted
            found.append(read_submission(path.parent))
    return sorted(found, key=lambda one: (one.number, one.name))


def note_job(folder: Path, job_id: str, cluster: str | None = None) -> None:
    """Write down which job of which cluster an array became, for the accounts; the queue finds it by name."""
    write_atomically(folder / JOB_FILE, json.dumps({"job_id": job_id, "cluster": cluster}).encode())


def read_job(folder: Path) -> tuple[str, str | None] | None:
    """The job's id and cluster, where `note_job` came to write them."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        content = json.loads((folder / JOB_FILE).read_bytes())
        return str(content["job_id"]), content.get("cluster")
    return None


def check_private(folder: Path) -> None:
    """StoreError unless a folder is ours and only ours to write, since its files will be executed."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}; launch again") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(
            f"{folder} must be a folder of yours without write access for others; remove it and launch again"
        )
