"""The panel's side of the conversation with the worker process: one JSON object per line.

The worker starts with the first request and keeps its model loaded. Whatever goes wrong with it (it cannot start, dies,
hangs, writes without end), the current request ends with one sentence, the process tree is killed, and the next request
starts a new worker.
"""

import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from PedBoneSegLib.program.protocol import encode

from .processes import endTree

HELLO_SECONDS = 180  # the first import of torch from a cold disk takes this long on old machines
CANCEL_MILLISECONDS = 700  # an unanswered cancel is followed by a kill; together they stay below a second
LONGEST_LINE = 4 * 2**20  # bytes; an answer is a few kilobytes
MOST_NOISE = 2**20  # bytes of lines that are no answers, before the worker is stopped
_OPTION = r"(--?[a-z]|pedboneseg ).*"  # the part of a hint that is for the command line


def doNothing(*_arguments) -> None:
    """The default callback."""


@dataclass(eq=False)
class Request:
    """One request; `onDone(answer)` or `onError(kind, message, answer)` is called exactly once, never from `send`."""

    op: str
    fields: dict
    onDone: Callable = doNothing
    onError: Callable = doNothing
    onProgress: Callable = doNothing  # (answer): its `fraction` 0 to 1, `stage`, and what else the worker adds
    number: int = 0
    state: str = "waiting"  # waiting, sent, cancelling, ended

    def end(self, callback: Callable, *arguments) -> None:
        if self.state != "ended":
            self.state = "ended"
            callback(*arguments)

    def fail(self, kind: str, sentence: str, answer: dict | None = None) -> None:
        self.end(self.onError, kind, sentence, answer or {})


