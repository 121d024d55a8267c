"""The measurements of a run so far, and the results chosen from them. Stored in checkpoints as plain values."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.config import RunConfig
from bench.corpus import Corpus
from bench.evaluate import best_step, half_sums, knockout_losses, permuted, sampled, strided, sweep
from bench.record import CrossFitted, Knockouts, Measurement, Permuted, ProtocolResult, Result
from models import FittedModel, SequenceModel, readings_of

FITTED_SEED = 0
READ_WINDOWS = 4  # first windows of the validation text, on which a model's readings are taken


@dataclass
class History:
    """Measurements of one run across its attempts."""

    curve: list[dict[str, Any]] = field(default_factory=list)  # as in record.Evaluation
    window_losses: dict[int, Tensor] = field(default_factory=dict)  # step -> (n_windows,) float64
    diagnostics: dict[int, dict[str, Any]] = field(default_factory=dict)
    best_model: dict[str, Tensor] = field(default_factory=dict)  # the weights with the lowest sweep loss
    first_train_nats: list[float] = field(default_factory=list)
    interval_nats: float = 0.0  # sum of training losses since the last evaluation
    interval_steps: int = 0
    interval_norms: float = 0.0  # sum of gradient norms
    interval_greatest_norm: float = 0.0  # the largest of them
    train_seconds: float = 0.0
    attempts: list[dict[str, Any]] = field(default_factory=list)  # as in record.Attempt

    def evaluated_at(self, step: int) -> bool:
        """Whether `step` was the last to be evaluated."""
        return bool(self.curve) and self.curve[-1]["step"] == step

    def add_step(self, nats: float, gradient_norm: float) -> None:
        """Add a step to the interval that ends with the next evaluation."""
        self.interval_nats += nats
        self.interval_steps += 1
        self.interval_norms += gradient_norm
        self.interval_greatest_norm = max(self.interval_greatest_norm, gradient_norm)

    def add_readings(self, step: int, model: SequenceModel, val: Tensor, context: int, *, at_end: bool = False) -> None:
        """Store the model's readings, its losses without either path, at both ends of training the readings of its
        weights, and the gradient norms since the last evaluation: call it before the next one.
        """
        n_windows = min(READ_WINDOWS, len(val) // context)
        read = readings_of(model)
        readings = read.dynamics(model, val[: n_windows * context].long().view(n_windows, context))
        if paths := read.paths(model):
            readings["knockout_nats"] = knockout_losses(model, val, context, paths)[0]
        if step == 0 or at_end:
            readings |= read.weights(model)
        if self.interval_steps:
            mean = self.interval_norms / self.interval_steps
            readings["gradient_norm"] = {"mean": mean, "max": self.interval_greatest_norm}
        self.diagnostics[step] = readings

    def add_evaluation(self, step: int, losses: Tensor, context: int, model: torch.nn.Module) -> None:
        """Store a sweep's window losses (n,), their sums, and the weights if they are the best so far."""
        (first_nats, n_first), (second_nats, n_second) = half_sums(losses, context)
        self.window_losses[step] = losses
        self.curve.append(
            {
                "step": step,
                "val_nats_per_token": losses.mean().item(),
                "first_half": {"nats": first_nats, "n_tokens": n_first},
                "second_half": {"nats": second_nats, "n_tokens": n_second},
                "train_nats_per_token": self.interval_nats / self.interval_steps if self.interval_steps else None,
            }
        )
        self.interval_nats, self.interval_steps = 0.0, 0
        self.interval_norms, self.interval_greatest_norm = 0.0, 0.0
        if best_step(self.losses()) == step:
            self.best_model = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def losses(self, half: str | None = None) -> dict[int, float]:
        """Sweep loss in nats per token by step, of the whole text or of `first_half` or `second_half`."""
        if half is None:
            return {entry["step"]: entry["val_nats_per_token"] for entry in self.curve}
        return {entry["step"]: entry[half]["nats"] / entry[half]["n_tokens"] for entry in self.curve}

    def sweep_result(self, context: int) -> ProtocolResult:
        """Best, final and cross-fitted sweep loss."""
        first, second = self.losses("first_half"), self.losses("second_half")
        on_first, on_second = best_step(first), best_step(second)

        def at(step: int) -> Measurement:
            n_tokens = len(self.window_losses[step]) * context
            return Measurement(step=step, nats_per_token=self.losses()[step], n_tokens=n_tokens)

        return ProtocolResult(
            best=at(best_step(self.losses())),
            final=at(self.curve[-1]["step"]),
            cross_fitted=CrossFitted(
                nats_per_token=(second[on_first] + first[on_second]) / 2,
                step_chosen_on_first_half=on_first,
                step_chosen_on_second_half=on_second,
            ),
        )

    def rounded_window_losses(self, on_sweep: ProtocolResult) -> dict[int, list[float]]:
        """The loss of each window at the steps that a result reports, rounded to 6 decimals."""
        steps = {on_sweep.best.step, on_sweep.final.step}
        if (crossed := on_sweep.cross_fitted) is not None:
            steps |= {crossed.step_chosen_on_first_half, crossed.step_chosen_on_second_half}
        return {step: [round(loss, 6) for loss in self.window_losses[step].tolist()] for step in sorted(steps)}


