"""Memory that is freed goes back to the system, so that a process on a CPU takes what the memory plan says.

glibc raises the size from which a block is mapped by itself with every such block that is freed. After a few steps all
tensors come from one heap that never shrinks, and whose holes seldom fit. With the size held, every large tensor is
mapped and unmapped: less memory at the peak, for an update that takes longer (``benchmarks.trl`` has an arm for each).
"""

from __future__ import annotations

import ctypes
import os
import platform

_M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""
LARGE = 2**22
"""Bytes of a block from which on it is mapped by itself."""


def give_back_large_blocks() -> None:
    """Hold glibc to ``LARGE``, and have torch ask for huge pages; call it before anything imports torch.

    Elsewhere than under glibc, and for a user who sets malloc's own variables, it does nothing.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it with its first large tensor
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)
