"""Longer work in small steps, so that the window stays responsive.

The work is a generator. Where it yields, other events are handled before the next step begins; where it yields
`(operation, fields)`, the worker is asked and the next step gets its answer.
"""

from collections.abc import Callable, Generator
from functools import partial

import qt
from slicer.i18n import tr as _

from PedBoneSegLib.errors import PedBoneSegError

from .workerclient import doNothing
from .workfolder import PSEUDONYM


class Task:
    """Runs a generator one step per turn of the Qt event loop, so that the window stays responsive.

    At the end `onDone(*value)` is called with what the generator returned, or `onError(kind, message, answer)`; exactly
    once, and never before the constructor has returned. A generator that does not reach its end is closed.
    """

    def __init__(self, client, steps: Generator, onDone=doNothing, onError=doNothing, onProgress=doNothing) -> None:
        self._client, self._steps, self._request, self._ended = client, steps, None, False
        self._onDone, self._onError, self._onProgress = onDone, onError, onProgress
        self._continue()

    def cancel(self) -> None:
        """The work ends within a second; `onError` is called with the kind "cancelled"."""
        if self._request is not None and self._request.state != "ended":
            self._client.cancel(self._request)
        else:
            self._fail("cancelled", _("Cancelled."), {})

    def abandon(self) -> None:
        """As `cancel`, but no callback is called any more: the scene is being closed, or the application ends."""
        self._onDone = self._onError = doNothing
        self.cancel()

    def _continue(self, answer: dict | None = None) -> None:
        qt.QTimer.singleShot(0, lambda: self._step(answer))

    def _step(self, answer: dict | None) -> None:
        if self._ended:
            return
        try:
            request = self._steps.send(answer)
        except StopIteration as end:
            self._end(partial(self._onDone, *end.value))
        except (PedBoneSegError, OSError) as error:
            self._fail("bad-input", f"{getattr(error, 'strerror', None) or error}", {})
        except Exception as error:
            self._fail("bug", str(error), {})
            raise
        else:
            if request is None:
                self._continue()
            else:
                callbacks = {"onDone": self._continue, "onError": self._fail, "onProgress": self._onProgress}
                self._request = self._client.send(*request, **callbacks)

    def _fail(self, kind: str, message: str, answer: dict) -> None:
        # The name of a temporary file would tell the user nothing.
        self._end(partial(self._onError, kind, PSEUDONYM.sub(_("the volume"), message), answer))

    def _end(self, callback: Callable[[], None]) -> None:
        if not self._ended:
            self._ended = True
            self._steps.close()
            callback()


def runToEnd(steps: Generator):
    """Runs the steps at once, for those that need no worker; returns the generator's value."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value
