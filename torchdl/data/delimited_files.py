"""Delimited text files, such as CSV files: how they are written, and their rows as texts.

Every reader of tables, series, texts and ratings reads its rows here. A cell is a text first, so that what it means
never depends on other rows of its file.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchdl.data.numerals import is_number, number
from torchdl.data.text_files import find_encoding, open_text, reading
from torchdl.errors import InputError, require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike

if TYPE_CHECKING:
    import pandas

#: Cells that mean a missing value: pandas' markers.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
    | {"NULL", "NaN", "None", "n/a", "nan", "null"}
)
SEPARATORS = {"tab": "\t", "\\t": "\t", " ": "blanks"}
SAMPLE, SAMPLE_CELLS = 1000, 100_000  # rows that tell a header from values, and their cells
MAX_COLUMNS = 100_000
_EXCEL = re.compile("sep=.?")  # Excel's own first line
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names as a tuple; a single text is one name, not its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


@with_field_docs
@dataclass(frozen=True)
class TableFormat:
    """How a table is written in a text file; the defaults are those of a CSV file with a header.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "cars.data")
        >>> with open(path, "w") as file:
        ...     _ = file.write("18.0  8  130\\n15.0  8  ?\\n")
        >>> names = ("mpg", "cylinders", "power")
        >>> written = torchdl.TableFormat(header=False, names=names, separator="blanks", na=("?",))
        >>> torchdl.data.delimited_files.read_rows(path, written)
            mpg cylinders power
        0  18.0         8   130
        1  15.0         8   NaN
    """

    header: bool = True
    """Whether the first row names the columns; if not, they are V1, V2, ..., or names."""
    names: tuple[str, ...] = ()
    """Names of the columns, in place of the header's."""
    separator: str = ","
    """The character between cells, such as a comma, ';' or tab; or blanks, for any number of spaces and tabs."""
    decimal: str = "."
    """The decimal point: '.' or ','."""
    na: tuple[str, ...] = ()
    """Further cells that mean a missing value, such as '?'. Empty cells, NA, NaN, null and the like always do."""
    encoding: str = ""
    """The encoding, such as utf-8 or cp1252; if not given, it is detected."""
    comment: str = ""
    """The character that begins a comment, such as '#'."""
    quote: Literal['"', "none"] = '"'
    """The character around cells that contain the separator; none reads quotes as text."""

    def __post_init__(self) -> None:
        separator = SEPARATORS.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        for name in ("names", "na"):
            object.__setattr__(self, name, as_names(getattr(self, name)))
        require(
            separator == "blanks" or (len(separator) == 1 and separator not in '"\r\n'),
            f"separator must be one character, tab or blanks, not {separator!r}: write tabs in the file in its place",
        )
        require(self.decimal in (".", ","), f"decimal must be '.' or ',', not {self.decimal!r}")
        require(self.quote in ('"', "none"), f"quote must be '\"' or 'none', not {self.quote!r}")
        one = len(self.comment) <= 1 and self.comment not in (separator, '"', "\n")
        require(one, f"comment must be one character, other than the separator, not {self.comment!r}")
        twice = repeated(self.names)
        require(not twice, f"names has {', '.join(map(repr, twice))} twice: every column needs a name of its own")
        if self.encoding:
            try:
                known = codecs.lookup(self.encoding)._is_text_encoding
            except (LookupError, ValueError):
                known = False
            require(known, f"there is no encoding {self.encoding!r}: name one that Python knows, such as utf-8")

    @property
    def missing(self) -> frozenset[str]:
        """All cells that mean a missing value."""
        return MISSING | set(self.na)


CSV = TableFormat()


