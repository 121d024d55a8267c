"""What can go wrong by a user's doing or the machine's, each with the exit code that `python -m ...` ends with."""

import re

# What an error or a log says where memory ran out: torch on a GPU and on a CPU, CUDA's driver, its libraries, Triton,
# Python, SLURM. Several of them come as a plain RuntimeError.
NO_MEMORY = re.compile(r"out[ _]of[ _]memory|MemoryError|DefaultCPUAllocator|ALLOC_FAILED", re.IGNORECASE)


class UserError(Exception):
    """A usage, config or corpus error; the message names the thing, the reason and what to do next."""

    exit_code = 2


class ConfigError(UserError):
    """A config that cannot be read or does not make sense."""


class CorpusError(UserError):
    """A corpus that is missing, altered or cannot be had."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used: corrupt, foreign, or made by another config or other sources."""


class CorruptCheckpoint(CheckpointError):
    """A checkpoint whose bytes are not those that were written."""


class RecordError(UserError):
    """A record that cannot be read: truncated, foreign or edited by hand."""

    exit_code = 1


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
