"""The fingerprint follows what decides a number, and nothing else."""

import shutil
from pathlib import Path

import pytest

from bench import sources
from models import ARCHITECTURES, FITTED

NAMES = [*ARCHITECTURES, *FITTED]


@pytest.fixture
def copy(tmp_path) -> Path:
    for room in ("models", "bench"):
        shutil.copytree(sources.ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def changed(root: Path) -> set[str]:
    sources.fingerprint.cache_clear()
    return {name for name in NAMES if sources.fingerprint(name, root) != sources.fingerprint(name)}


def test_every_architecture_is_a_file_of_its_name():
    assert all((sources.ROOT / "models" / f"{name}.py").is_file() for name in NAMES)


def test_a_copy_has_the_same_fingerprint(copy):
    assert changed(copy) == set()


def test_a_comment_or_a_docstring_does_not_count(copy):
    edit(copy / "models/decay.py", '"""One position at a time', '"""One position, one at a time')
    edit(copy / "models/k_operators.py", "# K (W, W)", "# another comment")
    edit(copy / "bench/train.py", "\n\n\nclass Trainer", "\n\n\n\n# a comment\nclass Trainer")
    assert changed(copy) == set()


@pytest.mark.fault("F14")
def test_a_model_line_counts_for_the_architectures_that_rest_on_it(copy):
    edit(copy / "models/decay.py", "gamma**size", "gamma**size * 1.0")
    assert changed(copy) == {"k_operators"}
    edit(copy / "models/dropout.py", "1 << 16", "1 << 15")
    assert changed(copy) == set(ARCHITECTURES)


def test_a_line_of_the_shared_pipeline_counts_for_all(copy):
    edit(copy / "bench/evaluate.py", "EVAL_BATCH = 64", "EVAL_BATCH = 32")
    assert changed(copy) == set(NAMES)


def test_tables_and_jobs_do_not_count(copy):
    edit(copy / "bench/record.py", "SCHEMA_VERSION = 1", "SCHEMA_VERSION = 2")
    assert changed(copy) == set()


def test_without_git_the_commit_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("BENCH_COMMIT", "abc")
    assert sources.commit() == ("abc", None)
    monkeypatch.delenv("BENCH_COMMIT")
    assert sources.commit() == (None, None)
