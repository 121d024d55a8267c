"""Record files of a store, a folder, a single file or a tar archive, read in memory and within limits.

An archive may come from anywhere. Nothing of it is unpacked to disk, no name in it becomes a path, and one that holds
a link, a device, a path out of its folder, or more than records can be, is refused completely.
"""

import gzip
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from bench.errors import ConfigError, UserError
from bench.store import FOLDERS

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_FILE_BYTES = 16 * 2**20  # a record has less than 1 MiB
MAX_TOTAL_BYTES = 2**30  # of an archive, unpacked
MAX_MEMBERS = 20_000
MAX_RATIO = 200  # of an archive's bytes, unpacked to packed: records have about 4, and gzip can reach 1,000
RATIO_FROM_BYTES = 16 * 2**20  # below, a high ratio does no harm
MAX_HEADER_BYTES = 64 * 2**10  # of what tar puts before a member for a long name
MAX_NAME = 1000  # characters
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".npy", ".npz")  # could run code where they are loaded
WORK = "work"  # a store's folder of checkpoints and logs, of which nothing is read
GZIP_MAGIC = b"\x1f\x8b"
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *_LONG_NAMES)
_DAMAGED = "is damaged or cut; copy it again from the machine that made it"


class ArchiveError(UserError):
    """A source that is refused completely; none of its files may be used."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Member:
    """A JSON file of a source."""

    where: str  # for messages
    folder: str  # one of a store's FOLDERS; runs where it is in none of them
    name: str  # of the file
    content: bytes


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file of a source that was not read, and why; `refused` where it should not be there."""

    where: str
    why: str
    refused: bool = False


def check_sources(paths: list[Path]) -> None:
    """ConfigError where a path is no folder, no JSON file and no tar archive."""
    for path in paths:
        if not path.is_dir() and not path.is_file():
            raise ConfigError(f"there is no {path}; name a store, a folder of records, a record or a tar archive")
        if path.is_file() and not path.name.endswith((".json", *SUFFIXES)):
            raise ConfigError(f"{path} is no store, record (.json) or archive ({', '.join(SUFFIXES)})")


def read_source(path: Path) -> Iterator[Member | LeftOut]:
    """Every file of a source. ArchiveError where all of it must be refused, perhaps after some of its files."""
    if path.is_dir():
        return _of_folder(path)
    if path.name.endswith(SUFFIXES):
        return _of_archive(path)
    return _of_file(path.resolve(), str(path), _kind(path.resolve().parent.name))


def _of_folder(root: Path) -> Iterator[Member | LeftOut]:
    """The folders of a store, or all JSON files of another folder."""
    folders = [name for name in FOLDERS if (root / name).is_dir()]
    for folder in folders or ["."]:
        for path in sorted((root / folder).glob("*.json")):
            yield from _of_file(path, str(path), _kind(folder if folders else root.resolve().name))


def _kind(folder: str) -> str:
    """The folder of a store with this name; otherwise runs."""
    return folder if folder in FOLDERS else "runs"


def _of_file(path: Path, where: str, folder: str) -> Iterator[Member | LeftOut]:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            yield LeftOut(where=where, why="is a link or a device, not a plain file", refused=True)
            return
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        yield LeftOut(where=where, why=f"cannot be read: {error.strerror}", refused=True)
        return
    if len(content) > MAX_FILE_BYTES:
        yield LeftOut(where=where, why=_too_large(), refused=True)
    else:
        yield Member(where=where, folder=folder, name=path.name, content=content)


# --- archives ---


def _of_archive(path: Path) -> Iterator[Member | LeftOut]:
    """The JSON files of an archive, in its order. It is read as a stream, once, so that no limit can be passed."""
    try:
        with path.open("rb") as packed, _unpacked(packed) as stream:
            limited = _Limited(stream, path)
            opened = tarfile.open(fileobj=cast(IO[bytes], limited), mode="r|", tarinfo=_header_type(path))  # noqa: SIM115
            with opened as archive:
                for n, member in enumerate(archive):
                    if n >= MAX_MEMBERS:
                        raise ArchiveError(f"{path}: has more than {MAX_MEMBERS:,} members; pack only records")
                    yield from _of_member(archive, member, path)
            limited.drain()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: {_DAMAGED} ({error})") from error


