"""Ctrl-C and SIGTERM, held back where they would do harm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """A KeyboardInterrupt that comes during the block is raised at its end.

    For the loading of torch, which takes a second: raised within the start of its C++, it aborts the process; raised
    within code that torch's modules compile as they load, it ends the process by the signal instead of our exit code.
    """
    if threading.current_thread() is not threading.main_thread():  # the others are never interrupted
        yield
        return
    came = []
    before = {number: signal.signal(number, lambda *_: came.append(1)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
