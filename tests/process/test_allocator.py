"""Freed tensors leave the process, unless the user has set malloc up."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CHILD = """
from mgrpo_lightning.process.allocator import give_back_large_blocks
if {called}: give_back_large_blocks()
import torch
def resident():
    return [int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmRSS")][0]
torch.ones(2**21).sum()
small = []
before = resident()
for _ in range(3):  # large blocks between small ones that stay: the heap cannot shrink
    blocks = []
    for _ in range(50):
        blocks.append(torch.ones(2**20))
        small.append(torch.ones(2**10))
    del blocks
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set up")
@pytest.mark.parametrize(("called", "variables", "kept"), [(True, {}, False), (True, {"MALLOC_ARENA_MAX": "4"}, True)])
def test_large_blocks_are_given_back(called: bool, variables: dict[str, str], kept: bool) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(called=called)],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(child.stdout) > 100) == kept, "MiB that stay of 200"
