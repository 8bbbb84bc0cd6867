"""Time series and their windows for forecasting (lectures 37 to 39 and 51 to 53).

Shapes: L terms of D values, T terms of input, H terms to forecast, N = L - T - H + 1 windows, B in a batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchdl import random
from torchdl.data.arrays import ArrayLike, BatchDataset, as_tensor
from torchdl.data.course_files import find_file
from torchdl.data.delimited_files import (
    CSV,
    TableFormat,
    as_names,
    notes,
    read_rows,
    repeated,
    require_columns,
    row_number,
)
from torchdl.data.download import NotFound, standing_in
from torchdl.data.info import fingerprint
from torchdl.data.numerals import notation_note, to_numbers
from torchdl.data.time_columns import DateOrder, TimeColumn, counts_down, find_times, is_index, join_parts
from torchdl.errors import InputError, kind_of, require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike

if TYPE_CHECKING:
    import pandas


@with_field_docs
@dataclass(frozen=True)
class Series:
    """A time series: values (L, D) float64, the names of the D columns, and the origin in words.

    ``times`` (L,) ``datetime64``, if they are known, are in UTC where the file has offsets from it. The values may be
    given as a tensor, a NumPy array or a list, and as (L,) for a single column.

    Raises:
        InputError: The values are not finite numbers (L, D), or the columns, or the times, differ in number.

    Example:
        >>> values = torch.tensor([[100.0, 7.0], [150.0, 8.0]], dtype=torch.float64)
        >>> series = torchdl.Series(values, columns=("close", "volume"))
        >>> series.select(["close"]).returns().values
        tensor([[0.5000]], dtype=torch.float64)
    """

    values: Tensor
    """(L, D) float64."""
    columns: tuple[str, ...]
    """The names of the D columns."""
    origin: str = "memory"
    """Where the values come from, in words."""
    fallback: bool = False
    """Whether they replace data that was not found."""
    times: np.ndarray | None = None
    """(L,) ``datetime64``; None if they are not known."""

    def __post_init__(self) -> None:
        columns, values = as_names(self.columns), as_values(self.values)
        shape, named = tuple(values.shape), f"the {len(columns)} of {', '.join(map(repr, columns))}"
        require(len(shape) == 2, f"the values of a series must be (terms, columns), not {shape}")
        require(shape[1] == len(columns), f"a series needs a name for each of its {shape[1]} columns, not {named}")
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
            raise InputError(
                f"a series must be finite numbers, but {columns[column]!r} has {values[row, column]:g} at term "
                f"{row + 1}{more}: fill it in, or remove the term if the others stay equally spaced in time"
            )
        times = None if self.times is None else np.asarray(self.times)
        require(times is None or len(times) == len(values), f"a series of {len(values)} terms needs as many times")
        for name, value in (("columns", columns), ("values", values), ("times", times)):
            object.__setattr__(self, name, value)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the values and the columns' names, in hexadecimal."""
        return fingerprint([self.values], repr((self.values.shape, self.columns)))

    def __len__(self) -> int:
        return len(self.values)

    def select(self, columns: Sequence[str]) -> Series:
        """Return a series with only these columns, in this order.

        Raises:
            InputError: There is no such column.
        """
        columns = as_names(columns)
        for name in columns:
            require(name in self.columns, f"there is no column {name!r}: choose among {', '.join(self.columns)}")
        values = self.values[:, [self.columns.index(name) for name in columns]]
        return Series(values, columns, self.origin, self.fallback, self.times)

    def returns(self) -> Series:
        """Return the relative changes (x[t] - x[t-1]) / x[t-1] from term to term: (L - 1, D) (lecture 52).

        Raises:
            InputError: There is one term only, or a term is 0.
        """
        require(len(self) > 1, "returns need at least two terms")
        zero = (self.values[:-1] == 0).nonzero()
        if len(zero):
            row, column = zero[0].tolist()
            raise InputError(f"{self.columns[column]!r} is 0 at term {row + 1}: the return after it is undefined")
        changes, times = self.values[1:] / self.values[:-1] - 1, None if self.times is None else self.times[1:]
        return Series(changes, self.columns, f"returns of {self.origin}", self.fallback, times)


