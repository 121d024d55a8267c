"""One optimizer step, the same for every model: what decides the numbers of training.

Two modes. `exact`: float32, eager, deterministic algorithms; equal bits from equal software, hardware and threads.
`fast`: bf16 autocast and torch.compile on CUDA. Randomness is a function of (seed, step), so the state of a training
is the parameters, the optimizer's moments and the step.
"""

import dataclasses
import hashlib
import math
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.batches import stream_seed, train_batch
from bench.config import Mode, Run, TrainingConfig
from bench.corpus import Corpus
from bench.errors import ConfigError
from bench.schedule import learning_rate
from models import SequenceModel, build
from models.dropout import share_generator, use_torch_stream

N_FIRST = 20  # losses of first steps that a record keeps for `recheck`


class Trainer:
    """A run in training: the model, its optimizer and the number of updates done."""

    def __init__(self, run: Run, corpus: Corpus, device: torch.device) -> None:
        assert run.config.training is not None
        assert run.seed is not None
        set_numerics(run.mode, device)
        self.run, self.corpus, self.device = run, corpus, device
        self.seed, self.training = run.seed, run.config.training
        self.step = 0
        torch.manual_seed(stream_seed(self.seed, "init"))
        self.model: SequenceModel = build(run.config.model).to(device)
        self.optimizer = make_optimizer(self.model, self.training)
        self._generator = share_generator(self.model, device)
        self._forward: Any = self.model
        if run.mode == "fast":
            use_torch_stream(self.model)
            self._forward = torch.compile(self.model)

    def warm_up(self) -> None:
        """Have the compiler do its work before the clock starts; moves no number, since every step seeds itself."""
        if self.run.mode == "fast":
            self._predict(self.step)[0].sum().backward()
            self.optimizer.zero_grad(set_to_none=True)

    def advance(self) -> tuple[Tensor, Tensor]:
        """One update. The batch's mean loss and the gradient norm before clipping, both scalars on the device."""
        logits, targets = self._predict(self.step)
        set_learning_rate(self.optimizer, learning_rate(self.step, self.training))
        measured = update(self.model, self.optimizer, logits, targets, self.training.clip_norm)
        self.step += 1
        return measured

    def _predict(self, step: int) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) and targets (B, T) of the batch of a step, with that step's dropout."""
        seed = stream_seed(self.seed, "dropout", step)
        self._generator.manual_seed(seed)
        if self.run.mode == "fast":
            torch.manual_seed(seed)
        x, y = train_batch(self.corpus.train, self.seed, step, self.training.batch_size, self.run.config.context)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.mode == "fast"):
            return self._forward(x), y

    def state(self) -> dict[str, Any]:
        """Everything the next step rests on."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, logits: Tensor, targets: Tensor, clip_norm: float
) -> tuple[Tensor, Tensor]:
    """Loss, gradients, clipping, optimizer step. logits (B, T, V), targets (B, T) -> loss, gradient norm (scalars)"""
    loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.detach(), norm.detach()


def make_optimizer(model: SequenceModel, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the model's own groups."""
    groups = [
        {
            "params": group.parameters,
            "learning_rate_scale": group.learning_rate_scale,
            "weight_decay": training.weight_decay if group.decayed else 0.0,
        }
        for group in model.parameter_groups(training.grouping)
        if group.parameters
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=training.betas, eps=training.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["learning_rate_scale"]


def set_numerics(mode: Mode, device: torch.device) -> None:
    """Put this process into a mode. ConfigError where the device cannot run it."""
    if mode == "fast" and device.type != "cuda":
        raise ConfigError(f"mode 'fast' needs CUDA, and this run is on {device.type}; use --mode exact")
    exact = mode == "exact"
    if exact and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass
    torch.set_float32_matmul_precision("highest" if exact else "high")


def first_losses(run: Run, corpus: Corpus, device: torch.device, n_steps: int = N_FIRST) -> list[float]:
    """Losses of the first steps in exact mode, up to one that is not finite: what `recheck` repeats."""
    assert run.config.training is not None
    trainer = Trainer(dataclasses.replace(run, mode="exact"), corpus, device)
    losses: list[float] = []
    for _ in range(min(n_steps, run.config.training.n_steps)):
        nats = trainer.advance()[0].item()
        if not math.isfinite(nats):
            break
        losses.append(nats)
    return losses


def parameters_sha256(model: nn.Module) -> str:
    """One hash over every parameter's name and bits."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
