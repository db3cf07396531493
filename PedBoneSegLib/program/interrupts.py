"""How the program ends when it is told to: Ctrl-C, SIGTERM, a closed terminal (SIGHUP), or the end of its input.

Nothing is raised in the code that is at work. An exception that comes at any moment cannot be made safe: while torch
loads it aborts the process, within C++ it is lost, in a `finally` it skips the cleaning up. Instead a thread of its own
waits for the signal, removes the files that are half written, and ends the process at once.

What the main thread is doing does not matter, as long as it lets other threads run: Python does while it computes,
reads or waits, but not while a library is being loaded.
"""

import os
import select
import signal
import socket
import threading
from contextlib import suppress
from typing import NoReturn

from ..errors import Cancelled
from ..files import discard_partials

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))

FOLLOW = "PEDBONESEG_ENDS_WITH_STDIN"


def end_on_signals() -> None:
    """From now on a signal ends the process with exit code 5 and one line on stderr; for the main thread, at the start.

    Under `nohup` the closing of the terminal stays ignored.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)  # first: a signal that is caught must be passed on
    for number in SIGNALS:
        if number != getattr(signal, "SIGHUP", None) or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _noted)
    threading.Thread(target=_wait, args=(receiver, sender), daemon=True).start()


def end_with_parent() -> None:
    """A child process that was started with `FOLLOW` in its environment and a pipe for stdin ends when the pipe does:
    when its parent ends, even where that was killed."""
    if os.environ.pop(FOLLOW, ""):
        threading.Thread(target=_follow, daemon=True).start()


def ignore_signals() -> None:
    """The work is done: a signal that comes while Python shuts down changes nothing anymore."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_now(code: int) -> NoReturn:
    """Ends the process from any thread, without waiting for the others; nothing stays half written."""
    discard_partials()
    os._exit(code)


def _wait(receiver: socket.socket, _sender: socket.socket) -> NoReturn:
    while receiver.recv(1)[0] not in SIGNALS:  # a library may have a handler for another one
        pass
    discard_partials()
    _say(f"pedboneseg: {Cancelled()}\n")
    os._exit(Cancelled.exit_code)


def _follow() -> NoReturn:
    while os.read(0, 1024):
        pass
    end_now(Cancelled.exit_code)


def _noted(_number: int, _frame: object) -> None:
    """A handler of Python's own must be there, else the signal is not passed on to the thread that waits."""


def _say(line: str) -> None:
    """Writes past Python's streams, which the main thread may hold locked, and only where nothing makes us wait."""
    with suppress(OSError, ValueError):
        terminal = "\r\x1b[K" if os.isatty(2) else ""  # over a progress bar
        if os.name == "nt" or select.select([], [2], [], 0)[1]:
            os.write(2, (terminal + line).encode())
