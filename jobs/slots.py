"""Where runs execute: the GPUs or CPUs that this process may use, and how many runs at a time."""

import os
import re
import subprocess
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace

from bench.errors import ConfigError, DeviceError, typed
from bench.limits import cpu_limit, host_bytes
from bench.process import count_cores

# What a run needs on a GPU that it shares. A run of nanoGPT's size holds 1.8 GiB of tensors there, one of K-Operators'
# size 0.8; the rest is for CUDA's context, the compiler's trials and memory that torch keeps.
GPU_BYTES_PER_RUN = 4 * 2**30
HOST_BYTES_PER_RUN = 5 * 2**30  # of the machine: torch with CUDA's libraries, and the compiler's processes
# A run that trains keeps one core busy; those that start and compile, and the launcher, need the rest.
RUNS_PER_CORE = 9 / 16
MOST_PER_GPU = 9  # three runs of K-Operators' size keep a GPU busy while others start and compile; more only wait
LOOK = f"see `{typed('jobs', 'doctor')}`, or use --device cpu"
EXCLUSIVE = "Exclusive_Process"  # the compute mode in which a GPU takes one process at a time


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A device, or a share of one, for one run at a time."""

    device: str
    n_threads: int
    visible_gpu: str | None = None  # CUDA_VISIBLE_DEVICES of its workers; None leaves that variable as it is
    runs_per_gpu: int = 1  # slots on the same GPU, this one included
    kind: str = "cpu"  # of device, as a folder may be called
    why: str = ""  # so many share a GPU, where the number was not given


def make_slots(device: str | None, n_workers: int | None, runs_per_gpu: int | None = None) -> list[Slot]:
    """Where there are GPUs, `runs_per_gpu` slots on each (by default as many as cores and memory allow), or
    `n_workers` dealt out to them in turn. Else `n_workers` (by default one per core, at most two) on the CPU;
    ConfigError for `runs_per_gpu`.
    """
    import torch

    if runs_per_gpu is not None and n_workers is not None:
        raise ConfigError("--workers and --runs-per-gpu both set the number of runs at a time; give one of them")
    if device != "cpu" and torch.cuda.is_available():
        return _gpu_slots(n_workers, runs_per_gpu)
    if runs_per_gpu is not None:
        raise ConfigError("--runs-per-gpu: these runs are on the CPU; use --workers")
    n_cores = count_cores()
    n_workers = n_workers or min(n_cores, 2)
    return [Slot(device="cpu", n_threads=max(n_cores // n_workers, 1)) for _ in range(n_workers)]


def _gpu_slots(n_workers: int | None, runs_per_gpu: int | None) -> list[Slot]:
    """Slots dealt out in turn to the GPUs that torch sees."""
    import torch

    from bench.cuda.machine import mps_state

    n_gpus, n_cores, why = _count_gpus(), count_cores(), ""
    gpus = gpu_names(os.environ.get("CUDA_VISIBLE_DEVICES"), n_gpus)
    facts = [torch.cuda.get_device_properties(index) for index in range(n_gpus)]
    kinds = [re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-") for one in facts]
    if n_workers is None and runs_per_gpu is None:
        least = min(one.total_memory for one in facts)
        runs_per_gpu, why = runs_that_fit(usable_cores(n_cores), least, host_bytes(), n_gpus)
        if runs_per_gpu > 1 and EXCLUSIVE in compute_modes() and mps_state() == "off":
            runs_per_gpu, why = 1, f"one on each GPU, since its compute mode is {EXCLUSIVE}"
    n_slots = n_workers or n_gpus * (runs_per_gpu or 1)
    threads = max(n_cores // n_slots, 1)
    dealt = [index % n_gpus for index in range(n_slots)]
    n_runs = Counter(dealt)
    return [
        Slot(
            device="cuda", n_threads=threads, visible_gpu=gpus[gpu], runs_per_gpu=n_runs[gpu], kind=kinds[gpu], why=why
        )
        for gpu in dealt
    ]


def _count_gpus() -> int:
    """The number of GPUs that a process can use here. DeviceError where CUDA does not start.

    Before CUDA has started torch asks the driver, which counts each MIG instance; a process can use only one of them.
    """
    import torch

    try:
        torch.cuda.init()
        n_gpus = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeviceError(
            f"CUDA does not start: {reason}; see `{typed('jobs', 'doctor')}`, or use --device cpu"
        ) from error
    if n_gpus == 0:
        raise DeviceError(
            f"torch finds no GPU once CUDA has started; see `{typed('jobs', 'doctor')}`, or use --device cpu"
        )
    return n_gpus


def compute_modes() -> list[str]:
    """The compute mode of each GPU as nvidia-smi names it; empty where that is unknown."""
    command = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=30
        ).stdout.split()
    return []


def usable_cores(n_cores: int) -> int:
    """The cores of `n_cores` that a container's CPU time limit allows, at least one."""
    limit = cpu_limit()
    return n_cores if limit is None else max(min(n_cores, int(limit)), 1)


