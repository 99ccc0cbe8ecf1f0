"""Make glibc return freed memory to the system, so that a CPU process needs what the memory plan says.

By default, glibc raises its mmap threshold whenever a large mapped block is freed. After a few steps all tensors come
from one heap. It never shrinks, and its holes seldom fit. With a fixed threshold every large tensor is mapped and
unmapped. The peak memory is lower, and an update takes longer (``benchmarks.speed.trl`` measures both).
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_MMAP_THRESHOLD = -3
"""Constant of glibc's malloc.h."""
LARGE = 2**22
"""Size in bytes from which a block is mapped on its own."""


def give_back_large_blocks() -> None:
    """Fix glibc's mmap threshold at ``LARGE``, and let torch use huge pages; call it before torch is imported.

    It does nothing without glibc, or if the user sets malloc's environment variables.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it with its first large tensor
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)
