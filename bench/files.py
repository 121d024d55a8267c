"""Writing files so that a kill, a full disk or a second writer never leaves a part of one."""

import os
import uuid
from pathlib import Path

from bench.errors import AlreadyDone


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, meets the old content or the new, never a part."""
    replace(path, content, durable=True)
    _sync_folder(path.parent)


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """As `write_atomically`; without `durable` a power cut may lose it, which is cheap enough for signs of life."""
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
