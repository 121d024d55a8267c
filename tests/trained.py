"""Records as of trained runs, made without training: falling curves, and readings that change."""

import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.record import Record
from bench.report.runs import CellResults, Results, StoreResults
from bench.store import Store
from tests.records import SWEEP_TOKENS, make_record, manifest_of
from tests.stores import make_store

N_LAYERS, N_STEPS, EVERY = 6, 3500, 250
K_OPERATORS = {
    "vocab_size": 65, "context": 256, "d_model": 128, "rank": 32, "n_k2": N_LAYERS, "refine_steps": 1,
    "alpha_cap": 0.8, "gamma_min": 0.85, "gamma_max": 1.0, "backend": "chunked", "eta": "learned",
}  # fmt: skip
TRANSFORMER = {"vocab_size": 65, "context": 256, "d_model": 128, "n_layers": 6, "position": "learned"}


def make_run(
    label: str,
    seed: int = 42,
    nats: float = 1.49,
    *,
    architecture: str = "k_operators",
    model: dict[str, Any] | None = None,
    rate: float = 1e-2,
    readings: Iterable[str] | None = None,
    n_params: int = 1_137_869,
    n_steps: int = N_STEPS,
    **changes: Any,
) -> Record:
    """A run that ends near `nats`. `readings`: the names of those in its record; None: all of its model."""
    rng = random.Random(f"{label} {seed}")
    nats += rng.gauss(0, 0.008)
    steps = sorted({*range(0, n_steps + 1, min(EVERY, n_steps)), n_steps})
    config: dict[str, Any] = {
        "architecture": architecture,
        "model": {**(K_OPERATORS if architecture == "k_operators" else TRANSFORMER), **(model or {})},
        "context": (model or {}).get("context", 256),
        "training": {"n_steps": n_steps, "learning_rate": rate, "final_learning_rate": rate * 0.035},
        "corpus": "tinyshakespeare",
        "n_sampled_batches": 200,
    }
    by_step = {step: {"gradient_norm": {"mean": 0.5, "max": 1.2}} for step in steps}
    if architecture == "k_operators":
        by_step = {step: at | _readings(rng, step / n_steps, rate) for step, at in by_step.items()}
    if readings is not None:
        by_step = {step: {name: at[name] for name in readings if name in at} for step, at in by_step.items()}
    record = make_record(label, seed, math.exp(nats), architecture=architecture)
    half = {"nats": nats * SWEEP_TOKENS / 2, "n_tokens": SWEEP_TOKENS // 2}
    curve = [
        {
            "step": step,
            "val_nats_per_token": nats + 1.2 * math.exp(-5 * step / n_steps) + rng.gauss(0, 0.004) if step else 4.17,
            "first_half": half,
            "second_half": half,
            "train_nats_per_token": None if step == 0 else nats - 0.1,
        }
        for step in steps
    ]
    cost = record.cost.model_dump()
    cost["parameters"]["n_params"] = n_params
    fields = {
        **record.model_dump(),
        "config": config,
        "curve": curve,
        "diagnostics": {"first_train_nats": [], "by_step": by_step},
        "cost": cost,
        **changes,
    }
    return Record.model_validate(fields)


def make_aggregate(*experiments: Results) -> StoreResults:
    """Results as read from a store."""
    return StoreResults(experiments=experiments, errors=(), n_unlisted=0, manifests_complete=True)


def make_experiment(
    name: str, records: Iterable[Record], groups: dict[str, str] | None = None, **changes: Any
) -> Results:
    """Results with the labels of the records as cells, in their order. `groups`: the arm by label."""
    records = list(records)
    manifest = manifest_of(records, name, groups=groups, **changes)
    return Results(
        manifest=manifest,
        cells=tuple(
            CellResults(
                label=one.label,
                expected=tuple(one.run_ids),
                records=tuple(record for record in records if record.label == one.label),
                missing=(),
                group=one.group,
            )
            for one in manifest.cells
        ),
        stale=frozenset(),
    )


def write_store(root: Path, experiment: Results) -> None:
    """Write its records and its manifest into a store."""
    there = Store(root).statuses()  # experiments may share runs
    records = [record for cell in experiment.cells for record in cell.records if record.run_id not in there]
    make_store(root, records, experiment.manifest)


def _readings(rng: random.Random, progress: float, rate: float) -> dict[str, Any]:
    """The readings of a K-Operators model after `progress`, from 0 to 1."""
    layers = range(N_LAYERS)
    gammas = [
        [0.9925 - 0.01 * layer * progress + 0.0017 * q * (1 - 0.2 * progress) for q in range(5)] for layer in layers
    ]
    base = [1.0 + 0.1 * layer + rng.random() * 0.05 for layer in layers]
    recurrent = [0.3 + progress * (0.2 + 0.15 * layer) + rng.random() * 0.05 for layer in layers]
    return {
        "eta": 0.3 * math.exp(-3 * progress * (rate / 1e-2) ** 0.3) + rng.random() * 0.01,
        "gate": [1 - 0.12 * layer * progress - rng.random() * 0.01 for layer in layers],
        "alpha": [0.4 - 0.03 * layer * progress + rng.random() * 0.01 for layer in layers],
        "gamma_quantiles": [[min(value, 0.9999) for value in of_layer] for of_layer in gammas],
        "base_norm": base,
        "recurrent_norm": recurrent,
        "recurrent_share": [r / (r + b) for r, b in zip(recurrent, base, strict=True)],
        "refinement_step_ratio": [0.02],
    }
