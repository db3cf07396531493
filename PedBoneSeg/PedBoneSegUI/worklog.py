"""The log of the child processes, as a user may send it: without paths and without names."""

import re
from collections import deque
from collections.abc import Callable

# An absolute path on any system, quoted or not. A blank ends an unquoted one: names are hidden separately, by `hide`.
_PATH = re.compile(
    r"""(?<=["'])(?:[A-Za-z]:[\\/]|\\\\|/)[^"'\n]+(?=["'])|(?:\b[A-Za-z]:[\\/]|\\\\|(?<![\w.>])/)[^\s"'<>|;,]+"""
)


class WorkLog:
    """Keeps the last lines; paths are replaced, and so are the names given to `hide`."""

    LONGEST_LINE = 2000  # characters; a longer line is cut

    def __init__(self, lines: int = 2000) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._secrets: set[str] = set()
        self.onLine: Callable[[str], None] = lambda line: None

    def hide(self, *texts: str) -> None:
        """Texts that must not appear in the log; they are removed from the lines that are already there, too."""
        self._secrets |= {text for text in texts if len(text) > 1}
        self._lines = deque(map(self._clean, self._lines), self._lines.maxlen)

    def append(self, text: str) -> None:
        for line in filter(str.strip, text.splitlines()):
            self._lines.append(self._clean(line[: self.LONGEST_LINE]))
            self.onLine(self._lines[-1])

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def _clean(self, line: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            line = line.replace(secret, "<hidden>")
        return _PATH.sub("<path>", line)
