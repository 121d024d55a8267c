"""The fingerprint changes with the code that decides a number, and with nothing else."""

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


def test_comments_docstrings_and_files_that_decide_no_number_do_not_count(copy):
    assert changed(copy) == set()
    edit(copy / "bench/record.py", "SCHEMA_VERSION: Final = 1", "SCHEMA_VERSION: Final = 2")
    edit(copy / "models/decay.py", '"""One position at a time', '"""One position, one at a time')
    edit(copy / "models/k_operators.py", "# K (W, W)", "# another comment")
    edit(copy / "bench/train.py", "\n\n\nclass Trainer", "\n\n\n\n# a comment\nclass Trainer")
    assert changed(copy) == set()


@pytest.mark.fault("F14")
def test_a_line_of_a_model_counts_for_the_architectures_that_import_it(copy):
    edit(copy / "models/decay.py", "gamma**size", "gamma**size * 1.0")
    assert changed(copy) == {"k_operators"}
    edit(copy / "models/dropout.py", "1 << 16", "1 << 15")
    assert changed(copy) == set(ARCHITECTURES)


def test_a_line_of_the_shared_pipeline_counts_for_all(copy):
    edit(copy / "bench/evaluate.py", "EVAL_BATCH = 64", "EVAL_BATCH = 32")
    assert changed(copy) == set(NAMES)


def test_without_git_the_commit_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("BENCH_COMMIT", "abc")
    assert sources.commit() == ("abc", None)
    monkeypatch.delenv("BENCH_COMMIT")
    assert sources.commit() == (None, None)
