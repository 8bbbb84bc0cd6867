"""Rows of text files: how such a file is written, and its cells as texts, numbers or missing values.

Every reader of tables, series, texts and ratings reads its rows here. A cell is a text first, so that what it means
never depends on other rows of its file.
"""

from __future__ import annotations

import codecs
import gzip
import io
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from torchdl.errors import InputError, require

if TYPE_CHECKING:
    import pandas

#: Cells that mean a missing value: pandas' markers.
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"}
    | {"NULL", "NaN", "None", "n/a", "nan", "null"}
)
SEPARATORS = {"tab": "\t", "\\t": "\t", " ": "blanks"}
PACKED = {
    b"PK": "a zip archive or a spreadsheet",
    b"BZh": "compressed (bzip2)",
    b"\xfd7zX": "compressed (xz)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
}
SAMPLE, SAMPLE_CELLS = 1000, 100_000  # rows that tell a header from values, and their cells
PIECE = 2**24  # bytes decoded at a time to find the encoding
MAX_LINE, MAX_UNPACKED = 2**28, 2**32  # bytes
MAX_COLUMNS = 100_000
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


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
        >>> torchdl.data.tables.read_rows(path, written)
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

    def __post_init__(self) -> None:
        separator = SEPARATORS.get(self.separator, self.separator)
        object.__setattr__(self, "separator", separator)
        for name in ("names", "na"):  # a single text is one name, not its letters
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        require(
            separator == "blanks" or (len(separator) == 1 and separator not in '"\r\n'),
            f"separator must be one character, tab or blanks, not {separator!r}",
        )
        require(self.decimal in (".", ","), f"decimal must be '.' or ',', not {self.decimal!r}")
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
    path: str | os.PathLike[str], format: TableFormat = CSV, missing: bool = True, row_index: bool = False
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
    index = None if row_index else find_row_index(table)
    if index is not None:
        table = table.drop(columns=index)
        table.attrs["notes"] += (f"left out of {path}: its first column, which has no name and numbers the rows",)
    return table


