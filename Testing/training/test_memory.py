"""Freed memory is used again. Counted are the pages that the system had to fill, in a process of its own."""

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys, torch
from PedBoneSegTraining.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 26, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_freed_tensor_s_pages_are_used_again():
    filled = {
        how: int(subprocess.run([sys.executable, "-c", PAGES, how], check=True, capture_output=True).stdout)
        for how in ("keep", "return")
    }
    assert filled["keep"] < 100
    assert filled["return"] > 100  # else the system does it by itself and there is nothing to keep
