"""One optimizer step, the same for every model.

Two modes. `exact`: float32, eager, deterministic algorithms; equal bits from equal software, hardware and threads.
`fast`: bf16 autocast and torch.compile on CUDA. Random numbers are a function of (seed, step), so the state of training
is the parameters, the optimizer's moments and the step.
"""

import copy
import dataclasses
import hashlib
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.allocator import keep_freed_memory
from bench.batches import rows_at_once, stream_seed, train_batch
from bench.capture import StepGraph
from bench.config import Mode, Run, TrainingConfig
from bench.corpus import Corpus
from bench.errors import ConfigError
from bench.schedule import learning_rate
from models import KOperatorsConfig, SequenceModel, build
from models.dropout import share_generator, use_torch_stream

N_FIRST = 20  # number of first training losses that a record keeps for `recheck`


class Trainer:
    """A model in training: its optimizer, its batches and the number of updates done."""

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
        self._graph: StepGraph | None = None
        if run.mode == "fast":
            use_torch_stream(self.model)
            put_rates_on(self.optimizer, device)
            self._step_there = torch.zeros((), dtype=torch.int64, device=device)
            self._forward = torch.compile(self.model, dynamic=False, fullgraph=self.model.one_graph)

    def warm_up(self) -> None:
        """Compile and record the step before timing starts. Changes no number: the state is restored afterwards."""
        if self.run.mode == "fast":
            before = copy.deepcopy(self.state())
            self._set_inputs()
            self._graph = StepGraph(self._update, self.optimizer)
            self._put_back(before)

    def advance(self) -> tuple[Tensor, Tensor]:
        """One update. The batch's mean loss and the gradient norm before clipping, both scalars on the device."""
        self._set_inputs()
        nats, norm = self._update() if self._graph is None else self._graph.replay()
        self.step += 1
        return nats, norm

    def _set_inputs(self) -> None:
        """Set what differs between steps: the learning rate, the seed of dropout, and the step, for the batch."""
        set_learning_rate(self.optimizer, learning_rate(self.step, self.training))
        seed = stream_seed(self.seed, "dropout", self.step)
        if self.run.mode == "fast":
            torch.manual_seed(seed)  # a replay reads CUDA's generator
            self._step_there.fill_(self.step)
        else:
            self._generator.manual_seed(seed)

    def _update(self) -> tuple[Tensor, Tensor]:
        """One step with fixed operations, so that a graph can record it. Loss and gradient norm, scalars."""
        self.optimizer.zero_grad(set_to_none=True)
        context, batch_size = self.run.config.context, self.training.batch_size
        step = self._step_there if self.run.mode == "fast" else self.step
        x, y = train_batch(self.corpus.train, self.seed, step, batch_size, context, self.corpus.cuts)
        nats = add_gradients(self._predict, x, y, rows_at_once(batch_size, context, self.device))
        return nats, apply_gradients(self.model, self.optimizer, self.training.clip_norm)

    def _predict(self, x: Tensor) -> Tensor:
        """Logits (B, T, V) of token ids (B, T), in the precision of the mode."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.run.mode == "fast"):
            logits: Tensor = self._forward(x)
            return logits

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._graph = None  # it was recorded with moments that are now replaced
        if self.run.mode == "fast":
            put_rates_on(self.optimizer, self.device)  # those of the checkpoint are on the CPU

    def _put_back(self, state: dict[str, Any]) -> None:
        """Copy a state into the existing tensors, where `load_state` would replace those of the optimizer."""
        self.model.load_state_dict(state["model"])  # copies in place
        moments = state["optimizer"]["state"]  # by the parameter's index; empty before the first step
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            for name, tensor in self.optimizer.state.get(parameter, {}).items():
                if moments:
                    tensor.copy_(moments[index][name])
                else:
                    tensor.zero_()


def add_gradients(predict: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, n_rows: int) -> Tensor:
    """Add the gradients of the batch's mean loss to the parameters, `n_rows` windows at a time; its loss, a scalar.

    x, y (B, T) token ids; `predict` gives logits (b, T, V) of some rows.
    """
    nats = torch.zeros((), device=x.device)
    for some_x, some_y in zip(x.split(n_rows), y.split(n_rows), strict=True):
        logits = predict(some_x).flatten(0, 1).float()
        part = cross_entropy(logits, some_y.flatten(), reduction="sum") / y.numel()
        part.backward()
        nats += part.detach()
    return nats


def apply_gradients(model: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float) -> Tensor:
    """Clip the gradients and update the parameters; returns the norm before clipping, a scalar."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return norm.detach()


def make_optimizer(model: SequenceModel, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameter groups."""
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


def put_rates_on(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Store each group's learning rate in a tensor on `device`, which a recorded step reads at each replay."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=device)
        group["capturable"] = False  # until there is a graph


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each group to `rate` times its scale."""
    for group in optimizer.param_groups:
        scaled = rate * group["learning_rate_scale"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(scaled)
        else:
            group["lr"] = scaled


def set_numerics(mode: Mode, device: torch.device) -> None:
    """Set the numerics of this process for a mode. ConfigError where the device cannot run it."""
    if mode == "fast" and device.type != "cuda":
        raise ConfigError(f"mode 'fast' needs CUDA, and this run is on {device.type}; use --mode exact")
    if device.type == "cpu":
        keep_freed_memory()
    exact = mode == "exact"
    if exact and device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(exact)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it would cost a pass over memory
    torch.set_float32_matmul_precision("highest" if exact else "high")


def first_losses(run: Run, corpus: Corpus, device: torch.device, n_steps: int = N_FIRST) -> list[float]:
    """Losses of the first steps in exact mode, up to one that is not finite, in nats per token: `recheck` repeats them.

    For a `fast` run they are taken with the backend `chunked`: not every other one is deterministic on CUDA.
    """
    assert run.config.training is not None
    config = run.config
    if run.mode == "fast" and isinstance(config.model, KOperatorsConfig):
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, backend="chunked"))
    trainer = Trainer(dataclasses.replace(run, config=config, mode="exact"), corpus, device)
    losses: list[float] = []
    for _ in range(min(n_steps, run.config.training.n_steps)):
        nats = trainer.advance()[0].item()
        if not math.isfinite(nats):
            break
        losses.append(nats)
    return losses


def parameters_sha256(model: nn.Module) -> str:
    """sha256 over the name and the bits of every parameter."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
