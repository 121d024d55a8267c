"""Sources with given answers, in place of processes that run first steps."""

import contextlib

import pytest

from bench.errors import ConfigError
from bench.recheck import check as recheck
from bench.recheck.workers import NoAnswer
from tests.rechecking import COMMIT, LOSSES, OLD
from tests.records import FINGERPRINT


@pytest.fixture(autouse=True)
def _present_sources(monkeypatch):
    monkeypatch.setattr("bench.sources.current_fingerprint", lambda _: FINGERPRINT)
    monkeypatch.setattr("bench.recheck.check.current_fingerprint", lambda _: FINGERPRINT)


class Sources:
    """Replaces processes that run first steps: the answers of the present sources and of those of the commit."""

    def __init__(self):
        self.requests = []
        self.settings = []
        self.present = {"fingerprint": FINGERPRINT, "first_train_nats": LOSSES}
        self.committed = {"fingerprint": OLD, "first_train_nats": LOSSES}

    def ask(self, folder, question, settings=None):
        present = folder == recheck.ROOT
        self.settings.append(settings)
        self.requests.append(("present" if present else "committed", question))
        answer = self.present if present else self.committed
        if "error" in answer:
            raise NoAnswer(answer["error"])
        return answer

    @property
    def called(self):
        return [one for one, _ in self.requests]


@pytest.fixture
def sources_here(monkeypatch, tmp_path):
    """Replaces the pool by serial calls, and the worktrees of commits."""
    here = Sources()

    def one_by_one(tasks, n_at_once, do, report):
        for task in tasks:
            report(do(task, here))

    def commit_of(commit, repository):
        if not COMMIT.startswith(commit):
            raise ConfigError(f"commit {commit} is not in this repository")
        return COMMIT

    monkeypatch.setattr("bench.recheck.check.in_parallel", one_by_one)
    monkeypatch.setattr("bench.recheck.check.full_commit", commit_of)
    monkeypatch.setattr("bench.recheck.check.worktree", lambda *_: contextlib.nullcontext(tmp_path / "tree"))
    monkeypatch.setattr("bench.recheck.check.find_text", lambda *_: None)
    return here
