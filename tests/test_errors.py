from __future__ import annotations

import pytest

from torchdl import InputError
from torchdl.errors import require


@pytest.mark.parametrize(
    ("quoted", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("\x1b[2J", r"\x1b[2J"),  # would clear the terminal
        ("\udcff", r"\udcff"),  # no terminal can show it
        ("naïve – 日本 ½", "naïve – 日本 ½"),
        (r"a\b", r"a\b"),
    ],
)
def test_a_message_is_one_printable_line_whatever_it_quotes(quoted, shown):
    with pytest.raises(InputError) as caught:
        require(False, f"there is no column {quoted!s}: choose another")
    assert str(caught.value) == f"there is no column {shown}: choose another"
