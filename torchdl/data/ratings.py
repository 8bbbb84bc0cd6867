"""Ratings of items by users: read with little memory, split, and indexed by the training part's users and items.

Shapes: N ratings, U users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchdl.data.arrays import ArrayDataset
from torchdl.data.delimited_files import CSV, SAMPLE, TableFormat, notes, read_pieces, require_columns, row_number
from torchdl.data.numerals import is_number, to_numbers
from torchdl.data.text_files import open_bytes
from torchdl.errors import InputError, require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike

if TYPE_CHECKING:
    import pandas

COLUMNS = ("userId", "movieId", "rating", "timestamp")  # MovieLens' names
PIECE = 1_000_000  # rows read at a time


@with_field_docs
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
    """(N,) numbers or texts, the ids of the users."""
    item: np.ndarray
    """(N,) numbers or texts, the ids of the items."""
    rating: np.ndarray
    """(N,) float32."""
    time: np.ndarray | None
    """(N,) numbers, of any unit; None if they are not known."""
    origin: str
    """Where the ratings come from, in words."""
    fallback: bool = False
    """Whether they replace data that was not found."""

    def __post_init__(self) -> None:
        for name in ("user", "item", "rating", "time"):
            part = getattr(self, name)
            object.__setattr__(self, name, part if part is None else np.asarray(part))
        lengths = [len(part) for part in (self.user, self.item, self.rating, self.time) if part is not None]
        require(len(set(lengths)) == 1, f"user, item, rating and time must have the same length, not {lengths}")
        for name in ("user", "item"):
            object.__setattr__(self, name, as_ids(getattr(self, name), name))
        require(self.rating.dtype.kind in "fiu", f"rating must be numbers, not {self.rating.dtype}")
        object.__setattr__(self, "rating", self.rating.astype(np.float32, copy=False))
        require(bool(np.isfinite(self.rating).all()), "rating has numbers that are not finite: leave them out")

    def __len__(self) -> int:
        return len(self.rating)


def read_ratings(
    path: PathLike,
    user: str = COLUMNS[0],
    item: str = COLUMNS[1],
    rating: str = COLUMNS[2],
    time: str | None = COLUMNS[3],
    format: TableFormat = CSV,
) -> Ratings:
    """Read a table with one rating per row into typed columns: 20 bytes per rating.

    The file is read in pieces, so its other columns take no memory. Ids are texts: 7, 07 and 7.0 are three users. If
    all ids of a column are integers in the usual notation, they become 32-bit or 64-bit integers, which take less
    memory and time.

    Args:
        path: The file, or a folder with ``ratings.csv``.
        user: The column of the users' ids.
        item: The column of the items' ids.
        rating: The column of the ratings.
        time: The column of the times: seconds, any other number that increases with time, or dates in ISO 8601, which
            become seconds since 1970. A time that cannot be read becomes NaN: only a split by time needs it. None reads
            no times; so does the default name if there is no such column.
        format: How the table is written: a CSV file with a header by default.

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
    path = Path(path)
    path = path / "ratings.csv" if path.is_dir() else path
    require(path.is_file(), f"there is no file {path}: name a table of ratings, or a folder with ratings.csv")
    table = next(read_pieces(path, format, missing=False, size=SAMPLE))
    names = list(table.columns)
    time = None if time == COLUMNS[3] and time not in names else time
    wanted = [user, item, rating, *([] if time is None else [time])]
    require_columns(path, table, wanted, ("user", "item", "rating", "time")[: len(wanted)])
    require(len(set(wanted)) == len(wanted), f"user, item, rating and time must be different columns, not {wanted}")
    columns = read_plain_numbers(path, format, names, wanted) or read_cells(path, format, wanted)
    require(len(columns[rating]) > 0, f"{path} has no ratings below its header")
    origin = "; ".join([f"{len(columns[rating]):,} ratings from {path}", *notes(table)])
    return Ratings(columns[user], columns[item], columns[rating], None if time is None else columns[time], origin)


# the fast way, for numbers alone


