"""A training step follows the recipe, repeats bit for bit in exact mode, and learns."""

import copy
import dataclasses
import json
import math

import pytest
import torch

from bench import checkpoint
from bench.batches import train_batch
from bench.capture import N_REHEARSALS
from bench.errors import ConfigError
from bench.run import Settings, execute
from bench.store import Store
from bench.train import Trainer, add_gradients, first_losses, make_optimizer, parameters_sha256, set_learning_rate
from models import ARCHITECTURES, build
from models.dropout import use_torch_stream
from tests.conftest import CPU, TINY_MODELS


def train(run, corpus, n_steps):
    trainer = Trainer(run, corpus, CPU)
    losses = [trainer.advance()[0].item() for _ in range(n_steps)]
    return losses, parameters_sha256(trainer.model)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_seed_gives_the_same_bits(architecture, tiny_run, corpus):
    run = tiny_run(architecture)
    torch.manual_seed(0)
    first = train(run, corpus, 5)
    torch.manual_seed(1)
    torch.rand(3)  # other random numbers of the process
    assert train(run, corpus, 5) == first


def test_another_seed_gives_another_first_loss(tiny_run, corpus):
    assert train(tiny_run(seed=1), corpus, 1)[0] != train(tiny_run(seed=2), corpus, 1)[0]


@pytest.fixture
def batches(monkeypatch):
    """The step and the token ids of each training batch that was read."""
    seen = []

    def watch(tokens, seed, step, *sizes):
        batch = train_batch(tokens, seed, step, *sizes)
        seen.append((int(step), batch[0]))
        return batch

    monkeypatch.setattr("bench.train.train_batch", watch)
    return seen


def test_models_read_the_same_batches_at_the_same_seed(tiny_run, corpus, batches):
    for architecture in ("k_operators", "transformer"):
        train(tiny_run(architecture), corpus, 2)
    assert [step for step, _ in batches] == [0, 1, 0, 1]
    assert torch.equal(batches[0][1], batches[2][1])
    assert torch.equal(batches[1][1], batches[3][1])


