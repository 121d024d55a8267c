"""Our models and optimizer steps reproduce the two reference implementations' numbers; tests/golden/README.md."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.config import TrainingConfig
from bench.schedule import learning_rate
from bench.train import add_gradients, apply_gradients, make_optimizer, set_learning_rate
from models import KOperatorsConfig, TransformerConfig
from models.released import from_released, reference_names
from tests.conftest import CPU_BACKENDS

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(path.name for path in GOLDEN.glob("*.npz"))
K_OPERATORS_FILES = [name for name in FILES if name.startswith("k_operators")]


def load(name: str, backend: str = "chunked") -> tuple[Any, dict[str, np.ndarray], dict[str, Any]]:
    """Our config, the arrays and the reference config of a golden file."""
    with np.load(GOLDEN / name) as file:
        arrays = {key: file[key] for key in file.files}
    theirs = json.loads(str(arrays["config"]))
    if "window" not in theirs:
        config: Any = TransformerConfig(
            vocab_size=theirs["vocab_size"],
            context=theirs["block_size"],
            d_model=theirs["n_embd"],
            n_layers=theirs["n_layer"],
            n_heads=theirs["n_head"],
            bias=theirs["bias"],
        )
    else:
        config = KOperatorsConfig(
            vocab_size=theirs["vocab_size"],
            context=theirs["window"],
            d_model=theirs["d_model"],
            rank=theirs["rank"],
            n_k2=theirs["n_k2"],
            head="tied" if theirs["head"] == "linear" else "gelu",
            head_mult=theirs["head_mult"],
            refine_steps=theirs["refine_steps"],
            alpha_cap=theirs["alpha_cap"],
            backend=backend,  # type: ignore[arg-type]
        )
    return config, arrays, theirs


def below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose key starts with `prefix`, without it."""
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", FILES)
def test_logits_loss_and_every_gradient_are_the_references(name):
    config, arrays, _ = load(name)
    model = from_released(config, below(arrays, "init/"))
    first = slice(None) if arrays["x"].ndim == 2 else 0
    x, y = (torch.as_tensor(arrays[key][first]).long() for key in ("x", "y"))
    logits = model(x)
    loss = cross_entropy(logits.flatten(0, 1), y.flatten())
    loss.backward()
    torch.testing.assert_close(logits.detach().numpy(), arrays["logits"], rtol=1e-5, atol=1e-5)
    assert loss.item() == pytest.approx(float(arrays["loss"]), abs=1e-5)
    names = reference_names(model)
    gradients = below(arrays, "grad/")
    for ours, parameter in model.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        right = gradients[names[ours]]
        rounding = 1e-6 * np.abs(right).max()  # of entries that are small beside the others of their tensor
        torch.testing.assert_close(found.numpy(), right, rtol=1e-4, atol=1e-8 + rounding, msg=ours)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("name", K_OPERATORS_FILES)
def test_six_optimizer_steps_are_the_references(name, backend):
    config, arrays, theirs = load(name, backend)
    optimizer_facts, schedule = theirs["optimizer"], theirs["schedule"]
    training = TrainingConfig(
        n_steps=schedule["total_steps"],
        learning_rate=optimizer_facts["lr"],
        final_learning_rate=schedule["lr_floor"],
        warmup_steps=schedule["warmup_steps"],
        schedule="k_operators",
        betas=tuple(optimizer_facts["betas"]),
        eps=optimizer_facts["eps"],
        weight_decay=optimizer_facts["weight_decay"],
        clip_norm=optimizer_facts["clip_grad_norm"],
    )
    model = from_released(config, below(arrays, "init/"))
    optimizer = make_optimizer(model, training)
    for step in range(6):
        rate = learning_rate(step, training)
        assert rate == pytest.approx(float(arrays["train/lr"][step]), rel=1e-6)
        set_learning_rate(optimizer, rate)
        x, y = (torch.as_tensor(arrays[key][step]).long() for key in ("x", "y"))
        optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(model, x, y, n_rows=1)  # two halves: the sum over rows must be the batch's
        norm = apply_gradients(model, optimizer, training.clip_norm)
        assert loss.item() == pytest.approx(float(arrays["train/loss"][step]), rel=1e-4)
        assert norm.item() == pytest.approx(float(arrays["train/grad_norm"][step]), rel=1e-4)
    final = below(arrays, "final/")
    for ours, theirs_name in reference_names(model).items():
        found = dict(model.named_parameters())[ours].detach().numpy()
        torch.testing.assert_close(found, final[theirs_name], rtol=1e-4, atol=1e-4, msg=ours)


class TestReleasedWeightsAreReadStrictly:
    """Whatever does not fit is named, never skipped."""

    def setup_method(self):
        self.config, arrays, _ = load("k_operators_tied_refine3.npz")
        self.arrays = below(arrays, "init/")

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("k_stack.layers.1.k_base", None, r"missing: k_stack\.layers\.1\.k_base"),
            ("rosa.weight", np.zeros(3), r"not of this model: rosa\.weight"),
            ("norm.scale", np.ones(9), r"norm\.scale has shape \(9,\), this config needs \(8,\)"),
        ],
    )
    def test_a_missing_name_an_extra_one_and_another_shape(self, name, array, message):
        self.arrays = {key: value for key, value in {**self.arrays, name: array}.items() if value is not None}
        with pytest.raises(ValueError, match=message):
            from_released(self.config, self.arrays)

    def test_a_tied_copy_is_accepted_or_absent_but_never_different(self):
        from_released(self.config, self.arrays)
        self.arrays["head.weight"] = self.arrays["head.weight"] + 1
        with pytest.raises(ValueError, match=r"head\.weight is tied to emb\.weight, but they differ"):
            from_released(self.config, self.arrays)
        del self.arrays["head.weight"]
        from_released(self.config, self.arrays)

    def test_compiled_prefixes_and_rebuilt_buffers_are_dropped(self):
        arrays = {f"_orig_mod.{name}": array for name, array in self.arrays.items()}
        arrays["_orig_mod.k_stack.layers.1.causal_mask"] = np.zeros((32, 32))
        arrays["_orig_mod.k_stack.layers.1.decay_diff"] = np.zeros((32, 32))
        from_released(self.config, arrays)
