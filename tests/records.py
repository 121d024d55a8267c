"""Valid records and manifests, made without training, for tests of their readers."""

import math
import random
from typing import Any

from bench.record import SCHEMA_VERSION, Manifest, Record, Status

FINGERPRINT = "f" * 64
SWEEP_TOKENS, SAMPLED_TOKENS, STRIDED_TOKENS = 111_360, 3_276_800, 111_232
N_WINDOWS = 435
BASELINES = ("transformer", "nanogpt", "lstm")  # labels of what is no K-Operators arm
CORPUS = {"vocab_size": 65, "n_train_tokens": 1_003_854, "n_val_tokens": 111_540}
COST = {
    "train_seconds": 100.0,
    "tokens_per_second": 20_000.0,
    "peak_bytes": 512 * 2**20,
    "n_train_tokens": 2_000_000,
    "train_flops": 3.5e12,
    "parameters": {
        "n_params": 1_137_869,
        "n_live_params": 942_029,
        "n_params_without_positions": 1_137_869,
        "parts": {"blocks": 1_000_000, "head": 137_869},
    },
}
FITTED_COST = {**COST, "tokens_per_second": None, "n_train_tokens": 0, "train_flops": 0.0}


def make_environment(**changes: Any) -> dict[str, Any]:
    """The environment of a machine, as JSON values."""
    return {
        "device": "cpu",
        "device_name": "Plain CPU",
        "n_threads": 1,
        "platform": "Linux",
        "python": "3.11.9",
        "packages": {"torch": "2.13.0"},
        **changes,
    }


def make_record(
    label: str = "k_operators",
    seed: int | None = 42,
    perplexity: float = 4.5,
    *,
    final: float | None = None,
    cross_fitted: float | None = None,
    sampled: float | None = None,
    strided: float | None = None,
    status: Status = "done",
    run_id: str | None = None,
    corpus: str = "tinyshakespeare",
    entropy_rate_nats: float | None = None,
    architecture: str | None = None,  # by the label
    context: int = 256,
    fingerprint: str = FINGERPRINT,
    real_size: bool = False,
    **changes: Any,
) -> Record:
    """A record with the given perplexities; those not given equal the best. `changes` replace top-level fields."""
    nats, rng = math.log(perplexity), random.Random(f"{label} {seed}")
    of = "id" if changes.get("mode", "exact") == "exact" else f"id {changes['mode']}"
    result = _result(nats, math.log(final or perplexity), cross_fitted or perplexity, sampled, strided)
    if real_size:
        result["window_nats"] = {step: [rng.gauss(nats, 0.3) for _ in range(N_WINDOWS)] for step in (250, 500, 750)}
    curve = [_evaluation(step * 250, nats, rng) for step in range(16 if real_size else 3)]
    readings = {"gamma": [rng.random() for _ in range(6)], "eta": rng.random()}
    fields = {
        "schema_version": SCHEMA_VERSION,
        "protocol_version": 1,
        "run_id": run_id or f"{random.Random(f'{label} {seed} {of}').getrandbits(48):012x}",
        "label": label,
        "seed": seed,
        "replicate": 0,
        "mode": "exact",
        "status": status,
        "stopped_at_step": None if status == "done" else 120,
        "error": None if status == "done" else "the loss is not finite",
        "config": {
            "architecture": architecture or ("transformer" if label.startswith(BASELINES) else "k_operators"),
            "model": {"vocab_size": 65, "context": context},
            "context": context,
            "training": None if seed is None else {"n_steps": 500},
            "corpus": corpus,
            "n_sampled_batches": 200,
        },
        "corpus": {**CORPUS, "name": corpus, "sha256": f"sha of {corpus}", "entropy_rate_nats": entropy_rate_nats},
        "sources": {"commit": "a1b2c3d", "dirty": False, "fingerprint": fingerprint},
        "environment": make_environment(),
        "attempts": [],
        "curve": curve,
        "result": result if status == "done" else None,
        "diagnostics": {
            "first_train_nats": [4.2] * 20,
            "by_step": {step * 250: readings for step in range(16)} if real_size else {},
        },
        "cost": FITTED_COST if seed is None else COST,
        **changes,
    }
    return Record.model_validate(fields)


def make_manifest(
    cells: dict[str, dict[str, str]], name: str = "laptop", groups: dict[str, str] | None = None, **changes: Any
) -> Manifest:
    """A manifest of `cells`: label -> run id by seed; `groups`: the arm by label."""
    groups = groups or {}
    fields = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "question": "Which is better?",
        "corpus": "tinyshakespeare",
        "mode": "exact",
        "cells": [{"label": one, "run_ids": run_ids, "group": groups.get(one)} for one, run_ids in cells.items()],
        "claim_rules_sha256": None,
        **changes,
    }
    return Manifest.model_validate(fields)


def manifest_of(records: list[Record], name: str = "laptop", **changes: Any) -> Manifest:
    """The manifest with the labels of `records` as cells, in their order."""
    cells: dict[str, dict[str, str]] = {}
    for record in records:
        seed = "fitted" if record.seed is None else str(record.seed)
        cells.setdefault(record.label, {})[seed] = record.run_id
    return make_manifest(cells, name, **changes)


def _result(
    best: float, final: float, cross_fitted: float, sampled: float | None, strided: float | None
) -> dict[str, Any]:
    """The three protocols: nats of the best and the last step, and perplexities of the others where they differ."""

    def protocol(value: float | None, n_tokens: int) -> dict[str, Any]:
        nats = (best, final) if value is None else (math.log(value), math.log(value) + final - best)
        first, last = (
            {"step": step, "nats_per_token": one, "n_tokens": n_tokens}
            for step, one in zip((250, 500), nats, strict=True)
        )
        return {"best": first, "final": last, "cross_fitted": None}

    steps = dict.fromkeys(("step_chosen_on_first_half", "step_chosen_on_second_half"), 250)
    return {
        "sweep": {**protocol(None, SWEEP_TOKENS), "cross_fitted": {"nats_per_token": math.log(cross_fitted), **steps}},
        "sampled": protocol(sampled, SAMPLED_TOKENS),
        "strided": protocol(strided, STRIDED_TOKENS),
        "window_nats": {},
        "parameters_sha256": "0" * 64,
    }


def _evaluation(step: int, nats: float, rng: random.Random) -> dict[str, Any]:
    half = {"nats": nats * SWEEP_TOKENS / 2, "n_tokens": SWEEP_TOKENS // 2}
    return {
        "step": step,
        "val_nats_per_token": nats + rng.random(),
        "first_half": half,
        "second_half": half,
        "train_nats_per_token": rng.random() if step else None,
    }