def test_a_replicate_is_a_label_that_changes_no_number(tiny_run, corpus):
    run = tiny_run()
    assert train(dataclasses.replace(run, replicate=3), corpus, 3) == train(run, corpus, 3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n_rows", [1, 3, 4])
def test_gradients_of_some_rows_at_a_time_are_those_of_the_batch(architecture, n_rows):
    x, y = (torch.randint(65, (8, 16), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = []
    for rows in (8, n_rows):
        torch.manual_seed(0)
        model = build(TINY_MODELS[architecture]).double().eval()  # no dropout: its stream depends on the split
        loss = add_gradients(model, x, y, rows)
        found.append([loss, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)])
    for at_once, split in zip(*found, strict=True):
        torch.testing.assert_close(split, at_once, rtol=1e-4, atol=1e-7)  # the loss is in float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_learns_the_synthetic_text(architecture, tiny_run, corpus):
    losses, _ = train(tiny_run(architecture, n_steps=150, batch_size=16), corpus, 150)
    assert sum(losses[:5]) / 5 == pytest.approx(math.log(65), abs=0.1)
    assert sum(losses[-5:]) / 5 < math.log(65) - 0.15


def test_groups_have_their_learning_rates_and_weight_decay(tiny_run):
    training = dataclasses.replace(tiny_run().config.training, grouping="grouped")
    model = build(TINY_MODELS["k_operators"])
    optimizer = make_optimizer(model, training)
    set_learning_rate(optimizer, 0.01)
    found = {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups}
    assert found == {(0.005, 0.0), (0.0075, 0.0), (0.01, 0.1)}


def test_gradients_are_clipped_to_their_norm(tiny_run, corpus):
    trainer = Trainer(tiny_run(clip_norm=1e-3), corpus, CPU)
    _, before = trainer.advance()
    after = torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm()
    assert before > 1e-2
    assert after.item() == pytest.approx(1e-3, rel=1e-3)


class GraphOnPaper:
    """Replaces a recorded step without a GPU: calls it again, and checks that its memory addresses are unchanged."""

    def __init__(self, step, optimizer):
        for _ in range(N_REHEARSALS):
            step()
        optimizer.zero_grad(set_to_none=True)
        self.step, self.optimizer, self.recorded = step, optimizer, None
        self.recorded = self.addresses()

    def addresses(self):
        groups = self.optimizer.param_groups
        held = [one for group in groups for p in group["params"] for one in (p, *self.optimizer.state[p].values())]
        return [one.data_ptr() for one in [*held, *(group["lr"] for group in groups)]]

    def replay(self):
        assert self.addresses() == self.recorded, "a graph would write to memory that is no longer read"
        return self.step()


@pytest.fixture
def fast_on_paper(monkeypatch):
    """The logic of `fast` mode on a CPU, without the compiler and the graph."""
    monkeypatch.setattr("bench.train.set_numerics", lambda *_: None)
    monkeypatch.setattr("bench.train.StepGraph", GraphOnPaper)
    monkeypatch.setattr("torch.compile", lambda model, **_: model)


@pytest.mark.usefixtures("bf16_on_any_cpu")
@pytest.mark.parametrize("n_before", [0, 2])  # without moments to restore, and with
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_recording_a_step_changes_no_number(architecture, n_before, tiny_run, corpus, batches, fast_on_paper):
    found = []
    for warm in (False, True):
        trainer = Trainer(tiny_run(architecture, mode="fast"), corpus, CPU)
        losses = [trainer.advance()[0].item() for _ in range(n_before)]
        if warm:
            trainer.warm_up()
        for step in range(n_before, 6):
            losses.append(trainer.advance()[0].item())
            assert batches[-1][0] == step
        found.append((losses, parameters_sha256(trainer.model)))
    assert found[0] == found[1]
    assert len(set(found[0][0])) == 6


@pytest.mark.usefixtures("bf16_on_any_cpu")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_recorded_training_resumes_from_a_checkpoint(architecture, tiny_run, corpus, fast_on_paper):
    def recorded():
        return Trainer(tiny_run(architecture, mode="fast"), corpus, CPU)

    uninterrupted, first, second = recorded(), recorded(), recorded()
    uninterrupted.warm_up()
    losses = [uninterrupted.advance()[0].item() for _ in range(6)]
    first.warm_up()
    for _ in range(3):
        first.advance()
    second.load_state(copy.deepcopy(first.state()))
    second.warm_up()
    assert [second.advance()[0].item() for _ in range(3)] == losses[3:]
    assert parameters_sha256(second.model) == parameters_sha256(uninterrupted.model)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX2", reason="needs a CPU without AVX-512: .ci/run")
def test_a_cpu_without_avx512_has_no_lstm_in_bfloat16():
    """The reason for `bf16_on_any_cpu`, and a check that .ci/run imitates such a CPU."""
    model = build(TINY_MODELS["lstm"])
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="could not create a primitive"):
        model(torch.zeros(2, 16, dtype=torch.long))


def test_a_step_as_a_tensor_gives_the_batch_of_the_same_number(corpus):
    for step in (0, 7, 1000):
        number, tensor = (train_batch(corpus.train, 42, one, 4, 16) for one in (step, torch.tensor(step)))
        assert all(torch.equal(*pair) for pair in zip(number, tensor, strict=True))


def test_fast_mode_is_refused_without_cuda(tiny_run, corpus):
    with pytest.raises(ConfigError, match="mode 'fast' needs CUDA"):
        Trainer(tiny_run(mode="fast"), corpus, CPU)


@pytest.mark.slow
@pytest.mark.usefixtures("bf16_on_any_cpu")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch's compiler, as is the next
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fast_mode_traces_as_one_graph(architecture):
    """Models with `one_graph` compile without graph breaks; here for a CPU, without a code generator."""
    torch.manual_seed(0)
    model = build(TINY_MODELS[architecture])
    use_torch_stream(model)
    traced = torch.compile(model, backend="aot_eager", fullgraph=model.one_graph)
    with torch.autocast("cpu", torch.bfloat16):
        logits = traced(torch.zeros(2, 16, dtype=torch.long))
    logits.float().logsumexp(-1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.usefixtures("on_little_text")
@pytest.mark.parametrize("older", [False, True])
def test_a_fast_record_has_the_first_losses_of_its_compiled_step_also_after_a_resume(
    older, tiny_run, tmp_path, monkeypatch, fast_on_paper
):
    monkeypatch.setattr("bench.run.set_numerics", lambda *_: None)
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda *_: None)
    monkeypatch.setattr("bench.run.N_FIRST", 8)
    run, every_step = tiny_run(mode="fast"), Settings(device=CPU, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "N_KEPT", 1000)
        made = execute(run, Store(tmp_path / "uninterrupted"), every_step)
    folder = Store(tmp_path / "uninterrupted").run_folder(run.run_id)
    taken = [json.loads(line)["train_nats"] for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert made.diagnostics.first_fast_train_nats == taken[:8]
    assert made.diagnostics.first_train_nats != taken  # those are exact steps

    content = checkpoint.load(folder / "checkpoint-00000005.pt")
    if older:  # made before these losses were saved
        del content["first_fast_train_nats"]
    checkpoint.save(Store(tmp_path / "resumed").run_folder(run.run_id), content)
    resumed = execute(run, Store(tmp_path / "resumed"), every_step)
    assert resumed.attempts[-1].first_step == 5
    assert resumed.diagnostics.first_fast_train_nats == ([] if older else taken[:8])


@pytest.mark.usefixtures("on_little_text")
def test_a_record_has_the_measurements_of_its_run(tiny_run, corpus, tmp_path):
    made = execute(tiny_run(), Store(tmp_path), Settings(device=CPU))
    assert made.status == "done"
    assert [one.step for one in made.curve] == [0, 4, 8, 12]
    assert made.curve[0].train_nats_per_token is None
    first = made.diagnostics.first_train_nats
    assert first == first_losses(tiny_run(), corpus, CPU)  # those of recheck
    assert len(first) == 12
    assert made.curve[1].train_nats_per_token == pytest.approx(sum(first[:4]) / 4)
    last = made.curve[-1]
    both = (last.first_half.nats + last.second_half.nats) / (last.first_half.n_tokens + last.second_half.n_tokens)
    assert both == pytest.approx(last.val_nats_per_token)
    assert made.result.sweep.final.nats_per_token == last.val_nats_per_token
    assert len(made.result.window_nats[12]) == (3000 - 1) // 16
    assert made.cost.n_train_tokens == 12 * 4 * 16
    assert made.cost.parameters.n_params == sum(p.numel() for p in build(TINY_MODELS["k_operators"]).parameters())
    assert set(made.diagnostics.by_step) == {0, 4, 8, 12}
    assert made.diagnostics.by_step[0]["eta"] == pytest.approx(0.3)


@pytest.mark.usefixtures("on_little_text")
def test_the_best_weights_are_measured_as_well_as_the_last(tiny_run, tmp_path, monkeypatch):
    """A rate that ruins the model late: `sampled` on the best weights must be far below `sampled` on the final ones."""
    monkeypatch.setattr("bench.train.learning_rate", lambda step, _: 1e-2 if step < 40 else 3.0)
    made = execute(tiny_run(n_steps=48, batch_size=16), Store(tmp_path), Settings(device=CPU))
    assert made.result.sweep.best.step < 48
    for protocol in (made.result.sampled, made.result.strided):
        assert protocol.best.nats_per_token < protocol.final.nats_per_token - 0.1
        assert protocol.best.nats_per_token == pytest.approx(made.result.sweep.best.nats_per_token, abs=0.1)
