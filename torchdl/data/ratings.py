"""Ratings of items by users: read with little memory, split, and indexed by the training part's users and items.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchdl.data.arrays import ArrayDataset
from torchdl.data.files import csv_errors
from torchdl.errors import InputError, require

if TYPE_CHECKING:
    import pandas

COLUMNS = ("userId", "movieId", "rating", "timestamp")  # MovieLens' names
PIECE = 1_000_000  # rows read at a time


@dataclass(frozen=True)
class Ratings:
    """Ratings as columns (N,): the ids of users and items, the ratings, and their times if known.

    Example:
        >>> import numpy as np
        >>> user, item, rating = np.array([5, 5, 9]), np.array(["Up", "Jaws", "Up"]), np.float32([4, 2.5, 3])
        >>> ratings = torchdl.Ratings(user, item, rating, time=None, origin="made-up")
        >>> len(ratings), ratings.rating[ratings.item == "Up"]
        (3, array([4., 3.], dtype=float32))
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    time: np.ndarray | None
    origin: str
    fallback: bool = False

    def __post_init__(self) -> None:
        lengths = [len(part) for part in (self.user, self.item, self.rating, self.time) if part is not None]
        require(len(set(lengths)) == 1, f"user, item, rating and time must have the same length, not {lengths}")

    def __len__(self) -> int:
        return len(self.rating)


def read_ratings(
    path: str | os.PathLike[str],
    user: str = COLUMNS[0],
    item: str = COLUMNS[1],
    rating: str = COLUMNS[2],
    time: str = COLUMNS[3],
) -> Ratings:
    """Read a CSV file with a header and one rating per row into typed columns: 20 bytes per rating.

    The file is read in pieces, so its other columns take no memory. Ids that are not integers below 2**31 become 64-bit
    integers or text, which take more memory.

    Args:
        path: The file, or a folder with ``ratings.csv``.
        user: The column of the users' ids, integers or names.
        item: The column of the items' ids.
        rating: The column of the ratings.
        time: The column of seconds, or of any number that increases with time; it may be missing.

    Raises:
        InputError: A file or column is missing, or a row is broken; the message names it.

    Example:
        >>> import os, pandas, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "ratings.csv")
        >>> pandas.DataFrame({"userId": [5, 9], "movieId": [31, 31], "rating": [2.5, 4.0]}).to_csv(path, index=False)
        >>> ratings = torchdl.read_ratings(path)
        >>> ratings.user, ratings.rating, ratings.time
        (array([5, 9], dtype=int32), array([2.5, 4. ], dtype=float32), None)
    """
    import pandas  # imported late: it takes a second

    path = Path(path)
    path = path / "ratings.csv" if path.is_dir() else path
    require(path.is_file(), f"there is no file {path}: name a CSV file of ratings, or a folder with ratings.csv")
    with csv_errors(path):
        first = pandas.read_csv(path, header=None, nrows=1, dtype=str, na_filter=False)
    header = [str(name) for name in first.iloc[0]]
    wanted = [user, item, rating, *([time] if time in header else [])]
    for name in wanted:
        count = header.count(name)
        require(count == 1, f"{path} has {count} columns {name!r}: it has {', '.join(header)}")
    require(len(set(wanted)) == len(wanted), f"user, item, rating and time must be different columns, not {wanted}")
    types = dict(zip(wanted, ("int64", "int64", "float32", "int64"), strict=False))
    try:
        with np.errstate(over="ignore"):  # a number that is too large becomes infinite and is found below
            columns = join(path, wanted, (narrow(chunk[wanted], [user, item]) for chunk in pieces(path, types)))
    except (ValueError, OverflowError):  # names, larger integers, or a broken row
        texts = (checked(path, chunk[wanted], rating, time) for chunk in pieces(path, str))
        columns = join(path, wanted, texts)
        for name in (user, item):
            columns[name] = as_ids(columns[name])
    require(len(columns[rating]) > 0, f"{path} has no ratings below its header")
    wrong = ~np.isfinite(columns[rating])
    row = int(np.argmax(wrong)) + 1
    require(
        not wrong.any(),
        f"{path} has no finite rating in the {ordinal(row)} row (not counting blank ones) below its header: correct it",
    )
    origin = f"{len(wrong):,} ratings from {path}"
    return Ratings(columns[user], columns[item], columns[rating], columns.get(time), origin)


def pieces(path: Path, types: dict[str, str] | type[str]) -> Iterator[pandas.DataFrame]:
    """Read a CSV file as tables of at most :data:`PIECE` rows."""
    import pandas

    texts = {"keep_default_na": False, "na_filter": False} if types is str else {}
    with pandas.read_csv(path, dtype=types, chunksize=PIECE, **texts) as reader:
        for piece in reader:
            # if a row has too many cells, pandas takes the first column as the rows' names and shifts the others
            require(
                isinstance(piece.index, pandas.RangeIndex),
                f"{path} has more cells in the first row below its header than in the header: correct that row",
            )
            yield piece