def read_rows(
    path: PathLike, format: TableFormat = CSV, missing: bool = True, row_index: bool = False
) -> pandas.DataFrame:
    """Read all rows of a table as texts, NaN for missing values; blank rows at the end are ignored.

    An exported row index (a first column without a name that numbers the rows) is left out. ``attrs["notes"]`` has a
    sentence on that and on bytes that could not be decoded; :func:`row_number` tells where a row is in the file.

    Args:
        path: The file.
        format: How it is written.
        missing: Whether markers such as NA become NaN; otherwise they remain texts, and missing cells are empty texts.
        row_index: Whether to keep an exported row index.

    Raises:
        InputError: The file is missing, empty or broken, a row has more cells than the header, the header has values
            in place of names, or a name occurs twice.
    """
    pieces = list(read_pieces(path, format, missing, size=None))
    table = pieces[0]
    filled = (table.notna() if missing else table != "").any(axis=1).to_numpy().nonzero()[0]
    require(len(filled) > 0, f"{path} has no rows below its header" if format.header else f"{path} has no rows")
    table = table.iloc[: int(filled[-1]) + 1]
    while not row_index and (index := find_row_index(table)):  # a table that was exported twice has two
        table = table.drop(columns=index)
        table.attrs["notes"] += (f"left out of {path}: its first column, which has no name and numbers the rows",)
    return table


def read_pieces(
    path: PathLike, format: TableFormat = CSV, missing: bool = True, size: int | None = 1_000_000
) -> Iterator[pandas.DataFrame]:
    """Read a table as texts, ``size`` rows at a time; None reads it whole. See :func:`read_rows`.

    The index counts the rows below the header from 0. Blank rows count; those at the end remain.
    """
    import pandas  # imported late: it takes a second

    path = Path(path)
    require(path.is_file(), f"there is no file {path}: name a text file with a table")
    with _parser_errors(path, format):
        encoding, note = find_encoding(path, format.encoding)
    errors = "strict" if format.encoding else "replace"
    separator = r"\s+" if format.separator == "blanks" else format.separator
    options: dict[str, Any] = {
        "sep": separator,
        "header": None,
        "dtype": object,  # texts
        "na_filter": False,
        "comment": format.comment or None,
        "skipinitialspace": True,
        "skip_blank_lines": False,  # rows are counted as a spreadsheet does
        "index_col": False,
    }
    if format.quote == "none":
        options["quoting"] = csv.QUOTE_NONE
    with _parser_errors(path, format):
        with open_text(path, encoding, errors, format.comment) as file:
            blank = 0
            while (line := file.readline()) and (not line.strip() or _EXCEL.fullmatch(line.strip())):
                blank += 1
        require(bool(line), f"{path} is empty" if not blank else f"{path} has only blank lines")
        cells = len(line.split()) if format.separator == "blanks" else line.count(separator) + 1
        require(cells <= MAX_COLUMNS, f"{path} has {cells:,} columns, more than the maximum of {MAX_COLUMNS:,}")
        options["skiprows"] = blank
        with open_text(path, encoding, errors, format.comment) as file:
            first = [str(cell).strip() for cell in pandas.read_csv(file, nrows=1, **options).iloc[0]]
    width = len(first)
    first_row = blank + 1 + format.header
    names: list[str] = []
    with (
        _parser_errors(path, format, first),
        open_text(path, encoding, errors, format.comment) as file,
        # one column more takes the empty cells after separators at the ends of rows
        pandas.read_csv(file, names=range(width + 1), chunksize=size, iterator=True, **options) as reader,
    ):
        while True:
            try:
                piece = reader.get_chunk(size) if size else reader.read()
            except StopIteration:
                return
            if not names:
                names = column_names(path, first, piece.iloc[1 : SAMPLE + 1], format)
                if format.header:
                    piece = piece.iloc[1:]
            piece.index -= int(format.header)
            extra = (piece[width] != "").to_numpy()
            if extra.any():
                raise too_many(path, int(piece.index[extra.argmax()]) + first_row, width + 1, first, format)
            del piece[width]
            for place in range(width):
                for row, cell in zip(piece.index, piece[place].tolist(), strict=True):
                    if "\n" in cell and holds_rows(cell, format.separator, place, piece):
                        raise open_quote(path, int(row) + first_row)
            piece.columns = pandas.Index(names, dtype=object)
            # a column without a name and entries is a separator at the ends of rows
            keep = [
                name for name in names if not (_UNNAMED.fullmatch(name) and size is None and (piece[name] == "").all())
            ]
            piece = piece[keep] if 0 < len(keep) < width else piece
            if missing:
                piece = piece.mask(piece.isin(format.missing), np.nan)
            piece.attrs = {"first_row": first_row, "encoding": (encoding, note), "notes": (note,) if note else ()}
            yield piece
            if size is None:
                return


