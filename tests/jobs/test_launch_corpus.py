"""Small experiments fall back to the synthetic text, aloud; no other text stands in for what was named."""

from pathlib import Path

import pytest

from bench.errors import CorpusError
from bench.experiments import EXPERIMENTS
from bench.experiments.grid import Experiment
from bench.fetch import DATA_DIR_VARIABLE, DownloadError
from jobs.app import app
from jobs.launch import prepare
from tests.command_line import call


@pytest.fixture
def no_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is named, nothing is cached, and the network is down."""

    def fail(*_: object) -> Path:
        raise DownloadError("no network")

    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("bench.fetch.download", fail)


def chosen(name: str = "smoke", data_dir: Path | None = None) -> Experiment:
    """An experiment as a launch prepares it."""
    return prepare(name, mode=None, device="cpu", seeds=None, data_dir=data_dir)


@pytest.mark.usefixtures("no_corpus")
@pytest.mark.parametrize("name", ["smoke", "laptop", "laptop-tuning"])
def test_small_experiments_fall_back_to_the_synthetic_text_and_say_so(name, capsys):
    found = chosen(name)
    assert {cell.config.corpus for cell in found.cells} == {found.manifest().corpus} == {"synthetic"}
    printed = capsys.readouterr().out
    assert printed.count("WARNING") == 2
    assert "no network" in printed
    assert "SYNTHETIC" in printed
    assert not {run.run_id for run in EXPERIMENTS[name]().runs()} & {run.run_id for run in found.runs()}


@pytest.mark.usefixtures("no_corpus", "no_probe")
def test_the_paper_experiment_stops_rather_than_use_another_text(tmp_path, capsys):
    store = tmp_path / "store"
    command = ["launch", "--experiment", "paper", "--dry-run", "--device", "cpu", "--store", store]
    assert call(app, *command) == 2
    assert capsys.readouterr().err == "error: no network\n"
    assert not store.exists()


@pytest.mark.usefixtures("no_corpus")
def test_nothing_stands_in_for_a_corpus_that_was_named_or_is_altered(tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="missing"):
        chosen(data_dir=tmp_path / "data")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    with pytest.raises(CorpusError, match="missing"):
        chosen()
    monkeypatch.delenv(DATA_DIR_VARIABLE)
    cached = tmp_path / "cache" / "k-operators-bench" / "tinyshakespeare" / "input.txt"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"altered")
    with pytest.raises(CorpusError, match="altered"):
        chosen()


def test_the_corpus_that_is_there_is_used_without_a_word(data_dir, capsys):
    assert {cell.config.corpus for cell in chosen(data_dir=data_dir).cells} == {"tinyshakespeare"}
    assert capsys.readouterr().out == ""
