"""Text from outside (file names, headers, model cards) made safe to show: it cannot steer a terminal, break a line, or
become a formula in a spreadsheet. Standard library only."""

from collections.abc import Iterable
from typing import TextIO

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def one_line(text: object) -> str:
    """The text on one line; what cannot be printed (an escape, half of a character) shows as its code, `\\x1b`."""
    return "".join(map(_visible, " ".join(str(text).split())))


def shortened(text: str, longest: int) -> str:
    """The text without its middle, if it has more than so many characters."""
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"


def lines(text: object) -> str:
    """The same for a text of several lines: its line breaks stay."""
    return "\n".join("".join(map(_visible, line.expandtabs())) for line in str(text).splitlines())


def cell(value: object) -> object:
    """A value for a cell of a CSV file: a number as it is, text on one line and with a `'` before a formula's sign."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_rows(stream: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Writes rows as CSV, every value through `cell`."""
    import csv

    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([cell(value) for value in row] for row in rows)


def _visible(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