def read_pieces(
    path: str | os.PathLike[str], format: TableFormat = CSV, missing: bool = True, size: int | None = 1_000_000
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
    with _parser_errors(path, format):
        with open_text(path, encoding, errors, format.comment) as file:
            blank = 0
            while (line := file.readline()) and not line.strip():
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
        _parser_errors(path, format, width),
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
                raise too_many(path, int(piece.index[extra.argmax()]) + first_row, width + 1, width, format)
            del piece[width]
            piece.columns = pandas.Index(names, dtype=object)
            # a column without a name and entries is a separator at the ends of rows
            keep = [
                name for name in names if not (_UNNAMED.fullmatch(name) and size is None and (piece[name] == "").all())
            ]
            piece = piece[keep] if 0 < len(keep) < width else piece
            if missing:
                piece = piece.mask(piece.isin(format.missing), np.nan)
            piece.attrs = {"first_row": first_row, "notes": (note,) if note else ()}
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
    names = [name or f"Unnamed: {place}" for place, name in enumerate(first)]
    twice = repeated(names)
    require(not twice, f"{path} has several columns named {', '.join(twice)}: rename them")
    return names


def is_data(first: list[str], rows: pandas.DataFrame, format: TableFormat) -> bool:
    """Return whether a file's first row holds values, not names, by comparing it with the rows below it.

    A text above numbers is a name, and settles it. Values are numbers above numbers, dates above dates, and a text that
    occurs again in its column; but numbers that increase from column to column, such as years, may also be names.
    """
    if not first[0] and first[1:] == [str(place) for place in range(len(first) - 1)]:
        return False  # pandas exports a table without names so
    if all(is_number(cell, format) or cell in format.missing for cell in first) and any(first):
        return True
    rows = rows.iloc[: max(20, SAMPLE_CELLS // len(first))]
    numbers, again = [], False
    for place, cell in enumerate(first):
        known = [text for entry in rows[place] if (text := entry.strip()) not in format.missing]
        if not known or cell in format.missing:
            continue
        of_numbers = sum(is_number(entry, format) for entry in known) > len(known) / 2
        if is_number(cell, format):
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


def require_columns(path: str | os.PathLike[str], table: pandas.DataFrame, names: Sequence[str]) -> None:
    """Raise InputError if a file's table lacks a column; the message has all its columns."""
    found = list(table.columns)
    advice = "" if len(found) > 1 else '; if it has more, say what separates them, such as separator=";"'
    for name in names:
        require(name in found, f"{path} has no column {name!r}: its columns are {', '.join(found)}{advice}")


def row_number(table: pandas.DataFrame, position: int) -> int:
    """Return a row's number in a spreadsheet, where the header is row 1; rows keep their number in a split."""
    label, first = table.index[position], int(table.attrs.get("first_row", 2))
    return int(label if isinstance(label, (int, np.integer)) else position) + first


def notes(table: pandas.DataFrame) -> tuple[str, ...]:
    """Return what a reader said of a table's file, a sentence each."""
    return tuple(table.attrs.get("notes", ()))


# numbers


def is_number(cell: str, format: TableFormat = CSV) -> bool:
    """Return whether a cell is a number; 007 is a code."""
    return number(cell, format.decimal) is not None


_PLAIN = re.compile(r"[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|Inf|INF|infinity|Infinity)")
_ZEROS = re.compile(r"^([-+]?)0+(?=\d)")
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")


def number(cell: str, decimal: str = ".", codes: bool = False) -> float | None:
    """Return the number that a cell means, or None: ``1e3``, ``1,013`` (thousands) and ``23%`` (0.23) are numbers.

    A code with leading zeros, such as ``007``, is none, unless ``codes``. If ``decimal`` is a comma, the point marks
    thousands.
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
    """Return whether most cells are numbers, some of them in a notation that :func:`number` does not know.

    Such as ``$5``, ``1 013`` or ``(1,50)``; letters after numbers are a unit if they are the same everywhere and the
    numbers differ, as in ``5 kg``.
    """
    found = [match for cell in cells if (match := _LIKE.fullmatch(cell.strip()))]
    units = {match["unit"] for match in found}
    if any(unit[:1].isalpha() for unit in units) and (len(units) > 1 or len(set(cells)) <= 10):
        return False
    return len(found) > len(cells) / 2


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


# bytes


def find_encoding(path: str | os.PathLike[str], encoding: str = "") -> tuple[str, str]:
    """Return a text file's encoding, and a note if it cannot be decoded without loss; read it with errors="replace".

    A byte-order mark decides. A file that is UTF-8, but for fewer bytes than it has other characters beyond ASCII, is
    UTF-8. Any other file is cp1252.

    Args:
        path: The file.
        encoding: The encoding, if it is known.

    Raises:
        InputError: The file has zero bytes, as UTF-16 without its mark and files that are not text have.
    """
    if encoding:
        return encoding, ""
    bad = good = lines = size = 0
    first, rest = "", b""
    with open_bytes(path) as file:
        head = file.read(4)
        for mark, kind in PACKED.items():
            require(not head.startswith(mark), f"{path} is {kind}, no text file: unpack it, or save the table as CSV")
        for mark, name in (
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if head.startswith(mark):
                return name, ""
        file.seek(0)
        while True:
            piece = file.read(PIECE)
            data, size = rest + piece, size + len(piece)
            limit = MAX_UNPACKED if isinstance(file, gzip.GzipFile) else math.inf
            require(size <= limit, f"{path} has more than {MAX_UNPACKED:,} bytes unpacked: unpack it, if you trust it")
            require(len(rest) <= MAX_LINE, f"{path} has a line of more than {MAX_LINE:,} bytes: it is no table")
            end = data.rfind(b"\n") + 1 if piece else len(data)  # no character goes over the end of a line
            data, rest = data[:end], data[end:]
            require(
                b"\0" not in data,
                f'{path} has zero bytes: it is no text file, or UTF-16 without its mark (encoding="utf-16-le")',
            )
            if not data.isascii():
                text = data.decode("utf-8", "replace")
                wrong = text.count("\ufffd") - data.count("\ufffd".encode())
                good += len(text) - len(text.encode("ascii", "ignore")) - wrong
                if wrong and not first:
                    first = _first_bad_byte(data, lines)
                bad += wrong
            lines += data.count(b"\n")
            if not piece:
                break
    if not bad:
        return "utf-8-sig", ""
    if good > bad:
        others = (
            f"{bad:,} bytes, which are read as \ufffd; the first is" if bad > 1 else "a byte, which is read as \ufffd:"
        )
        return "utf-8-sig", f"{path} is UTF-8 but for {others} {first}"
    return "cp1252", f"{path} is read as cp1252, since it is not UTF-8: it has {first}"


def _first_bad_byte(data: bytes, lines: int) -> str:
    """Say which byte is not UTF-8, and where, if ``lines`` lines come before the data."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + lines + 1
        place = error.start - data.rfind(b"\n", 0, error.start)
        return f"0x{data[error.start]:02x}, byte {place} of line {line:,}"
    return ""


def open_bytes(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, gzipped or not."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else open(path, "rb")


@contextmanager
def open_text(path: Path, encoding: str, errors: str, comment: str = "") -> Iterator[io.TextIOBase]:
    """Open a file as text, gzipped or not; lines that are comments become blank, so that they are counted as rows."""
    with io.TextIOWrapper(open_bytes(path), encoding, errors, newline="") as file:
        if not comment:
            yield file
            return
        # a quoted cell may have such lines, too
        lines = re.compile(rf'"[^"]*"|^[ \t]*{re.escape(comment)}[^\r\n]*', re.MULTILINE)
        yield io.StringIO(lines.sub(lambda found: found[0] if found[0][0] == '"' else "", file.read()), newline="")


@contextmanager
def _parser_errors(path: Path, format: TableFormat, width: int = 0) -> Iterator[None]:
    """Convert pandas' errors, and those of decoding, into an :class:`InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except UnicodeDecodeError as error:
        byte, name = error.object[error.start], format.encoding
        raise InputError(
            f"{path} is not {name}: it has the byte 0x{byte:02x}, which {name} does not ({error.reason}): name another "
            "encoding, or none to detect it"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: it cannot be unpacked ({error})") from error
    except ValueError as error:  # errors of pandas are ValueErrors, too
        sentence = " ".join(str(error).split())
        if found := re.search(r"Expected \d+ fields in line (\d+), saw (\d+)", sentence):
            raise too_many(path, int(found[1]), int(found[2]), width, format) from error
        raise InputError(f"{path} cannot be read as a table ({sentence})") from error


def too_many(path: Path, row: int, cells: int, width: int, format: TableFormat) -> InputError:
    """Return the error of a row with more cells than the header."""
    above = "names in its header" if format.header else "cells in its first row"
    return InputError(
        f"{path} has {cells} cells in row {row:,}, more cells than the {width} {above}: name every column, put cells "
        'that contain the separator in quotes, or say how the file is written, such as separator=";", decimal="," or '
        'comment="#"'
    )
