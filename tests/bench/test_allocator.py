"""Freed buffers stay mapped in the process, with glibc."""

import pytest

from bench.allocator import keep_freed_memory
from tests.command_line import run_python

FAULTS_OF_REUSE = """
import resource, sys, torch
from bench.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:  # glibc's default, without its adaptation to the sizes
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
def test_a_large_freed_buffer_stays_mapped():
    kept, returned = (int(run_python(FAULTS_OF_REUSE, how)) for how in ("keep", "default"))
    assert returned > 50_000  # fifty times 8 MB in pages of 4 KiB
    assert kept < returned / 5  # a few, until the heap has grown
