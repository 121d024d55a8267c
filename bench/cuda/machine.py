"""The properties of a machine with a GPU that determine the speed and the precision of training."""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from bench.cuda.numbers import Answer, Context
from bench.environment import describe_machine
from bench.process import count_cores

MPS_PIPES = "/tmp/nvidia-mps"  # the default of CUDA_MPS_PIPE_DIRECTORY
DRIVER_FILE = Path("/proc/driver/nvidia/version")
GIB = 2**30


def machine(context: Context) -> Answer:
    """The GPU, its memory, the driver, torch and MPS; a matrix product shows that this torch has kernels for it."""
    device = context.device
    ones = torch.ones(256, 256, device=device)
    total = (ones @ ones).sum().item()
    if total != 256**3:
        return Answer(status="failed", text=f"a matrix product of ones sums to {total} instead of {256**3}")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        return Answer(status="failed", text=f"{name} has no bfloat16: mode `fast` cannot run; use --mode exact")
    free, total_bytes = torch.cuda.mem_get_info(device)
    mps, n_cores = mps_state(), count_cores()
    facts = describe_machine(device)
    text = (
        f"{facts.device_name}, {total_bytes / GIB:.0f} GiB ({free / GIB:.0f} GiB free), driver {driver()}, torch "
        f"{facts.packages['torch']}, CUDA {facts.cuda}, Python {facts.python}, {n_cores} cores, MPS {mps}"
    )
    values = {
        "gpu": facts.device_name,
        "n_gpus": torch.cuda.device_count(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "total_bytes": total_bytes,
        "free_bytes": free,
        "driver": driver(),
        "n_cores": n_cores,
        "mps": mps,
    }
    return Answer(status="held", text=text, values=values)


def driver() -> str:
    """The version of NVIDIA's driver, from the kernel or from nvidia-smi; `unknown` without both."""
    with suppress(OSError):
        if found := re.search(r"\d+\.\d+(\.\d+)*", DRIVER_FILE.read_text(encoding="utf-8")):
            return found[0]
    with suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        lines = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=10
        ).stdout.split()
        return lines[0] if lines else "unknown"
    return "unknown"


def mps_state(proc: Path = Path("/proc")) -> str:
    """Whether NVIDIA's Multi-Process Service (MPS) shares the GPU, and by which sign. Nothing here turns it on."""
    for path in proc.glob("[0-9]*/comm"):
        with suppress(OSError):  # a process that has just ended
            if path.read_text(encoding="utf-8").startswith("nvidia-cuda-mps"):  # Linux keeps 15 letters of a name
                return "on (its daemon runs here)"
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or MPS_PIPES)
    return "on (its daemon listens here)" if (pipes / "control").exists() else "off"
