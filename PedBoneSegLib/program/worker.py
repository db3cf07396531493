"""The worker: `pedboneseg serve`. Requests on stdin, answers on stdout, one JSON object a line.

Two threads: one reads stdin, so that a cancel is heard while the other works and the end of stdin, which means that
the caller is gone, ends the process at once. The model stays warm between requests.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO, NoReturn

from .. import __version__
from ..errors import BadInput, Cancelled, PedBoneSegError
from .logbook import log, log_bug, open_log
from .protocol import LONGEST_REQUEST, PROTOCOL, decode, encode, failure, request_id
from .verbs import SegmentOptions, Session

PROGRESS_SECONDS = 0.1  # between two answers of the kind


def main() -> NoReturn:
    """Serves until stdin ends or a shutdown is asked for."""
    answers = _take_stdout()
    open_log("worker.log", to_stderr=True)
    log.info("PedBoneSeg %s, protocol %s, process %s", __version__, PROTOCOL, os.getpid())
    Worker(sys.stdin.buffer, answers).run()
    sys.stderr.flush()
    os._exit(0)  # an orderly end would wait for the thread that reads stdin


class Worker:
    def __init__(self, requests: BinaryIO, answers: BinaryIO):
        self._requests, self._answers = requests, answers
        self._writing = threading.Lock()
        self._work: queue.Queue[dict] = queue.Queue()
        self._stops: dict[object, threading.Event] = {}  # of the requests that wait or run, by id
        self._session = Session()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        while (request := self._work.get())["op"] != "shutdown":
            self._serve(request)
        self._answer({"id": request.get("id"), "event": "done"})

    # ------------------------------------------------------------------------------------------ the reading thread

    def _listen(self) -> None:
        while line := self._requests.readline(LONGEST_REQUEST + 1):
            try:
                if len(line) > LONGEST_REQUEST:
                    while line and not line.endswith(b"\n"):
                        line = self._requests.readline(LONGEST_REQUEST)
                    raise BadInput(f"a line has more than {LONGEST_REQUEST} bytes", "send paths, not data")
                if line.strip():
                    self._take(decode(line))
            except BadInput as error:
                self._answer({"id": request_id(line), "event": "error", **failure(error)})
        os._exit(0)  # mid-run too: what is half written is swept by the next run

    def _take(self, request: dict) -> None:
        number = request.get("id")
        if request["op"] == "cancel":
            stop = self._stops.get(_key(request.get("target")))
            if stop is not None:
                stop.set()
            self._answer({"id": number, "event": "done", "cancelled": stop is not None})
            return
        if _key(number) in self._stops:
            raise BadInput(f"the id {number!r} is in use", "give every request its own")
        if request["op"] != "shutdown":
            self._stops[_key(number)] = threading.Event()
        self._work.put(request)

    # ------------------------------------------------------------------------------------------ the working thread

    def _serve(self, request: dict) -> None:
        number, op, started = request.pop("id"), request.pop("op"), time.monotonic()
        stop = self._stops[_key(number)]
        try:
            if stop.is_set():
                raise Cancelled()
            answer = {"event": "done", **self._do(op, request, _Progress(self._answer, number, stop))}
            log.info("%s: done in %.2f s", op, time.monotonic() - started)
        except Exception as error:
            answer = {"event": "error", **failure(error)}
            if isinstance(error, PedBoneSegError):
                log.info("%s: %s after %.2f s", op, error.kind, time.monotonic() - started)
            else:
                log_bug(op, error)
        del self._stops[_key(number)]
        self._answer({"id": number, **answer})

    def _do(self, op: str, fields: dict, progress: "_Progress") -> dict:
        session = self._session
        if op == "segment":
            return session.segment(SegmentOptions.of(fields), progress, progress.detected)
        if op == "batch":
            return self._batch(fields, progress)
        if op == "detect":
            return session.detect(fields, progress)
        if op == "hello":
            return _hello()
        if op == "release":
            return session.release()
        return {"measure": session.measure, "models": session.models}[op](fields)

    def _batch(self, fields: dict, progress: "_Progress") -> dict:
        """A folder. `given_up` may name inputs that ended an earlier worker; the answer is the summary."""
        from .batch import segment_folder

        given_up = fields.pop("given_up", ())
        for row in segment_folder(self._session, SegmentOptions.of(fields), progress, given_up):
            if "summary" not in row:
                progress.segmented(row)
        return row

    def _answer(self, answer: dict) -> None:
        try:
            with self._writing:
                self._answers.write(encode(answer))
                self._answers.flush()
        except OSError:  # nobody listens any more
            os._exit(0)


class _Progress:
    """Progress as answers, not more of them than anyone can read; it ends the work when `stop` is set."""

    def __init__(self, answer: Callable[[dict], None], number: object, stop: threading.Event):
        self._send, self._stop, self._last = answer, stop, 0.0
        self._latest = {"id": number, "event": "progress", "fraction": 0.0, "stage": ""}

    def __call__(self, fraction: float, stage: str) -> None:
        if self._stop.is_set():
            raise Cancelled()
        now = time.monotonic()
        if stage != self._latest["stage"] or now - self._last >= PROGRESS_SECONDS:
            self._last, self._latest = now, {**self._latest, "fraction": round(fraction, 4), "stage": stage}
            self._send(self._latest)

    def detected(self, found: dict) -> None:
        """What joint it is, as soon as it is known: a field of a progress answer."""
        self._send({**self._latest, "detection": found})

    def segmented(self, row: dict) -> None:
        """A file of a batch has come to its end: a field of a progress answer."""
        self._send({**self._latest, "file": row})


def _hello() -> dict:
    import torch

    from ..inference.devices import available_devices
    from ..models.manifest import SCHEMA

    return {"version": __version__, "protocol": PROTOCOL, "schema": SCHEMA, "devices": available_devices(),
            "torch": torch.__version__, "pid": os.getpid()}  # fmt: skip


def _key(number: object) -> str:
    """Ids are told apart as JSON does: 7 is not "7"."""
    return repr(number)


def _take_stdout() -> BinaryIO:
    """stdout for the protocol alone: whatever else prints there, Python or C, comes out on stderr."""
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(own, "wb")
