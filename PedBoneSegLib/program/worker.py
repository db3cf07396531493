"""The worker: `pedboneseg serve`. Requests on stdin, answers on stdout, one JSON object a line.

The main thread works; a second one reads stdin, so that a cancel is heard meanwhile and the end of stdin, which means
that the caller is gone, ends the process at once. The model stays warm between requests. Every line gets exactly one
"done" or "error", whatever it holds.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from .. import __version__
from ..errors import BadInput, Cancelled, foreseen
from .detect import detect
from .interrupts import end_now
from .logbook import log, log_bug, open_log
from .measure import measure
from .models import models
from .protocol import LONGEST_REQUEST, PROTOCOL, decode, encode, failure, request_id
from .segment import SegmentOptions, segment
from .session import Session

PROGRESS_SECONDS = 0.1  # the shortest time between two answers of one stage

Answer = dict[str, Any]


def main() -> NoReturn:
    """Serves until stdin ends or a shutdown is asked for."""
    answers = _take_stdout()
    open_log("worker.log", to_stderr=True)
    log.info("PedBoneSeg %s, protocol %s, process %s", __version__, PROTOCOL, os.getpid())
    try:
        Worker(sys.stdin.buffer, answers).run()
    except BaseException as error:
        log_bug("serve", error)
        end_now(1)
    end_now(0)  # an orderly end would wait for the thread that reads stdin


class Worker:
    def __init__(self, requests: BinaryIO, answers: BinaryIO):
        self._requests, self._answers = requests, answers
        self._writing = threading.Lock()
        self._work: queue.Queue[dict[str, Any]] = queue.Queue()
        self._cancelled: dict[str, threading.Event] = {}  # of the requests that wait or run, by `_key` of their id
        self._session = Session()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while (request := self._work.get())["op"] != "shutdown":
            self._serve(request)
        self._answer({"id": request["id"], "event": "done"})

    # ------------------------------------------------------------------------------------------ the reading thread

    def _listen(self) -> None:
        """Reads until stdin ends or can no longer be read, and then ends the process, mid-run too."""
        try:
            while line := self._requests.readline(LONGEST_REQUEST + 1):
                self._hear(line)
        finally:
            end_now(0)

    def _hear(self, line: bytes) -> None:
        try:
            if len(line) > LONGEST_REQUEST:
                start = line
                while line and not line.endswith(b"\n"):
                    line = self._requests.readline(LONGEST_REQUEST)
                line = start
                raise BadInput(f"a line has more than {LONGEST_REQUEST} bytes", "send paths, not data")
            if line.strip():
                self._accept(decode(line))
        except Exception as error:
            if foreseen(error) is None:
                log_bug("a request", error)
            self._answer({"id": request_id(line), "event": "error", **failure(error)})

    def _accept(self, request: dict[str, Any]) -> None:
        """Answers a cancel; leaves every other request to the main thread."""
        number = request["id"]
        if request["op"] == "cancel":
            running = self._cancelled.get(_key(request["target"]))
            if running is not None:
                running.set()
            self._answer({"id": number, "event": "done", "cancelled": running is not None})
            return
        if _key(number) in self._cancelled:
            raise BadInput(f"the id {_key(number)[:80]} is in use", "give every request its own")
        if request["op"] != "shutdown":
            self._cancelled[_key(number)] = threading.Event()
        self._work.put(request)

    # ------------------------------------------------------------------------------------------ the main thread

    def _serve(self, request: dict[str, Any]) -> None:
        number, op, started = request.pop("id"), request.pop("op"), time.monotonic()
        cancelled = self._cancelled[_key(number)]
        try:
            if cancelled.is_set():
                raise Cancelled()
            progress = _Progress(self, number, cancelled)
            answer = encode({"id": number, "event": "done", **self._do(op, request, progress)})
            log.info("%s: done in %.2f s", op, time.monotonic() - started)
        except Exception as error:
            answer = encode({"id": number, "event": "error", **failure(error)})
            if known := foreseen(error):
                log.info("%s: %s after %.2f s", op, known.kind, time.monotonic() - started)
            else:
                log_bug(op, error)
        del self._cancelled[_key(number)]
        self._send(answer)

    def _do(self, op: str, fields: dict[str, Any], progress: "_Progress") -> Answer:
        session = self._session
        if op == "segment":
            return segment(session, SegmentOptions.of(fields), progress, progress.detected)
        if op == "batch":
            return self._batch(fields, progress)
        if op == "detect":
            return detect(session, fields, progress)
        if op == "hello":
            return _hello()
        if op == "release":
            session.release()
            return {}
        return measure(fields) if op == "measure" else models(fields)

    def _batch(self, fields: dict[str, Any], progress: "_Progress") -> Answer:
        """A folder. `given_up` may name inputs that ended an earlier worker; the answer is the summary."""
        from .batch import segment_folder

        given_up = fields.pop("given_up", None) or ()
        summary: Answer = {}
        for row in segment_folder(self._session, SegmentOptions.of(fields), progress, given_up):
            if "summary" in row:
                summary = row
            else:
                progress.segmented(row)
        return summary

    # ------------------------------------------------------------------------------------------ both threads

    def _answer(self, answer: Answer) -> None:
        self._send(encode(answer))

    def _send(self, line: bytes) -> None:
        try:
            with self._writing:
                self._answers.write(line)
                self._answers.flush()
        except OSError:  # nobody listens any more
            end_now(0)


class _Progress:
    """Progress as answers, no more of them than anyone can read; ends the work when the request is cancelled."""

    def __init__(self, worker: Worker, number: object, cancelled: threading.Event):
        self._send: Callable[[Answer], None] = worker._answer
        self._cancelled, self._last = cancelled, 0.0
        self._latest: Answer = {"id": number, "event": "progress", "fraction": 0.0, "stage": ""}

    def __call__(self, fraction: float, stage: str) -> None:
        if self._cancelled.is_set():
            raise Cancelled()
        now = time.monotonic()
        if stage != self._latest["stage"] or now - self._last >= PROGRESS_SECONDS:
            self._last, self._latest = now, {**self._latest, "fraction": round(fraction, 4), "stage": stage}
            self._send(self._latest)

    def detected(self, detection: Answer) -> None:
        """Which joint it is, as soon as it is known: a field of a progress answer."""
        self._send({**self._latest, "detection": detection})

    def segmented(self, row: Answer) -> None:
        """One file of a batch is done or has failed: a field of a progress answer."""
        self._send({**self._latest, "file": row})


def _hello() -> Answer:
    import torch

    from ..inference.devices import available_devices
    from ..models.manifest import SCHEMA

    return {"version": __version__, "protocol": PROTOCOL, "schema": SCHEMA, "devices": available_devices(),
            "torch": torch.__version__, "pid": os.getpid()}  # fmt: skip


def _key(number: int | str) -> str:
    """Ids are told apart as JSON does: 7 is not "7"."""
    return repr(number)


def _take_stdout() -> BinaryIO:
    """stdout for the protocol alone: whatever else prints there, Python or C, comes out on stderr."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(own, "wb")
