"""One run from start to record: resume, train, evaluate, checkpoint, measure, write. Called by every worker."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import checkpoint, record
from bench.budget import count_fitted, n_train_tokens
from bench.config import Run, to_json
from bench.corpus import Corpus, load_corpus
from bench.environment import peak_bytes
from bench.errors import NO_MEMORY, AlreadyDone, ConfigError, UserError, first_line
from bench.evaluate import best_step, sweep
from bench.history import History, measure, measure_fitted
from bench.lease import Lease, hold
from bench.memory import check_memory
from bench.portable import portable_losses
from bench.process import Interrupted, Progress, StopRequest, cancel_requests, stop_requests
from bench.recording import Recorder, describe_run, make_record
from bench.sources import fingerprint
from bench.step_curve import STEPS_FILE, Diverged, StepCurve, drop_steps
from bench.stopwatch import Stopwatch
from bench.store import Store
from bench.train import N_FIRST, Trainer, first_losses, parameters_sha256, set_numerics
from models import FITTED, SequenceModel, build_fitted

MOST_THREADS = 1024  # a rerun takes those of its record, also where there are fewer cores
READ_EVERY_CUDA = 50  # steps between reads of the losses, since a read waits for the device


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Execution settings of a run; not part of its identity."""

    device: torch.device
    n_threads: int | None = None  # None: torch's default
    data_dir: Path | None = None
    checkpoint_seconds: float = 60.0  # and at every evaluation
    runs_per_gpu: int = 1  # this one included


def execute(run: Run, store: Store, settings: Settings) -> record.Record:
    """Train a run from its newest checkpoint, or from the start, and write its record to the store.

    A run that diverges, runs out of memory or fails gets a record with that status. AlreadyDone where it has a record;
    RunIsTaken where another process is running it; LeaseLost where one took it over; Interrupted after a stop signal,
    with the state saved.
    """
    if settings.n_threads is not None:
        if settings.n_threads > MOST_THREADS:
            raise ConfigError(
                f"{settings.n_threads} threads are more than the {MOST_THREADS:,} that a process can start"
            )
        torch.set_num_threads(settings.n_threads)
    set_numerics(run.mode, settings.device)  # refuses a mode that the device cannot run
    check_memory(run.config, settings.device)
    corpus = load_corpus(run.config.corpus, settings.device, settings.data_dir)
    check_length(run, corpus)
    store.check_writable()
    folder = store.run_folder(run.run_id)
    with hold(folder) as lease, stop_requests() as stop_request, cancel_requests(folder, stop_request):
        if run.run_id in store.statuses():
            raise AlreadyDone(f"{run.name} ({run.run_id}) has its record in {store.root}")
        store.check_free(run.label, run.seed, run.run_id)
        progress = Progress(folder)
        if run.config.architecture in FITTED:
            with stop_request.at_once("stopped while it was counted; the same command counts again"):
                finished = fit(run, corpus, settings.device)
        else:
            with portable_losses(run, settings.data_dir) as portable:
                finished = TrainingLoop(run, corpus, settings, folder, progress, lease, stop_request).train()
                if finished.status in record.FINAL_STATUSES:
                    finished = with_portable(finished, portable, stop_request)
        lease.check()
        store.write_record(finished)
        progress.write(finished.status, now=True, step=finished.curve[-1].step if finished.curve else 0)
    return finished


