"""Other processes to share the work with. Started afresh ("spawn"), so that they behave the same on every system."""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process

import torch

from ..memory import keep_freed_memory


def pool(count: int) -> ProcessPoolExecutor:
    """`count` processes of one thread each, that end with this one even where this one is killed."""
    return ProcessPoolExecutor(count, get_context("spawn"), _begin)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them too; the parent decides, and they follow it
    torch.set_num_threads(1)
    keep_freed_memory()
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A pool's process holds both ends of its queue, so it would wait for ever on one whose owner was killed."""
    connection.wait([parent_process().sentinel])
    os._exit(1)
