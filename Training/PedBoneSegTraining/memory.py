"""How a training process treats the memory that it frees."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names and numbers of malloc.h


def keep_freed_memory() -> None:
    """Lets this process use its freed memory again instead of returning it to the system, up to its end.

    By default glibc asks the system for every tensor of some MB and gives it back after use, and the system fills
    the pages with zeros at each first touch: more than half of a training step on a CPU. Other C libraries are left
    as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    allocator = ctypes.CDLL(None)
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 1 << 28)):
        allocator.mallopt(option, value)
