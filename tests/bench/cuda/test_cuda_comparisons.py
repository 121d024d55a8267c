"""The comparisons of `bench cuda-check`: each finds a difference where there is one, and shows both values.

The checks run here on a CPU, with wrong numbers in place of a broken GPU.
"""

import dataclasses
import math

import pytest
import torch

from bench.config import Mode, Run
from bench.cuda import machine as cuda_machine
from bench.cuda import numbers as cuda_numbers
from bench.cuda import runs as cuda_runs
from bench.cuda import steps as cuda_steps
from bench.cuda.check import FORMS
from bench.cuda.numbers import Context
from bench.experiments.recipes import with_dropout
from bench.run import Settings, execute
from bench.store import Store
from bench.train import Trainer
from models import build
from tests.conftest import CONTEXT, CPU
from tests.records import make_record

HERE = Context(device=CPU)


def test_equal_batches_hold_and_a_wrong_token_is_shown_with_the_right_one(corpus):
    assert cuda_numbers.compare_batches(corpus, corpus).status == "held"
    other = dataclasses.replace(corpus, train=corpus.train ^ 1)
    found = cuda_numbers.compare_batches(other, corpus)
    first = cuda_numbers.train_batch(corpus.train, cuda_numbers.SEED, 0, 64, 256)[0][0, 0].item()
    assert found.status == "failed"
    assert f"{first ^ 1} at (0, 0), and {first} on the CPU" in found.text


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_recurrence_holds_on_a_cpu(form):
    assert cuda_numbers.recurrence(HERE, form).status == "held"


def test_a_wrong_value_or_gradient_of_the_recurrence_is_named_with_both_norms(monkeypatch):
    right = cuda_numbers.read_memory
    monkeypatch.setattr(cuda_numbers, "LENGTHS", (65,))
    wrong = {
        "reads off by 4.0e-04": lambda *of: right(*of) + 4e-4 * right(*of).detach(),
        "dgamma off by 1.0e-02": lambda q, k, n, gamma, form: right(
            q, k, n, 1.01 * gamma - 0.01 * gamma.detach(), form
        ),
        "reads off by nan": lambda *of: right(*of) * math.nan,
    }
    for shown, form in wrong.items():
        monkeypatch.setattr(cuda_numbers, "read_memory", form)
        found = cuda_numbers.recurrence(HERE, "recurrent")
        assert found.status == "failed"
        assert shown in found.text
        assert "norms" in found.text


def test_an_evaluation_that_differs_shows_both_losses(corpus, tiny_run):
    torch.manual_seed(0)
    model = build(tiny_run().config.model)
    other = build(tiny_run().config.model)
    other.load_state_dict(model.state_dict())
    assert cuda_numbers.compare_evaluation(model, other, corpus.val, CONTEXT).status == "held"
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    found = cuda_numbers.compare_evaluation(model, other, corpus.val, CONTEXT)
    assert found.status == "failed"
    assert "nats per token, and " in found.text
    assert found.values["largest_difference_nats"] > cuda_numbers.EVALUATION_TOLERANCE


def test_trainings_hold_where_their_bits_are_equal_and_else_show_both_losses(corpus, tiny_run, monkeypatch):
    run = tiny_run("transformer")
    made: list[Trainer] = []

    def make(seeds: tuple[int, ...] = (42, 42, 42, 42)) -> Trainer:
        made.append(Trainer(dataclasses.replace(run, seed=seeds[len(made)]), corpus, CPU))
        return made[-1]

    assert cuda_numbers.compare_trainings(make).status == "held"
    made.clear()
    found = cuda_numbers.compare_trainings(lambda: make((42, 69, 42, 42)))
    assert (found.status, found.text[:28]) == ("failed", "again, the loss of step 0 is")
    made.clear()
    monkeypatch.setattr(Trainer, "load_state", lambda trainer, state: setattr(trainer, "step", state["step"]))
    found = cuda_numbers.compare_trainings(make)
    assert (found.status, found.text[:42]) == ("failed", "resumed at step 5, the loss of step 5 is 4")
    assert ", at first 4." in found.text


def test_a_compiled_step_holds_within_its_rounding_and_else_shows_both_values():
    eager = [(4.2 - 0.01 * step, 1.0) for step in range(20)]
    assert cuda_steps.compare_steps([(nats + 2e-4, norm * 1.003) for nats, norm in eager], eager).status == "held"
    for changed, shown in (
        ((4.13, 1.0), "4.13000 nats per token and 4.15000 eagerly at step 5"),
        ((4.15, 1.05), "gradient norm 1.0500 and 1.0000 at step 5"),
        ((math.nan, 1.0), "nan nats per token and 4.15000 eagerly at step 5"),
    ):
        found = cuda_steps.compare_steps([*eager[:5], changed, *eager[6:]], eager)
        assert found.status == "failed"
        assert shown in found.text


