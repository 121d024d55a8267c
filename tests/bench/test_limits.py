"""Memory and CPU time that a container or a scheduler allows, however deep in the tree of cgroups the limit is set."""

from pathlib import Path

import pytest

from bench import limits
from bench.limits import cpu_limit, host_bytes, memory_limit
from jobs.slots import usable_cores

GIB = 2**30
UNLIMITED = "9223372036854771712"  # what version 1 says where nothing is set


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of cgroups, and no SLURM job."""
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    return tmp_path


def plant(tree: Path, membership: str, files: dict[str, str]) -> None:
    """Put this process into cgroups, and write their files."""
    (tree / "membership").write_text(membership)
    for name, text in files.items():
        path = tree / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def v1_cpu(cgroup: str, quota: int, period: int) -> dict[str, str]:
    """The files of a limit on CPU time, in version 1."""
    return {f"{cgroup}/cpu.cfs_quota_us": str(quota), f"{cgroup}/cpu.cfs_period_us": str(period)}


V2 = "0::/system.slice/job/step\n"
V1 = "4:memory:/slurm/job/step\n3:cpu,cpuacct:/slurm/job/step\n1:name=systemd:/\n0::/\n"
V1_APART = "4:memory:/\n2:cpuacct:/\n1:cpu:/deep\n0::/\n"
CASES = [  # what /proc/self/cgroup says, the files that there are, bytes, cores
    ("", {}, None, None),
    (V2, {}, None, None),
    (V2, {"memory.max": "max", "cpu.max": "max 100000"}, None, None),
    ("0::/\n", {"memory.max": str(8 * GIB), "cpu.max": "250000 100000"}, 8 * GIB, 2.5),  # a container sees the root
    (V2, {"system.slice/job/memory.max": str(6 * GIB), "system.slice/job/step/memory.max": "max"}, 6 * GIB, None),
    (V2, {"system.slice/memory.max": str(3 * GIB), "system.slice/job/memory.max": str(6 * GIB)}, 3 * GIB, None),
    (V2, {"system.slice/cpu.max": "800000 100000", "system.slice/job/step/cpu.max": "400000 100000"}, None, 4.0),
    ("0::/../../other\n", {"memory.max": str(2 * GIB)}, 2 * GIB, None),  # outside of the namespace
    (V1, {"memory/slurm/job/memory.limit_in_bytes": str(5 * GIB)}, 5 * GIB, None),
    (V1, {"memory/memory.limit_in_bytes": UNLIMITED}, int(UNLIMITED), None),
    (V1, v1_cpu("cpu,cpuacct/slurm", -1, 100_000) | v1_cpu("cpu,cpuacct/slurm/job", 150_000, 50_000), None, 3.0),
    (V1_APART, v1_cpu("cpu/deep", 100_000, 100_000), None, 1.0),
]


@pytest.mark.parametrize(("membership", "files", "n_bytes", "n_cores"), CASES)
def test_the_least_limit_from_the_own_cgroup_up_to_the_root_counts(membership, files, n_bytes, n_cores, tree):
    plant(tree, membership, files)
    assert (memory_limit(), cpu_limit()) == (n_bytes, n_cores)


@pytest.mark.parametrize(("said", "n_bytes"), [("4096", 4 * GIB), ("16384", 8 * GIB), ("0", 8 * GIB), ("x", 8 * GIB)])
def test_a_job_of_slurm_has_the_memory_that_it_asked_for(said, n_bytes, tree, monkeypatch):
    plant(tree, "0::/\n", {"memory.max": str(8 * GIB)})
    monkeypatch.setenv("SLURM_MEM_PER_NODE", said)
    assert memory_limit() == n_bytes


def test_a_machine_without_cgroups_has_no_limit(tree):
    assert (memory_limit(), cpu_limit()) == (None, None)
    assert host_bytes() > GIB // 4


@pytest.mark.parametrize(("quota", "n_cores"), [("450000", 4), ("50000", 1), ("9900000", 16)])
def test_runs_side_by_side_are_counted_by_the_cpu_time_that_there_is(quota, n_cores, tree):
    plant(tree, "0::/\n", {"cpu.max": f"{quota} 100000", "memory.max": str(GIB // 8)})
    assert usable_cores(16) == n_cores
    assert host_bytes() == GIB // 8
