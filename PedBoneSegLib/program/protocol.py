"""The messages between the worker and its caller: one JSON object a line, written in ASCII, read as UTF-8.

Both sides use this module; it needs the standard library alone. Requests: {"id": 7, "op": "segment", …}. Answers:
{"id": 7, "event": "progress", "fraction": 0.42, "stage": "…"} and last, exactly once, "done" or "error".
"""

import json
import os
from typing import Any

from ..errors import BadInput, PedBoneSegError, Undecided, foreseen

_FAILURES: tuple[type[PedBoneSegError], ...] = (PedBoneSegError, *PedBoneSegError.__subclasses__())
EXIT_CODES = {failure.kind: failure.exit_code for failure in _FAILURES}

PROTOCOL = 1  # raised when an answer's meaning changes; fields may be added without
OPS = ("hello", "segment", "batch", "detect", "measure", "models", "release", "cancel", "shutdown")
LONGEST_REQUEST = 1 << 20  # bytes; a request is a few paths

# The fields of all requests: a name has the same type in every op. Which ones an op takes, the op itself checks.
FIELDS: dict[str, type] = {
    **dict.fromkeys(("input", "output", "joint", "model", "side", "device", "series"), str),
    **dict.fromkeys(("probabilities", "uncertainty", "surfaces", "action", "name", "as"), str),
    "frame": int, "max_voxels": int, "overwrite": bool, "given_up": list,
}  # fmt: skip
_TYPE_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list of texts"}


def to_json(document: object) -> str:
    """JSON on one line, in ASCII alone, so that half a character (from a file name that is no UTF-8) survives, and
    nothing in it steers a terminal. NaN and infinity have no form in JSON and raise ValueError."""
    return json.dumps(document, allow_nan=False)


def encode(answer: dict[str, Any]) -> bytes:
    """An answer, or a request, as a line."""
    return to_json(answer).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """A request; BadInput says what is wrong with a line that is none."""
    try:
        request = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"a line is not JSON: {str(error)[:200]}", "send one object a line") from None
    if not isinstance(request, dict):
        raise BadInput("a line is not a JSON object", 'send {"id": 1, "op": "hello"}')
    if not _is_id(request.get("id")):
        raise BadInput("a request has no id", 'send {"id": 1, "op": "hello"}')
    if request.get("op") not in OPS:
        raise BadInput(f"there is no op {_shown(request.get('op'))}", f"use one of {', '.join(OPS)}")
    if request["op"] == "cancel" and not _is_id(request.get("target")):
        raise BadInput("cancel has no target", "name the id of the request to cancel")
    for name, value in request.items():
        if name in FIELDS and value is not None:
            _check_field(name, value)
    return request


def request_id(line: bytes) -> int | str | None:
    """The id of a request that may be malformed, so that its error can be told apart; None without one."""
    try:
        number = json.loads(line)["id"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return number if _is_id(number) else None


def failure(error: BaseException) -> dict[str, Any]:
    """The fields of an error: kind, message, hint, and for `undecided` its verdict and scores."""
    hint = "please report it with the output of `pedboneseg doctor`"
    known = foreseen(error) or PedBoneSegError(f"{type(error).__name__}: {error}", hint)
    fields: dict[str, Any] = {"kind": known.kind, "message": known.message, "hint": known.hint}
    return {**fields, "verdict": known.verdict, "scores": known.scores} if isinstance(known, Undecided) else fields


def _check_field(name: str, value: object) -> None:
    kind = FIELDS[name]
    texts = value if isinstance(value, list) else [value]
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not fits or (kind is list and not all(isinstance(text, str) for text in texts)):
        raise BadInput(f"the field {name!r} is {_shown(value)}", f"it must be {_TYPE_NAMES[kind]}")
    for text in texts:
        if isinstance(text, str) and not _could_be_a_path(text):
            raise BadInput(f"the field {name!r} is {_shown(text)}, which no file can be called", "give another text")


def _could_be_a_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character, alone
        return False


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value for a message: short, and however deep it is nested."""
    if isinstance(value, (list, dict)):
        return f"of the type {type(value).__name__}"
    return repr(value)[:80]


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
