"""Measures for throughput: the machine's matrix-product rate, peak memory, free memory, and numbers written."""

import ctypes
import platform
import statistics
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.environment import synchronize

PROBE_SIZE = 2048  # rows and columns of the matrices whose product sets the floor
FREE_SHARE = 0.6  # of free memory: a point predicted to need more is not run


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second of a large matrix product, the median of ten, for the floor of a model's time."""
    a, b = (torch.randn(PROBE_SIZE, PROBE_SIZE, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2.0 * PROBE_SIZE**3 / statistics.median(seconds[2:])


class PeakMemory:
    """The peak memory since this object was made, above the memory held then; None on other systems."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._held = torch.cuda.memory_allocated(device)
        elif platform.system() == "Linux":
            if platform.libc_ver()[0] == "glibc":
                ctypes.CDLL(None).malloc_trim(0)  # so that memory freed by earlier tests does not count as held
            Path("/proc/self/clear_refs").write_text("5")  # 5: forget the peak
            self._held = proc_bytes("self/status", "VmRSS")

    def bytes(self) -> int | None:
        """The peak so far, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._held
        return proc_bytes("self/status", "VmHWM") - self._held if platform.system() == "Linux" else None


class NumbersWritten(TorchDispatchMode):
    """Counts in `n` the numbers that operations write in this block, with backward passes; a view writes none."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if not any(one.alias_info and not one.alias_info.is_write for one in func._schema.returns):
            self.n += sum(one.numel() for one in tree_leaves(found) if isinstance(one, torch.Tensor))
        return found


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return proc_bytes("meminfo", "MemAvailable")


def proc_bytes(file: str, key: str) -> int:
    """A value of a file in /proc that is listed there in KiB."""
    lines = (Path("/proc") / file).read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
