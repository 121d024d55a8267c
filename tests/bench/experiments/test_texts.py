"""Folds and War and Peace: the headline recipes unchanged, from a launch at smoke size to their tables."""

import dataclasses
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config import RunConfig
from bench.corpora import CORPORA, N_FOLDS, CorpusFacts, whole_text
from bench.corpus import Corpus, load_corpus
from bench.errors import ConfigError
from bench.experiments import EXPERIMENTS, find_experiment, paper
from bench.experiments.grid import REPORTING_SEEDS, Cell, Experiment, on_corpus
from bench.experiments.laptop import best_arm
from bench.experiments.matched import decided, tuned
from bench.experiments.texts import ARMS, folds, on_folds, on_warpeace, warpeace
from bench.report.output import make_tables
from bench.report.table import Table
from bench.run import Settings, execute
from bench.store import Store
from bench.transfer import manifests
from bench.transfer.merge import merge
from jobs.app import app
from jobs.launch import find_todo, prepare, write_plan
from tests.command_line import call
from tests.conftest import tiny_config
from tests.merging import put, record_of
from tests.searching import Made
from tests.stores import cells

CPU = torch.device("cpu")
WON = partial(tuned, decided(Made(), ARMS))  # the recipe of an arm
SIZES = {"folds": WON, "folds-laptop": best_arm, "warpeace": WON, "warpeace-laptop": best_arm}
FOLDS = [f"tinyshakespeare-fold{i}" for i in range(N_FOLDS)]


@pytest.mark.parametrize("name", SIZES)
def test_each_arm_has_its_recipe_and_only_another_text(name):
    experiment = find_experiment(name, Made())
    assert {cell.group or cell.label for cell in experiment.cells} == set(ARMS)
    for cell in experiment.cells:
        recipe = SIZES[name](cell.group or cell.label)
        back = dataclasses.replace(cell.config.model, vocab_size=recipe.model.vocab_size)
        assert dataclasses.replace(cell.config, corpus=recipe.corpus, model=back) == recipe
        assert cell.config.model.vocab_size == CORPORA[cell.config.corpus].vocab_size


@pytest.mark.parametrize("name", ["folds", "folds-laptop"])
def test_every_arm_is_on_every_fold_with_one_seed(name):
    experiment = find_experiment(name, Made())
    of_arms = {(cell.group, cell.config.corpus): cell for cell in experiment.cells}
    assert set(of_arms) == {(arm, fold) for arm in ARMS for fold in FOLDS}
    assert of_arms["modern", FOLDS[3]].label == "modern-fold3"
    assert {cell.seeds for cell in experiment.cells} == {REPORTING_SEEDS[:1]}
    assert experiment.reference == "transformer"
    assert [run.label for run in experiment.runs()[:4]] == [f"{arm}-fold0" for arm in ARMS]  # pairs come early


@pytest.mark.parametrize("name", ["warpeace", "warpeace-laptop"])
def test_war_and_peace_has_82_characters_and_five_seeds(name):
    experiment = find_experiment(name, Made())
    assert {(cell.config.corpus, cell.config.model.vocab_size) for cell in experiment.cells} == {("warpeace", 82)}
    assert {cell.seeds for cell in experiment.cells} == {REPORTING_SEEDS[:5]}


def test_the_manifest_of_folds_names_the_whole_text():
    assert folds(Made()).manifest().corpus == "tinyshakespeare" == folds(Made()).corpus
    assert warpeace(Made()).manifest().corpus == "warpeace"
    assert [whole_text(name) for name in (*FOLDS, "tinyshakespeare", "synthetic")] == (
        ["tinyshakespeare"] * 11 + ["synthetic"]
    )


def test_another_corpus_brings_its_number_of_characters():
    moved = paper().on(corpus="warpeace", mode="exact", seeds=None)
    assert {(cell.config.corpus, cell.config.model.vocab_size) for cell in moved.cells} == {("warpeace", 82)}
    back = moved.on(corpus="tinyshakespeare", mode="exact", seeds=None)
    assert [run.run_id for run in back.runs()] == [run.run_id for run in paper().runs()]


