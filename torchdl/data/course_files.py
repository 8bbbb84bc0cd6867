"""Data sets of one file each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchdl.data.download import download, downloading
from torchdl.data.sources import data_roots
from torchdl.errors import require
from torchdl.files import PathLike


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


def find_file(name: str, root: PathLike | None = None, fetch: bool = True) -> Path:
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