@pytest.mark.parametrize("architecture", ["k_operators", "transformer"])
def test_the_compiled_step_is_compared_in_its_own_arithmetic_and_without_dropout(
    architecture, corpus, tiny_run, monkeypatch
):
    """On a CPU, without the compiler and the graph: bfloat16 against float32."""
    made = []

    def published(_experiment: str, _cell: str, mode: Mode, *, dropout: bool) -> Run:
        config = tiny_run(architecture, n_steps=20).config
        config = config if dropout else dataclasses.replace(config, model=with_dropout(config.model, 0.0))
        made.append((mode, dropout))
        return Run(label="tiny", config=config, seed=42, mode=mode)

    monkeypatch.setattr(cuda_steps, "published_run", published)
    monkeypatch.setattr(cuda_steps, "load_corpus", lambda *_: corpus)
    monkeypatch.setattr("bench.train.set_numerics", lambda *_: None)
    monkeypatch.setattr("torch.compile", lambda model, **_: model)
    monkeypatch.setattr(Trainer, "warm_up", lambda _: None)
    found = cuda_steps.compiled(HERE, "paper", architecture)
    assert made == [("exact", False), ("fast", False)]
    compiled, eager = (found.values[name] for name in ("compiled", "eager"))
    assert len(compiled) == len(eager) == 20
    assert compiled != eager
    assert compiled[0] == pytest.approx(eager[0], rel=5e-2)  # before any update


def test_a_speed_is_measured_and_a_loss_that_is_not_finite_fails(corpus, tiny_run, monkeypatch):
    monkeypatch.setattr(cuda_steps, "N_STEPS", 2)
    trainer = Trainer(tiny_run(), corpus, CPU)
    found = cuda_steps.speed(Context(device=CPU, kept={"trainer": trainer}))
    assert found.status == "held"
    assert found.values["tokens_per_second"] == pytest.approx(4 * 16 / found.values["seconds_per_step"])
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    found = cuda_steps.speed(Context(device=CPU, kept={"trainer": trainer}))
    assert (found.status, found.text[:19]) == ("failed", "the loss of step 23")


@pytest.mark.usefixtures("on_little_text")
def test_a_run_that_shared_the_gpu_is_compared_with_the_same_run_by_itself(tiny_run, tmp_path):
    packed = execute(tiny_run(n_steps=3), Store(tmp_path / "a"), Settings(device=CPU, n_threads=1))
    assert cuda_runs.compare_with_lone(packed, HERE, Store(tmp_path / "b")).status == "held"
    curve = [packed.curve[0].model_copy(update={"val_nats_per_token": 9.0}), *packed.curve[1:]]
    other = packed.model_copy(update={"curve": curve})
    found = cuda_runs.compare_with_lone(other, HERE, Store(tmp_path / "c"))
    assert (found.status, "a number of the curve differs" in found.text) == ("failed", True)


@pytest.fixture
def without_bounds(monkeypatch):
    """A config may ask for more memory than there is, as on a GPU the bounds allow."""
    for bound in ("MOST", "MOST_WINDOWS"):
        monkeypatch.setattr(f"bench.config.{bound}", 2**50)


@pytest.mark.usefixtures("on_little_text", "without_bounds")
@pytest.mark.parametrize(("left", "status"), [({42: "oom", 69: "done"}, "held"), ({42: "oom"}, "failed")])
def test_out_of_memory_needs_a_record_of_that_status_and_a_pool_that_continues(left, status, monkeypatch):
    def stand_in(store: Store, *_: object, **__: object) -> str:
        for seed, how in left.items():
            store.write_record(make_record("transformer", seed, status=how))
        return " (exit code 1: as expected)"

    monkeypatch.setattr(cuda_runs, "launch", stand_in)
    found = cuda_runs.out_of_memory(HERE, n_windows=2**48)  # more than any address space holds
    assert found.status == status
    if status == "failed":
        expected = "transformer-s42 oom, transformer-s69 done (exit code 1: as expected)"
        assert found.text == f"the pool ended with transformer-s42 oom; expected: {expected}"


@pytest.mark.usefixtures("on_little_text")
def test_a_run_that_should_run_out_of_memory_but_ends_fails_the_check():
    found = cuda_runs.out_of_memory(HERE, n_windows=1)
    assert found.status == "failed"
    assert found.text == "a run too large for the memory ended as done, expected oom: None"


@pytest.mark.slow
@pytest.mark.usefixtures("without_bounds")
@pytest.mark.parametrize(
    ("check", "arguments"), [(cuda_runs.side_by_side, {}), (cuda_runs.out_of_memory, {"n_windows": 2**48})]
)
def test_a_pool_of_real_workers_passes_on_a_cpu(check, arguments, monkeypatch):
    monkeypatch.setattr(cuda_runs, "SECONDS", 240.0)  # a machine may be busy with other work
    found = check(HERE, **arguments)
    assert found.status == "held", found.text


def test_mps_is_found_by_its_daemon_or_by_its_pipes(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "pipes"))
    (tmp_path / "proc" / "17").mkdir(parents=True)
    (tmp_path / "proc" / "17" / "comm").write_text("python\n")
    assert cuda_machine.mps_state(tmp_path / "proc") == "off"
    (tmp_path / "pipes").mkdir()
    (tmp_path / "pipes" / "control").touch()
    assert cuda_machine.mps_state(tmp_path / "proc") == "on (its daemon listens here)"
    (tmp_path / "proc" / "17" / "comm").write_text("nvidia-cuda-mps-control"[:15] + "\n")
    assert cuda_machine.mps_state(tmp_path / "proc") == "on (its daemon runs here)"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
    ],
)
def test_the_driver_is_read_from_the_kernel(text, version, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_machine, "DRIVER_FILE", tmp_path / "version")
    (tmp_path / "version").write_text(text)
    assert cuda_machine.driver() == version
