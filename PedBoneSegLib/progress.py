"""How long work tells how far it is, and how it is stopped: by one callback."""

from collections.abc import Callable

# Called several times a second with the share that is done (0 to 1) and what is being done. It may raise Cancelled:
# that is how work is stopped.
Progress = Callable[[float, str], None]


def no_progress(_fraction: float, _stage: str) -> None:
    """For a caller who neither watches nor cancels."""
