"""Freed buffers stay with the process, where the allocator is one that we know how to ask."""

import subprocess
import sys

import pytest

from bench.allocator import keep_freed_memory
from bench.sources import ROOT

FAULTS_OF_REUSE = """
import resource, sys, torch
from bench.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:  # what glibc does by itself, without its habit of learning from the sizes it meets
    import ctypes
    ctypes.CDLL(None).mallopt(-3, 128 * 1024)
torch.set_num_threads(1)
def use():
    return torch.ones(2_000_000).sum().item()
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="not glibc")
def test_a_large_buffer_that_was_freed_is_found_mapped_again():
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS_OF_REUSE, how], cwd=ROOT, capture_output=True, check=True
            ).stdout
        )
        for how in ("keep", "default")
    )
    assert given_back > 50_000  # fifty times 8 MB in pages of 4 KiB
    assert kept < given_back / 5  # a few moves, until the heap has settled