def read_plain_numbers(
    path: Path, format: TableFormat, names: list[str], wanted: list[str]
) -> dict[str, np.ndarray] | None:
    """Read columns (ids, ratings and maybe times) as numbers, or return None if that could change or lose anything."""
    import pandas  # imported late: it takes a second

    if not only_usual_integers(path, format):
        return None
    places = [names.index(name) for name in wanted]
    types = dict.fromkeys(range(len(names) + 1), "object") | dict(zip(places[2:], ("float32", "int64"), strict=False))
    for place in places[:2]:
        del types[place]  # as int64, pandas would read 7.0 as 7; what it infers is an integer only if all cells are
    parts: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    try:
        with (
            np.errstate(over="ignore"),  # a number that is too large becomes infinite
            open_bytes(path) as file,
            pandas.read_csv(
                file,
                sep=format.separator,
                decimal=format.decimal,
                header=None,
                skiprows=int(format.header),
                names=range(len(names) + 1),  # one column more takes the cells that are too many
                index_col=False,
                dtype=types,
                na_filter=False,
                chunksize=PIECE,
            ) as reader,
        ):
            for piece in reader:
                whole = all(piece[place].dtype == np.int64 for place in places[:2])
                if not whole or (piece[len(names)] != "").any() or not np.isfinite(piece[places[2]]).all():
                    return None
                for number, (name, place) in enumerate(zip(wanted, places, strict=True)):
                    values = piece[place].to_numpy(copy=True)  # a view would keep the whole piece
                    parts[name].append(narrow(values) if number < 2 else values)
    except (ValueError, OverflowError):  # text, or larger integers; read_cells names the row
        return None
    return {name: np.concatenate(parts.pop(name)) for name in wanted} if parts[wanted[0]] else None


def only_usual_integers(path: Path, format: TableFormat) -> bool:
    """Return whether all cells below a header are numbers, and no integer is in unusual notation, such as 07 or -0."""
    if format.separator == "blanks" or format.encoding or format.comment or format.quote == "none":
        return False
    allowed = b"0123456789-" + f'{format.decimal}{format.separator}"\r\n'.encode()
    digits = np.zeros(256, bool)
    digits[list(b"0123456789")] = True
    continues = digits.copy()  # what stands before a 0 that is not a number's first digit
    continues[ord(format.decimal)] = format.decimal != format.separator
    last = b"\n"
    with open_bytes(path) as file:
        if format.header and b"\r" in file.readline().rstrip(b"\r\n"):  # lines that end so would be skipped, too
            return False
        while piece := file.read(2**20):
            data = last + piece
            if data.translate(None, allowed) or b"-0" in data:  # pandas reads FALSE as 0
                return False
            codes = np.frombuffer(data, np.uint8)
            zero = np.flatnonzero(codes[1:-1] == ord("0")) + 1
            if (~continues[codes[zero - 1]] & digits[codes[zero + 1]]).any():
                return False
            last = data[-2:]
    return True


# the slow way, for all else


def read_cells(path: Path, format: TableFormat, wanted: list[str]) -> dict[str, np.ndarray]:
    """Read columns (ids, ratings and maybe times) as texts, convert them, and name the first broken row."""
    import pandas  # imported late: it takes a second

    ids: tuple[dict[str, int], ...] = ({}, {})  # each id and its number, by its first occurrence
    parts: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    are_dates = None
    for piece in read_pieces(path, format, missing=False, size=PIECE):
        if (piece[wanted[0]] == "").any():
            piece = piece[(piece != "").any(axis=1)]  # blank rows
        if not len(piece):
            continue
        for name, known in zip(wanted[:2], ids, strict=True):
            codes, texts = pandas.factorize(piece[name])
            texts = [str(text).strip() for text in texts]
            refuse(path, piece, name, np.array([not text for text in texts])[codes])
            parts[name].append(np.array([known.setdefault(text, len(known)) for text in texts], np.int32)[codes])
        name = wanted[2]
        codes, texts = pandas.factorize(piece[name])
        values = to_numbers(pandas.Series(texts, dtype=object), format.decimal, codes=True).to_numpy()[codes]
        refuse(path, piece, name, np.isnan(values))
        with np.errstate(over="ignore"):
            parts[name].append(values.astype(np.float32))
        if not np.isfinite(parts[name][-1]).all():
            row = row_number(piece, int(np.isinf(parts[name][-1]).argmax()))
            raise InputError(f"{path} has no finite rating in row {row:,}: correct it")
        for name in wanted[3:]:
            if are_dates is None:
                are_dates = not pandas.to_numeric(piece[name], errors="coerce").notna().any()
            parts[name].append(times_of(piece[name], are_dates))
    columns = {name: np.concatenate(values) if (values := parts.pop(name)) else np.empty(0) for name in wanted}
    for name, known in zip(wanted[:2], ids, strict=True):
        columns[name] = as_ids(np.array(list(known), np.str_), name)[columns[name].astype(np.int32)]
    return columns


def refuse(path: Path, piece: pandas.DataFrame, name: str, wrong: np.ndarray) -> None:
    """Raise InputError if a cell of a column is wrong; the message names the first one."""
    if wrong.any():
        position = int(wrong.argmax())
        found, row = str(piece[name].iloc[position]), row_number(piece, position)
        what = repr(found) if found else "nothing"
        decimal = ', or name the decimal point (decimal=",")' if is_number(found, ",") else ""
        raise InputError(f"{path} is broken in row {row:,}: {what} as {name!r}; remove or correct it{decimal}")


