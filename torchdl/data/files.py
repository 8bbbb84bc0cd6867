"""Data sets that are one file each: looked for, downloaded and checked; and how CSV files are read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchdl.data.sources import data_roots, download
from torchdl.errors import InputError, require

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class FileSource:
    """Where a file comes from: its place in a data folder, its mirrors, its SHA-256."""

    place: str
    urls: tuple[str, ...]
    sha256: str


class NotFound(InputError):
    """A file is nowhere, and could not be downloaded."""


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
    """Find a data set's file by name in the data folders (see :mod:`torchdl.data.sources`), or download it.

    Raises:
        NotFound: It is nowhere; the sentence says where was looked, and where to put it.
    """
    require(name in FILES, f"unknown file {name!r}: choose one of {', '.join(FILES)}")
    source, roots = FILES[name], data_roots(root)
    found = next((path for r in roots if (path := r / source.place).is_file()), None)
    if found is not None:
        return found
    path, looked = roots[0] / source.place, ", ".join(str(r / source.place) for r in roots)
    if not fetch:
        raise NotFound(f"{name} was not found ({looked}), and downloading was turned off: put it into {path}")
    try:
        download(source.urls, path, source.sha256)
    except InputError as error:
        raise NotFound(f"{name} was not found ({looked}), and {error}: put it into {path}") from error
    return path


@contextmanager
def explained(path: Path, kind: str = "that can be read") -> Iterator[None]:
    """Turn what pandas raises of a file that it cannot read into "no CSV file" of a kind, :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except ValueError as error:  # pandas' own errors, and those of decoding, are ValueErrors, too
        raise InputError(f"{path} is no CSV file {kind} ({' '.join(str(error).split())})") from error


def read_csv(path: str | os.PathLike[str], texts: Collection[str] = ()) -> pandas.DataFrame:
    """Read a CSV file with a header, its columns' names without spaces around them; InputError where there is none.

    The columns ``texts`` are read as they stand, even where every entry looks like a number. Blank lines at the end
    are none of the rows.
    """
    import pandas  # imported late: it takes a second

    path = Path(path)
    require(path.is_file(), f"there is no file {path}: name a CSV file with a header")
    with explained(path):
        try:
            header = pandas.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True, na_filter=False)
            kinds = {name: str for name in header.iloc[0] if str(name).strip() in texts}
            table = pandas.read_csv(path, skipinitialspace=True, skip_blank_lines=False, dtype=kinds)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no CSV file that can be read ({error}): save it as UTF-8") from error
    check_columns(path, header, table)
    table.columns = [str(name).strip() for name in table.columns]
    filled = table.notna().any(axis=1).to_numpy().nonzero()[0]
    table = table.iloc[: int(filled[-1]) + 1 if len(filled) else 0]
    require(len(table) > 0, f"{path} holds no rows below its header")
    return table


def check_columns(path: Path, header: pandas.DataFrame, table: pandas.DataFrame) -> None:
    """Raise InputError where a table read by pandas has more cells in a row than names, or a name twice."""
    import pandas

    # of a cell too many in the first row pandas makes the rows' names, and moves all others one column on
    require(
        isinstance(table.index, pandas.RangeIndex),
        f"{path} has rows of more cells than its header of {len(table.columns)} has names: name every column, and put "
        "what holds a comma between quotes",
    )
    names = [name for cell in header.iloc[0] if (name := str(cell).strip())]
    double = sorted({name for name in names if names.count(name) > 1})  # pandas renames them
    require(not double, f"{path} has several columns named {', '.join(double)}: rename them")
