"""One run from start to record: resume, train, evaluate, checkpoint, measure, write. What every worker calls."""

import json
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import torch

from bench import checkpoint, record
from bench.budget import (
    activation_bytes,
    count_fitted,
    count_parameters,
    n_train_tokens,
    state_bytes,
    train_flops,
)
from bench.config import PROTOCOL_VERSION, Run, to_json
from bench.corpora import CORPORA
from bench.corpus import Corpus, load_corpus
from bench.environment import describe, peak_bytes
from bench.errors import NO_MEMORY, AlreadyDone, ConfigError, UserError
from bench.evaluate import best_step, sweep
from bench.files import write_atomically
from bench.history import History, measure, measure_fitted
from bench.lease import Lease, hold
from bench.process import Interrupted, Progress, stop_requests
from bench.sources import commit, fingerprint
from bench.store import Store
from bench.train import N_FIRST, Trainer, first_losses, parameters_sha256, set_numerics
from models import FITTED, SequenceModel, build, build_fitted

READ_EVERY_CUDA = 50  # steps between looks at the losses, where a look stops the device
STEPS_FILE = "steps.jsonl"  # in a run's folder: loss and gradient norm of every step


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where and how a run executes; none of it is part of the run's identity."""

    device: torch.device
    n_threads: int | None = None  # None: torch's default
    data_dir: Path | None = None
    checkpoint_seconds: float = 60.0  # and at every evaluation
    runs_per_gpu: int = 1  # how many may share the device with this one, where that is a GPU