def times_of(column: pandas.Series, are_dates: bool) -> np.ndarray:
    """Convert texts (N,) to times: numbers, or the seconds since 1970 of ISO 8601 dates; NaN if that is impossible."""
    import pandas

    if not are_dates:
        return np.asarray(pandas.to_numeric(column, errors="coerce").to_numpy())
    dates = pandas.to_datetime(column.str.strip(), format="ISO8601", utc=True, errors="coerce")
    seconds: np.ndarray = dates.dt.tz_localize(None).to_numpy("datetime64[us]").astype("int64") / 1e6
    return np.where(dates.isna(), np.nan, seconds)


# ids


def as_ids(ids: np.ndarray, name: str = "ids") -> np.ndarray:
    """Return ids (N,) as integers if all of them are integers in the usual notation that fit, else as texts.

    All ids that are compared go through here, so 7 and 07 are two users everywhere.

    Raises:
        InputError: An id is missing, or neither an integer nor a text.

    Example:
        >>> import numpy as np
        >>> from torchdl.data.ratings import as_ids
        >>> as_ids(np.array(["7", "12"])), as_ids(np.array(["07", "12"]))
        (array([ 7, 12], dtype=int32), array(['07', '12'], dtype='<U2'))
    """
    ids = np.asarray(ids)
    if ids.dtype.kind in "iu":
        return ids if ids.dtype != np.uint64 else as_ids(ids.astype(str))
    if ids.dtype.kind == "O":
        known = all(isinstance(found, (str, int, np.integer)) and not isinstance(found, bool) for found in ids)
        require(known, f"{name} has ids that are neither integers nor texts: convert them")
        return as_ids(ids.astype(str))
    whole = ids.dtype.kind == "f" and bool((np.isfinite(ids) & (ids == np.trunc(ids)) & (abs(ids) < 2**53)).all())
    require(ids.dtype.kind in "UT" or whole, f"{name} must be integers or texts, not {ids.dtype}: convert them")
    if whole:
        return narrow(ids.astype(np.int64))
    texts = ids.astype(str)
    try:
        integers = texts.astype(np.int64)
    except (ValueError, OverflowError):
        return texts
    return narrow(integers) if (integers.astype(str) == texts).all() else texts


def narrow(integers: np.ndarray) -> np.ndarray:
    """Convert integers (N,) to 32 bits if they all fit."""
    limits = np.iinfo(np.int32)
    fit = not len(integers) or limits.min <= integers.min() <= integers.max() <= limits.max
    return integers.astype(np.int32) if fit else integers


def indices_of(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the indices (N,) int32 of ids: their positions in the sorted ``known``, from 1; other ids get 0."""
    if (ids.dtype.kind in "iu") != (known.dtype.kind in "iu"):  # integers and texts are compared as texts
        ids, known = ids.astype(str), known.astype(str)
    order = np.argsort(known)  # as texts, 10 comes before 9
    place = np.searchsorted(known, ids, sorter=order)
    found = order[np.minimum(place, len(known) - 1)]
    return np.where(known[found] == ids, found + 1, 0).astype(np.int32)


@with_field_docs
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
    """Pairs and ratings for training."""
    test: ArrayDataset
    """Pairs and ratings for testing."""
    users: np.ndarray
    """The sorted ids of the users in the training part."""
    items: np.ndarray
    """The sorted ids of the items in the training part."""

    @property
    def mean(self) -> float:
        """The mean of the training ratings."""
        return float(self.train.targets.double().mean())

    @property
    def range(self) -> tuple[float, float]:
        """The minimum and maximum of the training ratings."""
        return float(self.train.targets.min()), float(self.train.targets.max())


def split_ratings(ratings: Ratings, share: float = 0.2, by_time: bool = False, seed: int = 0) -> RatingSplit:
    """Split ratings into a training and a test part, and index users and items by the training part.

    Args:
        ratings: The ratings.
        share: The share of the test part, in (0, 1).
        by_time: Whether to test on the latest ratings, as when a recommender is in use, instead of random ones.
        seed: The seed of the random draw.

    Raises:
        InputError: The share is not in (0, 1), there are too few ratings, or a time that is needed is missing or
            unreadable.

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
            raise InputError("these ratings have no times: name their column, or split at random")
        unreadable = ~np.isfinite(ratings.time)
        require(
            not unreadable.any(),
            f"the time of rating {int(unreadable.argmax()) + 1:,} is neither a number nor a date such as 2024-02-29 "
            "18:30:00 (ISO 8601): correct it, or split at random",
        )
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
                pairs[start : start + PIECE, column] = indices_of(ids[piece], known)
        targets = torch.from_numpy(ratings.rating[rows])
        return ArrayDataset(torch.from_numpy(pairs), targets, f"{name} {ratings.origin}", ratings.fallback)

    kept, out = (f"{len(rows):,} of" for rows in (train, test))
    how = "the latest" if by_time else "drawn at random,"
    return RatingSplit(part(train, kept), part(test, f"{how} {out}"), users, items)
