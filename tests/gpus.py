"""GPUs as torch sees them, for machines without any."""

from types import SimpleNamespace

import pytest
import torch

GIB = 2**30


def put_gpus(
    monkeypatch: pytest.MonkeyPatch,
    n_gpus: int,
    *,
    visible: str | None = None,
    n_cores: int = 16,
    gpu_gib: int = 139,
    memory_gib: int = 256,
    compute_mode: str = "Default",
) -> None:
    """Make torch see `n_gpus` GPUs on a machine of that size; `visible`: CUDA_VISIBLE_DEVICES, None: not set."""
    facts = SimpleNamespace(name="NVIDIA H200", total_memory=gpu_gib * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(n_cores), raising=False)
    monkeypatch.setattr("jobs.slots.compute_modes", lambda: [compute_mode] * n_gpus)
    monkeypatch.setattr("jobs.slots.cpu_limit", lambda: None)
    monkeypatch.setattr("jobs.slots.host_bytes", lambda: memory_gib * GIB)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