def column_names(path: Path, first: list[str], rows: pandas.DataFrame, format: TableFormat) -> list[str]:
    """Return the columns' names, from the format or from the file's first row."""
    require(
        not format.header or not is_data(first, rows, format),
        f"{path} has values in place of its columns' names ({', '.join(first[:5])}): write a header above its rows, or "
        "read it without one (header=False); if these are names, let one begin with a letter",
    )
    if format.names:
        number = len(format.names)
        require(number == len(first), f"{path} has {len(first)} columns, but names has {number}: name them all")
        return list(format.names)
    if not format.header:
        return [f"V{number + 1}" for number in range(len(first))]
    names = [name or f"Unnamed: {place}" + ".1" * (f"Unnamed: {place}" in first) for place, name in enumerate(first)]
    twice = repeated(names)
    require(not twice, f"{path} has several columns named {', '.join(twice)}: rename them")
    return names


def holds_rows(cell: str, separator: str, place: int, table: pandas.DataFrame) -> bool:
    """Return whether a cell with several lines is the rest of a row, whole rows and a row's beginning."""
    width, lines = table.shape[1], cell.split("\n")
    found = [line.count(separator) for line in lines]
    whole = found[0] == width - 1 - place and found[-1] == place and set(found[1:-1]) <= {width - 1}
    if not whole or width != 2 or separator == "\t":
        return whole and width > 1
    # texts with a comma in each line are usual, but not those with another row's cell beside it
    beside = (
        [line.split(separator)[0] for line in lines[1:]] if place else [line.split(separator)[1] for line in lines[:-1]]
    )
    return {text.strip() for text in beside} <= set(table[1 - place])