def gpu_names(visible: str | None, n_gpus: int) -> list[str | None]:
    """The value of CUDA_VISIBLE_DEVICES with which a process sees one of `n_gpus` GPUs, for each of them.

    `visible` is this process's own value (None: not set): indices, UUIDs or names of MIG instances. CUDA takes those
    before the first that it does not know, so the first `n_gpus` of them are the GPUs that torch counts.
    """
    names = [name for name in (part.strip() for part in (visible or "").split(",")) if name]
    if len(names) >= n_gpus:
        return [*names[:n_gpus]]
    if n_gpus == 1:
        return [None]  # the only one, whatever its name: a MIG instance has no index of its own
    return [str(index) for index in range(n_gpus)]


def runs_that_fit(n_cores: int, gpu_bytes: int, memory_bytes: int, n_gpus: int) -> tuple[int, str]:
    """The number of runs that share each GPU, at least one, and the reason as text.

    `gpu_bytes` is the memory of the smallest GPU; `memory_bytes` that of the machine.
    """
    by = {
        f"{n_cores} CPU cores carry": int(n_cores * RUNS_PER_CORE / n_gpus),
        f"{gpu_bytes / 2**30:.0f} GiB of GPU memory carry": gpu_bytes // GPU_BYTES_PER_RUN,
        f"{memory_bytes / 2**30:.0f} GiB of memory carry": memory_bytes // HOST_BYTES_PER_RUN // n_gpus,
        "a GPU needs to stay busy": MOST_PER_GPU,
    }
    reason = min(by, key=by.__getitem__)
    return max(by[reason], 1), f"as many as {reason}"


def as_needed(slots: list[Slot], n_runs: int) -> list[Slot]:
    """The slots that `n_runs` can fill, at least one: a run by itself on its GPU is not marked as sharing it.

    Slots on the CPU stay as they are, since their number of threads may move the bits of a run.
    """
    if slots[0].device == "cpu":
        return slots
    kept = slots[: max(n_runs, 1)]
    n_sharing = Counter(slot.visible_gpu for slot in kept)
    why = slots[0].why if len(kept) == len(slots) else "as many as there are to do"
    return [replace(slot, runs_per_gpu=n_sharing[slot.visible_gpu], why=why) for slot in kept]


def runs_at_once(slots: list[Slot]) -> str:
    """A text on the number of runs at a time, the devices, and the reason."""
    first, n_gpus = slots[0], len({slot.visible_gpu for slot in slots})
    on = first.device if n_gpus == 1 else f"{n_gpus} GPUs"
    return f"{len(slots)} at a time on {on}{f' ({first.why})' if first.why else ''}"


def slots_text(slots: list[Slot]) -> str:
    """A text on the threads of each run, and on the effect of sharing a GPU on its record."""
    n_threads, most = slots[0].n_threads, max(slot.runs_per_gpu for slot in slots)
    said = f"{n_threads} CPU thread{'s' if n_threads > 1 else ''} each"
    if most > 1:
        said += f", up to {most} sharing a GPU: their times are left out of the tables of times"
        said += "; --runs-per-gpu chooses another number"
    return said
