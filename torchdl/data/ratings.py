"""Ratings of items by users: read with little memory, split, and numbered by what training has seen.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import ArrayDataset
from torchdl.errors import InputError, require

COLUMNS = ("userId", "movieId", "rating", "timestamp")  # MovieLens' own names


@dataclass(frozen=True)
class Ratings:
    """Ratings as columns (N,): the users' and the items' own ids, the ratings, and when they were given, if known."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray | None
    origin: str
    stand_in: bool = False

    def __len__(self) -> int:
        return len(self.rating)


def read_ratings(
    path: str | os.PathLike[str],
    user: str = COLUMNS[0],
    item: str = COLUMNS[1],
    rating: str = COLUMNS[2],
    time: str = COLUMNS[3],
) -> Ratings:
    """Read a CSV file with a header and a rating a row, as typed columns: 20 bytes a rating with whole ids.

    Args:
        path: The file, or a folder that holds ``ratings.csv``.
        user: The column of the users' ids, whole numbers or names.
        item: The column of the items' ids.
        rating: The column of the ratings.
        time: The column of seconds, or of whatever grows with time; it need not be there.

    Raises:
        InputError: A file or column is not there, or a row is broken; the sentence names it.
    """
    import pandas  # imported late: it takes a second

    path = Path(path)
    path = path / "ratings.csv" if path.is_dir() else path
    require(path.is_file(), f"there is no file {path}: name a CSV file of ratings, or a folder with ratings.csv")
    try:
        header = list(pandas.read_csv(path, nrows=0).columns)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no CSV file that can be read ({' '.join(str(error).split())})") from error
    for name in (user, item, rating):
        require(name in header, f"{path} has no column {name!r}: its columns are {', '.join(header)}")
    wanted = [user, item, rating, *([time] if time in header else [])]
    numbers = {user: "int32", item: "int32", rating: "float32", time: "int64"}
    try:
        table = pandas.read_csv(path, usecols=wanted, dtype={name: numbers[name] for name in wanted})
    except (ValueError, UnicodeDecodeError, OverflowError):
        table = checked(
            path, pandas.read_csv(path, usecols=wanted, dtype=str, keep_default_na=False), wanted, rating, time
        )
    require(len(table) > 0, f"{path} holds no ratings below its header")
    wrong = ~np.isfinite(table[rating].to_numpy())
    require(not wrong.any(), f"{path} has no finite rating in row {int(wrong.argmax()) + 2}: remove or mend the row")
    times = table[time].to_numpy() if time in header else None
    origin = f"{len(table):,} ratings from {path}"
    return Ratings(table[user].to_numpy(), table[item].to_numpy(), table[rating].to_numpy(), times, origin)


def checked(path: Path, table: Any, wanted: list[str], rating: str, time: str) -> Any:
    """Convert a table of texts whose types are not the usual ones; InputError naming the first broken row."""
    import pandas

    for name in wanted:
        column = table[name].str.strip()
        if name in (rating, time):
            number = pandas.to_numeric(column, errors="coerce")
            wrong = number.isna().to_numpy()
        else:
            number, wrong = column, (column == "").to_numpy()
            as_number = pandas.to_numeric(column, errors="coerce")
            number = as_number.astype("int64") if as_number.notna().all() and (as_number % 1 == 0).all() else column
        if wrong.any():
            row = int(wrong.argmax())
            found = repr(str(table[name].iloc[row])) if table[name].iloc[row] else "nothing"
            raise InputError(
                f"{path} is broken in row {row + 2}: {found} as {name!r}, and so in {int(wrong.sum()) - 1:,} more "
                "rows: remove or mend them"
            )
        table[name] = number.astype("float32") if name == rating else number
    return table


@dataclass(frozen=True)
class RatingSplit:
    """Training and held-out ratings as pairs (N, 2) of a user's and an item's number, 0 for whom training has not seen.

    ``users`` and ``items`` are the ids, sorted; the number of ``users[k]`` is k + 1.
    """

    train: ArrayDataset
    test: ArrayDataset
    users: np.ndarray
    items: np.ndarray

    @property
    def mean(self) -> float:
        """The training ratings' mean."""
        return float(self.train.targets.double().mean())


def number(ids: np.ndarray, known: np.ndarray) -> Tensor:
    """Give the numbers (N,) int64 of ids: the place among ``known``, sorted, from 1 on, and 0 for others."""
    place = np.searchsorted(known, ids)
    found = known[np.minimum(place, len(known) - 1)] == ids
    return torch.from_numpy(np.where(found, place + 1, 0).astype(np.int64))


def split_ratings(ratings: Ratings, share: float = 0.2, by_time: bool = False, seed: int = 0) -> RatingSplit:
    """Hold out a share of the ratings, drawn at random or the latest ones, and number users and items by the others.

    Args:
        ratings: The ratings.
        share: What is held out, in (0, 1).
        by_time: Hold out the latest ones, which is what a recommender meets.
        seed: What the ratings are drawn by.
    """
    require(0 < share < 1, f"the held-out share must be in (0, 1), not {share}")
    count = len(ratings)
    held_out = round(count * share)
    require(0 < held_out < count, f"{count} ratings cannot be split: get more")
    if by_time:
        if ratings.time is None:
            raise InputError("these ratings do not say when they were given: split at random")
        order = np.argsort(ratings.time, kind="stable")
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    train, test = order[: count - held_out], order[count - held_out :]
    users, items = np.unique(ratings.user[train]), np.unique(ratings.item[train])

    def part(rows: np.ndarray) -> ArrayDataset:
        pairs = torch.stack([number(ratings.user[rows], users), number(ratings.item[rows], items)], 1)  # (N, 2)
        return ArrayDataset(pairs, torch.from_numpy(ratings.rating[rows]), ratings.origin, ratings.stand_in)

    return RatingSplit(part(train), part(test), users, items)