def as_values(values: ArrayLike) -> Tensor:
    """Return the values (L, D) float64 of a series that is given as numbers (L, D) or (L,)."""
    if not isinstance(values, Tensor):
        try:
            values = torch.from_numpy(np.array(values, dtype="float64"))
        except (TypeError, ValueError) as error:
            raise InputError(f"a series must be numbers, not {kind_of(values)} ({error})") from error
    values = values.detach().cpu().double()
    return values[:, None] if values.dim() == 1 else values  # (L,) -> (L, 1)


def sine(length: int = 200, step: float = 0.1, noise: float = 0.0, seed: int = 0) -> Series:
    """Make sin(``step`` t) for t = 0, 1, ...; normal noise is optional (lecture 39).

    Args:
        length: L.
        step: Radians from term to term; 0.1 makes a period of 63 terms.
        noise: The standard deviation of the noise.
        seed: The seed of the noise.

    Raises:
        InputError: ``length`` is less than 1, or ``noise`` is negative.

    Example:
        >>> series = torchdl.sine(4, step=1.0)
        >>> series.values.flatten(), series.origin
        (tensor([0.0000, 0.8415, 0.9093, 0.1411], dtype=torch.float64), 'sin(1 t), 4 terms')
    """
    require(length >= 1 and noise >= 0, f"sine: length must be 1 or more and noise 0 or more, not {length} and {noise}")
    time = torch.arange(length)
    values = torch.sin(step * time.double())[:, None] + noise * random.normal(seed, 0, time, 1).double()  # (L, 1)
    noisy = f" with noise of {noise:g}" if noise else ""
    return Series(values, ("sine",), f"sin({step:g} t), {length} terms{noisy}")


def sine_of_square(length: int = 400, step: float = 0.1) -> Series:
    """Make ``length`` terms sin((``step`` t)^2), whose frequency keeps increasing (lecture 47).

    Raises:
        InputError: ``length`` is less than 1.

    Example:
        >>> torchdl.sine_of_square(4, step=1.0).values.flatten()
        tensor([ 0.0000,  0.8415, -0.7568,  0.4121], dtype=torch.float64)
    """
    require(length >= 1, f"sine_of_square: length must be 1 or more, not {length}")
    values = torch.sin((step * torch.arange(length).double()) ** 2)[:, None]  # (L, 1)
    return Series(values, ("sin(t^2)",), f"sin(({step:g} t)^2), {length} terms")


def read_series(
    path: PathLike,
    columns: Sequence[str] = (),
    format: TableFormat = CSV,
    time: str = "",
    date_order: DateOrder | None = None,
    sort: bool = False,
) -> Series:
    """Read a time series from a text file with one term per row, in chronological order.

    The column of times may have any name: dates, weeks, quarters, or numbers that count time or rows. The origin names
    it, the columns that are read, and those that are left out. Cells such as "1,234" and 5% are numbers, too.

    Args:
        path: The file.
        columns: The columns to read; by default all that are numbers, but for indices, times and parts of dates.
        format: How the file is written.
        time: The column of times; if empty, it is found by what the columns hold. "none": the rows are in order.
        date_order: Whether the ``day`` or the ``month`` comes first in 03/04/2020; by default the file must show it.
        sort: Whether to sort the rows by time; otherwise they must be in order.

    Raises:
        InputError: The file, a column or a value is missing, a value is not a finite number, or the times do not
            increase. The message counts rows as a spreadsheet does: the header is row 1.

    Example:
        >>> import os, pandas, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "prices.csv")
        >>> days = ["2024-01-02", "2024-01-03"]
        >>> pandas.DataFrame({"traded": days, "open": [10, 11], "close": [11, 12]}).to_csv(path, index=False)
        >>> torchdl.read_series(path).columns
        ('open', 'close')
        >>> torchdl.read_series(path, columns=["close"]).values
        tensor([[11.],
                [12.]], dtype=torch.float64)
    """
    known = "torchdl.data.series.table_series takes a DataFrame, and torchdl.Series numbers"
    require(isinstance(path, (str, os.PathLike)), f"read_series reads a text file, not {kind_of(path)}: {known}")
    return _from_rows(str(path), read_rows(path, format, row_index=True), columns, format, time, date_order, sort)


