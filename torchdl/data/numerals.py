"""Numerals: numbers as people write them in the cells of tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING

from torchdl.errors import require

if TYPE_CHECKING:
    import pandas


def is_number(cell: str, decimal: str = ".") -> bool:
    """Return whether a cell is a number; 007 is a code."""
    return number(cell, decimal) is not None


_PLAIN = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|Inf|INF|infinity|Infinity)")
_ZEROS = re.compile(r"^([-+]?)0+(?=\d)")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")


def number(cell: str, decimal: str = ".", codes: bool = False) -> float | None:
    """Return the number that a cell means, or None: ``1e3``, ``1,013`` (thousands) and ``23%`` (0.23) are numbers.

    ``007`` is a code, not a number, unless ``codes``. If ``decimal`` is a comma, the point marks thousands.
    """
    text = cell.strip()
    text = _ZEROS.sub(r"\1", text) if codes else text
    if decimal == ",":
        text = text.translate({ord("."): ",", ord(","): "."})
    share = text.endswith("%")
    text = text[:-1].rstrip() if share else text
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif not _PLAIN.fullmatch(text):
        return None
    return float(text) / 100 if share else float(text)


_LIKE = re.compile(
    r"\(?[-+\u2212\u2013]?\s*[$\u20ac\xa3\xa5]?\s*[-+\u2212]?"
    r"(?:\d{1,3}(?:[,.'\u2019\s]\d{3})+(?:[,.]\d+)?|\d+(?:[,.]\d*)?|[,.]\d+)"
    r"\s*(?P<unit>[^\W\d_]{0,3}[\xb2\xb3]?|[$\u20ac\xa3\xa5%\xb0]\s*[CF]?)\)?"
)


def looks_like_numbers(cells: Sequence[str]) -> bool:
    """Return whether most cells look like numbers, even if :func:`number` cannot read them: ``$5`` or ``(1,50)``.

    Letters after numbers, as in ``5 kg``, must be a unit: the same in all cells, after numbers that differ.
    """
    found = [match for cell in cells if (match := _LIKE.fullmatch(cell.strip()))]
    units = {match["unit"] for match in found}
    if any(unit[:1].isalpha() for unit in units) and (len(units) > 1 or len(set(cells)) <= 10):
        return False
    return len(found) > len(cells) / 2


_EITHER = re.compile(r"[-+]?[1-9]\d{0,2}[.,]\d{3}\s*%?")  # 1,013 is 1013 or 1.013


def notation_note(name: str, cells: Sequence[str], decimal: str = ".", separator: str = ",") -> tuple[str, ...]:
    """Return a sentence on how a column's first number with thousands or a percent sign is read, if there is one.

    Args:
        name: The column's name.
        cells: Its entries, all numbers.
        decimal: The decimal point.
        separator: What separates the cells of the file.

    Raises:
        InputError: All commas may be decimal points, which is usual in files with the separator ``;``.
    """
    mark = "," if decimal == "." else "."
    marked = [cell for cell in cells if mark in cell]
    odd = next(iter(marked or [cell for cell in cells if "%" in cell]), "")
    if not odd:
        return ()
    value, other = number(odd, decimal, codes=True), number(odd, mark, codes=True)
    said = f"column {name!r} is numeric: {odd!r} is read as {value:g}"
    if not marked or other is None or not all(_EITHER.fullmatch(cell.strip()) for cell in marked):
        return (said,)
    require(
        separator != ";" or decimal == ",",
        f'column {name!r} has {odd!r}, which is {other:g} or {value:g}: name the decimal point (decimal=","), or write '
        "numbers without commas",
    )
    return (f'{said}, not {other:g} (decimal="{mark}")',)


def to_numbers(column: pandas.Series, decimal: str = ".", codes: bool = False) -> pandas.Series:
    """Convert texts (or numbers) to float64 by :func:`number`: NaN for missing values and for all other texts."""
    import pandas

    plain = _PLAIN.fullmatch  # most numbers need no second look

    def value(cell: object) -> float | None:
        if isinstance(cell, str):
            return float(cell) if decimal == "." and plain(cell) else number(cell, decimal, codes)
        return float(cell) if isinstance(cell, (Real, Decimal)) and not isinstance(cell, bool) else None

    values = [value(cell) for cell in column.tolist()]
    return pandas.Series(values, index=column.index, name=column.name, dtype="float64")
