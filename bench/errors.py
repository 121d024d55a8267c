"""Errors of the user or of the machine, their exit codes, and the parts that messages share."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

EXIT_FAILED, EXIT_INCOMPLETE, EXIT_NOT_REPRODUCED, EXIT_INTERRUPTED = 1, 3, 4, 130
EXIT_CODES = {  # of every command; the help of both programs prints them
    0: "done",
    EXIT_FAILED: "a run failed, or a file could not be read (the rest is still written)",
    2: "usage, config or corpus error",
    EXIT_INCOMPLETE: "incomplete: runs are missing",
    EXIT_NOT_REPRODUCED: "complete, but a claim was not reproduced",
    EXIT_INTERRUPTED: "interrupted",
}
EXIT_CODES_HELP = "Exit codes: " + "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items()) + "."

# Out-of-memory errors in exceptions and logs: torch on a GPU and on a CPU, CUDA's driver, its libraries, Triton,
# Python, SLURM. Several of them are a plain RuntimeError.
NO_MEMORY = re.compile(r"out[ _]of[ _]memory|MemoryError|DefaultCPUAllocator|ALLOC_FAILED", re.IGNORECASE)


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message, at most 500 characters."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


class UserError(Exception):
    """A usage, config or corpus error; its message has the object, the reason and the next step."""

    exit_code = 2


class ConfigError(UserError):
    """A config that cannot be read or does not make sense."""


class DeviceError(ConfigError):
    """A device that is not on this machine, or cannot be used here."""


class CorpusError(UserError):
    """A corpus that is missing, altered or cannot be downloaded."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used: corrupt, foreign, or made by another config or other sources."""


class CorruptCheckpoint(CheckpointError):
    """A checkpoint whose bytes are not those that were written."""


class RecordError(UserError):
    """A record that cannot be read: truncated, foreign or edited by hand."""

    exit_code = EXIT_FAILED


class StoreError(UserError):
    """A store that cannot be read or written."""


class AlreadyDone(UserError):
    """The run already has a record in this store; records are written once."""


class RunIsTaken(UserError):
    """Another process is working on this run."""


class LeaseLost(UserError):
    """Another process has taken over the run that this one worked on."""


class EditedSources(UserError):
    """A queued run finds other sources than those it was launched with."""


def typed(program: str, *words: object, store: Path | None = None) -> str:
    """A command as it can be typed in this folder: the running Python's `-m program`, words quoted, with --store."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    of_store = () if store is None else ("--store", str(store))
    return shlex.join([python, "-m", program, *map(str, words), *of_store])


def count(n: int, thing: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{n:,} {thing}" + ("" if n == 1 else "s")


def clean(text: str) -> str:
    """`text` as one line without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def first_problem(error: "ValidationError") -> tuple[str, str]:
    """The dotted key of the first error that pydantic found, and its reason."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