class Diverged(Exception):
    """A loss or a gradient is not finite."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


def execute(run: Run, store: Store, settings: Settings) -> record.Record:
    """Bring a run to its record, from its newest checkpoint or from nothing, and write the record to the store.

    A run that diverges, runs out of memory or fails leaves a record that says so. AlreadyDone where it has a record;
    RunIsTaken where another process works on it; LeaseLost where one took it over; Interrupted after a stop signal,
    with the state saved.
    """
    if settings.n_threads is not None:
        torch.set_num_threads(settings.n_threads)
    set_numerics(run.mode, settings.device)  # refuses a mode that the device cannot run
    corpus = load_corpus(run.config.corpus, settings.device, settings.data_dir)
    check_length(run, corpus)
    store.check_writable()
    folder = store.run_folder(run.run_id)
    with hold(folder) as lease, stop_requests() as asked_to_stop:
        if run.run_id in store.statuses():
            raise AlreadyDone(f"{run.name} ({run.run_id}) has its record in {store.root}")
        store.check_free(run.label, run.seed, run.run_id)
        progress = Progress(folder)
        if run.config.architecture in FITTED:
            finished = fit(run, corpus, settings)
        else:
            finished = Training(run, corpus, settings, folder, progress, lease, asked_to_stop).train()
        lease.check()
        store.write_record(finished)
        progress.write(finished.status, now=True, step=finished.curve[-1].step if finished.curve else 0)
    return finished


class Training:
    """One process's work on one run: an attempt, as records call it."""

    def __init__(
        self,
        run: Run,
        corpus: Corpus,
        settings: Settings,
        folder: Path,
        progress: Progress,
        lease: Lease,
        asked_to_stop: threading.Event,
    ) -> None:
        self.run, self.corpus, self.settings, self.folder = run, corpus, settings, folder
        self.progress, self.lease, self.asked_to_stop = progress, lease, asked_to_stop
        self.history = History()
        self.first_fast_train_nats: list[float] = []  # of the compiled step; not in History, whose sources are hashed
        self.trainer: Trainer | None = None
        self.known = describe_run(run, corpus, settings)  # now, since the sources may be edited while it trains
        model, context = build(run.config.model), run.config.context
        self.parameters, self.macs_per_token = count_parameters(model), model.forward_macs_per_token(context)
        self.state_bytes, self.activation_bytes = state_bytes(model, context), activation_bytes(model, context)
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.earlier_attempts: list[dict[str, Any]] = []
        self.first_step, self.seconds_before = 0, 0.0
        self.clock: float | None = None  # when the training not yet counted began
        self.unread: list[tuple[int, torch.Tensor, torch.Tensor]] = []  # step, loss, gradient norm
        self.last_train_nats: float | None = None

    def train(self) -> record.Record:
        """Train to the end, or to what stops it, and give the record."""
        try:
            self.trainer = trainer = self.start()
            trainer.warm_up()
            self.loop(trainer)
            self.progress.write("measuring", now=True, step=trainer.step, n_steps=trainer.training.n_steps)
            result = measure(
                self.history,
                self.reported_models(trainer),
                self.corpus,
                self.run.config,
                trainer.seed,
                parameters_sha256(trainer.model),
            )
            return self.make_record("done", result=result)
        except Diverged as stop:
            return self.make_record("diverged", error=str(stop), stopped_at_step=stop.step)
        except (torch.OutOfMemoryError, MemoryError) as stop:
            return self.make_record("oom", error=_one_line(stop))
        except OSError as stop:
            return self.make_record("io_error", error=_one_line(stop))
        except UserError:
            raise
        except Exception as stop:
            traceback.print_exc()
            return self.make_record("oom" if NO_MEMORY.search(str(stop)) else "failed", error=_one_line(stop))

    def start(self) -> Trainer:
        """A trainer at the newest whole checkpoint, or at step 0."""
        checkpoint.sweep(self.folder)
        content, passed_over = checkpoint.load_newest(self.folder)
        for reason in passed_over:
            print(f"passed over: {reason}", flush=True)
        if content is None:
            if self.run.mode == "fast":
                self.history.first_train_nats = first_losses(self.run, self.corpus, self.settings.device)
                torch.cuda.reset_peak_memory_stats(self.settings.device)
            return Trainer(self.run, self.corpus, self.settings.device)
        checkpoint.check_same(content, self.identity(), self.folder)
        trainer = Trainer(self.run, self.corpus, self.settings.device)
        trainer.load_state(content["trainer"])
        self.history = History(**content["history"])
        self.first_fast_train_nats = content.get("first_fast_train_nats", [])  # older checkpoints have none
        drop_steps(self.folder / STEPS_FILE, trainer.step)
        self.earlier_attempts = self.history.attempts
        self.first_step, self.seconds_before = trainer.step, self.history.train_seconds
        print(f"resumed at step {trainer.step}", flush=True)
        return trainer

    def loop(self, trainer: Trainer) -> None:
        """Steps, evaluations and checkpoints, until the evaluation of the last step is saved."""
        n_steps = trainer.training.n_steps
        read_every = READ_EVERY_CUDA if self.settings.device.type == "cuda" else 1
        self.clock = saved_at = time.monotonic()
        with (self.folder / STEPS_FILE).open("a", encoding="utf-8") as steps:
            while True:
                if self.evaluation_is_due(trainer):
                    self.read_losses(steps)
                    self.evaluate(trainer)
                    self.save(trainer)
                    saved_at = time.monotonic()
                if trainer.step == n_steps:
                    self.stop_clock()
                    return
                self.unread.append((trainer.step, *trainer.advance()))
                asked_to_stop = self.asked_to_stop.is_set()
                save_is_due = time.monotonic() - saved_at >= self.settings.checkpoint_seconds
                if asked_to_stop or (save_is_due and not self.evaluation_is_due(trainer)):
                    self.read_losses(steps)
                    self.save(trainer)
                    saved_at = time.monotonic()
                elif len(self.unread) >= read_every:
                    self.read_losses(steps)
                if asked_to_stop:
                    raise Interrupted(
                        f"stopped at step {trainer.step} of {n_steps}; the same command goes on from there"
                    )
                self.tell(trainer)

    def evaluation_is_due(self, trainer: Trainer) -> bool:
        """Whether this step is to be evaluated and has not been."""
        due = trainer.step % trainer.training.eval_every == 0 or trainer.step == trainer.training.n_steps
        return due and not self.history.evaluated_at(trainer.step)

    def read_losses(self, steps: TextIO) -> None:
        """Look at the losses since the last look. Diverged at the first that is not finite."""
        if not self.unread:
            return
        values = torch.stack([torch.stack((loss, norm)) for _, loss, norm in self.unread]).tolist()
        for (step, _, _), (nats, norm) in zip(self.unread, values, strict=True):
            if not (abs(nats) < float("inf") and norm < float("inf")):  # false for NaN, too
                raise Diverged(step, f"loss {nats}, gradient norm {norm}")
            steps.write(json.dumps({"step": step, "train_nats": nats, "grad_norm": norm}) + "\n")
            self.last_train_nats = nats
            self.history.add_step(nats, norm)
            firsts = self.history.first_train_nats if self.run.mode == "exact" else self.first_fast_train_nats
            if len(firsts) == step < N_FIRST:
                firsts.append(nats)
        steps.flush()
        self.unread.clear()

    def evaluate(self, trainer: Trainer) -> None:
        """One sweep and the model's own readings."""
        self.stop_clock()
        self.tell(trainer, state="evaluating", now=True)
        losses = sweep(trainer.model, self.corpus.val, self.run.config.context)
        if not losses.isfinite().all():
            raise Diverged(trainer.step, "validation loss is not finite")
        context = self.run.config.context
        self.history.add_readings(trainer.step, trainer.model, self.corpus.val, context)
        self.history.add_evaluation(trainer.step, losses, context, trainer.model)
        print(f"step {trainer.step}: validation {losses.mean().item():.4f} nats a token", flush=True)
        self.clock = time.monotonic()

    def stop_clock(self) -> None:
        """Count the seconds since the clock was started as training."""
        if self.clock is not None:
            self.history.train_seconds += time.monotonic() - self.clock
        self.clock = None

    def save(self, trainer: Trainer) -> None:
        """A checkpoint of this moment."""
        self.lease.check()
        self.stop_clock()
        self.history.attempts = [*self.earlier_attempts, self.this_attempt(trainer.step).model_dump(mode="json")]
        content = {
            "identity": self.identity(),
            "trainer": trainer.state(),
            "history": vars(self.history),
            "first_fast_train_nats": self.first_fast_train_nats,
            "vocabulary": self.corpus.vocabulary,  # so that `sample` needs no corpus
        }
        checkpoint.save(self.folder, content)
        self.clock = time.monotonic()

    def identity(self) -> dict[str, str]:
        """What a checkpoint must share with the run that resumes from it."""
        return {
            "config": json.dumps(to_json(self.run.config), sort_keys=True),
            "run": json.dumps([self.run.run_id, self.run.seed, self.run.mode, self.run.replicate]),
            "sources": json.dumps(fingerprint(self.run.config.architecture)),
        }

    def tell(self, trainer: Trainer, *, state: str = "training", now: bool = False) -> None:
        """Write the sign of life that `status` and the launcher show."""
        running = time.monotonic() - self.clock if self.clock is not None else 0.0
        seconds = self.history.train_seconds + running
        n_tokens = n_train_tokens(self.run.config, trainer.step - self.first_step)
        elapsed, n_done = seconds - self.seconds_before, trainer.step - self.first_step
        n_left = trainer.training.n_steps - trainer.step
        self.progress.write(
            state,
            now=now,
            step=trainer.step,
            n_steps=trainer.training.n_steps,
            val_nats_per_token=self.history.curve[-1]["val_nats_per_token"] if self.history.curve else None,
            train_nats=self.last_train_nats,
            tokens_per_second=n_tokens / elapsed if elapsed > 0 else None,
            seconds_left=n_left * elapsed / n_done if n_done else None,
        )

    def reported_models(self, trainer: Trainer) -> Iterator[tuple[int, SequenceModel]]:
        """The final weights, then, where they are others, the best."""
        yield trainer.step, trainer.model
        best = best_step(self.history.losses())
        if best != trainer.step:
            trainer.model.load_state_dict(self.history.best_model)
            yield best, trainer.model

    def this_attempt(self, step: int) -> record.Attempt:
        """This attempt, as a record shows it."""
        return record.Attempt(
            started_at=self.started_at,
            first_step=self.first_step,
            last_step=step,
            train_seconds=self.history.train_seconds - self.seconds_before,
            environment=describe(self.settings.device),
            peak_bytes=peak_bytes(self.settings.device),
            runs_per_gpu=self.settings.runs_per_gpu if self.settings.device.type == "cuda" else None,
        )

    def make_record(
        self,
        status: record.Status,
        *,
        result: record.Result | None = None,
        error: str | None = None,
        stopped_at_step: int | None = None,
    ) -> record.Record:
        """The record of what is known now."""
        if status != "done":
            self.stop_clock()
        history, step = self.history, self.trainer.step if self.trainer else 0
        seconds, n_tokens = history.train_seconds, n_train_tokens(self.run.config, step)
        earlier = [record.Attempt.model_validate(one) for one in self.earlier_attempts]
        attempts = [*earlier, self.this_attempt(step)]
        return record.Record(
            **self.known,
            status=status,
            stopped_at_step=None if status == "done" else step if stopped_at_step is None else stopped_at_step,
            error=error,
            attempts=attempts,
            curve=[record.Evaluation.model_validate(entry) for entry in history.curve],
            result=result,
            diagnostics=record.Diagnostics(
                first_train_nats=history.first_train_nats,
                by_step=history.diagnostics,
                first_fast_train_nats=self.first_fast_train_nats,
            ),
            cost=record.Cost(
                train_seconds=seconds,
                tokens_per_second=n_tokens / seconds if seconds > 0 else None,
                peak_bytes=max(one.peak_bytes or 0 for one in attempts),
                n_train_tokens=n_tokens,
                train_flops=train_flops(self.macs_per_token, n_tokens),
                parameters=self.parameters,
                forward_macs_per_token=self.macs_per_token,
                state_bytes=self.state_bytes,
                activation_bytes=self.activation_bytes,
            ),
        )