def measure_fitted(model: FittedModel, corpus: Corpus, config: RunConfig) -> tuple[History, Result]:
    """Every protocol for a fitted model, whose only step is 0; its random windows are those of seed 0."""
    history = History()
    losses = sweep(model, corpus.val, config.context)
    history.add_evaluation(0, losses, config.context, model)
    digest = hashlib.sha256(b"".join(table.cpu().numpy().tobytes() for table in model.tables()))
    return history, measure(history, [(0, model)], corpus, config, FITTED_SEED, digest.hexdigest())


def measure(
    history: History,
    models: Iterable[tuple[int, torch.nn.Module]],
    corpus: Corpus,
    config: RunConfig,
    seed: int,
    parameters_sha256: str,
) -> Result:
    """Every protocol. `models` yields (step, model) for the best and the final step, once if they are equal."""
    on_sweep = history.sweep_result(config.context)
    by_step = {}
    of_best: dict[str, Any] = {}
    for step, model in models:
        if step == on_sweep.best.step:
            of_best = measure_best(step, model, corpus, config.context)
        nats, n_tokens = sampled(model, corpus.val, config.context, seed, config.n_sampled_batches)
        at_random = Measurement(step=step, nats_per_token=nats, n_tokens=n_tokens)
        nats, n_tokens = strided(model, corpus.val, config.context)
        by_step[step] = at_random, Measurement(step=step, nats_per_token=nats, n_tokens=n_tokens)
    best, final = by_step[on_sweep.best.step], by_step[on_sweep.final.step]
    return Result(
        sweep=on_sweep,
        sampled=ProtocolResult(best=best[0], final=final[0], cross_fitted=None),
        strided=ProtocolResult(best=best[1], final=final[1], cross_fitted=None),
        window_nats=history.rounded_window_losses(on_sweep),
        parameters_sha256=parameters_sha256,
        **of_best,
    )


def measure_best(step: int, model: torch.nn.Module, corpus: Corpus, context: int) -> dict[str, Any]:
    """What is measured only at the best step: with permuted tokens, without parts of the model, on the test text."""
    plain, in_random_order, n_tokens, rise = permuted(model, corpus.val, context)
    measured: dict[str, Any] = {
        "permuted": Permuted(
            step=step, nats_per_token=plain, nats_per_token_permuted=in_random_order, n_tokens=n_tokens
        ),
        "permuted_rise": rise,
    }
    if parts := readings_of(model).parts(model):
        losses, n_tokens = knockout_losses(model, corpus.val, context, parts)
        measured["knockouts"] = Knockouts(step=step, n_tokens=n_tokens, nats_per_token=losses)
    if corpus.test is not None:
        nats = sweep(model, corpus.test, context)
        measured["test"] = Measurement(step=step, nats_per_token=nats.mean().item(), n_tokens=len(nats) * context)
    return measured
