"""The cache of torch.compile for later runs on this machine: one folder per torch version and kind of GPU.

It holds pickles and machine code that are loaded and executed, so only its user may write to it. Workers that share it
harm nothing: Inductor and Triton write to a temporary name and rename, and Inductor builds C++ under a file lock.
"""

import os
import re
import shlex
import stat
import time
from contextlib import suppress
from pathlib import Path

from bench.errors import ConfigError, StoreError
from bench.fetch import cache_dir
from bench.files import named_folder

CACHE_DIR_VARIABLE = "BENCH_CACHE_DIR"
FOLDER = "compiled"  # next to the user's corpora, unless the variable names another
FOLDER_NAME = re.compile(r"torch-[a-z0-9.-]+")
ROOT_UID = 0  # who can replace any file
UNUSED_DAYS = 30  # after which `gc` removes what a kind of device and a torch version left


def cache_root() -> Path:
    """The folder that holds one folder for each torch version and kind of device; it need not be there."""
    return (named_folder(CACHE_DIR_VARIABLE) or cache_dir() / FOLDER).expanduser().resolve()


def compile_cache(kind: str) -> Path:
    """The cache of this torch and a kind of device, made where it is missing, and marked as used now.

    StoreError where others can write to it; ConfigError where it cannot be made.
    """
    import torch

    build = f"cuda-{torch.version.cuda}" if torch.version.cuda else "cpu"
    name = f"torch-{torch.__version__.split('+')[0]}-{build}-{kind}"
    root = cache_root()
    folder = root / re.sub(r"[^a-z0-9.-]+", "-", name.lower())
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_root(root)
        folder.mkdir(mode=0o700, exist_ok=True)
        check_ours(folder)
        folder.chmod(0o700)  # the folder above may be one that its user shows to others
        os.utime(folder)  # what `gc` goes by
    except OSError as error:
        raise ConfigError(
            f"compile cache {folder} cannot be made: {error.strerror}; set {CACHE_DIR_VARIABLE} to a folder of yours"
        ) from error
    return folder


def cache_environment(kind: str) -> dict[str, str]:
    """The environment variables by which a worker's compilers keep what they make in the cache of a kind of device."""
    folder = compile_cache(kind)
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
    }


def check_cache() -> None:
    """StoreError where `compile_cache` would refuse the folder that there is; makes nothing."""
    with suppress(FileNotFoundError):
        check_root(cache_root())


def check_root(folder: Path) -> None:
    """StoreError unless nobody else can put another folder in the place of ours in this one.

    It is ours or root's. Where others may write, as in /tmp, its sticky bit must keep them from moving what is ours.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.getuid(), ROOT_UID):
        raise StoreError(
            f"compile cache: others could replace files in {folder}, which is not a folder of yours, and it would "
            f"be executed; set {CACHE_DIR_VARIABLE} to a folder of yours"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise StoreError(
            f"compile cache: others may write in {folder} and could replace its files, which would be executed; "
            f"type `chmod go-w {shlex.quote(str(folder))}`, or set {CACHE_DIR_VARIABLE} to another folder of yours"
        )


def check_ours(folder: Path) -> None:
    """StoreError unless a folder of the cache is ours and only ours to write, since its files are executed."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreError(
            f"compile cache {folder} is not a folder of yours, and its files would be executed; set "
            f"{CACHE_DIR_VARIABLE} to a folder of yours"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(
            f"compile cache {folder} may be written by others, and its files would be executed; remove it with "
            f"`rm -r {shlex.quote(str(folder))}`, or set {CACHE_DIR_VARIABLE} to a folder of yours"
        )


def unused() -> list[Path]:
    """The folders of the cache that no launch has used for UNUSED_DAYS; none where the cache is not ours."""
    found: list[Path] = []
    with suppress(OSError, ConfigError, StoreError):  # a user without a home has no cache
        check_root(cache_root())
        for path in sorted(cache_root().glob("torch-*")):
            with suppress(OSError, StoreError):  # it went by itself, or others may write there
                check_ours(path)
                if FOLDER_NAME.fullmatch(path.name) and time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
                    found.append(path)
    return found
