"""A run that was stopped, in any way and at any step, resumes with the same bits as an uninterrupted one."""

import dataclasses
import random
import shutil
import signal
import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from bench import checkpoint
from bench.config import Run, override
from bench.corpus import Corpus
from bench.errors import AlreadyDone
from bench.experiments import find_experiment
from bench.history import History
from bench.process import Interrupted, read_progress
from bench.record import Record, read
from bench.run import TrainingLoop, execute
from bench.store import Store
from bench.train import Trainer, parameters_sha256
from models import ARCHITECTURES
from tests.command_line import finish, start, wait_until
from tests.conftest import CPU, EVERY_STEP, SELDOM, tiny_config
from tests.faults import VARIABLE, before_update, fill_with_nan, stopping_at

N_STEPS = 12


def measured(finished: Record) -> dict[str, Any]:
    """All measurements of a run that must not depend on interruptions."""
    fields = {name: getattr(finished, name) for name in ("status", "curve", "result", "diagnostics")}
    return {**fields, "cost": (finished.cost.n_train_tokens, finished.cost.train_flops)}


def checkpoints_of_every_step(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Train `run` to its end and keep the checkpoint of each of its steps in its run folder."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "N_KEPT", 1000)
        return execute(run, store, EVERY_STEP)


def resume_at(step: int, run: Run, source: Store, target: Store) -> None:
    """Give `target` the run folder of a process that was killed right after the checkpoint of `step`."""
    folder = target.run_folder(run.run_id)
    folder.mkdir(parents=True)
    for path in source.run_folder(run.run_id).glob(f"checkpoint-{step:08d}.pt*"):
        shutil.copy(path, folder)


# a real process, killed -----------------------------------------------------------------------------------------------


@pytest.mark.fault("F1")
def test_a_process_killed_three_times_at_random_moments_ends_with_the_same_bits(tmp_path, monkeypatch):
    changes = ["corpus=synthetic", "training.n_steps=80", "training.eval_every=30"]
    command = ["tests.faults", "bench", "run", "--experiment", "smoke", "--cell", "k_operators", "--seed", 42]
    command += [word for change in changes for word in ("--set", change)]
    command += ["--device", "cpu", "--threads", 1, "--checkpoint-seconds", 0, "--store", tmp_path / "killed"]
    smoke = next(cell for cell in find_experiment("smoke").cells if cell.label == "k_operators")
    run = Run(label="k_operators", config=override(smoke.config, changes), seed=42, mode="exact")
    store = Store(tmp_path / "killed")
    folder = store.run_folder(run.run_id)

    def newest_step() -> int:
        return max((int(path.stem.removeprefix("checkpoint-")) for path in checkpoint.paths(folder)), default=-1)

    monkeypatch.setenv(VARIABLE, "k_operators-s42:72:slow")  # so that no process ends before it is killed
    rng = random.Random(20)
    for low, high in ((2, 20), (32, 44), (55, 70)):
        stop_at = rng.randint(low, high)
        process = start(*command)
        wait_until(lambda at=stop_at: newest_step() >= at, f"step {stop_at}")
        threading.Event().wait(rng.random() * 0.01)  # anywhere within a step or the writing of its checkpoint
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not store.record_paths()
    monkeypatch.delenv(VARIABLE)
    code, output, errors = finish(start(*command))
    assert (code, errors) == (0, "")
    assert "resumed at step" in output

    uninterrupted = execute(run, Store(tmp_path / "clean"), EVERY_STEP)
    resumed = read(store.record_paths()[0], Record)
    assert measured(resumed) == measured(uninterrupted)
    assert [one.first_step for one in resumed.attempts[1:]] == [one.last_step for one in resumed.attempts[:-1]]
    assert len(resumed.attempts) == 4
    assert resumed.attempts[-1].last_step == 80


@pytest.mark.fault("F4")
@pytest.mark.usefixtures("on_little_text")
def test_temporary_files_of_killed_writers_are_ignored_and_removed(tiny_run, tmp_path):
    run, store = tiny_run(), Store(tmp_path)
    folder = store.run_folder(run.run_id)
    left = [folder / ".checkpoint-00000004.pt.99-abcd.tmp", tmp_path / "runs" / f".{run.run_id}.json.99-abcd.tmp"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half a file")
    finished = execute(run, store, EVERY_STEP)
    assert (finished.status, [one.first_step for one in finished.attempts]) == ("done", [0])
    assert store.statuses() == {run.run_id: "done"}
    assert not left[0].exists()


# every step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("on_little_text")
def test_a_run_resumed_at_any_step_ends_with_the_same_bits(architecture, tiny_run, tmp_path, monkeypatch):
    run = tiny_run(architecture, n_steps=N_STEPS, eval_every=5)
    source = Store(tmp_path / "uninterrupted")
    uninterrupted = measured(checkpoints_of_every_step(run, source, monkeypatch))
    for step in range(N_STEPS + 1):
        target = Store(tmp_path / str(step))
        resume_at(step, run, source, target)
        assert measured(execute(run, target, EVERY_STEP)) == uninterrupted, f"resumed at step {step}"


@pytest.mark.usefixtures("on_little_text")
def test_a_run_that_gets_a_stop_signal_saves_its_step_and_resumes_from_it(tiny_run, tmp_path):
    run = tiny_run(n_steps=6)
    uninterrupted = execute(run, Store(tmp_path / "uninterrupted"), SELDOM)
    store = Store(tmp_path / "stopped")
    with stopping_at(2), pytest.raises(Interrupted, match="step 3 of 6"):
        execute(run, store, SELDOM)
    assert not store.record_paths()
    finished = execute(run, store, SELDOM)
    assert [(one.first_step, one.last_step) for one in finished.attempts] == [(0, 3), (3, 6)]
    assert measured(finished) == measured(uninterrupted)
    assert finished.cost.train_seconds >= sum(one.train_seconds for one in finished.attempts) - 1e-6
    assert (read_progress(store.run_folder(run.run_id)) or {})["state"] == "done"
    with pytest.raises(AlreadyDone):
        execute(run, store, SELDOM)


# what a checkpoint must hold ------------------------------------------------------------------------------------------

RESUME_AT = 7  # between evaluations, after the best one and after the largest gradient norm since the last one


def fresh(part: str, run: Run, corpus: Corpus) -> Any:
    """A part of a trainer's state as it is without a checkpoint."""
    return Trainer(run, corpus, CPU).state()[part]


def without_moment(content: dict[str, Any], name: str) -> None:
    """Set one item of AdamW's state to zero, as it is before the first update."""
    for state in content["trainer"]["optimizer"]["state"].values():
        state[name] = torch.zeros_like(state[name])


LEFT_OUT: dict[str, Callable[[dict[str, Any], Run, Corpus], object]] = {
    "trainer.step": lambda content, *_: content["trainer"].update(step=0),
    "trainer.model": lambda content, *of: content["trainer"].update(model=fresh("model", *of)),
    "one tensor of trainer.model": lambda content, *_: content["trainer"]["model"].popitem(),
    "trainer.optimizer": lambda content, *of: content["trainer"].update(optimizer=fresh("optimizer", *of)),
    "trainer.optimizer.param_groups": lambda content, *_: content["trainer"]["optimizer"].pop("param_groups"),
    **{
        f"trainer.optimizer.state.{name}": lambda content, *_, name=name: without_moment(content, name)
        for name in ("exp_avg", "exp_avg_sq", "step")
    },
    **{
        f"history.{name}": lambda content, *_, name=name: content["history"].update({name: vars(History())[name]})
        for name in vars(History())
    },
}


def seen_in_record(finished: Record) -> dict[str, Any]:
    """What was measured, and whether the time and the attempts before the interruption are counted."""
    ours = sum(one.train_seconds for one in finished.attempts[1:])
    return {
        **measured(finished),
        "n_attempts": len(finished.attempts),
        "counts_earlier_seconds": finished.cost.train_seconds > ours,
    }


@dataclasses.dataclass(frozen=True)
class Interruption:
    """A run, its checkpoint after step 6, and what its record shows when it resumes from there."""

    run: Run
    store: Store
    resumed: dict[str, Any]


@pytest.fixture(scope="module")
def interruption(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Interruption:
    """Interrupted after its best evaluation: at this learning rate the loss only rises after step 5."""
    rates: dict[str, Any] = {"learning_rate": 1.5, "final_learning_rate": 1.5, "warmup_steps": 0}
    config = tiny_config("k_operators", n_steps=10, eval_every=5, **rates)
    run = Run(label="k_operators", config=config, seed=42, mode="exact")
    folder = tmp_path_factory.mktemp("interruption")
    source, target = Store(folder / "uninterrupted"), Store(folder / "resumed")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.run.load_corpus", lambda *_: corpus)
        uninterrupted = checkpoints_of_every_step(run, source, patch)
        resume_at(RESUME_AT, run, source, target)
        resumed = execute(run, target, EVERY_STEP)
    assert uninterrupted.result is not None
    assert uninterrupted.result.sweep.best.step < RESUME_AT < uninterrupted.result.sweep.final.step
    assert measured(resumed) == measured(uninterrupted)
    return Interruption(run, source, seen_in_record(resumed))


@pytest.mark.parametrize("item", LEFT_OUT)
@pytest.mark.usefixtures("on_little_text")
def test_the_comparison_finds_each_item_left_out_of_a_checkpoint(item, interruption, corpus, tmp_path, monkeypatch):
    run, store = interruption.run, Store(tmp_path)
    resume_at(RESUME_AT, run, interruption.store, store)
    content = checkpoint.load(checkpoint.paths(store.run_folder(run.run_id))[0])
    LEFT_OUT[item](content, run, corpus)
    monkeypatch.setattr(checkpoint, "load_newest", lambda *_: (content, []))
    incomplete = execute(run, store, EVERY_STEP)
    assert incomplete.status == "failed" or seen_in_record(incomplete) != interruption.resumed


@pytest.mark.usefixtures("on_little_text")
def test_every_item_of_a_checkpoint_has_its_negative_control(tiny_run, tmp_path, monkeypatch):
    run, store = tiny_run(n_steps=2), Store(tmp_path)
    checkpoints_of_every_step(run, store, monkeypatch)
    content = checkpoint.load(checkpoint.paths(store.run_folder(run.run_id))[-1])
    trainer, optimizer = content["trainer"], content["trainer"]["optimizer"]
    items = {f"trainer.{name}" for name in trainer} | {f"history.{name}" for name in content["history"]}
    items |= {f"trainer.optimizer.state.{name}" for state in optimizer["state"].values() for name in state}
    items |= {f"trainer.optimizer.{name}" for name in optimizer if name != "state"}
    assert items <= set(LEFT_OUT)
    # format, identity, vocabulary and a fast run's first losses change no number; they have tests elsewhere
    assert set(content) == {"format", "identity", "trainer", "history", "vocabulary", "first_fast_train_nats"}


# evaluation does not change training ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.usefixtures("on_little_text")
def test_how_often_a_run_is_evaluated_changes_nothing_about_its_training(architecture, tiny_run, corpus, tmp_path):
    never = Trainer(tiny_run(architecture, n_steps=N_STEPS), corpus, CPU)
    for _ in range(N_STEPS):
        never.advance()
    hashes = {parameters_sha256(never.model)}
    for eval_every in (1, 3, 5, N_STEPS):
        run = tiny_run(architecture, n_steps=N_STEPS, eval_every=eval_every)
        finished = execute(run, Store(tmp_path / str(eval_every)), SELDOM)
        hashes.add(finished.result.parameters_sha256)
    assert len(hashes) == 1


# divergence -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_little_text")
def test_a_loss_that_is_not_finite_only_in_evaluation_is_divergence_too(tiny_run, tmp_path, monkeypatch):
    evaluate = TrainingLoop.evaluate

    def poisoned(attempt: TrainingLoop, trainer: Trainer) -> None:
        if trainer.step == 4:
            fill_with_nan(trainer)
        evaluate(attempt, trainer)

    monkeypatch.setattr(TrainingLoop, "evaluate", poisoned)
    finished = execute(tiny_run(eval_every=4), Store(tmp_path), EVERY_STEP)
    assert (finished.status, finished.stopped_at_step, finished.result) == ("diverged", 4, None)
    assert [one.step for one in finished.curve] == [0]


@pytest.mark.fault("F9", "F13")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "diverged"),  # its weights become NaN
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("Triton Error [CUDA]: out of memory"), "oom"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (RuntimeError("something else\nwith a second line"), "failed"),
    ],
)
@pytest.mark.usefixtures("on_little_text")
def test_a_run_that_diverges_or_fails_leaves_a_record_with_the_reason(error, status, tiny_run, tmp_path):
    run, store = tiny_run(eval_every=4), Store(tmp_path)
    with before_update(5, Mock(side_effect=error) if error else fill_with_nan):
        finished = execute(run, store, EVERY_STEP)
    assert (finished.status, finished.stopped_at_step, finished.result) == (status, 5, None)
    assert (type(error).__name__ if error else "nan") in finished.error
    assert "\n" not in finished.error
    assert [one.step for one in finished.curve] == [0, 4]
    assert read(store.record_paths()[0], Record) == finished
    assert (read_progress(store.run_folder(run.run_id)) or {})["state"] == status
