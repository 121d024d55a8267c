"""Valid records and manifests, made without training, for tests of what reads them."""

import math
import random
from typing import Any

from bench.record import SCHEMA_VERSION, CrossFitted, Evaluation, HalfSum, Manifest, Measurement, Record, Status

FINGERPRINT = "f" * 64
SWEEP_TOKENS, SAMPLED_TOKENS, STRIDED_TOKENS = 111_360, 3_276_800, 111_232
N_WINDOWS = 435


def make_environment(**changes: Any) -> dict[str, Any]:
    """A machine."""
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
    architecture: str = "k_operators",
    context: int = 256,
    fingerprint: str = FINGERPRINT,
    real_size: bool = False,
    **changes: Any,
) -> Record:
    """A record with the given perplexities; those not named equal the best. `changes` replace top-level fields."""
    nats = math.log(perplexity)
    final_nats = math.log(final if final is not None else perplexity)

    def protocol(value: float | None, n_tokens: int, cross: float | None) -> dict[str, Any]:
        best = nats if value is None else math.log(value)
        last = final_nats if value is None else math.log(value) + final_nats - nats
        cross_fit = cross and CrossFitted(
            nats_per_token=math.log(cross), step_chosen_on_first_half=250, step_chosen_on_second_half=250
        )
        return {
            "best": Measurement(step=250, nats_per_token=best, n_tokens=n_tokens),
            "final": Measurement(step=500, nats_per_token=last, n_tokens=n_tokens),
            "cross_fitted": cross_fit or None,
        }

    rng = random.Random(f"{label} {seed}")
    windows = {s: [rng.gauss(nats, 0.3) for _ in range(N_WINDOWS)] for s in (250, 500, 750)} if real_size else {}
    result = {
        "sweep": protocol(None, SWEEP_TOKENS, cross_fitted or perplexity),
        "sampled": protocol(sampled, SAMPLED_TOKENS, None),
        "strided": protocol(strided, STRIDED_TOKENS, None),
        "window_nats": windows,
        "parameters_sha256": "0" * 64,
    }
    curve = [
        Evaluation(
            step=step * 250,
            val_nats_per_token=nats + rng.random(),
            first_half=HalfSum(nats=nats * SWEEP_TOKENS / 2, n_tokens=SWEEP_TOKENS // 2),
            second_half=HalfSum(nats=nats * SWEEP_TOKENS / 2, n_tokens=SWEEP_TOKENS // 2),
            train_nats_per_token=rng.random() if step else None,
        )
        for step in range(16 if real_size else 3)
    ]
    of = "id" if changes.get("mode", "exact") == "exact" else f"id {changes['mode']}"
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
            "architecture": architecture,
            "model": {"vocab_size": 65, "context": context},
            "context": context,
            "training": None if seed is None else {"n_steps": 500},
            "corpus": corpus,
            "n_sampled_batches": 200,
        },
        "corpus": {
            "name": corpus,
            "sha256": f"sha of {corpus}",
            "vocab_size": 65,
            "n_train_tokens": 1_003_854,
            "n_val_tokens": 111_540,
            "entropy_rate_nats": entropy_rate_nats,
        },
        "sources": {"commit": "a1b2c3d", "dirty": False, "fingerprint": fingerprint},
        "environment": make_environment(),
        "attempts": [],
        "curve": curve,
        "result": result if status == "done" else None,
        "diagnostics": {
            "first_train_nats": [4.2] * 20,
            "by_step": {step * 250: readings for step in range(16)} if real_size else {},
        },
        "cost": {
            "train_seconds": 100.0,
            "tokens_per_second": None if seed is None else 20_000.0,
            "peak_bytes": 512 * 2**20,
            "n_train_tokens": 0 if seed is None else 2_000_000,
            "train_flops": 0.0 if seed is None else 3.5e12,
            "parameters": {
                "n_params": 1_137_869,
                "n_live_params": 942_029,
                "n_params_without_positions": 1_137_869,
                "parts": {"blocks": 1_000_000, "head": 137_869},
            },
        },
        **changes,
    }
    return Record.model_validate({key: _plain(value) for key, value in fields.items()})


def make_manifest(cells: dict[str, dict[str, str]], name: str = "laptop", **changes: Any) -> Manifest:
    """A manifest of `cells`: label -> run id by seed."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "question": "Which is better?",
        "corpus": "tinyshakespeare",
        "mode": "exact",
        "cells": [{"label": label, "run_ids": run_ids} for label, run_ids in cells.items()],
        "claim_rules_sha256": None,
        **changes,
    }
    return Manifest.model_validate(fields)


def manifest_of(records: list[Record], name: str = "laptop", **changes: Any) -> Manifest:
    """The manifest whose cells are the labels of `records`, in the order they come."""
    cells: dict[str, dict[str, str]] = {}
    for record in records:
        seed = "fitted" if record.seed is None else str(record.seed)
        cells.setdefault(record.label, {})[seed] = record.run_id
    return make_manifest(cells, name, **changes)


def _plain(value: Any) -> Any:
    """`value` with the models inside it as dicts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump() if hasattr(value, "model_dump") else value