def join(path: Path, names: list[str], tables: Iterator[pandas.DataFrame]) -> dict[str, np.ndarray]:
    """Join tables to one array per column; a column's pieces are released once they are joined."""
    import pandas

    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    try:
        for table in tables:
            for name in names:
                parts[name].append(table[name].to_numpy())
    except (pandas.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is broken ({' '.join(str(error).split())}): correct that row") from error
    return {name: np.concatenate(parts.pop(name)) for name in names}  # even an empty file has a piece


def narrow(table: pandas.DataFrame, names: list[str]) -> pandas.DataFrame:
    """Convert columns from int64 to int32; OverflowError if a number does not fit (pandas 2 would wrap it)."""
    narrowed = table.astype(dict.fromkeys(names, "int32"))
    if not (narrowed[names] == table[names]).to_numpy().all():
        raise OverflowError
    return narrowed


def checked(path: Path, table: pandas.DataFrame, rating: str, time: str) -> pandas.DataFrame:
    """Convert a table of text: ratings and times to floats; InputError names the first broken row."""
    import pandas

    made = {}
    for name in table.columns:
        column = table[name].str.strip()
        if name in (rating, time):
            number = pandas.to_numeric(column, errors="coerce")
            made[name], wrong = number.astype("float32" if name == rating else "float64"), number.isna().to_numpy()
        else:
            made[name], wrong = column, (column == "").to_numpy()
        if wrong.any():
            place = int(wrong.argmax())
            row, found = int(table.index[place]) + 1, str(table[name].iloc[place])
            sentence = f"{path} is broken in the {ordinal(row)} row (not counting blank ones) below its header"
            raise InputError(f"{sentence}: {repr(found) if found else 'nothing'} as {name!r}; remove or correct it")
    return pandas.DataFrame(made)


def as_ids(texts: np.ndarray) -> np.ndarray:
    """Convert ids (N,) to int64 if all are integers in the usual notation; otherwise keep them as text."""
    column = texts.astype(str)
    try:
        integers = column.astype(np.int64)
    except (ValueError, OverflowError):
        return column
    return integers if (integers.astype(column.dtype) == column).all() else column  # 007 stays text


def ordinal(number: int) -> str:
    """Write 1 as 1st, 2 as 2nd, and so on."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


@dataclass(frozen=True)
class RatingSplit:
    """Training and test ratings, with pairs (N, 2) of a user's and an item's index; 0 means not in the training part.

    ``users`` and ``items`` are the sorted ids; the index of ``users[k]`` is k + 1.

    Example:
        >>> import numpy as np
        >>> user, item, rating = np.array([5, 5, 9, 7]), np.array([1, 2, 2, 1]), np.float32([4, 2, 3, 5])
        >>> ratings = torchdl.Ratings(user, item, rating, time=np.arange(4), origin="made-up")
        >>> split = torchdl.split_ratings(ratings, share=0.25, by_time=True)
        >>> split.users.tolist(), split.mean, split.range
        ([5, 9], 3.0, (2.0, 4.0))
        >>> split.test[0]  # the user 7 is not in training
        (tensor([0, 1], dtype=torch.int32), tensor(5.))
    """

    train: ArrayDataset
    test: ArrayDataset
    users: np.ndarray
    items: np.ndarray

    @property
    def mean(self) -> float:
        """The mean of the training ratings."""
        return float(self.train.targets.double().mean())

    @property
    def range(self) -> tuple[float, float]:
        """The minimum and maximum of the training ratings."""
        return float(self.train.targets.min()), float(self.train.targets.max())


def number(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the indices (N,) int32 of ids: their positions in the sorted ``known``, from 1; other ids get 0."""
    place = np.searchsorted(known, ids)
    found = known[np.minimum(place, len(known) - 1)] == ids
    return np.where(found, place + 1, 0).astype(np.int32)


def split_ratings(ratings: Ratings, share: float = 0.2, by_time: bool = False, seed: int = 0) -> RatingSplit:
    """Split ratings into a training and a test part, and index users and items by the training part.

    Args:
        ratings: The ratings.
        share: The share of the test part, in (0, 1).
        by_time: Whether to test on the latest ratings, as when a recommender is in use, instead of random ones.
        seed: The seed of the random draw.

    Example:
        >>> import numpy as np
        >>> user, item, rating = np.array([5, 9, 5, 9]), np.array([1, 1, 2, 2]), np.float32([4, 2, 3, 5])
        >>> ratings = torchdl.Ratings(user, item, rating, time=np.array([40, 10, 30, 20]), origin="made-up")
        >>> split = torchdl.split_ratings(ratings, share=0.25, by_time=True)
        >>> split.train.targets, split.test.targets
        (tensor([2., 5., 3.]), tensor([4.]))
    """
    require(0 < share < 1, f"the test share must be in (0, 1), not {share}")
    count = len(ratings)
    test_count = round(count * share)
    require(0 < test_count < count, f"{count} ratings cannot be split with a test share of {share}: get more")
    if by_time:
        if ratings.time is None:
            raise InputError("these ratings have no times: split at random")
        order = np.argsort(ratings.time, kind="stable")
    else:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    train, test = order[: count - test_count], order[count - test_count :]
    users, items = np.unique(ratings.user[train]), np.unique(ratings.item[train])

    def part(rows: np.ndarray, name: str) -> ArrayDataset:
        pairs = np.empty((len(rows), 2), np.int32)
        for column, (ids, known) in enumerate(((ratings.user, users), (ratings.item, items))):
            for start in range(0, len(rows), PIECE):  # to keep temporary arrays small
                piece = rows[start : start + PIECE]
                pairs[start : start + PIECE, column] = number(ids[piece], known)
        targets = torch.from_numpy(ratings.rating[rows])
        return ArrayDataset(torch.from_numpy(pairs), targets, f"{name} {ratings.origin}", ratings.fallback)

    kept, out = (f"{len(rows):,} of" for rows in (train, test))
    how = "the latest" if by_time else "drawn at random,"
    return RatingSplit(part(train, kept), part(test, f"{how} {out}"), users, items)