def is_data(first: list[str], rows: pandas.DataFrame, format: TableFormat) -> bool:
    """Return whether a file's first row holds values, not names, by comparing it with the rows below it.

    A text above numbers is a name, which decides. Values are numbers above numbers, dates above dates, and a text that
    occurs again in its column; but numbers that increase from column to column, such as years, may also be names.
    """
    if not first[0] and first[1:] == [str(place) for place in range(len(first) - 1)]:
        return False  # pandas exports a table without names so
    if all(is_number(cell, format.decimal) or cell in format.missing for cell in first) and any(first):
        return True
    rows = rows.iloc[: max(20, SAMPLE_CELLS // len(first))]
    numbers, again = [], False
    for place, cell in enumerate(first):
        known = [text for entry in rows[place] if (text := entry.strip()) not in format.missing]
        if not known or cell in format.missing:
            continue
        of_numbers = sum(is_number(entry, format.decimal) for entry in known) > len(known) / 2
        if is_number(cell, format.decimal):
            numbers += [place] if of_numbers else []
        elif of_numbers and any(letter.isalpha() for letter in cell):
            return False
        elif cell[0].isdigit():
            shape = _shape(cell)
            again |= sum(_shape(entry) == shape for entry in known) > len(known) / 2
        else:
            again |= known.count(cell) > 1
    if again or not numbers:
        return again
    values = [number(first[place], format.decimal) or 0.0 for place in numbers]
    if len(values) < 3:  # too few to see an order
        years = all(1500 <= value <= 2200 and value.is_integer() for value in values)
        return not years and values not in ([0, 1], [1, 2])
    others = rows[numbers].map(lambda cell: number(cell, format.decimal)).to_numpy("float64")
    return not all(np.diff(values) > 0) or bool((np.diff(others) > 0).all(1).mean() > 0.1)


def _shape(cell: str) -> str:
    return re.sub(r"\d", "0", cell)


def find_row_index(table: pandas.DataFrame) -> str | None:
    """Return the name of an exported row index: a first column without a name, of distinct whole numbers, as texts."""
    name = str(table.columns[0])
    if table.shape[1] < 2 or not _UNNAMED.fullmatch(name):
        return None
    column = table[name][((table != "") & table.notna()).any(axis=1)]  # without blank rows
    found = column.is_unique and column.notna().all() and column.str.fullmatch(r"0|[1-9]\d*").all()
    return name if found else None


def require_columns(
    path: PathLike, table: pandas.DataFrame, names: Sequence[str], arguments: Sequence[str] = ()
) -> None:
    """Raise InputError if a file's table lacks columns; the message names them, and all that it has.

    It also has the argument that chooses the first of them, if there are ``arguments``, one for each of ``names``.
    """
    found = list(map(str, table.columns))
    missing = [pair for pair in zip_longest(names, arguments) if pair[0] not in found]
    if not missing:
        return
    lacking, argument, advice = ", ".join(repr(name) for name, _ in missing), missing[0][1], ""
    if len(found) == 1:
        advice = f'; name their separator, such as separator="{separator_in(found[0])}"'
    elif argument:
        others = [name for name in found if name not in names] or ["..."]
        advice = f'; choose one, such as {argument}="{argument if argument in others else others[0]}"'
    raise InputError(f"{path} has no column {lacking}: its columns are {', '.join(found)}{advice}")


def separator_in(name: str) -> str:
    """Return the likely separator of the columns of a table that was read as a single column with this name."""
    signs = {"tab": "	", ";": ";", "|": "|", ",": ","}
    return next((separator for separator, sign in signs.items() if sign in name), "blanks")


def row_number(table: pandas.DataFrame, position: int) -> int:
    """Return a row's number in a spreadsheet, where the header is row 1; rows keep their number in a split."""
    label, first = table.index[position], int(table.attrs.get("first_row", 2))
    return int(label if isinstance(label, (int, np.integer)) else position) + first


def notes(table: pandas.DataFrame) -> tuple[str, ...]:
    """Return the notes on a table's file, one sentence each."""
    return tuple(table.attrs.get("notes", ()))


@contextmanager
def _parser_errors(path: Path, format: TableFormat, first: Sequence[str] = ()) -> Iterator[None]:
    """Convert pandas' errors, and those of reading, into an :class:`InputError` that names the file."""
    try:
        with reading(path, format.encoding):
            yield
    except InputError:
        raise
    except ValueError as error:  # errors of pandas are ValueErrors, too
        sentence = " ".join(str(error).split())
        if found := re.search(r"Expected \d+ fields in line (\d+), saw (\d+)", sentence):
            raise too_many(path, int(found[1]), int(found[2]), first, format) from error
        if found := re.search(r"EOF inside string starting at row (\d+)", sentence):
            raise open_quote(path, int(found[1]) + 1) from error
        raise InputError(f"{path} cannot be read as a table ({sentence})") from error


def open_quote(path: Path, row: int) -> InputError:
    """Return the error of a quote that takes the rows below it into its cell."""
    return InputError(
        f"{path} has a quote in row {row:,} that is not closed before the next row: close it, or read quotes as text "
        '(quote="none")'
    )


def too_many(path: Path, row: int, cells: int, first: Sequence[str], format: TableFormat) -> InputError:
    """Return the error of a row with more cells than the header."""
    above = "names in its header" if format.header else "cells in its first row"
    cut = ", ".join(cell[:40] for cell in first[:5])
    return InputError(
        f"{path} has {cells} cells in row {row:,}, more cells than the {len(first)} {above} ({cut}): name every "
        "column, remove what stands above the header, put cells that contain the separator in quotes, or say "
        'how the file is written, such as separator=";", decimal="," or '
        'comment="#"'
    )
