"""Columns of times in a table: dates, clocks, weeks, quarters, and numbers that count time or rows."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from torchdl.errors import InputError

if TYPE_CHECKING:
    import pandas

DateOrder = Literal["day", "month"]

# words in a column's name: of a date, of any time, of a part of one, of a number that counts rows
DATE = {"date", "datetime", "datum", "ds", "timestamp"}
TIME = {*DATE, "epoch", "time", "ts", "unix"}
PART = {"day", "hour", "minute", "month", "quarter", "second", "week", "weekday", "year"}
PART_SHORT = {"yr": "year", "yyyy": "year", "mo": "month", "mon": "month", "dy": "day"}
COUNTER = {"id", "idx", "index", "no", "nr", "number", "obs", "row", "step", "t", "unnamed"}
SAMPLE = 10  # cells that tell which layouts a column may have

_CLOCK = r"(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?:[:.](?P<second>\d\d(?:[.,]\d+)?))?(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
_OFFSET = r"(?: ?(?P<offset>Z|z|UTC|GMT|[-+]\d\d(?::?\d\d)?))?"
_NAME, _YEAR = r"(?P<name>[A-Za-z]{3,9})\.?", r"(?P<year>\d{4}|\d\d)"
_WEEKDAY = r"(?:[A-Za-z]{2,10}[.,]* )?"
_LAYOUTS = (
    r"(?P<year>\d{4})(?P<mark>[-/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})",
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)?",
    rf"{_WEEKDAY}(?P<one>\d{{1,2}})(?P<mark>[-/.] ?)(?P<two>\d{{1,2}})(?P=mark){_YEAR}",
    rf"{_WEEKDAY}(?P<day>\d{{1,2}})[-/. ]*{_NAME}[-/., ]*{_YEAR}",
    rf"{_WEEKDAY}{_NAME} ?(?P<day>\d{{1,2}}),? {_YEAR}",
    rf"{_NAME}[-/., ]*(?P<year>\d{{4}})",
    rf"{_NAME}[-/' ]{_YEAR}",
    rf"(?P<year>\d{{4}})[-/ ]*{_NAME}(?:[-/ ]*(?P<day>\d{{1,2}}))?",
    r"(?P<year>\d{4})[-/Mm ](?P<month>\d{1,2})",
    r"(?P<month>\d{1,2})[-/](?P<year>\d{4})",
    r"(?P<month>\d\d)\.(?P<year>\d{4})",
    r"(?P<year>\d{4})[-/ ]?[Ww](?:eek|k)? ?(?P<week>\d{1,2})(?:-?(?P<weekday>[1-7]))?",
    r"[Ww](?:eek|k)? ?(?P<week>\d{1,2})[-/ ](?P<year>\d{4})",
    r"(?P<year>\d{4})[-/: ]?[QqTt](?P<quarter>[1-4])",
    r"[Qq](?P<quarter>[1-4])[-/' ]?(?P<year>\d{4})",
    r"(?P<quarter>[1-4])[Qq][-/' ]?(?P<year>\d{4})",
)
_PATTERNS = [rf"{layout}(?:[T ,]+{_CLOCK}{_OFFSET})?" for layout in _LAYOUTS]


def read_times(column: pandas.Series, order: DateOrder | None = None) -> np.ndarray:
    """Read the cells of a column as dates, with or without a clock, in any of the usual layouts.

    A month, a quarter or a week is its first day. Times with offsets become UTC. Dates with dots, such as 03.04.2020,
    have the day first.

    Args:
        column: Texts (N,), NaN for missing cells.
        order: Whether the day or the month comes first in 03/04/2020; by default the column must show it.

    Returns:
        Times (N,) as ``datetime64[us]``, NaT for other cells.

    Raises:
        InputError: The day or the month may come first, or only some of the times have offsets.

    Example:
        >>> import pandas
        >>> torchdl.data.time_columns.read_times(pandas.Series(["2020-W05", "2020-W06"])).astype(str).tolist()
        ['2020-01-27T00:00:00.000000', '2020-02-03T00:00:00.000000']
    """
    texts = column.astype(object).str.strip()
    sample = texts.dropna()[:SAMPLE]
    best = np.full(len(texts), "NaT", dtype="datetime64[us]")
    for pattern in _PATTERNS:
        if sample.str.fullmatch(pattern).any():
            found = _instants(texts, pattern, order)
            if np.isnat(found).sum() < np.isnat(best).sum():
                best = found
    return best


def later_times(times: np.ndarray, count: int) -> np.ndarray | None:
    """Return the next ``count`` times after equally spaced ones (N,) ``datetime64``; None if they are not.

    Days, weeks, months, quarters, years and the working days of weeks without holidays are equally spaced, too.

    Example:
        >>> import numpy as np
        >>> months = np.array(["2023-11-30", "2023-12-31", "2024-01-31"], dtype="datetime64[us]")
        >>> torchdl.data.time_columns.later_times(months, 2).astype("datetime64[D]").astype(str).tolist()
        ['2024-02-29', '2024-03-31']
    """
    import pandas  # imported late: it takes a second

    index = pandas.DatetimeIndex(times, freq="infer")
    if index.freq is None:
        return None
    try:
        later = pandas.date_range(index[-1], periods=count + 1, freq=index.freq)[1:]
    except (ValueError, OverflowError):  # beyond the times that there can be
        return None
    return later.to_numpy().astype("datetime64[us]")


def read_clocks(column: pandas.Series) -> np.ndarray:
    """Read the cells of a column as times of day: (N,) ``timedelta64[us]``, NaT for other cells."""
    texts = column.astype(object).str.strip()
    if not texts.dropna()[:SAMPLE].str.fullmatch(_CLOCK).any():
        return np.full(len(texts), "NaT", dtype="timedelta64[us]")
    fields = texts.str.extract(f"^(?:{_CLOCK})$")
    return np.where(fields["hour"].notna(), _clock(fields), np.timedelta64("NaT", "us"))


def words(name: str) -> set[str]:
    """Return the words of a column's name, in lower case: ``openTime`` has two."""
    found = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    return {PART_SHORT.get(word, word) for word in found}


