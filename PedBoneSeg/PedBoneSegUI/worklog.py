"""What the child processes wrote, kept for a report: the last lines, without anything that could name a patient."""

import re
from collections import deque
from collections.abc import Callable

MOST_LINES = 2000
LONGEST_LINE = 2000  # characters; a longer line is cut

# An absolute path on any system, quoted or not. Blanks end an unquoted one; what must never show is hidden by name.
_PATH = re.compile(
    r"""(?<=["'])(?:[A-Za-z]:[\\/]|\\\\|/)[^"'\n]+(?=["'])|(?:\b[A-Za-z]:[\\/]|\\\\|(?<![\w.>])/)[^\s"'<>|;,]+"""
)


class WorkLog:
    def __init__(self, lines: int = MOST_LINES) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._secrets: set[str] = set()
        self.onLine: Callable[[str], None] = lambda line: None

    def hide(self, *texts: str) -> None:
        """Names that must never show: they are replaced wherever they occur, in what is there already too."""
        self._secrets |= {text for text in texts if len(text) > 1}
        self._lines = deque((self._clean(line) for line in self._lines), self._lines.maxlen)

    def append(self, text: str) -> None:
        for line in text.splitlines():
            if line.strip():
                clean = self._clean(line[:LONGEST_LINE])
                self._lines.append(clean)
                self.onLine(clean)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    def _clean(self, line: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            line = line.replace(secret, "<hidden>")
        return _PATH.sub("<path>", line)
