"""Text from outside does nothing where it is shown."""

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.plaintext import cell, lines, one_line, write_rows

ANY_TEXT = st.text(st.characters(), max_size=30)  # half characters (surrogates) too


@given(ANY_TEXT)
def test_nothing_that_steers_a_terminal_remains(text):
    shown = one_line(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert lines(text).replace("\n", "").isprintable()


def test_what_it_looks_like():
    assert one_line("a\x1b[2Jb\r\nc\u202ed\udcff ") == r"a\x1b[2Jb c\u202ed\udcff"
    assert lines("# Card\n\n\x1b]0;title\x07\n\tindented ü") == "# Card\n\n\\x1b]0;title\\x07\n        indented ü"
    error = BadInput("folder/\x1b[31m\n.nii: no", "name\x9b another")
    assert str(error) == r"folder/\x1b[31m .nii: no; name\x9b another"


def test_a_message_that_quotes_a_large_file_stays_readable():
    error = BadInput("a" + "x" * 10**6 + "b", "do this")
    assert len(error.message) < 1010 and error.message[0] + error.message[-1] == "ab" and error.hint == "do this"


@given(st.lists(st.lists(ANY_TEXT, min_size=1, max_size=3), min_size=1, max_size=4))
def test_no_cell_is_a_formula(rows):
    stream = io.StringIO(newline="")
    write_rows(stream, rows)
    read = list(csv.reader(io.StringIO(stream.getvalue(), newline="")))
    assert len(read) == len(rows)
    assert not any(re.match(r"\s*[=+\-@\t\r]", value) for row in read for value in row)


def test_numbers_stay_numbers():
    assert [cell(value) for value in (-1.5, None, "=1+1", "-x", "a=b", "@a", "+1")] == [
        -1.5, None, "'=1+1", "'-x", "a=b", "'@a", "'+1",
    ]  # fmt: skip
