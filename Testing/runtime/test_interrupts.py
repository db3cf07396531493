"""Signals that wait; what they do to the whole program, `test_cli.py` asks."""

import signal
import threading

import pytest

from PedBoneSegLib.program.interrupts import held_back


def test_an_interruption_is_raised_at_the_end_of_the_block():
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"] and signal.getsignal(signal.SIGINT) is before


def test_an_error_within_comes_out_and_the_handlers_are_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="no such"), held_back():
        raise OSError("no such library")
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_other_threads_nothing_is_held_back():
    ended = []

    def work() -> None:
        with held_back():  # only the main thread may set handlers
            ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [True]
