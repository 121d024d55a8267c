"""The files of a commit are in a temporary folder, which is removed however the process ends."""

import signal
from pathlib import Path

import pytest

from bench.errors import ConfigError
from bench.worktree import full_commit, worktree
from tests.command_line import finish, git, start_python


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, of which the first is tagged `old`, and an edit that is not committed."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for text in ("old", "new"):
        (folder / "file.txt").write_text(text)
        git(folder, "add", "file.txt")
        git(folder, "commit", "--quiet", "-m", text)
    git(folder, "tag", "old", "HEAD~1")
    (folder / "file.txt").write_text("edited")
    return folder


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary folders."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def left_behind(repository: Path, scratch: Path) -> list[str]:
    registered = git(repository, "worktree", "list", "--porcelain").count("worktree ")
    return [str(path) for path in scratch.iterdir()] + ["registered"] * (registered - 1)


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_a_commit_is_found_by_its_first_digits_and_removed_after_use(repository, scratch, digits):
    commit = git(repository, "rev-parse", "old")
    with worktree(commit[:digits], repository) as folder:
        assert (folder / "file.txt").read_text() == "old"
    assert left_behind(repository, scratch) == []
    assert (repository / "file.txt").read_text() == "edited"
    assert git(repository, "status", "--porcelain") == "M file.txt"


def test_it_is_removed_after_an_error(repository, scratch):
    def work():
        with worktree(git(repository, "rev-parse", "old"), repository) as folder:
            (folder / "made.txt").write_text("in the way of its removal")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert left_behind(repository, scratch) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_removed_when_a_signal_ends_the_process(repository, scratch, number):
    code = (
        "import sys, time, tempfile; from pathlib import Path; from bench.cli import run_guarded;"
        "from bench.worktree import worktree; tempfile.tempdir = sys.argv[2]\n"
        "def work():\n"
        "    with worktree(sys.argv[3], Path(sys.argv[1])): print('there', flush=True); time.sleep(100)\n"
        "run_guarded(work)"
    )
    process = start_python("-c", code, repository, scratch, git(repository, "rev-parse", "old"))
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    assert len(left_behind(repository, scratch)) == 2
    process.send_signal(number)
    process.send_signal(number)  # a second one does not interrupt the removal
    code, _, errors = finish(process)
    assert (code, errors.startswith("interrupted: stopped by")) == (130, True)
    assert left_behind(repository, scratch) == []


@pytest.mark.parametrize("commit", ["0" * 40, "abcdef1", "--help", "HEAD", "old"])
def test_a_text_that_is_not_a_commit_is_refused_by_name(repository, scratch, commit):
    with pytest.raises(ConfigError, match=commit), worktree(commit, repository):
        pass
    assert left_behind(repository, scratch) == []


def test_a_folder_that_is_not_the_root_of_a_repository_is_refused(repository, tmp_path):
    commit = git(repository, "rev-parse", "old")
    with pytest.raises(ConfigError, match="clone the project with its history"):
        full_commit(commit, tmp_path)
    (repository / "inside").mkdir()
    with pytest.raises(ConfigError, match="not the root of a git repository"):
        full_commit(commit, repository / "inside")


def test_a_machine_without_git_gets_an_error(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="install it"):
        full_commit("abcdef1", repository)