def is_index(name: str, numbers: np.ndarray) -> bool:
    """Return whether a column of numbers (N,) counts rows or time, or is a part of dates.

    It counts if the numbers only increase or only decrease, and the name says so, or ten or more are equally spaced.
    Parts of dates, such as the month, are whole numbers with their own name. A column without a name that has distinct
    whole numbers is an exported index, which may be shuffled.
    """
    whole = bool((numbers == numbers.round()).all())  # NaN is not equal
    if "unnamed" in words(name) and whole and len(np.unique(numbers)) == len(numbers):
        return True
    if len(numbers) < 3 or not np.isfinite(numbers).all():
        return False
    if words(name) & PART and whole:
        return True
    steps = np.abs(np.diff(numbers))
    years = numbers.min() >= 1500 and numbers.max() <= 2500  # decimal ones: months differ by a tenth
    spaced = len(numbers) >= 10 and steps.max() <= (1.2 if years else 1 + 1e-6) * steps.min()
    return monotone(numbers) and bool(spaced or words(name) & (TIME | COUNTER))


def join_parts(texts: Mapping[str, pandas.Series]) -> pandas.Series | None:
    """Join columns of parts of dates (N,), such as Year and Month, to one of dates; None unless these are distinct."""
    columns = {"".join(words(name)): c.astype(object).str.strip() for name, c in texts.items() if len(words(name)) == 1}
    month = {"month": "-", "day": "-", "hour": " ", "minute": ":", "second": ":"}
    marks = month if "month" in columns else {"quarter": "-Q", "week": "-W"}
    parts = ["year", *(part for part in marks if part in columns)]
    name = " and ".join(parts)
    if "year" not in columns or len(parts) < 2 or name in texts:
        return None
    joined = columns["year"]
    for part in parts[1:]:
        joined = joined + marks[part] + columns[part]
    joined = joined + ":00" if parts[-1] == "hour" else joined
    times = read_times(joined)
    return joined.rename(name) if not np.isnat(times).any() and len(np.unique(times)) == len(times) else None