def fit(run: Run, corpus: Corpus, settings: Settings) -> record.Record:
    """Fit a counted model to the training text and measure it as any other."""
    known = describe_run(run, corpus, settings)
    model = build_fitted(run.config.model).to(settings.device).fit(corpus.train.long())
    history, result = measure_fitted(model, corpus, run.config)
    return record.Record(
        **known,
        status="done",
        stopped_at_step=None,
        error=None,
        attempts=[],
        curve=[record.Evaluation.model_validate(entry) for entry in history.curve],
        result=result,
        diagnostics=record.Diagnostics(first_train_nats=[], by_step={}),
        cost=record.Cost(
            train_seconds=0.0,
            tokens_per_second=None,
            peak_bytes=peak_bytes(settings.device),
            n_train_tokens=0,
            train_flops=0.0,
            parameters=count_fitted(model),
        ),
    )


def describe_run(run: Run, corpus: Corpus, settings: Settings) -> dict[str, Any]:
    """The fields of a record that are known before anything is measured."""
    commit_id, dirty = commit()
    return {
        "schema_version": record.SCHEMA_VERSION,
        "protocol_version": PROTOCOL_VERSION,
        "run_id": run.run_id,
        "label": run.label,
        "seed": run.seed,
        "replicate": run.replicate,
        "mode": run.mode,
        "config": to_json(run.config),
        "corpus": record.Corpus(
            name=corpus.name,
            sha256=corpus.sha256,
            vocab_size=len(corpus.vocabulary),
            n_train_tokens=len(corpus.train),
            n_val_tokens=len(corpus.val),
            entropy_rate_nats=CORPORA[corpus.name].entropy_rate_nats,
        ),
        "sources": record.Sources(commit=commit_id, dirty=dirty, fingerprint=fingerprint(run.config.architecture)),
        "environment": describe(settings.device),
    }


def check_length(run: Run, corpus: Corpus) -> None:
    """ConfigError where a text is too short for the windows of a run."""
    shortest = min(len(corpus.train), len(corpus.val))
    if shortest < 2 * run.config.context + 1:
        raise ConfigError(f"context={run.config.context} is too long: a text of {corpus.name} has {shortest} tokens")


def drop_steps(path: Path, first: int) -> None:
    """Cut a step curve back to the steps before `first`, which are those that a resumed run does not repeat."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith(b"}\n") and json.loads(line)["step"] < first]
        write_atomically(path, b"".join(kept))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]
