"""The sources of a commit in a temporary folder, for as long as they are needed."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import ConfigError
from bench.sources import ROOT


@contextmanager
def worktree(commit: str, repository: Path = ROOT) -> Iterator[Path]:
    """A temporary git worktree of a commit, abbreviated or not. ConfigError where git or the commit is missing."""
    with tempfile.TemporaryDirectory(prefix="bench-worktree-") as scratch:
        folder = Path(scratch).resolve() / "tree"
        _git(repository, "worktree", "add", "--detach", "--quiet", str(folder), commit)
        try:
            yield folder
        finally:
            _git(repository, "worktree", "remove", "--force", str(folder))


def _git(repository: Path, *arguments: str) -> None:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"git cannot be run ({error}); install it, or use a machine that has it") from error
    if done.returncode:
        raise ConfigError(f"git {arguments[0]} failed in {repository}: {done.stderr.strip()}")
