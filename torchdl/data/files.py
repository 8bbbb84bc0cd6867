"""Data sets that are one file each: looked for where all data is, then downloaded and checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torchdl.data.sources import data_roots, download
from torchdl.errors import InputError, require


@dataclass(frozen=True)
class FileSource:
    """Where a file comes from: its place in a data folder, its mirrors, its SHA-256."""

    place: str
    urls: tuple[str, ...]
    sha256: str


_COURSE = "https://raw.githubusercontent.com/lazyprogrammer/machine_learning_examples/master/tf2.0/"
FILES = {
    "moore": FileSource(
        "csv/moore.csv", (f"{_COURSE}moore.csv",), "8a3374886b7b34f87e7f271bff92a0704714f93955e635700fbbd0cd15d77b8a"
    ),
    "sbux": FileSource(
        "csv/sbux.csv", (f"{_COURSE}sbux.csv",), "5c7987ebb395c466b1965b486275179b2774c9b3b9e2272e11b58d111e946d1f"
    ),
}


def find_file(name: str, root: str | os.PathLike[str] | None = None, fetch: bool = True) -> Path:
    """Find a data set's file by name in the data folders (see :mod:`torchdl.data.sources`), or download it.

    Raises:
        InputError: It is nowhere; the sentence says where was looked, and where to put it.
    """
    require(name in FILES, f"unknown file {name!r}: choose one of {', '.join(FILES)}")
    source, roots = FILES[name], data_roots(root)
    found = next((path for r in roots if (path := r / source.place).is_file()), None)
    if found is not None:
        return found
    path, looked = roots[0] / source.place, ", ".join(str(r / source.place) for r in roots)
    require(fetch, f"{name} was not found ({looked}), and downloading was turned off: put it into {path}")
    try:
        download(source.urls, path, source.sha256)
    except InputError as error:
        raise InputError(f"{name} was not found ({looked}), and {error}: put it into {path}") from error
    return path
