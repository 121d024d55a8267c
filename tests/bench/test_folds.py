"""Ten folds are one text without loss or overlap; no window crosses a cut; a test text is scored once, at the end."""

import dataclasses
import hashlib
from itertools import pairwise

import pytest
import torch

from bench.batches import train_batch
from bench.corpora import CORPORA, N_FOLDS, CorpusFacts
from bench.corpus import BLANK_LINE, decode, fold_bounds, load_corpus
from bench.errors import ConfigError, CorpusError
from bench.history import History, measure
from bench.run import Settings, check_length, execute
from bench.store import Store
from models import build
from tests.conftest import CONTEXT, TINY_MODELS, tiny_config

CPU = torch.device("cpu")
FOLDS = [f"tinyshakespeare-fold{fold}" for fold in range(N_FOLDS)]


def test_held_out_tenths_are_the_text_and_each_starts_after_the_blank_line_nearest_to_a_tenth(data_dir):
    text = (data_dir / "tinyshakespeare/input.txt").read_text(encoding="ascii")
    folds = [load_corpus(name, CPU, data_dir) for name in FOLDS]
    assert "".join(decode(fold.val, fold.vocabulary) for fold in folds) == text
    starts = [end for end in range(2, len(text)) if text[end - 2 : end] == BLANK_LINE]
    for i, fold in enumerate(folds):
        start, end = fold_bounds(text, i)
        assert start == (0 if i == 0 else min(starts, key=lambda one: abs(one - len(text) * i / 10)))
        assert decode(fold.train, fold.vocabulary) == text[:start] + text[end:]
        assert fold.cuts == (() if i in (0, 9) else (start,))
        assert fold.sha256 == CORPORA["tinyshakespeare"].sha256


def test_a_text_without_blank_lines_has_no_folds():
    with pytest.raises(CorpusError, match="without blank lines"):
        fold_bounds("words and words\nand words", 3)


@pytest.mark.parametrize("cuts", [(), (30,), (30, 60)])
def test_no_window_crosses_a_cut_and_every_other_start_is_drawn(cuts):
    context = 5
    tokens = torch.arange(100, dtype=torch.uint8)
    x, y = train_batch(tokens, seed=3, step=0, batch_size=5000, context=context, cuts=cuts)
    assert torch.equal(y, x + 1)
    edges = [0, *cuts, 100]
    possible = {start for low, high in pairwise(edges) for start in range(low, high - context)}
    assert set(x[:, 0].tolist()) == possible


def test_a_step_on_the_device_draws_the_same_windows_beside_a_cut():
    tokens = torch.arange(100, dtype=torch.uint8)
    number, tensor = (train_batch(tokens, 3, step, 8, 5, (30,)) for step in (7, torch.tensor(7)))
    assert torch.equal(number[0], tensor[0])


def test_a_piece_of_training_text_that_is_too_short_is_refused(corpus, tiny_run):
    run = tiny_run("k_operators")
    check_length(run, corpus)
    with pytest.raises(ConfigError, match="too long: a text of synthetic has 20 tokens"):
        check_length(run, dataclasses.replace(corpus, cuts=(20,)))


def test_war_and_peace_is_split_into_eight_tenths_one_and_one(data_dir):
    corpus = load_corpus("warpeace", CPU, data_dir)
    assert len(corpus.vocabulary) == 82 == CORPORA["warpeace"].vocab_size
    assert corpus.test is not None
    lengths = len(corpus.train), len(corpus.val), len(corpus.test)
    assert sum(lengths) == 3_196_211
    assert lengths == (2_556_968, 319_621, 319_622)
    text = (data_dir / "warpeace/input.txt").read_bytes().decode("utf-8")
    assert decode(torch.cat([corpus.train, corpus.val, corpus.test]), corpus.vocabulary) == text


def test_a_third_corpus_is_one_entry(tmp_path, monkeypatch):
    text = "To be, or not to be.\n" * 50
    (tmp_path / "mine.txt").write_text(text)
    facts = CorpusFacts(
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        n_characters=len(text),
        vocab_size=len(set(text)),
        path="mine.txt",
        test_share=0.05,
    )
    monkeypatch.setitem(CORPORA, "mine", facts)
    corpus = load_corpus("mine", CPU, tmp_path)
    assert (len(corpus.train), len(corpus.val)) == (945, 52)
    assert corpus.test is not None
    assert len(corpus.test) == 53


def test_the_test_text_is_scored_at_the_step_that_the_validation_text_chose(corpus):
    torch.manual_seed(0)
    model, other = build(TINY_MODELS["k_operators"]), build(TINY_MODELS["k_operators"])
    corpus = dataclasses.replace(corpus, test=corpus.train[:1000])
    history = History()
    for step, nats in ((0, 2.0), (4, 1.0), (8, 3.0)):
        history.add_evaluation(step, torch.full((10,), nats, dtype=torch.float64), CONTEXT, model)
    config = tiny_config("k_operators")
    found = measure(history, [(4, model), (8, other)], corpus, config, 1, "").test
    assert found is not None
    assert (found.step, found.n_tokens) == (4, 999 // CONTEXT * CONTEXT)
    only_val = measure(history, [(4, model), (8, other)], dataclasses.replace(corpus, test=None), config, 1, "")
    assert only_val.test is None
    on_val = dataclasses.replace(corpus, val=corpus.train[:1000])
    swept = measure(history, [(4, model)] * 1 + [(8, other)], on_val, config, 1, "")
    assert swept.test == found


def test_a_run_on_a_fold_has_its_own_id_and_record(data_dir, tmp_path, tiny_run):
    run = tiny_run("k_operators")
    on_fold = dataclasses.replace(run, config=dataclasses.replace(run.config, corpus=FOLDS[4]))
    assert on_fold.run_id != run.run_id
    record = execute(on_fold, Store(tmp_path), Settings(device=CPU, data_dir=data_dir))
    assert record.status == "done"
    assert record.corpus.name == FOLDS[4]
    assert record.corpus.n_train_tokens + record.corpus.n_val_tokens == 1_115_394
