"""Data sets of one file each, and the reading of CSV files."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchdl.data.download import download, downloading
from torchdl.data.sources import data_roots
from torchdl.errors import InputError, require

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class FileSource:
    """Where a file comes from: its path within a data folder, its mirrors, its SHA-256."""

    place: str
    urls: tuple[str, ...]
    sha256: str


_COURSE = "https://raw.githubusercontent.com/lazyprogrammer/machine_learning_examples/master/tf2.0/"
FILES = {
    "moore": FileSource(
        "csv/moore.csv", (f"{_COURSE}moore.csv",), "8a3374886b7b34f87e7f271bff92a0704714f93955e635700fbbd0cd15d77b8a"
    ),
    "spam": FileSource(
        "csv/spam.csv",
        ("https://lazyprogrammer.me/course_files/spam.csv",),
        "440e6ea9fa825578abfdd7b7932ef8393d72ef86c0c33f64676705ce40b1dfc2",
    ),
    "sbux": FileSource(
        "csv/sbux.csv", (f"{_COURSE}sbux.csv",), "5c7987ebb395c466b1965b486275179b2774c9b3b9e2272e11b58d111e946d1f"
    ),
}


def find_file(name: str, root: str | os.PathLike[str] | None = None, fetch: bool = True) -> Path:
    """Find a data set's file by name in the data folders (see :mod:`torchdl.data.sources`), or download the file.

    Raises:
        NotFound: It was neither found nor downloaded; the message says where to put it.
    """
    require(name in FILES, f"unknown file {name!r}: choose one of {', '.join(FILES)}")
    source = FILES[name]
    places = [r / source.place for r in data_roots(root)]
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        found = places[0]
        with downloading(name, places, f"put it at {found}", fetch):
            download(source.urls, found, source.sha256)
    return found


@contextmanager
def csv_errors(path: Path, how: str = "") -> Iterator[None]:
    """Convert pandas' errors about a CSV file into an :class:`InputError` that names the file."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:  # errors of pandas and of decoding are ValueErrors, too
        raise InputError(f"{path} cannot be read as CSV{how} ({' '.join(str(error).split())})") from error


def read_csv(path: str | os.PathLike[str], text_columns: Collection[str] = ()) -> pandas.DataFrame:
    """Read a CSV file with a header; strip spaces around the columns' names, and ignore blank lines at the end.

    ``text_columns`` are read as text, even where every entry looks like a number.

    Raises:
        InputError: The file is missing, broken or empty.
    """
    import pandas  # imported late: it takes a second

    path = Path(path)
    require(path.is_file(), f"there is no file {path}: name a CSV file with a header")
    with csv_errors(path):
        try:
            header = pandas.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True, na_filter=False)
            types = {name: str for name in header.iloc[0] if str(name).strip() in text_columns}
            table = pandas.read_csv(path, skipinitialspace=True, skip_blank_lines=False, dtype=types)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} cannot be read as CSV ({error}): save it as UTF-8") from error
    check_columns(path, header, table)
    table.columns = [str(name).strip() for name in table.columns]
    filled = table.notna().any(axis=1).to_numpy().nonzero()[0]
    table = table.iloc[: int(filled[-1]) + 1 if len(filled) else 0]
    require(len(table) > 0, f"{path} has no rows below its header")
    return table


def check_columns(path: Path, header: pandas.DataFrame, table: pandas.DataFrame) -> None:
    """Raise InputError if rows read by pandas have more cells than the header has names, or a name occurs twice."""
    import pandas

    # if the first row has too many cells, pandas takes the first column as the rows' names and shifts the others
    require(
        isinstance(table.index, pandas.RangeIndex),
        f"{path} has rows with more cells than the {len(table.columns)} names in its header: name every column, and "
        "put cells that contain a comma in quotes",
    )
    names = [name for cell in header.iloc[0] if (name := str(cell).strip())]
    twice = sorted({name for name in names if names.count(name) > 1})  # pandas would rename them
    require(not twice, f"{path} has several columns named {', '.join(twice)}: rename them")
