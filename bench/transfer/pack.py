"""One archive of a store's records, for copying to another machine: `bench merge` reads it."""

import gzip
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import ConfigError, count
from bench.files import could_be_made, write_atomically
from bench.store import FOLDERS, Store

SUFFIXES = (".tar.gz", ".tgz")
SECONDS = 60.0  # between archives while runs are made


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The content of an archive: the number of files of each folder, and its size."""

    path: Path
    counts: dict[str, int]
    n_bytes: int

    def __str__(self) -> str:
        beside = ", ".join(f"{count(n, 'file')} of {folder}/" for folder, n in self.counts.items() if folder != "runs")
        inside = f"{count(self.counts.get('runs', 0), 'record')}{', ' if beside else ''}{beside}"
        return f"packed {inside} into {self.path} ({self.n_bytes / 2**20:.1f} MiB); no checkpoint is in it"


def pack(store: Store, path: Path) -> Packed:
    """Write the record files of a store into one archive, atomically; equal files give equal bytes."""
    files = _files(store)
    content = _archive(files)
    write_atomically(path, content)
    counts = {folder: sum(file.parent.name == folder for file in files) for folder in FOLDERS}
    return Packed(path=path, counts={folder: n for folder, n in counts.items() if n}, n_bytes=len(content))


@contextmanager
def packing(store: Store, path: Path | None, *, dry_run: bool = False) -> Iterator[None]:
    """Pack a store when the block ends, however it ends, and meanwhile every minute in which a record came.

    So a machine that is taken away leaves the archive of a minute ago. Nothing is done where `path` is None.
    ConfigError, before the block begins, for a name that is no archive's; also in a dry run, which packs nothing.
    """
    if path is None:
        yield
        return
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(f"--pack {path}: an archive's name ends in {' or '.join(SUFFIXES)}")
    if dry_run:
        if path.is_dir() or not could_be_made(path.parent):
            raise ConfigError(f"--pack {path} cannot be written; name another file")
        yield
        return
    packed = _files(store)
    try:
        pack(store, path)  # so that a place that cannot be written is known before an hour of training, not after
    except OSError as error:
        raise ConfigError(f"--pack {path} cannot be written: {error.strerror}; name another file") from error
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(store, path, packed, over), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        try:
            print(pack(store, path), flush=True)
        except OSError as error:  # the block's own end, and its exit code, stay what they are
            print(f"WARNING: {path} could not be written: {error.strerror}; bring {store.root} home", flush=True)


def _keep(store: Store, path: Path, packed: list[Path], over: threading.Event) -> None:
    """Pack again whenever files have changed. Errors are printed, and it is tried again."""
    while not over.wait(SECONDS):
        files = _files(store)
        if files == packed:
            continue
        try:
            pack(store, path)
            packed = files  # one that came since is packed too, and once more in a minute
        except OSError as error:
            print(f"WARNING: {path} could not be written: {error.strerror}; trying again", flush=True)


def _files(store: Store) -> list[Path]:
    """The record files of a store, folder by folder, by name. A link is none."""
    found = (path for folder in FOLDERS for path in sorted((store.root / folder).glob("*.json")))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _archive(files: list[Path]) -> bytes:
    """A tar.gz without times, owners or the path of the store."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            content = file.read_bytes()
            member = tarfile.TarInfo(f"{file.parent.name}/{file.name}")
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
