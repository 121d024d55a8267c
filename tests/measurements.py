"""Throughput measurements as pytest-benchmark writes them, for tests of their readers."""

import json
from pathlib import Path
from typing import Any

from bench.store import PRECISIONS, PUBLISHED_FORMS, Measurements, Store

MIB, GIB = 2**20, 2**30
SLUG = "plain-cpu"


def timed(model: str = "K-Operators (paper)", backend: str = "chunked", median: float = 2.0, **changes) -> dict:
    """One benchmark as pytest-benchmark writes it: 1024 tokens per round; `changes` replace its facts."""
    facts = {
        "phase": "training step",
        "model": model,
        "architecture": "k_operators",
        "backend": backend,
        "decoding": "",
        "context": 256,
        "batch_size": 4,
        "n_tokens": 1024,
        "tokens_per_second": 1024 / median,
        "seconds_per_step": median,
        "n_params": 1_137_869,
        "flops": 1e9,
        "floor_seconds": 0.5,
        "share_of_floor": 0.25,
        "matmul_gflops": 80.0,
        "peak_bytes": 300 * MIB,
        "predicted_bytes": None,
        "dtype": "float32",
        "n_threads": 2,
        "device": "cpu",
        "mode": "exact",
        **changes,
    }
    stats = {"min": 0.9 * median, "median": median, "max": 1.2 * median, "rounds": 5, "iqr": 0.1, "data": []}
    return {"name": "test", "group": facts["phase"], "params": {}, "stats": stats, "extra_info": facts}


def growing(backend: str, context: int, median: float, n_rounds: int = 5, **changes) -> dict:
    """One point of growth, of 8192 tokens."""
    known = {"phase": "growth", "context": context, "batch_size": 8192 // context, "n_tokens": 8192, "n_params": None}
    one = timed("recurrence alone", backend, median, **known, share_of_floor=None, **changes)
    one["stats"]["rounds"] = n_rounds
    return one


def in_turn(mask: dict, block: dict, phase: str = "training step", **changes) -> list[dict]:
    """Both published forms in both precisions: `seconds` of each round, `mebibytes` and `losses` of each form."""
    found = []
    for dtype in PRECISIONS:
        for backend, one in zip(PUBLISHED_FORMS, (mask, block), strict=True):
            known = {"phase": phase, "dtype": dtype, "mode": "eager", "losses": one.get("losses", [4.2, 4.1])}
            made = timed(backend=backend, **{**known, "peak_bytes": one["mebibytes"] * MIB, **changes})
            seconds = one["seconds"]
            made["stats"] |= {"min": min(seconds), "max": max(seconds), "rounds": len(seconds), "data": seconds}
            found.append(made)
    return found


def not_run(backend: str = "mask", context: int = 2048, gib: float = 12.5, **changes) -> dict:
    return {
        "phase": "growth",
        "model": "recurrence alone",
        "architecture": "recurrence",
        "backend": backend,
        "context": context,
        "batch_size": 8192 // context,
        "predicted_bytes": int(gib * GIB),
        "free_bytes": 16 * GIB,
        **changes,
    }


def session(*benchmarks: dict, does_not_fit: tuple[dict, ...] = (), **changes) -> dict[str, Any]:
    machine = {
        "device": "cpu",
        "device_name": "Plain CPU",
        "n_threads": 2,
        "torch": "2.13.0",
        "python": "3.11.9",
        "platform": "Linux",
        "commit": "a1b2c3d4e5f6a7b8",
        "dirty": False,
        "matmul_gflops": 81.0,
        "does_not_fit": list(does_not_fit),
        **changes,
    }
    return {"machine_info": machine, "commit_info": {}, "benchmarks": list(benchmarks), "version": "5.3.1"}


def growth() -> dict[str, Any]:
    """Three backends, two of them not run at every length."""
    return session(
        growing("chunked", 512, 0.4),
        growing("chunked", 2048, 0.5),
        growing("mask", 512, 0.8, n_rounds=2, peak_bytes=704 * MIB),
        growing("block", 512, 8.0, n_rounds=2),
        does_not_fit=(not_run(), not_run("block", 1024, gib=13.0)),
    )


def write(root: Path, content: object, slug: str = SLUG) -> Store:
    path = root / "throughput" / f"{slug}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return Store(root)


def only(store: Store) -> Measurements:
    """The one file of measurements of a store."""
    (measured,), errors = store.measurements()
    assert not errors
    return measured