def table_series(
    table: pandas.DataFrame,
    columns: Sequence[str] = (),
    time: str = "",
    date_order: DateOrder | None = None,
    sort: bool = False,
) -> Series:
    """Return the time series in a table with one term per row, by the rules of :func:`read_series`.

    Args:
        table: The table. Its index is a column, too, unless it only numbers the rows from 0. Messages count rows from
            0, as the table does.
        columns, time, date_order, sort: See :func:`read_series`.

    Raises:
        InputError: As :func:`read_series`.

    Example:
        >>> import pandas
        >>> days = pandas.date_range("2024-01-02", periods=2)
        >>> torchdl.data.series.table_series(pandas.DataFrame({"close": [11.0, 12.0]}, index=days)).times
        array(['2024-01-02T00:00:00.000000', '2024-01-03T00:00:00.000000'],
              dtype='datetime64[us]')
    """
    import pandas  # imported late: it takes a second

    require(len(table) > 0, "the table has no rows")
    counts = isinstance(table.index, pandas.RangeIndex) and table.index.start == 0 and table.index.step == 1
    frame = table.reset_index(drop=counts or table.index.name in table.columns)
    twice = ", ".join(map(repr, repeated([str(name) for name in frame.columns])))
    require(not twice, f"the table has several columns named {twice}: rename them")
    texts = {str(name): _as_texts(column) for name, column in frame.items()}
    rows = pandas.DataFrame(texts, dtype=object)
    rows.attrs["first_row"] = 0
    return _from_rows("the table", rows, columns, CSV, time, date_order, sort)


def _as_texts(column: pandas.Series) -> list[str | None]:
    """Return the cells of a column as a file would hold them, with every digit; None for missing values."""
    column = column.dt.to_timestamp() if column.dtype.name.startswith("period") else column
    cells = zip(column.tolist(), column.isna(), strict=True)
    return [None if missing else str(cell) for cell, missing in cells]


def _from_rows(
    path: str,
    table: pandas.DataFrame,
    columns: Sequence[str],
    format: TableFormat,
    time: str,
    date_order: DateOrder | None,
    sort: bool,
) -> Series:
    """Return the series in the rows of a table of texts; ``path`` is what messages call it."""
    columns = as_names(columns)
    texts = {str(name): table[name] for name in table.columns}
    require_columns(path, table, [*columns, *({time} - {"", "none"})])
    if not time and (joined := join_parts(texts)) is not None:
        table = table.assign(**{str(joined.name): joined})
        texts[str(joined.name)] = joined
    numbers = {name: to_numbers(column, format.decimal).to_numpy() for name, column in texts.items()}
    numeric = {name for name, x in numbers.items() if 2 * np.isfinite(x).sum() >= max(1, texts[name].notna().sum())}
    others = {name: numbers[name] for name in texts if name in numeric - {*columns}}
    try:
        found, dates = find_times(texts, others, time, date_order)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    for name in () if found or time else (name for name in texts if name not in columns):
        require(
            not counts_down(texts[name], numbers[name]),
            f"{path} has {name!r}, which decreases from row to row: name it if it is the time "
            f'(time="{name}"), or say that the rows are in order (time="none")',
        )
    chosen = list(columns) or [name for name in others if name not in dates]
    chosen = [name for name in chosen if name in columns or not is_index(name, numbers[name])] or chosen
    cells = ", ".join(repr(str(cell)) for cell in table.iloc[0][:5])
    require(
        bool(chosen),
        f"{path} has no numeric column, its first cells are {cells}: is there a header, and what separates the cells "
        '(separator=";")?',
    )
    values = np.stack([numbers[name] for name in chosen], 1)  # (L, D)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0].tolist()
        cell, more = texts[chosen[column]].iloc[row], f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        value = repr(cell) if isinstance(cell, str) else "nothing"
        mend = "fill it in, or remove the row if the others stay equally spaced in time"
        if 2 * np.isnan(values[:, column]).sum() > len(values):
            mend = 'write plain numbers, or name another column or the decimal point (decimal=",")'
        raise InputError(
            f"{path} has {value} instead of a number in column {chosen[column]!r}, row {row_number(table, row)}{more}: "
            f"{mend}"
        )
    said, times = [*notes(table)], None
    if not found and time != "none":
        said.insert(0, "no column of times was found, so the rows are taken to be in order")
    if found and time != "none":
        rows = _chronological(path, table, found, sort)
        said.insert(0, f"{'sorted by' if (np.diff(rows) < 0).any() else 'in the order of'} {found.name!r}")
        values = values[rows]
        times = found.times[rows] if found.times.dtype.kind == "M" else None
        said += [] if times is None else _gap_note(times)
    left = [name for name in texts if name not in chosen and not (times is not None and found and name == found.name)]
    if left and not columns:
        said.append(f"left out: {', '.join(map(repr, left))}")
    said += [
        note for name in chosen for note in notation_note(name, texts[name].tolist(), format.decimal, format.separator)
    ]
    origin = "; ".join([f"{len(values):,} terms of {', '.join(chosen)} from {path}", *said])
    return Series(torch.from_numpy(values.copy()), tuple(chosen), origin, times=times)


