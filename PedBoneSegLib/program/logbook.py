"""The log in the user's folder: times, verbs and outcomes; never names of files or patients."""

import logging
import os
import sys
import traceback

from ..errors import PedBoneSegError
from ..models import store

log = logging.getLogger("pedboneseg")


def open_log(name: str, to_stderr: bool = False) -> None:
    """Writes `log` to the file `name` in the user's folder, and to stderr if wanted."""
    from logging.handlers import RotatingFileHandler

    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if to_stderr else []
    try:
        path = store.log_folder() / name
        handlers.append(RotatingFileHandler(path, maxBytes=1 << 20, backupCount=1, encoding="utf-8"))
    except (PedBoneSegError, OSError):  # a log that cannot be kept is no reason not to work
        pass
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk: the log goes on without the line, and says nothing on stderr


def log_bug(verb: str, error: BaseException) -> None:
    """Where it happened, but not the error's message, which may hold what identifies a patient."""
    log.error("%s: %s\n%s", verb, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


def silence_libraries() -> None:
    """Keeps the warnings of libraries off stderr, where a line is a fault of ours. `python -W` brings them back."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not sys.warnoptions:
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(logging.NullHandler())
        logging.getLogger("py.warnings").propagate = False
