"""The tokens of evaluations are those that a run reads."""

from typing import Any

import pytest
import torch

from bench import evaluate
from bench.corpora import CORPORA
from bench.corpus import load_corpus
from bench.run import Settings, execute
from bench.store import Store
from bench.workload import n_evaluated_tokens
from tests.tiny import tiny_runs


def test_the_tokens_of_an_estimate_are_those_that_a_run_evaluates(tmp_path, monkeypatch):
    (run,) = tiny_runs(n_steps=5, eval_every=2)
    n_read, n_calls = 0, 0

    def counted(_model: object, _tokens: object, starts: torch.Tensor, context: int, *_: object, **__: object) -> Any:
        nonlocal n_read, n_calls
        # the loss rises, so that step 0 is best, and not the last
        n_read, n_calls = n_read + len(starts) * context, n_calls + 1
        return [torch.full((len(starts), 1), float(n_calls), dtype=torch.float64)]

    monkeypatch.setattr(evaluate, "token_losses", counted)
    execute(run, Store(tmp_path), Settings(device=torch.device("cpu"), n_threads=1))
    assert n_read == pytest.approx(n_evaluated_tokens(run.config), rel=0.01)


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_have_about_as_many_validation_tokens_as_estimates_count(name, request):
    folder = None if CORPORA[name].path is None else request.getfixturevalue("data_dir")
    corpus = load_corpus(name, torch.device("cpu"), folder)
    assert len(corpus.val) == pytest.approx(CORPORA[name].n_evaluated, rel=0.02)
    n_test = 0 if corpus.test is None else len(corpus.test)
    assert len(corpus.train) + len(corpus.val) + n_test == CORPORA[name].n_characters
