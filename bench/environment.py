"""The machine and the software of an attempt, without host name, user or path."""

import os
import platform
import re
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from bench import record

PACKAGES = ("torch", "numpy", "einops", "pydantic")  # what training imports


def describe_machine(device: torch.device) -> record.Environment:
    """The environment as a record stores it."""
    return record.Environment(
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        n_threads=torch.get_num_threads(),
        platform=f"{platform.system()}-{platform.machine()}",
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        instructions=torch.backends.cpu.get_cpu_capability(),
        cuda=torch.version.cuda,
    )


def slug(device: torch.device) -> str:
    """This machine as a file name: the GPU's model, or the processor's and its number of cores."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{cpu_name()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu_name() -> str:
    """The processor's model name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(device: torch.device) -> int:
    """The peak memory of this process, in bytes: on the device for CUDA, resident otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
