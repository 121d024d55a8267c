"""Paths for other machines: by the links they were named through, whose targets other nodes may not have."""

import os
from contextlib import suppress
from pathlib import Path

from bench.sources import ROOT


def as_named(path: Path) -> Path:
    """The absolute path of a file, with its links as they are; in the checkout, by the way that led to it."""
    if path.is_relative_to(ROOT):
        return checkout() / path.relative_to(ROOT)
    return _working_folder() / path


def checkout() -> Path:
    """The folder of the sources: by the shell's way to it where this process works in it."""
    here = _working_folder()
    return next((one for one in (here, *here.parents) if _same(one, ROOT)), ROOT)


def _working_folder() -> Path:
    """As `pwd -L` prints it: the system knows only where links lead."""
    here = Path(os.environ.get("PWD", ""))
    return here if here.is_absolute() and _same(here, Path.cwd()) else Path.cwd()


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
