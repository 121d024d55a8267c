"""The memory and CPU time that this process may use, with the limits of containers, schedulers and quotas."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # in which cgroups this process is
SLURM_MEMORY_VARIABLE = "SLURM_MEM_PER_NODE"  # MiB of a job; 0: all of the node's


def host_bytes() -> int:
    """Memory that this machine has or, in a container or a job, may use."""
    physical, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), memory_limit()
    return physical if limit is None else min(physical, limit)


def memory_limit() -> int | None:
    """The least limit in bytes of the cgroups and the SLURM job that this process is in; None where there is none."""
    found = [_numbers(folder / "memory.max") for folder in _folders("")]
    found += [_numbers(folder / "memory.limit_in_bytes") for folder in _folders("memory")]
    with suppress(ValueError):
        megabytes = int(os.environ.get(SLURM_MEMORY_VARIABLE, ""))
        found.append([megabytes * 2**20] if megabytes else [])
    return min((numbers[0] for numbers in found if numbers), default=None)


def cpu_limit() -> float | None:
    """The least CPU time, in cores, that the cgroups of this process allow; None where there is no limit."""
    found = [_numbers(folder / "cpu.max") for folder in _folders("")]
    found += [_numbers(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us") for folder in _folders("cpu")]
    # a quota and a period, both in microseconds
    return min((numbers[0] / numbers[1] for numbers in found if len(numbers) == 2 and numbers[1]), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """The folder of this process's cgroup and all above it: of one controller in version 1, of version 2 for "".

    A container may see its own cgroup as the root, under a path that only the machine outside has, so a folder need
    not be there.
    """
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        root = CGROUPS / controllers
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for n_parts in range(len(parts), -1, -1):
            yield root.joinpath(*parts[:n_parts])


def _numbers(*paths: Path) -> list[int]:
    """The numbers in files of a cgroup; none where a file is missing or says that there is no limit ("max" or -1)."""
    try:
        words = [word for path in paths for word in path.read_text(encoding="ascii").split()]
    except OSError:
        return []
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []
