"""The form of the conversation with the worker: one JSON object a line, UTF-8.

Both ends import this room; the standard library alone. Requests: {"id": 7, "op": "segment", …}. Answers:
{"id": 7, "event": "progress", "fraction": 0.42, "stage": "…"} and, last and once, "done" or "error".
"""

import json

from ..errors import BadInput, OutOfMemory, PedBoneSegError, Undecided

EXIT_CODES = {error.kind: error.exit_code for error in (PedBoneSegError, *PedBoneSegError.__subclasses__())}

PROTOCOL = 1  # raised when an answer's meaning changes; fields may be added without
OPS = ("hello", "segment", "batch", "detect", "measure", "models", "release", "cancel", "shutdown")
LONGEST_REQUEST = 1 << 20  # bytes; a request is a few paths


def encode(answer: dict) -> bytes:
    """An answer as a line. NaN and infinity have no form in JSON and raise ValueError."""
    return json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogateescape") + b"\n"


def decode(line: bytes) -> dict:
    """A request; BadInput says what is wrong with a line that is none."""
    try:
        request = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"a line is not JSON: {error}", "send one object a line") from None
    if not isinstance(request, dict):
        raise BadInput("a line is not a JSON object", 'send {"id": 1, "op": "hello"}')
    if not isinstance(request.get("id"), (int, str)):
        raise BadInput("a request has no id", 'send {"id": 1, "op": "hello"}')
    if request.get("op") not in OPS:
        raise BadInput(f"there is no op {str(request.get('op'))[:80]!r}", f"use one of {', '.join(OPS)}")
    return request


def request_id(line: bytes) -> int | str | None:
    """The id of a request that may be malformed, so that even its error can be told apart; None without one."""
    try:
        number = json.loads(line)["id"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return number if isinstance(number, (int, str)) else None


def failure(error: BaseException) -> dict:
    """The fields of an error: kind, message, hint, and for `undecided` its verdict and scores."""
    if isinstance(error, MemoryError):
        error = OutOfMemory("memory is too short", "close other programs, or crop the volume")
    if not isinstance(error, PedBoneSegError):
        return {"kind": "bug", "message": f"{type(error).__name__}: {' '.join(str(error).split())}",
                "hint": "please report it with the output of `pedboneseg doctor`"}  # fmt: skip
    fields = {"kind": error.kind, "message": error.message, "hint": error.hint}
    return {**fields, "verdict": error.verdict, "scores": error.scores} if isinstance(error, Undecided) else fields