class TimeColumn(NamedTuple):
    """The column that orders a table's rows: its name, and its times (N,), NaT or NaN for other cells."""

    name: str
    times: np.ndarray


def find_times(
    texts: Mapping[str, pandas.Series],
    numbers: Mapping[str, np.ndarray],
    name: str = "",
    order: DateOrder | None = None,
) -> tuple[TimeColumn | None, set[str]]:
    """Find the column that orders the rows, whatever its name: dates, else numbers whose name says time or count.

    Args:
        texts: All columns (N,), NaN for missing cells, by name.
        numbers: The numbers (N,) of the columns that hold numbers, but for those that are to be forecast.
        name: The column, if it is known; "none" if there is none.
        order: See :func:`read_times`.

    Returns:
        The column, or None; and the names of all columns of dates and of times of day.

    Raises:
        InputError: Columns of dates order the rows differently, or the day or the month may come first.
    """
    dates: dict[str, np.ndarray] = {}
    clocks: dict[str, np.ndarray] = {}
    unclear: dict[str, InputError] = {}
    for each, column in texts.items():
        try:
            times = read_times(column, order)
        except InputError as error:
            unclear[each] = error
            continue
        read, cells = int((~np.isnat(times)).sum()), max(1, int(column.notna().sum()))
        if read == cells or (each not in numbers and (2 * read >= cells or words(each) & DATE)):
            dates[each] = times
        elif each not in numbers and not np.isnat(times := read_clocks(column)).any():
            clocks[each] = times
    distinct = {each: t for each, t in dates.items() if not np.isnat(t).any() and len(np.unique(t)) == len(t)}
    if len(dates) == len(clocks) == 1 and not distinct:  # the days, and the times of day
        day, clock = *dates, *clocks
        distinct = dates = {day: dates[day] + clocks[clock]}
    if not name:
        first = next(iter(distinct), "")
        for other, times in distinct.items():
            if not np.array_equal(np.argsort(times), np.argsort(distinct[first])):
                raise InputError(
                    f"{first!r} and {other!r} order the rows differently: say which has the times, with "
                    f'time="{first}" for example'
                )
        counting = [
            each for each, x in numbers.items() if words(each) & (PART | COUNTER) and is_index(each, x) and monotone(x)
        ]
        name = next(iter([*distinct, *unclear, *dates, *(n for n in numbers if words(n) & TIME), *counting]), "")
    if name in unclear:
        raise unclear[name]
    found = None
    if name in texts:
        found = TimeColumn(name, dates[name] if name in dates else numbers.get(name, np.full(len(texts[name]), np.nan)))
    return found, {*dates, *clocks, *unclear}


def counts_down(column: pandas.Series, numbers: np.ndarray) -> bool:
    """Return whether a column (N,), or the numbers in its texts (as in 2020-120), decreases from row to row."""
    cells = column.tolist()
    if len(cells) < 10 or not all(isinstance(cell, str) for cell in cells):
        return False
    if np.isfinite(numbers).all():
        return bool((np.diff(numbers) < 0).all())
    keys = [[int(part) for part in re.findall(r"\d{1,18}", cell)] for cell in cells]
    return all(later < earlier for earlier, later in pairwise(keys))


def monotone(numbers: np.ndarray) -> bool:
    """Return whether all numbers (N,) increase or all decrease."""
    return bool(abs(np.sign(np.diff(numbers)).sum()) == len(numbers) - 1)


