"""GroupLens' films and their ratings: found in a data folder, or downloaded as a zip of which two files are taken."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchdl.data.files import explained
from torchdl.data.sources import TIMEOUT, data_roots
from torchdl.errors import InputError, require
from torchdl.files import replacing

WANTED = ("movies.csv", "ratings.csv")  # the latter last: where it is, both are
LARGEST = 4 * 2**30  # bytes of a file in the zip; those of ml-20m's ratings are 0.5 GiB


@dataclass(frozen=True)
class Archive:
    """Where a data set comes from, and the MD5 that GroupLens publishes of it, where it does not change.

    An MD5 finds what was damaged on the way, not what was forged: against that there is https alone. Of a set that
    changes over time nothing can be known before; there the zip's own checksums find damage, and a run's record says by
    the data's fingerprint which ratings it had.
    """

    url: str
    md5: str = ""


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS = {
    "ml-latest-small": Archive(f"{_GROUPLENS}/ml-latest-small.zip"),
    "ml-20m": Archive(f"{_GROUPLENS}/ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3"),
}


def find_ratings(
    dataset: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, fetch: bool = True
) -> Path:
    """Find a set of :data:`MOVIELENS` by name, or the path of one's own ratings.

    Args:
        dataset: A name, a folder with ``ratings.csv``, or a CSV file.
        root: The data folder; see :mod:`torchdl.data.sources` for where else is looked.
        fetch: Whether to download what is not on this machine.

    Returns:
        The file of ratings.

    Raises:
        InputError: It is nowhere; the sentence says where was looked.
    """
    name = str(dataset)
    if name not in MOVIELENS:
        path = Path(dataset) / "ratings.csv" if Path(dataset).is_dir() else Path(dataset)
        require(
            path.is_file(),
            f"there is no {path}: choose {', '.join(MOVIELENS)}, a folder with ratings.csv, or a CSV file of ratings",
        )
        return path
    roots = data_roots(root)
    found = next((path for r in roots if (path := r / name / "ratings.csv").is_file()), None)
    if found is None:
        looked = ", ".join(str(r / name) for r in roots)
        place = roots[0] / name
        require(fetch, f"{name} was not found ({looked}), and downloading was turned off: unpack it into {place}")
        try:
            unpack_from(MOVIELENS[name], place)
        except InputError as error:
            raise InputError(f"{name} was not found ({looked}), and {error}: unpack it into {place}") from error
        found = place / "ratings.csv"
    return found


def unpack_from(archive: Archive, folder: Path) -> None:
    """Download a zip and take the files :data:`WANTED` out of it, and nothing else, each whole or not at all."""
    with tempfile.TemporaryFile() as file:
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as response:
                while part := response.read(2**20):
                    digest.update(part)
                    file.write(part)
                # read() with a size does not say that the connection broke
                require(not response.length, f"{archive.url} ended before its end")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise InputError(f"{archive.url} could not be downloaded ({reason})") from error
        found = digest.hexdigest()
        require(archive.md5 in ("", found), f"{archive.url} has the MD5 {found} where {archive.md5} was expected")
        try:
            with zipfile.ZipFile(file) as packed:
                # the names are ours, the folder above them is the zip's own: no path of it is ever written to
                members = {Path(m.filename).name: m for m in packed.infolist() if m.filename.count("/") == 1}
                for name in WANTED:
                    require(name in members, f"{archive.url} holds no {name}")
                    require(members[name].file_size <= LARGEST, f"{name} in {archive.url} is too large to be right")
                folder.mkdir(parents=True, exist_ok=True)
                for name in WANTED:
                    with (
                        replacing(folder / name) as temporary,
                        packed.open(members[name]) as source,
                        temporary.open("wb") as target,
                    ):
                        shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{archive.url} gave no zip that can be unpacked ({error})") from error
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}): name another data root") from error


def read_titles(ratings: Path, items: np.ndarray) -> list[str]:
    """Give the titles of items by the ``movies.csv`` beside a file of ratings; where there is none, their ids."""
    path = ratings.parent / "movies.csv"
    if not path.is_file():
        return [str(item) for item in items]
    import pandas  # imported late: it takes a second

    with explained(path):
        table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    require({"movieId", "title"} <= set(table.columns), f"{path} must have the columns movieId and title")
    names = dict(zip(table["movieId"], table["title"], strict=True))
    return [names.get(str(item), str(item)) for item in items]