def _unpacked(packed: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """The tar inside: through gzip where the first bytes are gzip's."""
    magic = packed.read(len(GZIP_MAGIC))
    packed.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=packed)) if magic == GZIP_MAGIC else nullcontext(packed)


def _of_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Iterator[Member | LeftOut]:
    parts = _parts(member.name, path)
    where = f"{path}: {'/'.join(parts)}"
    if member.isdir():
        return
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or not parts:
        raise ArchiveError(f"{where}: is a link, a device or no plain file; pack only records")
    name, folders = PurePosixPath(parts[-1]), parts[:-1]
    if WORK in folders:
        yield LeftOut(where=where, why="is no record")
    elif name.suffix in PICKLES:
        yield LeftOut(where=where, why="may be a pickle, which could run code; records are JSON", refused=True)
    elif name.suffix != ".json" or name.name.startswith("._"):  # the latter are a Mac's notes on a file
        yield LeftOut(where=where, why="is no record")
    elif member.size > MAX_FILE_BYTES:
        yield LeftOut(where=where, why=_too_large(), refused=True)
    else:
        file = archive.extractfile(member)
        content = b"" if file is None else file.read()
        if len(content) != member.size:
            raise ArchiveError(f"{where}: {_DAMAGED}")
        folder = _kind(folders[-1] if folders else "")
        yield Member(where=where, folder=folder, name=name.name, content=content)


def _parts(name: str, path: Path) -> tuple[str, ...]:
    """A member's name as folders and file. ArchiveError where it leads out of the archive or is not plain."""
    parts = PurePosixPath(name).parts
    plain = all(char.isalnum() or char in "_.+-@ /" for char in name) and len(name) <= MAX_NAME
    if not plain or name.startswith("/") or ".." in parts or any(part.startswith("-") for part in parts):
        raise ArchiveError(f"{path}: {name[:80]!a} is no plain name inside the archive; pack only records")
    return parts


class _Limited:
    """A stream that ends in ArchiveError once more comes out of it than an archive of records can hold."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path, self.n_packed, self.n_read = stream, path, path.stat().st_size, 0

    def read(self, n: int) -> bytes:
        """The next bytes, `n` at most."""
        chunk = self.stream.read(n)
        self.n_read += len(chunk)
        if self.n_read > MAX_TOTAL_BYTES:
            raise ArchiveError(f"{self.path}: unpacks to more than {MAX_TOTAL_BYTES // 2**20:,} MiB; pack only records")
        if self.n_read > max(RATIO_FROM_BYTES, MAX_RATIO * self.n_packed):
            raise ArchiveError(f"{self.path}: unpacks to more than {MAX_RATIO} times its size, as no record does")
        return chunk

    def drain(self) -> None:
        """Read what follows the end of the tar, so that gzip's checksum is compared. It must be zeros."""
        while chunk := self.read(2**16):
            if chunk.strip(b"\0"):
                raise ArchiveError(f"{self.path}: goes on after its end; merge joined archives one by one")


def _header_type(path: Path) -> type[tarfile.TarInfo]:
    """A header of tarfile, with checks: tarfile takes a damaged header for the end, and names of any length."""
    n_global = 0

    class Header(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
            nonlocal n_global
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                return super().frombuf(buf, encoding, errors)  # tarfile's own sign of the end
            try:
                header = super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                raise ArchiveError(f"{path}: {_DAMAGED} ({error})") from error
            n_global += header.type == tarfile.XGLTYPE
            too_long = header.type in _HEADERS and header.size > MAX_HEADER_BYTES
            if header.size < 0 or too_long or n_global > 1:  # each global header is copied for every later member
                raise ArchiveError(f"{path}: a header of tar itself is too large or damaged; pack only records")
            return header

    return Header


def _too_large() -> str:
    return f"is larger than {MAX_FILE_BYTES // 2**20} MiB, as no record is"
