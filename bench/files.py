"""Writing files so that a kill, a full disk or a second writer never leaves a part of one; folders that are named."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bench.errors import AlreadyDone, ConfigError

GRACE_SECONDS = 30.0  # until a file written on another machine is visible here
Value = TypeVar("Value")


def named_folder(variable: str) -> Path | None:
    """The folder that an environment variable names; None where it is unset. ConfigError where it is empty."""
    named = os.environ.get(variable)
    if named == "":
        raise ConfigError(f"{variable} is empty: name a folder, or unset it")
    return None if named is None else Path(named)


def could_be_made(folder: Path) -> bool:
    """Whether files could be written in a folder, which is made if it is missing; makes nothing itself."""
    nearest = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def make_way(path: Path) -> None:
    """Rename what is at a path and is no file, such as a folder, and print so: a file can then be written there."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        aside = path.with_name(f"{path.name}.unreadable-{uuid.uuid4().hex[:8]}")
        path.rename(aside)
        print(f"{path} is no file; it is {aside.name} now", flush=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, meets the old content or the new, never a part."""
    replace(path, content, durable=True)
    _sync_folder(path.parent)


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """As `write_atomically`; without `durable` a power cut may lose it, which is good enough for progress files."""
    temporary = _write_temporary(path, content, durable=durable)
    temporary.replace(path)


def write_once(path: Path, content: bytes) -> None:
    """As `write_atomically`, but AlreadyDone where the file exists: of several writers exactly one succeeds."""
    temporary = _write_temporary(path, content, durable=True)
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise AlreadyDone(f"{path} exists; records are written once") from error
    finally:
        temporary.unlink()
    _sync_folder(path.parent)


def wait_for(read: Callable[[], Value], seconds: float = GRACE_SECONDS) -> Value:
    """The result of `read`, retried for `seconds` while the file is missing: a shared file system may show it late."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while True:
        try:
            return read()
        except FileNotFoundError:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _write_temporary(path: Path, content: bytes, *, durable: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