def test_folds_stay_folds_of_their_text():
    assert folds(Made()).on(corpus="tinyshakespeare", mode="exact", seeds=None) == folds(Made())
    with pytest.raises(ConfigError, match="about the folds of tinyshakespeare, not about synthetic"):
        folds(Made()).on(corpus="synthetic", mode="exact", seeds=None)


def test_an_experiment_of_two_texts_is_refused():
    on_two = [
        Cell(label=name, config=on_corpus(best_arm("modern"), name), seeds=(42,)) for name in ("warpeace", FOLDS[0])
    ]
    with pytest.raises(ConfigError, match="cells of two texts"):
        Experiment(name="x", question="?", cells=tuple(on_two))


def test_a_reference_is_a_label_or_a_group():
    with pytest.raises(ConfigError, match="no cell 'nobody'"):
        dataclasses.replace(folds(Made()), reference="nobody")


@pytest.mark.usefixtures("no_probe")
@pytest.mark.parametrize(("name", "n"), [("folds-laptop", 40), ("warpeace-laptop", 20)])
def test_each_can_be_launched(name, n, tmp_path, data_dir, capsys):
    command = ["launch", "--experiment", name, "--dry-run", "--device", "cpu", "--data-dir", data_dir]
    assert call(app, *command, "--store", tmp_path / "store") == 0
    assert f"{n} of {n} runs to do" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["folds", "warpeace"])
def test_at_full_size_the_recipes_are_those_that_the_search_chose(name):
    with pytest.raises(ConfigError, match=r"the winners of tuning .* are needed"):
        find_experiment(name)
    assert set(find_experiment(name, Made()).chosen_by) == set(ARMS)


def test_seeds_are_added_to_folds_that_were_launched_before(tmp_path):
    store, experiment = Store(tmp_path), find_experiment("folds-laptop")
    for seeds in ((7,), (42,)):
        grid = experiment.on(corpus=None, mode="exact", seeds=seeds)
        write_plan(grid, store, find_todo(grid, store, pattern="modern-fold0", retry=None), any_sources=False)
    (manifest,) = store.manifests()[0]
    assert {tuple(cell.run_ids) for cell in manifest.cells} == {("7", "42")}


def test_merged_records_of_folds_get_their_manifest_and_belong_to_no_other_experiment(tmp_path):
    store = Store(tmp_path / "store")
    runs = [run for run in find_experiment("folds-laptop").runs() if run.label.startswith("modern")]
    merged = merge([put(tmp_path / "theirs", *map(record_of, runs))], store)
    (line,) = manifests.write_missing(find_experiment("folds-laptop"), merged, store, judged=False)
    assert "lists 10 runs of these" in line
    (manifest,) = store.manifests()[0]
    assert manifest == find_experiment("folds-laptop").manifest()
    with pytest.raises(ConfigError, match="none of the merged records is of it"):
        manifests.write_missing(find_experiment("laptop-all"), merged, store, judged=False)


def test_merged_records_of_war_and_peace_get_their_manifest(tmp_path):
    store = Store(tmp_path / "store")
    merged = merge([put(tmp_path / "theirs", *map(record_of, find_experiment("warpeace-laptop").runs()[:3]))], store)
    manifests.write_missing(find_experiment("warpeace-laptop"), merged, store, judged=False)
    assert store.manifests()[0] == [find_experiment("warpeace-laptop").manifest()]


# at smoke size, to the tables -----------------------------------------------------------------------------------------


def tiny(arm: str) -> RunConfig:
    """A recipe of two steps."""
    config = tiny_config("k_operators" if arm == "k_operators" else "transformer", 128, 1, n_steps=2, eval_every=2)
    options = {"transformer_rotary": {"position": "rotary"}, "modern": {"position": "rotary", "norm": "rms"}}
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **options.get(arm, {})))


