"""The diffs in CONTRIBUTING.md are all that it takes to add a baseline, an experiment or a table."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiments import paper
from bench.fetch import DATA_DIR_VARIABLE
from bench.record import Manifest, Record
from bench.sources import fingerprint
from tests.records import make_record
from tests.stores import make_store

ROOT = Path(__file__).parent.parent
NAMES = ("A baseline", "An experiment", "A table")
NEW_FILES = ("models/gru.py", "bench/report/tables/overfitting.py")

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="`git apply` puts a diff to the test")


def shown() -> dict[str, str]:
    """The diffs of CONTRIBUTING.md by the heading they stand under."""
    sections = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n### ")[1:]
    return {
        section.partition("\n")[0]: "".join(re.findall(r"^```diff\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
        for section in sections
    }


def copy_to(folder: Path) -> Path:
    """The project without its results."""
    for room in ("models", "bench", "jobs", "tests"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "results").mkdir()
    for name in ("pyproject.toml", "results/published.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def apply(diff: str, copy: Path) -> None:
    """Apply a diff to a copy; fails with git's message where the context lines of the diff are no longer there."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}  # else a repository around it counts
    command = ["git", "apply", "--whitespace=error-all", "-"]
    result = subprocess.run(command, cwd=copy, env=environment, input=diff, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run(copy: Path, *arguments: object) -> str:
    """What `python ARGUMENTS` prints in a copy, whose packages are imported instead of those installed."""
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)}
    result = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def n_passed(copy: Path, words: str, *paths: str) -> int:
    """How many of a copy's tests in `paths` whose names contain these words passed; none may fail or skip."""
    printed = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", words, *paths)
    (n,) = re.findall(r"^(\d+) passed, \d+ deselected", printed, re.MULTILINE)
    return int(n)


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy with all three added."""
    copy = copy_to(tmp_path_factory.mktemp("extended"))
    for diff in shown().values():
        apply(diff, copy)
    return copy


@pytest.mark.parametrize("name", NAMES)
def test_each_diff_applies_by_itself_and_is_as_clean_as_the_rest(name, tmp_path):
    assert tuple(shown()) == NAMES
    copy = copy_to(tmp_path)
    apply(shown()[name], copy)
    changed = re.findall(r"^\+\+\+ b/(.*)$", shown()[name], re.MULTILINE)
    assert changed
    run(copy, "-m", "ruff", "check", "--no-cache", *changed)
    run(copy, "-m", "ruff", "format", "--no-cache", "--check", *changed)


def test_what_was_added_keeps_every_promise_of_its_kind(extended):
    words = "gru or depth or every_architecture or every_trained_architecture"
    files = ("tests/bench/test_sources.py", "tests/bench/test_config.py")
    assert n_passed(extended, words, "tests/models", "tests/bench/experiments", *files) >= 25


def test_the_experiment_is_found_and_one_arm_is_that_of_the_paper(extended):
    code = "from bench.experiments import find_experiment; print(find_experiment('depth').manifest().model_dump_json())"
    depth = Manifest.model_validate_json(run(extended, "-c", code))
    assert [cell.label for cell in depth.cells] == ["layers-2", "layers-4", "layers-6", "layers-8"]
    assert all(list(cell.run_ids) == ["42", "69", "420"] for cell in depth.cells)
    published = {cell.label: cell.run_ids for cell in paper().manifest().cells}["k_operators"]
    assert [cell.label for cell in depth.cells if cell.run_ids.items() <= published.items()] == [depth.reference]


def test_the_table_has_the_losses_of_the_last_evaluation(extended, tmp_path):
    def ending(label: str, seed: int | None, training: float, validation: float, **changes) -> Record:
        record = make_record(label, seed, fingerprint=fingerprint("k_operators"), **changes)
        losses = {"train_nats_per_token": training, "val_nats_per_token": validation}
        return record.model_copy(update={"curve": [*record.curve[:-1], record.curve[-1].model_copy(update=losses)]})

    records = [ending("fits", 42, 1.0, 1.5), ending("fits", 69, 1.2, 1.6), ending("drops", 42, 1.4, 1.3)]
    records += [ending("drops", 69, 9.0, 9.0, status="diverged"), ending("unigram", None, 3.0, 3.0)]
    make_store(tmp_path, records)
    run(extended, "-m", "bench", "table", "--store", tmp_path)
    with (tmp_path / "tables" / "laptop-overfitting.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["arm", "n", "training loss", "validation loss", "gap"],
            ["fits", "2", "1.100 ± 0.141", "1.550 ± 0.071", "0.450"],  # √0.02 and √0.005
            ["drops", "1 of 2", "1.400 (1 of 2)", "1.300 (1 of 2)", "−0.100 (1 of 2)"],
        ]


@pytest.mark.slow
def test_the_baseline_learns_resumes_and_writes(extended, data_dir, monkeypatch):
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(data_dir.resolve()))
    assert n_passed(extended, "gru", *(f"tests/bench/test_{name}.py" for name in ("train", "resume", "sample"))) >= 15


@pytest.mark.slow
def test_the_new_files_are_typed_as_strictly_as_the_rest(extended):
    run(extended, "-m", "mypy", *NEW_FILES)


@pytest.mark.slow
def test_the_experiment_can_be_launched(extended, data_dir, tmp_path):
    store = ["--store", tmp_path / "store", "--data-dir", data_dir.resolve()]
    printed = run(extended, "-m", "jobs", "launch", "--experiment", "depth", "--dry-run", "--device", "cpu", *store)
    assert "12 of 12 runs to do" in printed
    assert re.findall(r"layers-\d-s42 ", printed) == [f"layers-{n}-s42 " for n in (2, 4, 6, 8)]