class TrainingLoop:
    """Trains one run from its newest checkpoint to its record, in one process: one attempt of the record."""

    def __init__(
        self,
        run: Run,
        corpus: Corpus,
        settings: Settings,
        folder: Path,
        progress: Progress,
        lease: Lease,
        stop_request: StopRequest,
    ) -> None:
        self.run, self.corpus, self.settings, self.folder = run, corpus, settings, folder
        self.progress, self.lease, self.stop_request = progress, lease, stop_request
        self.recorder = Recorder(run, corpus, settings.device, settings.runs_per_gpu)
        self.history = History()
        self.last_train_nats: float | None = None
        self.trainer: Trainer | None = None
        self.stopwatch = Stopwatch()

    def train(self) -> record.Record:
        """Train to the end, or until the run fails, and return the record."""
        try:
            self.recorder.describe_model()
            self.trainer = trainer = self.start()
            trainer.warm_up()
            self.loop(trainer)
            self.progress.write("measuring", now=True, step=trainer.step, n_steps=trainer.training.n_steps)
            with self.stop_request.at_once("stopped while it was measured; the same command measures it again"):
                result = measure(
                    self.history,
                    self.reported_models(trainer),
                    self.corpus,
                    self.run.config,
                    trainer.seed,
                    parameters_sha256(trainer.model),
                )
            return self.recorder.finish("done", self.history, trainer.step, result=result)
        except Diverged as stop:
            return self.stopped("diverged", str(stop), stop.step)
        except (torch.OutOfMemoryError, MemoryError) as stop:
            return self.stopped("oom", first_line(stop))
        except OSError as stop:
            return self.stopped("io_error", first_line(stop))
        except UserError:
            raise
        except Exception as stop:
            traceback.print_exc()
            return self.stopped("oom" if NO_MEMORY.search(str(stop)) else "failed", first_line(stop))

    def stopped(self, status: record.Status, error: str, at_step: int | None = None) -> record.Record:
        """The record of a run that failed, by default at the current step of the trainer."""
        self.stop_clock()
        step = self.trainer.step if self.trainer else 0
        stopped_at = step if at_step is None else at_step
        return self.recorder.finish(status, self.history, step, error=error, stopped_at_step=stopped_at)

    def start(self) -> Trainer:
        """A trainer at the newest valid checkpoint, or at step 0."""
        checkpoint.remove_temporary(self.folder)
        content, skipped = checkpoint.load_newest(self.folder)
        for reason in skipped:
            print(f"skipped checkpoint: {reason}", flush=True)
        device = self.settings.device
        if content is None:
            if self.run.mode == "fast":
                self.history.first_train_nats = first_losses(self.run, self.corpus, device)
                torch.cuda.reset_peak_memory_stats(device)
            drop_steps(self.folder, 0)
            return Trainer(self.run, self.corpus, device)
        checkpoint.check_same(content, identity(self.run), self.folder)
        trainer = Trainer(self.run, self.corpus, device)
        trainer.load_state(content["trainer"])
        self.history = History(**content["history"])
        self.recorder.first_fast_train_nats = content.get("first_fast_train_nats", [])  # older checkpoints have none
        drop_steps(self.folder, trainer.step)
        self.recorder.resume(self.history, trainer.step)
        print(f"resumed at step {trainer.step}", flush=True)
        return trainer

    def loop(self, trainer: Trainer) -> None:
        """Steps, evaluations and checkpoints, until the evaluation of the last step is saved."""
        n_steps = trainer.training.n_steps
        read_every = READ_EVERY_CUDA if self.settings.device.type == "cuda" else 1
        saved_at = time.monotonic()
        self.stopwatch.start()
        with (self.folder / STEPS_FILE).open("a", encoding="utf-8") as file:
            curve = StepCurve(file)
            while True:
                if self.evaluation_is_due(trainer):
                    self.read_losses(curve)
                    self.evaluate(trainer)
                    self.save(trainer)
                    saved_at = time.monotonic()
                if trainer.step == n_steps:
                    self.stop_clock()
                    return
                curve.add(trainer.step, *trainer.advance())
                stop_requested = self.stop_request.is_set()
                save_is_due = time.monotonic() - saved_at >= self.settings.checkpoint_seconds
                if stop_requested or (save_is_due and not self.evaluation_is_due(trainer)):
                    self.read_losses(curve)
                    self.save(trainer)
                    saved_at = time.monotonic()
                elif curve.n_unread >= read_every:
                    self.read_losses(curve)
                if stop_requested:
                    raise Interrupted(
                        f"stopped at step {trainer.step} of {n_steps}; the same command continues from there"
                    )
                self.write_progress(trainer)

    def evaluation_is_due(self, trainer: Trainer) -> bool:
        """Whether this step is due for an evaluation."""
        due = trainer.step % trainer.training.eval_every == 0 or trainer.step == trainer.training.n_steps
        return due and not self.history.evaluated_at(trainer.step)

    def read_losses(self, curve: StepCurve) -> None:
        """Add the losses since the last call. Diverged at the first that is not finite."""
        firsts = self.history.first_train_nats if self.run.mode == "exact" else self.recorder.first_fast_train_nats
        for step, nats, norm in curve.read():
            self.last_train_nats = nats
            self.history.add_step(nats, norm)
            if len(firsts) == step < N_FIRST:
                firsts.append(nats)

    def evaluate(self, trainer: Trainer) -> None:
        """Measure the sweep loss and the model's readings."""
        self.stop_clock()
        self.write_progress(trainer, state="evaluating", now=True)
        context, n_steps = self.run.config.context, trainer.training.n_steps
        stopped = f"stopped in the evaluation of step {trainer.step} of {n_steps}; the same command evaluates it again"
        try:
            with self.stop_request.between_batches(trainer.model, stopped):  # what is saved must be whole
                losses = sweep(trainer.model, self.corpus.val, context)
                if not losses.isfinite().all():
                    raise Diverged(trainer.step, "validation loss is not finite")
                at_end = trainer.step == n_steps
                self.history.add_readings(trainer.step, trainer.model, self.corpus.val, context, at_end=at_end)
        except Interrupted:
            self.save(trainer)
            raise
        self.history.add_evaluation(trainer.step, losses, context, trainer.model)
        print(f"step {trainer.step}: validation {losses.mean().item():.4f} nats per token", flush=True)
        self.stopwatch.start()

    def stop_clock(self) -> None:
        """Add the seconds since the stopwatch was started to the training time."""
        self.history.train_seconds += self.stopwatch.stop()

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint of the current state."""
        self.lease.check()
        self.stop_clock()
        attempts = self.recorder.attempts(self.history, trainer.step)
        self.history.attempts = [one.model_dump(mode="json") for one in attempts]
        content = {
            "identity": identity(self.run),
            "trainer": trainer.state(),
            "history": vars(self.history),
            "first_fast_train_nats": self.recorder.first_fast_train_nats,
            "vocabulary": self.corpus.vocabulary,  # so that `sample` needs no corpus
        }
        checkpoint.save(self.folder, content)
        self.stopwatch.start()

    def write_progress(self, trainer: Trainer, *, state: str = "training", now: bool = False) -> None:
        """Write the progress file, which `status` and the launcher read."""
        n_steps, n_done = trainer.training.n_steps, trainer.step - self.recorder.first_step
        seconds = self.history.train_seconds + self.stopwatch.seconds - self.recorder.seconds_before
        self.progress.write(
            state,
            now=now,
            step=trainer.step,
            n_steps=n_steps,
            val_nats_per_token=self.history.curve[-1]["val_nats_per_token"] if self.history.curve else None,
            train_nats=self.last_train_nats,
            tokens_per_second=n_train_tokens(self.run.config, n_done) / seconds if seconds > 0 else None,
            seconds_left=(n_steps - trainer.step) * seconds / n_done if n_done else None,
        )

    def reported_models(self, trainer: Trainer) -> Iterator[tuple[int, SequenceModel]]:
        """The final weights, then the best ones if they differ."""
        yield trainer.step, trainer.model
        best = best_step(self.history.losses())
        if best != trainer.step:
            trainer.model.load_state_dict(self.history.best_model)
            yield best, trainer.model


def with_portable(
    finished: record.Record, portable: Callable[[], list[float]], stop_request: StopRequest
) -> record.Record:
    """A finished record with the losses of `portable`; without them if a stop comes first, so that it is not lost."""
    try:
        with stop_request.at_once("no portable losses: the run was stopped"):
            return finished.with_portable(portable())
    except Interrupted as stop:
        print(stop, flush=True)
        return finished


def fit(run: Run, corpus: Corpus, device: torch.device) -> record.Record:
    """Fit an n-gram model to the training text, measure it like any other model, and return the record."""
    known = describe_run(run, corpus, device)
    model = build_fitted(run.config.model).to(device).fit(corpus.train.long())
    history, result = measure_fitted(model, corpus, run.config)
    cost = record.Cost(
        train_seconds=0.0,
        tokens_per_second=None,
        peak_bytes=peak_bytes(device),
        n_train_tokens=0,
        train_flops=0.0,
        parameters=count_fitted(model),
    )
    return make_record(known, history, cost, [], result=result)


def identity(run: Run) -> dict[str, Any]:
    """The values that a checkpoint must share with the run that resumes from it."""
    return {
        "config": json.dumps(to_json(run.config), sort_keys=True),
        "run": json.dumps([run.run_id, run.seed, run.mode, run.replicate]),
        "sources": json.dumps(fingerprint(run.config.architecture)),
    }


def check_length(run: Run, corpus: Corpus) -> None:
    """ConfigError where a text is too short for the windows of a run."""
    texts = [*corpus.train.tensor_split(corpus.cuts), corpus.val, *([] if corpus.test is None else [corpus.test])]
    shortest = min(map(len, texts))
    if shortest < 2 * run.config.context + 1:
        raise ConfigError(f"context={run.config.context} is too long: a text of {corpus.name} has {shortest} tokens")