@pytest.fixture
def little_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each text that is held out, the first 2,001 characters are scored."""

    def shortened(*arguments: Any) -> Corpus:
        corpus = load_corpus(*arguments)
        test = None if corpus.test is None else corpus.test[:2001]
        return dataclasses.replace(corpus, val=corpus.val[:2001], test=test)

    monkeypatch.setattr("bench.run.load_corpus", shortened)


def launched(make: Callable[..., Experiment], seeds: tuple[int, ...], folder: Path, data_dir: Path) -> list[Table]:
    """The tables of an experiment at smoke size after its runs, planned as by a launch and done in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXPERIMENTS, "tiny", lambda: make("tiny", tiny))
        experiment = prepare("tiny", mode=None, device="cpu", seeds=seeds, data_dir=data_dir)
    store = Store(folder)
    todo = find_todo(experiment, store, pattern=None, retry=None)
    write_plan(experiment, store, todo, any_sources=False)
    for run in todo.runs:
        assert execute(run, store, Settings(device=CPU, n_threads=1, data_dir=data_dir)).status == "done"
    assert find_todo(experiment, store, pattern=None, retry=None).runs == []
    return list(make_tables(store).tables)


def table(tables: list[Table], kind: str) -> Table:
    return next(one for one in tables if (one.experiment, one.kind) == ("tiny", kind))


@pytest.mark.usefixtures("little_is_scored")
def test_folds_run_from_their_plan_to_their_table(tmp_path, data_dir):
    tables = launched(on_folds, (42,), tmp_path, data_dir)
    found = table(tables, "folds")
    assert [row[:2] for row in found.rows] == [(arm, "10") for arm in ARMS]
    rows = {arm: cells(found, arm) for arm in ARMS}
    records = {record.label: record for record in Store(tmp_path).records()[0]}
    losses = {arm: [records[f"{arm}-fold{i}"].nats() or 0.0 for i in range(N_FOLDS)] for arm in ARMS}
    differences = [one - other for one, other in zip(losses["modern"], losses["transformer"], strict=True)]
    shown = float(rows["modern"]["difference to transformer"].replace("−", "-"))
    assert shown == pytest.approx(sum(differences) / N_FOLDS, abs=5e-5)
    assert len({round(nats, 6) for nats in losses["modern"]}) == N_FOLDS  # each on its own text
    assert {one.kind for one in tables if one.experiment == "tiny"} >= {"perplexity", "cost"}
    assert not {one.kind for one in tables} & {"differences", "tuning", "best-of-k", "noise", "plays", "warpeace"}


@pytest.mark.usefixtures("little_is_scored")
def test_war_and_peace_runs_from_its_plan_to_its_table(tmp_path, data_dir):
    tables = launched(on_warpeace, (42, 69), tmp_path, data_dir)
    found = table(tables, "warpeace")
    assert [row[:2] for row in found.rows] == [(arm, "2") for arm in ARMS]
    records = [one for one in Store(tmp_path).records()[0] if one.label == "k_operators"]
    tests = [one.result.test for one in records if one.result is not None and one.result.test is not None]
    assert {one.n_tokens for one in tests} == {2000 // 128 * 128}
    assert cells(found, "k_operators")["test loss"].startswith(f"{sum(one.nats_per_token for one in tests) / 2:.4f}")
    assert cells(found, "k_operators")["step chosen"] == "2"
    assert not {one.kind for one in tables} & {"folds", "plays", "tuning"}


def test_a_third_corpus_is_one_entry_and_its_test_text_has_its_table(tmp_path, monkeypatch):
    text = "To be, or not to be.\n" * 200
    (tmp_path / "mine.txt").write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    n_distinct = len(set(text))
    facts = CorpusFacts(
        sha256=sha256, n_characters=len(text), vocab_size=n_distinct, path="mine.txt", train_share=0.8, test_share=0.1
    )
    monkeypatch.setitem(CORPORA, "mine", facts)

    def on_mine(name: str, recipe: Callable[[str], RunConfig]) -> Experiment:
        config = on_corpus(recipe("transformer"), "mine")
        return Experiment(name=name, question="?", cells=(Cell(label="transformer", config=config, seeds=(42,)),))

    found = table(launched(on_mine, (42,), tmp_path / "store", tmp_path), "warpeace")
    assert cells(found)["n"] == "1"
    assert any(note.startswith("The test text of mine, its end,") for note in found.notes)
