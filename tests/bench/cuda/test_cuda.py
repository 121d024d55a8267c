"""Tests that need a GPU: each is skipped, with the reason, where there is none.

`python -m bench cuda-check` checks batches, forms of the recurrence, evaluation, exact training and speed in three
minutes; the first test here runs it. Run `python -m pytest tests/bench/cuda/test_cuda.py -m "not slow"` in one
process, so that each model's step is compiled once; tests of minutes are `slow`.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.batches import train_batch
from bench.corpus import Corpus
from bench.cuda.check import check_all
from bench.cuda.numbers import as_loaded, losses_of
from bench.evaluate import sweep
from bench.store import Store
from bench.train import Trainer, parameters_sha256
from jobs.local import LocalPool
from jobs.slots import make_slots
from models import ARCHITECTURES

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # warnings of the compiler and of Triton are no failures
]
CUDA = torch.device("cuda")
N_STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def settings_of_cublas() -> None:
    """The settings of `exact` mode, before the first product: cuBLAS reads them when it starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session")
def corpus_on_cuda(corpus: Corpus) -> Corpus:
    """The short text, on the GPU."""
    return dataclasses.replace(corpus, train=corpus.train.to(CUDA), val=corpus.val.to(CUDA))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Iterator[str]:
    """Tests of one architecture run one after the other, and share its compiled step.

    The compiler is reset between architectures: above a limit it would run eagerly.
    """
    yield request.param
    torch.compiler.reset()


@pytest.mark.slow
def test_cuda_check_finds_no_failure_here(capsys):
    with capsys.disabled():
        results = check_all(170.0, print)
    assert not [one.line for one in results if one.status == "failed"]


def assert_no_step_waits(trainer: Trainer) -> None:
    """Steps do not synchronize with CUDA, so that the next can be queued while one is running."""
    trainer.warm_up()
    trainer.advance()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        kept = [trainer.advance() for _ in range(4)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    read = torch.stack([loss for loss, _ in kept]).tolist()
    assert len(set(read)) == 4  # those of four steps, not four views of the last


@pytest.mark.parametrize("eager", ARCHITECTURES)
def test_a_step_of_exact_mode_never_waits_for_the_device(eager, tiny_run, corpus_on_cuda):
    assert_no_step_waits(Trainer(tiny_run(eager, n_steps=N_STEPS), corpus_on_cuda, CUDA))


ROUNDING = {"rtol": 5e-3, "atol": 0.0}  # of a loss near ln 65 after a few steps whose products are in bfloat16


def test_warming_up_changes_no_number(architecture, tiny_run, corpus_on_cuda):
    run = tiny_run(architecture, mode="fast", n_steps=N_STEPS)
    cold, warm = (Trainer(run, corpus_on_cuda, CUDA) for _ in range(2))
    before = parameters_sha256(warm.model)
    warm.warm_up()
    assert parameters_sha256(warm.model) == before
    assert warm.step == 0
    torch.testing.assert_close(losses_of(warm, N_STEPS), losses_of(cold, N_STEPS), **ROUNDING)


def test_fast_mode_resumes_where_it_was(architecture, tiny_run, corpus_on_cuda):
    run = tiny_run(architecture, mode="fast", n_steps=N_STEPS)
    uninterrupted, first, second = (Trainer(run, corpus_on_cuda, CUDA) for _ in range(3))
    for trainer in (uninterrupted, first):
        trainer.warm_up()
    expected = losses_of(uninterrupted, N_STEPS)
    begun = losses_of(first, 5)
    second.load_state(as_loaded(first.state()))
    second.warm_up()
    torch.testing.assert_close(begun + losses_of(second, N_STEPS - 5), expected, **ROUNDING)
    steps = [entry["step"].item() for entry in second.optimizer.state_dict()["state"].values()]
    assert set(steps) == {float(N_STEPS)}  # a warm-up that counted would be one off


def test_a_step_of_fast_mode_never_waits_for_the_device(architecture, tiny_run, corpus_on_cuda):
    assert_no_step_waits(Trainer(tiny_run(architecture, mode="fast", n_steps=N_STEPS), corpus_on_cuda, CUDA))


@pytest.mark.parametrize("architecture", ["transformer"], indirect=True)
def test_each_step_of_fast_mode_has_another_dropout_mask(architecture, tiny_run, corpus_on_cuda, monkeypatch):
    """With the same batch at every step and a tiny learning rate, losses differ only by dropout."""
    fixed = train_batch(corpus_on_cuda.train, 42, 0, 4, 16)
    monkeypatch.setattr("bench.train.train_batch", lambda *_: fixed)
    still = {"learning_rate": 1e-12, "final_learning_rate": 1e-12, "weight_decay": 0.0}
    trainer = Trainer(tiny_run(architecture, mode="fast", n_steps=N_STEPS, **still), corpus_on_cuda, CUDA)
    trainer.warm_up()
    assert len(set(losses_of(trainer, N_STEPS))) > N_STEPS // 2


@pytest.mark.slow  # 400 steps, and a second shape to compile
def test_fast_mode_learns_as_exact_mode_does(architecture, tiny_run, corpus_on_cuda):
    """Dropout masks differ, so the numbers differ too; the final losses are about equal."""
    found = {}
    for mode in ("exact", "fast"):
        trainer = Trainer(tiny_run(architecture, mode=mode, n_steps=200, batch_size=16), corpus_on_cuda, CUDA)
        trainer.warm_up()
        losses_of(trainer, 200)
        found[mode] = sweep(trainer.model, corpus_on_cuda.val, 16).mean().item()
    assert found["fast"] == pytest.approx(found["exact"], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_runs_that_share_a_gpu_have_the_losses_of_runs_that_do_not(mode, tiny_run, tmp_path: Path):
    n_steps = 200 if mode == "exact" else 100_000  # in fast mode the second starts after the first has compiled
    runs = [
        tiny_run("k_operators", seed=seed, mode=mode, n_steps=n_steps, eval_every=n_steps // 2) for seed in (42, 69)
    ]
    together, alone = Store(tmp_path / "together"), Store(tmp_path / "alone")
    LocalPool(together, make_slots("cuda", None, runs_per_gpu=2)[:2]).run(runs, lambda *_: None)
    LocalPool(alone, make_slots("cuda", None, runs_per_gpu=1)[:1]).run(runs[:1], lambda *_: None)
    lone = alone.records()[0][0]
    packed = next(one for one in together.records()[0] if one.run_id == lone.run_id)
    assert (lone.status, packed.status) == ("done", "done")
    assert (lone.packed, packed.packed) == (False, True)
    assert packed.diagnostics.first_train_nats == lone.diagnostics.first_train_nats  # of exact mode, in both modes
    if mode == "exact":
        assert (packed.curve, packed.result) == (lone.curve, lone.result)
    else:
        pairs = zip(packed.curve, lone.curve, strict=True)
        assert all(one.val_nats_per_token == pytest.approx(other.val_nats_per_token, rel=1e-2) for one, other in pairs)