class WorkerClient:
    """`command` is the program and its arguments, `environment` what is added to the application's own."""

    def __init__(self, command: list[str], folder: str, environment: dict[str, str], version: str, log) -> None:
        self._command, self._folder, self._environment, self._version = command, folder, environment, version
        self.log = log
        self.hello: dict = {}  # what the running worker said of itself: version, devices
        self._process = None
        self._ended: list = []  # killed processes are held until they are gone: destroying a QProcess waits for it
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._lastNumber = 0
        self._restarted = False
        self._clearInput()

    @property
    def running(self) -> bool:
        return self._process is not None

    def processId(self) -> int:
        return int(self._process.processId()) if self.running else 0

    def send(self, op: str, fields: dict | None = None, **callbacks) -> Request:
        """Queues a request; the worker gets one at a time."""
        request = Request(op, fields or {}, **callbacks)
        self._queue.append(request)
        qt.QTimer.singleShot(0, self._advance)
        return request

    def cancel(self, request: Request) -> None:
        """Ends the request within a second: by the worker's own word, or by killing it."""
        if request.state == "waiting":
            if request in self._queue:
                self._queue.remove(request)
            qt.QTimer.singleShot(0, lambda: request.fail("cancelled", _("Cancelled.")))
        elif request.state == "sent":
            request.state = "cancelling"
            self._write({"op": "cancel", "target": request.number})
            qt.QTimer.singleShot(CANCEL_MILLISECONDS, lambda: self.stop() if request.state == "cancelling" else None)

    def stop(self, kind: str = "cancelled", sentence: str = "") -> None:
        """Kills the worker and all it started; what was asked of it ends with `kind` and `sentence`."""
        process, self._process = self._process, None
        self.hello = {}
        self._clearInput()
        if process is not None and process.state() != qt.QProcess.NotRunning:
            self._ended.append(process)
            endTree(int(process.processId()))
            process.kill()
        request, self._current = self._current, None
        if request is not None:
            request.fail(kind, sentence or _("Cancelled."))

    def close(self) -> None:
        """For the end of the application: nothing is left running, nobody is called any more."""
        for request in (*self._queue, *filter(None, [self._current])):
            request.state = "ended"
        self._queue.clear()
        self.stop()
        for process in list(self._ended):
            process.waitForFinished(1000)
        self._ended.clear()

    # ---- sending

    def _advance(self) -> None:
        if self._current is not None or not self._queue:
            return
        if self._process is None:
            self._start()
        else:
            self._current = self._queue.popleft()
            self._dispatch(self._current)

    def _dispatch(self, request: Request) -> None:
        request.state = "sent"
        request.number = self._write({"op": request.op, **request.fields})

    def _write(self, message: dict) -> int:
        self._lastNumber += 1
        self._process.write(encode({"id": self._lastNumber, **message}))
        return self._lastNumber

    def _start(self) -> None:
        process = qt.QProcess()
        environment = qt.QProcessEnvironment.systemEnvironment()
        for name, value in self._environment.items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        process.setWorkingDirectory(self._folder)
        process.readyReadStandardOutput.connect(lambda: self._onOutput(process))
        process.readyReadStandardError.connect(
            lambda: self.log.append(process.readAllStandardError().data().decode("utf-8", "replace"))
        )
        process.connect(
            "finished(int,QProcess::ExitStatus)", lambda code, status: self._onFinished(process, code, status)
        )
        process.connect("errorOccurred(QProcess::ProcessError)", lambda error: self._onProcessError(process, error))
        hello = Request("hello", {}, onDone=self._onHello, onError=self._onHelloFailed)
        self._process, self._current = process, hello
        process.start(self._command[0], self._command[1:])
        if self._process is process:  # else it could not be started, and that has been told
            self._dispatch(hello)
            late = _("The worker did not get ready within {n} seconds; see the log.").format(n=HELLO_SECONDS)
            qt.QTimer.singleShot(HELLO_SECONDS * 1000, lambda: self._fail(late) if hello.state == "sent" else None)

    def _onHello(self, answer: dict) -> None:
        theirs = str(answer.get("version", "?"))
        if theirs == self._version:
            self.hello, self._restarted = answer, False
            return
        self.stop()
        self._restarted = not self._restarted  # the extension was updated while it ran: once more, with the new files
        if not self._restarted:
            sentence = _("The worker is of version {theirs}, the panel of {ours}; restart Slicer.")
            self._onHelloFailed("bug", sentence.format(theirs=theirs, ours=self._version), {})

    def _onHelloFailed(self, kind: str, sentence: str, answer: dict) -> None:
        if self._queue:
            self._queue.popleft().fail(kind, sentence, answer)

    # ---- receiving

    def _clearInput(self) -> None:
        self._input, self._noise = b"", 0

    def _onOutput(self, process) -> None:
        data = process.readAllStandardOutput().data()
        if process is not self._process:
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._onLine(line)
            if process is not self._process:
                return
        if len(self._input) > LONGEST_LINE or self._noise > MOST_NOISE:
            self._fail(_("The worker sent unreadable output and was stopped; the next click starts a new one."))

    def _onLine(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "event" not in answer:
            if line.strip():
                self._noise += len(line)
                self.log.append(line.decode("utf-8", "replace"))
            return
        request = self._current
        if request is None or answer.get("id") != request.number:
            return  # a late word about a request that has ended, or the answer to a cancel
        if answer["event"] == "progress":
            if request.state == "sent":
                request.onProgress(answer)
            return
        self._current = None
        if answer["event"] == "done" and request.state != "cancelling":
            request.end(request.onDone, answer)
        else:
            sentence = str(answer.get("message") or _("The worker gave no reason."))
            hint = re.sub(f"(:| with) {_OPTION}", "", str(answer.get("hint") or ""))
            sentence += f"; {hint}" if hint and not re.search(rf"(?<!\w){_OPTION}", hint) else ""
            kind = "cancelled" if request.state == "cancelling" else str(answer.get("kind") or "bug")
            request.fail(kind, sentence, answer)
        qt.QTimer.singleShot(0, self._advance)

    def _onFinished(self, process, code: int, status) -> None:
        if process in self._ended:
            self._ended.remove(process)
        process.deleteLater()
        if process is self._process:
            crashed = status != qt.QProcess.NormalExit
            what = _("was killed or crashed (signal {code})") if crashed else _("ended (exit code {code})")
            sentence = _("The worker {what}; the log tells more. The next click starts a new one.")
            self._fail(sentence.format(what=what.format(code=int(code))))

    def _onProcessError(self, process, error) -> None:
        if process is self._process and error == qt.QProcess.FailedToStart:
            self._fail(_("The worker could not be started: {program}").format(program=self._command[0]))

    def _fail(self, sentence: str) -> None:
        self.log.append(sentence)
        self.stop("died", sentence)
        qt.QTimer.singleShot(0, self._advance)