def _instants(texts: pandas.Series, pattern: str, order: DateOrder | None) -> np.ndarray:
    import pandas  # imported late: it takes a second

    fields = texts.str.extract(f"^(?:{pattern})$")
    matched = fields["year"].notna()

    def whole(name: str, default: int) -> np.ndarray:
        if name not in fields:
            return np.full(len(fields), default)
        return pandas.to_numeric(fields[name]).fillna(default).to_numpy(dtype="int64")

    year, month, day = whole("year", 1970), whole("month", 1), whole("day", 1)
    short = (fields["year"].str.len() == 2).to_numpy()
    year = np.where(short, year + np.where(year < 69, 2000, 1900), year)  # as POSIX
    if "one" in fields:
        one, two = whole("one", 1), whole("two", 1)
        mark = fields["mark"][matched].iloc[0].strip() if matched.any() else ""
        year_first = mark == "-" and bool(short.any()) and not (two > 12).any()  # 20-01-05
        chosen = order or ("day" if mark == "." else None if year_first else _shown_order(one, two))
        if not chosen:
            cell, parts = (
                texts[matched].iloc[0],
                "the day, the month or the year" if year_first else "the day or the month",
            )
            raise InputError(
                f"{texts.name!r} has dates such as {cell!r}, and {parts} may come first: say which comes first, with "
                'date_order="day" or date_order="month"'
            )
        day, month = (one, two) if chosen == "day" else (two, one)
    if "name" in fields:
        month = fields["name"].map(_month_number, na_action="ignore").fillna(0).to_numpy(dtype="int64")
    if "quarter" in fields:
        month = 3 * whole("quarter", 1) - 2
    valid = matched.to_numpy() & (year >= 1500) & (year <= 2500) & (month >= 1) & (month <= 12)
    first = ((year - 1970) * 12 + np.where(valid, month, 1) - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (day - 1)
    valid &= date.astype("datetime64[M]") == first
    if "week" in fields:  # ISO 8601: week 1 has 4 January, and a week belongs to the year of its Thursday
        week, weekday = whole("week", 1), whole("weekday", 1)
        fourth = first.astype("datetime64[D]") + 3
        monday = fourth - (fourth.astype("int64") + 3) % 7 + 7 * (week - 1)  # 1970-01-01 was a Thursday
        valid &= ((monday + 3).astype("datetime64[Y]") == first.astype("datetime64[Y]")) & (week >= 1)
        date = monday + (weekday - 1)
    instants = date.astype("datetime64[us]") + _clock(fields)
    offset = fields["offset"]
    if 0 < (offset.notna() & valid).sum() < valid.sum():
        raise InputError(f"{texts.name!r} has times with an offset from UTC and times without: write all in one way")
    instants = instants - offset.map(_minutes, na_action="ignore").fillna(0).to_numpy(dtype="timedelta64[m]")
    return np.where(valid, instants, np.datetime64("NaT", "us"))


def _clock(fields: pandas.DataFrame) -> np.ndarray:
    """Return the times of day as microseconds, NaT where the clock is wrong."""
    import pandas

    hour, minute, second = (
        pandas.to_numeric(fields[name].str.replace(",", ".")).fillna(0).to_numpy(dtype="float64")
        for name in ("hour", "minute", "second")
    )
    half = fields["half"].str.lower()
    hour = np.where(half.notna(), hour % 12 + 12 * (half == "p"), hour)
    seconds = 3600 * hour + 60 * minute + second
    wrong = (seconds > 86400) | (minute > 59) | (second >= 61)
    return np.where(wrong, np.timedelta64("NaT", "us"), (seconds * 1e6).round().astype("timedelta64[us]"))


def _shown_order(one: np.ndarray, two: np.ndarray) -> DateOrder | None:
    if (one > 12).any() == (two > 12).any():
        return None
    return "day" if (one > 12).any() else "month"


def _month_number(name: str) -> int:
    names = [name.lower() for name in calendar.month_name]
    found = [number for number, full in enumerate(names) if full.startswith(name.lower())]
    return 9 if name.lower() == "sept" else found[0] if found else 0


def _minutes(offset: str) -> int:
    digits = offset[1:].replace(":", "")
    if not digits.isdecimal():
        return 0  # Z, UTC, GMT
    return (60 * int(digits[:2]) + int(digits[2:] or 0)) * (-1 if offset[0] == "-" else 1)
