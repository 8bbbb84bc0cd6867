from __future__ import annotations

import pytest

from torchdl.data.numerals import looks_like_numbers, number


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("-2.50", -2.5), ("+.5", 0.5), ("4142.", 4142), ("1e3", 1000), (" 7 ", 7), ("0", 0), ("0.5", 0.5)]
    + [("1,013", 1013), ("-12,345,678.9", -12345678.9), ("23%", 0.23), ("-1.5 %", -0.015), ("1,200%", 12)]
    + [(cell, None) for cell in ("", "x", "007", "01", "1,5", "1,01", "0,123", "1_000", "0x1f", "1 000", "%", "True")],
)
def test_a_cell_is_a_number_by_itself(cell, value):
    assert number(cell) == value


def test_a_decimal_comma_makes_the_point_mark_thousands():
    assert number("1,5", ",") == 1.5
    assert number("1.234,5", ",") == 1234.5
    assert number("1.5", ",") is None


@pytest.mark.parametrize(
    "cells", ["$5|$6|$7", "1 013|1 014|998", "1'013|2'000", "1.013,5|950", "1,5|2,5", "(5)|(6)", "5 €|6 €", "\u22125|5"]
)
def test_numbers_in_another_notation_are_not_taken_for_categories(cells):
    assert looks_like_numbers(cells.split("|"))
    assert looks_like_numbers([f"{i} kg" for i in range(11)])


@pytest.mark.parametrize(
    "cells",
    [
        "a|b",
        "2XL|3XL",
        "16GB|32GB",
        "1.2.3|1.2.4",
        "2020-01-01|2020-01-02",
        "12:30|12:40",
        "5a|5b|6a|7c|8d|9e|1f|2g|3h|4i|5j",
    ],
)
def test_texts_with_digits_are_not_taken_for_numbers(cells):
    assert not looks_like_numbers(cells.split("|"))
