"""Settings of malloc for training: freed buffers stay mapped for the next step.

glibc gives large freed buffers back to the kernel, which then hands out zeroed pages for the next ones: at the paper's
size on two cores, up to 27,000 page faults per step. `fingerprint` leaves this file out, since it changes no number.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and values of glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # on 64 bits; glibc refuses more
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc keep freed buffers; False, and no change, where another allocator is in use."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