def _gap_note(times: np.ndarray) -> list[str]:
    """Return a sentence on steps of at least twice the median step of times (L,), if there are some."""
    steps = np.diff(times)
    usual = np.sort(steps)[len(steps) // 2 : len(steps) // 2 + 1]  # (1,); (0,) of a single time
    count = int((steps >= 2 * usual).sum())
    if not count:
        return []
    place = int(steps.argmax())
    step, longest = (str(each.item()).removesuffix(", 0:00:00") for each in (usual[0], steps[place]))
    after = str(times[place].astype("datetime64[s]")).removesuffix("T00:00:00")
    return [
        f"rows count as equally spaced, but {count:,} of {len(steps):,} steps are at least twice the usual {step}; "
        f"the longest, {longest}, begins at {after}"
    ]


def _chronological(path: str, table: pandas.DataFrame, column: TimeColumn, sort: bool) -> np.ndarray:
    """Return the order of the rows (L,) by time, which must be that of the file unless ``sort``."""
    name, times = column
    rows = np.argsort(times, kind="stable")

    def cell(row: int) -> str:
        return f"{path} has {str(table[name].iloc[row])!r} as {name!r} in row {row_number(table, row)}, which is"

    for row in np.isnat(times).nonzero()[0] if times.dtype.kind == "M" else np.isnan(times).nonzero()[0]:
        raise InputError(f'{cell(row)} not a time: correct it, or name another column of times, or none (time="none")')
    ordered = times[rows]
    for place in (ordered[1:] == ordered[:-1]).nonzero()[0]:
        row, first = rows[place + 1], row_number(table, rows[place])
        raise InputError(
            f"{cell(row)} also the time of row {first}: keep one series and one row per time, or say that the rows are "
            'in order (time="none")'
        )
    for place in (times[1:] < times[:-1]).nonzero()[0]:
        if not sort:
            raise InputError(f"{cell(place + 1)} earlier than the row before: sort the rows by time (sort=True)")
    return rows


PRICES = ("open", "high", "low", "close", "volume")


def load_prices(root: PathLike | None = None, fetch: bool = True) -> Series:
    """Load Starbucks' daily open, high, low, close and volume, 2013 to 2018 (lecture 51's file).

    If the file is neither found nor downloaded, matplotlib's Google prices, 2004 to 2008, replace it, and ``fallback``
    is True.

    Args:
        root: The data folder; see :mod:`torchdl.data.sources` for the other places.
        fetch: Whether to download a missing file.

    Example:
        >>> torchdl.load_prices(fetch=False).columns
        ('open', 'high', 'low', 'close', 'volume')
    """
    try:
        return read_series(find_file("sbux", root, fetch), PRICES)
    except NotFound as error:
        return standing_in(google_prices(), error, stacklevel=3)


def google_prices() -> Series:
    """Load Google's daily open, high, low, close and volume, August 2004 to October 2008, from matplotlib's samples.

    Example:
        >>> prices = torchdl.google_prices()
        >>> prices.values.shape, prices.columns
        (torch.Size([1047, 5]), ('open', 'high', 'low', 'close', 'volume'))
    """
    from matplotlib import cbook  # imported late: it takes a second

    with np.load(str(cbook.get_sample_data("goog.npz", asfileobj=False))) as file:
        table = file["price_data"]
    values = torch.stack([torch.from_numpy(table[name].astype("float64")) for name in PRICES], 1)  # (L, 5)
    origin = f"{len(values):,} days of Google's prices in matplotlib"
    return Series(values, PRICES, origin, times=table["date"].astype("datetime64[us]"))


class Windows(BatchDataset[tuple[Tensor, Tensor]]):
    """All windows of a series: T terms and the next H, as ``(input, target)``.

    ``windows[i]`` is ``((T, D), (H, D))``; ``windows.__getitems__(indices)`` is a batch ``((B, T, D), (B, H, D))``.
    There are N = L - T - H + 1 windows.

    Args:
        values: (L, D).
        length: T.
        horizon: H.

    Raises:
        InputError: The values are not (L, D), or too short for a window.

    Example:
        >>> windows = torchdl.Windows(torch.arange(6.0)[:, None], length=3, horizon=2)
        >>> seen, to_come = windows[0]
        >>> len(windows), seen.flatten(), to_come.flatten()
        (2, tensor([0., 1., 2.]), tensor([3., 4.]))
    """

    def __init__(self, values: Tensor, length: int, horizon: int = 1) -> None:
        values = as_tensor(values, "values")
        require(values.dim() == 2, f"a series must have the shape (L, D), not {tuple(values.shape)}")
        require(length >= 1 and horizon >= 1, f"length and horizon must be 1 or more, not {length} and {horizon}")
        windows = f"windows of {length} terms and a horizon of {horizon}"
        require(len(values) >= length + horizon, f"a series of {len(values)} terms is too short for {windows}")
        self.values, self.length, self.horizon = values, length, horizon

    def to(self, device: str | torch.device) -> Windows:
        """Move the series to ``device`` in place, so that batches are made there; return the data set itself."""
        self.values = self.values.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the series is on."""
        return self.values.device

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the items; a checkpoint compares them."""
        return {"length of a window": self.length, "horizon": self.horizon}

    def __len__(self) -> int:
        return len(self.values) - self.length - self.horizon + 1

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the inputs (B, T, D) and targets (B, H, D) of the windows that begin at the terms ``indices`` (B,)."""
        indices = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        both = self.values.unfold(0, self.length + self.horizon, 1)  # (N, D, T + H), a view
        both = both.index_select(0, indices).transpose(1, 2)  # (B, T + H, D)
        return both[:, : self.length], both[:, self.length :]


@dataclass(frozen=True)
class Split:
    """A series that is split by time into training and test targets, and scaled by its training part.

    Args:
        series: The series, (L, D).
        length: T, the number of input terms of a window.
        test_size: The number of terms at the end that are test targets; training does not see them.

    Raises:
        InputError: The series is too short, or a column is constant in the training part.

    Example:
        >>> split = torchdl.Split(torchdl.sine(100), length=10, test_size=20)
        >>> len(split.train()), len(split.test()), len(split.test(horizon=20))
        (70, 20, 1)
        >>> split.unscale(split.scaled).allclose(split.series.values)
        True
    """

    series: Series
    length: int
    test_size: int

    def __post_init__(self) -> None:
        given = kind_of(self.series)
        require(isinstance(self.series, Series), f"Split needs a torchdl.Series, not {given}: Series(values, columns)")
        total = len(self.series)
        require(self.length >= 1 and self.test_size >= 1, "length and test_size must be 1 or more")
        require(
            self.boundary > self.length,
            f"a series of {total} terms is too short for length {self.length} and test_size {self.test_size}: the "
            f"training part of {self.boundary} terms must be longer than {self.length}",
        )
        flat = (self.deviation <= 1e-12 * self.mean.abs()).nonzero().flatten().tolist()  # 0 up to the mean's rounding
        constant = ", ".join(repr(self.series.columns[column]) for column in flat)
        require(not flat, f"the training part is constant in {constant}, so there is nothing to learn: leave it out")

    @property
    def boundary(self) -> int:
        """The number of terms before the test terms."""
        return len(self.series) - self.test_size

    @property
    def mean(self) -> Tensor:
        """The mean (D,) of the training part."""
        return self.series.values[: self.boundary].mean(0)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation (D,) of the training part, uncorrected as in scikit-learn's scaler."""
        return self.series.values[: self.boundary].std(0, correction=0)

    @property
    def scaled(self) -> Tensor:
        """The whole series (L, D) float32, with mean 0 and standard deviation 1 in its training part."""
        return ((self.series.values - self.mean) / self.deviation).float()

    def unscale(self, values: Tensor) -> Tensor:
        """Convert scaled values (..., D) back to the units of the series, float64."""
        return values.cpu().double() * self.deviation + self.mean

    def train(self, horizon: int = 1) -> Windows:
        """Return the windows with all targets before the boundary."""
        return Windows(self.scaled[: self.boundary], self.length, horizon)

    def test(self, horizon: int = 1) -> Windows:
        """Return the windows with all targets after the boundary; their inputs may reach into the training part."""
        return Windows(self.scaled[self.boundary - self.length :], self.length, horizon)
