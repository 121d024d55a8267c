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

# Variables of the libraries that compute: instruction sets, kernels and threads. Values with a path are left out.
MOVES_NUMBERS = re.compile(
    r"(MKL|ONEDNN|DNNL|OMP|GOMP|KMP|OPENBLAS|GOTO|BLIS|VECLIB|ATEN|CUBLAS|CUBLASLT|CUDNN|NVIDIA|TORCH|PYTORCH|TRITON)_\w+"
    r"|GLIBC_TUNABLES"
)
PLAIN_VALUE = re.compile(r"[\w.,:;=+ -]{1,80}")
CPU_FACTS = Path("/proc/cpuinfo")
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
        processor=processor() if device.type == "cpu" else None,
        settings=settings(),
    )


def settings() -> dict[str, str]:
    """The environment variables that can move a number, with their values, except for those that hold a path."""
    found = {name: value for name, value in sorted(os.environ.items()) if MOVES_NUMBERS.fullmatch(name)}
    return {name: value for name, value in found.items() if PLAIN_VALUE.fullmatch(value)}


def slug(device: torch.device) -> str:
    """This machine as a file name: the GPU's model, or the processor's and its number of cores."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{cpu_name()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cpu_name() -> str:
    """The processor's model name."""
    facts = _cpu_facts()
    return facts.get("model name", platform.machine()) if facts else platform.processor() or platform.machine()


def processor() -> str | None:
    """The processor's vendor, family, model and stepping, or their like on Arm; None where they are not known."""
    names = ("vendor_id", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    facts = _cpu_facts()
    return ", ".join(f"{name} {facts[name]}" for name in names if name in facts) or None


def _cpu_facts() -> dict[str, str]:
    """What Linux says of the first core; empty on other systems."""
    try:
        first, *_ = CPU_FACTS.read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


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
