"""MovieLens: film ratings from GroupLens, found in a data folder or unpacked from a downloaded zip."""

from __future__ import annotations

import io
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchdl.data.delimited_files import read_rows, require_columns
from torchdl.data.download import downloading, read_url, require_checksum
from torchdl.data.sources import data_roots
from torchdl.errors import InputError, require
from torchdl.files import PathLike, replacing

WANTED = ("movies.csv", "ratings.csv")  # ratings.csv is written last, so where it is, movies.csv is, too


@dataclass(frozen=True)
class Archive:
    """Where a data set comes from, and its MD5, which GroupLens publishes for sets that do not change.

    An MD5 detects damage but not forgery; only https protects against forgery. A set that changes over time has no
    MD5. For it, the zip's own checksums detect damage, and a run's record has the data's fingerprint. ``max_bytes`` is
    the maximum size of the zip and of each unpacked file.
    """

    url: str
    md5: str = ""
    max_bytes: int = 2**30  # ml-20m's ratings take half of it


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
MOVIELENS = {
    "ml-latest-small": Archive(f"{_GROUPLENS}/ml-latest-small.zip", max_bytes=2**26),  # its ratings take 2.4 MB
    "ml-20m": Archive(f"{_GROUPLENS}/ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3"),
}


def find_ratings(dataset: PathLike, root: PathLike | None = None, fetch: bool = True) -> Path:
    """Find or download the ratings of a data set by name, or find those in a given folder or file.

    Args:
        dataset: A name in :data:`MOVIELENS`, a folder with ``ratings.csv``, or a CSV file.
        root: The data folder; see :mod:`torchdl.data.sources` for the other places.
        fetch: Whether to download missing data.

    Returns:
        The path of the CSV file.

    Raises:
        InputError: The ratings were neither found nor downloaded.
    """
    name = str(dataset)
    if name not in MOVIELENS:
        path = Path(dataset) / "ratings.csv" if Path(dataset).is_dir() else Path(dataset)
        choices = f"{', '.join(MOVIELENS)}, a folder with ratings.csv, or a CSV file of ratings"
        require(path.is_file(), f"there is no {path}: choose {choices}")
        return path
    folders = [r / name for r in data_roots(root)]
    found = next((folder for folder in folders if (folder / "ratings.csv").is_file()), None)
    if found is None:
        found = folders[0]
        with downloading(name, folders, f"unpack it into {found}", fetch):
            download_ratings(MOVIELENS[name], found)
    return found / "ratings.csv"


def download_ratings(archive: Archive, folder: Path) -> None:
    """Download a zip and unpack only the files :data:`WANTED`, each completely or not at all."""
    data = read_url(archive.url, archive.max_bytes)
    if archive.md5:
        require_checksum(data, archive.url, archive.md5, "MD5")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            # we choose the names and the folder, so no path from the zip is ever written to
            members = {Path(m.filename).name: m for m in packed.infolist() if m.filename.count("/") == 1}
            for name in WANTED:
                require(name in members, f"{archive.url} contains no {name}")
                size = members[name].file_size
                most = archive.max_bytes
                require(size <= most, f"{archive.url}: {name} has {size:,} bytes, more than {most:,}")
            folder.mkdir(parents=True, exist_ok=True)
            for name in WANTED:
                with replacing(folder / name) as new, packed.open(members[name]) as source, new.open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{archive.url} is not a zip that can be unpacked ({error})") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): name another data root") from error


def read_titles(ratings: Path, items: np.ndarray) -> list[str]:
    """Return items' titles from the ``movies.csv`` beside a file of ratings; if it is missing, return their ids."""
    path = ratings.parent / "movies.csv"
    if not path.is_file():
        return [str(item) for item in items]
    table = read_rows(path, missing=False)
    require_columns(path, table, ("movieId", "title"))
    ids = [cell.strip() for cell in table["movieId"]]  # texts, as those of the ratings: 07 is not 7
    names = dict(zip(ids, table["title"], strict=True))
    return [names.get(str(item)) or str(item) for item in items]
