"""Assembles the record of a run."""

from datetime import UTC, datetime
from typing import Any

import torch

from bench import record
from bench.budget import activation_bytes, count_parameters, n_train_tokens, state_bytes, train_flops
from bench.config import PROTOCOL_VERSION, Run, to_json
from bench.corpora import CORPORA
from bench.corpus import Corpus
from bench.environment import describe_machine, peak_bytes
from bench.history import History
from bench.sources import commit, fingerprint
from models import SequenceModel, build


class Recorder:
    """One attempt at a run: what is known before training, and the earlier attempts."""

    def __init__(self, run: Run, corpus: Corpus, device: torch.device, runs_per_gpu: int) -> None:
        self.run, self.device, self.runs_per_gpu = run, device, runs_per_gpu
        self.known = describe_run(run, corpus, device)  # before training, since the sources may be edited meanwhile
        self.cost_of_model: dict[str, Any] = {}
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.earlier: list[record.Attempt] = []
        self.first_step, self.seconds_before = 0, 0.0
        self.first_fast_train_nats: list[float] = []  # of the compiled step; not in History, whose sources are hashed

    def describe_model(self) -> None:
        """Build the model once for its costs. MemoryError, or torch's kinds of it, where it does not fit."""
        model, context = build(self.run.config.model), self.run.config.context
        self.cost_of_model = closed_costs(model, context) | {"activation_bytes": activation_bytes(model, context)}

    def resume(self, history: History, step: int) -> None:
        """Count this attempt from `step`, after those of a checkpoint's history."""
        self.earlier = [record.Attempt.model_validate(one) for one in history.attempts]
        self.first_step, self.seconds_before = step, history.train_seconds

    def attempts(self, history: History, step: int) -> list[record.Attempt]:
        """The attempts at the run; the last is this one, at `step`."""
        this = record.Attempt(
            started_at=self.started_at,
            first_step=self.first_step,
            last_step=step,
            train_seconds=history.train_seconds - self.seconds_before,
            environment=describe_machine(self.device),
            peak_bytes=peak_bytes(self.device),
            runs_per_gpu=self.runs_per_gpu if self.device.type == "cuda" else None,
        )
        return [*self.earlier, this]

    def finish(self, status: record.Status, history: History, step: int, **fields: Any) -> record.Record:
        """The record of a run that ended at `step`, with more `fields` of `make_record`."""
        if not self.cost_of_model:  # building it failed
            with torch.device("meta"):
                model = build(self.run.config.model)
            self.cost_of_model = closed_costs(model, self.run.config.context)
        seconds, n_tokens = history.train_seconds, n_train_tokens(self.run.config, step)
        attempts = self.attempts(history, step)
        cost = record.Cost(
            train_seconds=seconds,
            tokens_per_second=n_tokens / seconds if seconds > 0 else None,
            peak_bytes=max(one.peak_bytes or 0 for one in attempts),
            n_train_tokens=n_tokens,
            train_flops=train_flops(self.cost_of_model["forward_macs_per_token"], n_tokens),
            **self.cost_of_model,
        )
        fields |= {"status": status, "attempts": attempts}
        return make_record(self.known, history, cost, self.first_fast_train_nats, **fields)


def closed_costs(model: SequenceModel, context: int) -> dict[str, Any]:
    """The costs of a model that follow from its sizes: fields of record.Cost."""
    return {
        "parameters": count_parameters(model),
        "forward_macs_per_token": model.forward_macs_per_token(context),
        "state_bytes": state_bytes(model, context),
    }


def make_record(
    known: dict[str, Any], history: History, cost: record.Cost, first_fast_train_nats: list[float], **ended: Any
) -> record.Record:
    """A record from the facts of `describe_run` and the measurements; by default of a run that is done."""
    return record.Record(
        **known,
        **{"status": "done", "stopped_at_step": None, "error": None, "attempts": [], "result": None, **ended},
        curve=[record.Evaluation.model_validate(entry) for entry in history.curve],
        diagnostics=record.Diagnostics(
            first_train_nats=history.first_train_nats,
            by_step=history.diagnostics,
            first_fast_train_nats=first_fast_train_nats,
        ),
        cost=cost,
    )


def describe_run(run: Run, corpus: Corpus, device: torch.device) -> dict[str, Any]:
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
        "corpus": record.CorpusFacts(
            name=corpus.name,
            sha256=corpus.sha256,
            vocab_size=len(corpus.vocabulary),
            n_train_tokens=len(corpus.train),
            n_val_tokens=len(corpus.val),
            entropy_rate_nats=CORPORA[corpus.name].entropy_rate_nats,
        ),
        "sources": record.Sources(commit=commit_id, dirty=dirty, fingerprint=fingerprint(run.config.architecture)),
        "environment": describe_machine(device),
    }
