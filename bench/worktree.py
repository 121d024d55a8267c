"""The sources of a commit in a temporary folder."""

import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

from bench.errors import ConfigError
from bench.process import Interrupted, on_signals
from bench.sources import ROOT, git

COMMIT = re.compile(r"[0-9a-f]{7,40}")


@cache
def full_commit(commit: str, repository: Path = ROOT) -> str:
    """The 40 digits of a commit, also of an abbreviated one. ConfigError where git or the commit is missing.

    It must be in the history of the checkout: a record may name any commit, and its code is executed.
    """
    if not COMMIT.fullmatch(commit):
        raise ConfigError(f"{commit[:50]!r} is not a commit: those have 7 to 40 digits, 0-9 and a-f")
    try:
        top = git(repository, "rev-parse", "--show-toplevel")
    except ConfigError as error:
        raise ConfigError(
            f"{repository} is not a git repository ({error}); clone the project with its history"
        ) from error
    if Path(top) != repository.resolve():  # a repository that contains this folder
        raise ConfigError(f"{repository} is not the root of a git repository; clone the project with its history")
    try:
        full = git(repository, "rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}")
        git(repository, "merge-base", "--is-ancestor", full, "HEAD")
    except ConfigError as error:
        raise ConfigError(
            f"commit {commit} is not in the history of this checkout; fetch it: git fetch --unshallow"
        ) from error
    return full


@contextmanager
def worktree(commit: str, repository: Path = ROOT) -> Iterator[Path]:
    """A folder with the files of a commit; removed at the end, also after SIGINT or SIGTERM.

    ConfigError where git or the commit is missing.
    """
    full = full_commit(commit, repository)
    with stop_signals_raise() as stops, tempfile.TemporaryDirectory(prefix="bench-worktree-") as scratch:
        folder = Path(scratch).resolve() / "tree"
        try:
            git(repository, "worktree", "add", "--detach", "--quiet", str(folder), full)
            yield folder
        finally:
            stops.hold()  # a second signal must not cut the removal short
            if folder.exists():
                git(repository, "worktree", "remove", "--force", str(folder))
            git(repository, "worktree", "prune")  # removes the entry of an interrupted `add`


class _Stops:
    """Handler of SIGINT and SIGTERM: raises Interrupted once; on hold, it only counts."""

    def __init__(self) -> None:
        self._on_hold, self.n_unraised = False, 0

    def hold(self) -> None:
        """From now on only count signals."""
        self._on_hold = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._on_hold:
            self.n_unraised += 1
            return
        self._on_hold = True
        raise Interrupted(f"stopped by {signal.Signals(number).name}; the same command does the rest")


@contextmanager
def stop_signals_raise() -> Iterator[_Stops]:
    """Make SIGINT and SIGTERM raise Interrupted, so that `finally` blocks run. No effect outside the main thread."""
    stops = _Stops()
    with on_signals(stops, signal.SIGINT, signal.SIGTERM):
        yield stops
    if stops.n_unraised:
        raise Interrupted("stopped by a signal; the same command does the rest")
