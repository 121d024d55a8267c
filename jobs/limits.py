"""The memory and CPU time that this process may use, with the limits of containers, schedulers and quotas."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")  # in which cgroups this process is
SLURM_MEMORY_VARIABLE = "SLURM_MEM_PER_NODE"  # MiB of a job; 0: all of the node's


def memory_limit() -> int | None:
    """The least limit in bytes of the cgroups and the SLURM job that this process is in; None where there is none."""
    found = [_number(folder / "memory.max") for folder in _folders("")]
    found += [_number(folder / "memory.limit_in_bytes") for folder in _folders("memory")]
    with suppress(ValueError):
        found.append(int(os.environ.get(SLURM_MEMORY_VARIABLE, "")) * 2**20 or None)
    return min((one for one in found if one is not None), default=None)


def cpu_limit() -> float | None:
    """The least CPU time, in cores, that the cgroups of this process allow; None where there is no limit."""
    found = [_cores(*_words(folder / "cpu.max")) for folder in _folders("")]
    for folder in _folders("cpu"):
        found.append(_cores(*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")))
    return min((one for one in found if one is not None), default=None)


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


def _words(path: Path) -> list[str]:
    """The words of a file of a cgroup; none where there is no such file."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file of a cgroup; None where there is no such file, or no limit ("max")."""
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _cores(*words: str) -> float | None:
    """The cores of a quota and a period, both in microseconds; None for no limit ("max" or -1) and for less words."""
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal() or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])
