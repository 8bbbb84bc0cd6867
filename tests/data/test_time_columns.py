from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from torchdl import InputError
from torchdl.data.series import read_series
from torchdl.data.time_columns import is_index, read_clocks, read_times

LAYOUTS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m/%d/%y",
    "%d.%m.%y",
    "%d %B %Y",
    "%d-%b-%y",
    "%b %d, %Y",
    "%A, %d %b %Y",
    "%Y %b %d",
    "%Y-W%V-%u",
]
MONTHLY = ["%Y-%m", "%Y%m", "%Y/%m", "%YM%m", "%m/%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%y", "%Y %b"]
CLOCKS = ["", " %H:%M", "T%H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", "T%H:%M:%SZ", " %H:%M:%S+00:00"]


def texts(cells, name: str = "x") -> pd.Series:
    return pd.Series(list(cells), name=name, dtype=object)


def days(*cells: str) -> list[str]:
    return read_times(texts(cells)).astype("datetime64[D]").astype(str).tolist()


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dates_in_every_layout_are_those_that_were_written(layout, clock):
    step = "37h" if clock else "1D"
    true = pd.date_range("1995-12-27", periods=40, freq=step)
    found = read_times(texts(true.strftime(layout + clock)))
    resolution = "datetime64[m]" if clock else "datetime64[D]"
    assert (found == true.to_numpy().astype(resolution)).all()


@pytest.mark.parametrize("layout", MONTHLY)
def test_months_are_their_first_days(layout):
    true = pd.date_range("1995-11-01", periods=40, freq="MS")
    assert (read_times(texts(true.strftime(layout))) == true.to_numpy()).all()


def test_quarters_and_weeks_are_their_first_days():
    for cells in (["2020Q1", "2020-Q4"], ["Q1 2020", "Q4 2020"], ["1Q2020", "4Q2020"]):
        assert days(*cells) == ["2020-01-01", "2020-10-01"]
    for year in range(1998, 2012):
        weeks = [f"{year}-W{week:02}" for week in range(1, 54)]
        found = read_times(texts(weeks))
        for cell, monday in zip(weeks, found.astype("datetime64[D]").tolist(), strict=True):
            assert (monday.strftime("%G-W%V-%u") == f"{cell}-1") if monday else cell.endswith("W53")


def test_offsets_are_subtracted():
    found = read_times(texts(["2020-03-28T12:00:00+01:00", "2020-03-29T12:00:00+02:00", "2020-03-29 12:00:00-0430"]))
    assert np.diff(found).tolist() == [pd.Timedelta(hours=23), pd.Timedelta(hours=6.5)]
    with pytest.raises(InputError, match="offset"):
        read_times(texts(["2020-03-28T12:00:00+01:00", "2020-03-29T12:00:00"]))


@pytest.mark.parametrize(
    "cells", [["01/02/2020", "02/02/2020"], ["01-02-2020", "12-12-2020"], ["20-01-05", "20-02-05"]]
)
def test_an_order_of_day_and_month_that_the_cells_do_not_show_is_refused(cells):
    with pytest.raises(InputError, match=r'may come first.*date_order="day" or date_order="month"'):
        read_times(texts(cells))
    first, month = (read_times(texts(cells), order)[0] for order in ("day", "month"))
    assert first != month


NO_DATES = """
2020-02-30 2020-13-01 31.04.2020 2021-W53 2020-01-01T25:00 2020-01-01T10:61 0000-01-01 9999-99-99 Foo-2020 2020Q5
2020-01-01T 2020 12.5 soon 1.5.2 10:00 1/2 -1
"""


@pytest.mark.parametrize("cell", NO_DATES.split())
def test_what_is_no_date_is_none(cell):
    assert np.isnat(read_times(texts([cell])))
    assert np.isnat(read_times(texts(["2020-01-05", cell, None]))).tolist() == [False, True, True]


def test_times_of_day_are_read():
    assert read_clocks(texts(["18.30.15"])) == np.timedelta64(18 * 3600 + 30 * 60 + 15, "s")
    found = read_clocks(texts(["00:00", "9:05", "23:59:59.5", "12:00 am", "1:00 PM", "24:01", "x", None]))
    seconds = [0, 9 * 3600 + 300, 86399.5, 0, 13 * 3600]
    assert (found[:5] / np.timedelta64(1, "s")).tolist() == seconds
    assert np.isnat(found[5:]).all()


def test_an_index_is_evenly_spaced_or_named_so():
    count, walk = np.arange(20.0), np.random.default_rng(0).normal(size=20).cumsum()
    years = 1958 + np.array([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) / 12
    for name, numbers in (
        ("a", count),
        ("a", 7 - 3 * count),
        ("id", count**2),
        ("decimal", years),
        ("month", count % 12),
    ):
        assert is_index(name, numbers)
    for name, numbers in (("a", count**2), ("id", walk), ("price", walk), ("a", count % 19), ("month", walk)):
        assert not is_index(name, numbers)
    assert not is_index("a", count[:9])  # few numbers may be evenly spaced by chance


# as columns of a series


def written(tmp_path, columns: dict) -> str:
    path = tmp_path / "x.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return str(path)


WALK = np.random.default_rng(1).normal(100, 5, 40).round(2)
START = pd.date_range("2020-01-20", periods=40, freq="D")
EPOCH = START.to_numpy().astype("datetime64[s]").astype(int)
TIMES = {
    "timestamp": START.strftime("%Y-%m-%d"),
    "ds": START.strftime("%Y-%m-%d %H:%M:%S"),
    "Datetime": START.strftime("%d.%m.%Y"),
    "Month": pd.period_range("2001-01", periods=40, freq="M").astype(str),
    "": START.strftime("%Y-%m-%d"),
    "when": START.strftime("%Y%m%d"),
    "Woche": [f"2020-W{week:02}" for week in range(1, 41)],
    "quarter": pd.period_range("2001Q1", periods=40, freq="Q").astype(str),
    "year": range(1980, 2020),
    "time": 1958.2 + np.arange(40) / 12,
    "period": pd.period_range("2001-01", periods=40, freq="M").strftime("%Y%m"),
    "open_time": EPOCH * 1000,
    "unix": EPOCH,
    "id": range(1, 41),
}


@pytest.mark.parametrize("name", TIMES)
def test_the_column_of_times_may_have_any_name(name, tmp_path):
    columns = {name: list(TIMES[name]), "close": WALK, "volume": [f"{1000 + n**2:,}" for n in range(40)]}
    forward = read_series(written(tmp_path, columns))
    assert forward.columns == ("close", "volume")
    assert forward.values.tolist() == [[x, 1000 + n**2] for n, x in enumerate(WALK.tolist())]
    path = written(tmp_path, {key: list(cells)[::-1] for key, cells in columns.items()})
    with pytest.raises(InputError, match=r"in row 3, which is earlier .*sort=True"):
        read_series(path)
    backward = read_series(path, sort=True)
    assert backward.values.equal(forward.values)
    assert "sorted by" in backward.origin
    assert read_series(path, time="none").values.equal(forward.values.flip(0))


def test_the_times_are_utc(tmp_path):
    times = ["2020-03-28T12:00:00+01:00", "2020-03-29T12:00:00+02:00", "2020-03-30T12:00:00+02:00"]
    series = read_series(written(tmp_path, {"Date": times, "y": [1.5, 0.5, 2.5]}))
    assert np.diff(series.times).astype("timedelta64[h]").astype(int).tolist() == [23, 24]
    assert (series.returns().times == series.times[1:]).all()
    assert (series.select(["y"]).times == series.times).all()


def test_days_and_times_of_day_are_one_time(tmp_path):
    days, clocks = ["1/2/2020"] * 3 + ["31/1/2020"], ["10:00", "9:00:30", "23:00", "00:00"]
    series = read_series(written(tmp_path, {"Date": days, "Time": clocks, "y": [2, 1, 7, 0]}), sort=True)
    assert series.values[:, 0].tolist() == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ds": ["2020-01-01", "2020-01-02", "2020-01-02"]}, "'2020-01-02' as 'ds' in row 4.* row 3.*one series"),
        ({"ds": ["2020-01-01", "x", "2020-01-02"]}, "'x' as 'ds' in row 3, which is not a time"),
        ({"ds": ["2020-01-01", "", "2020-01-02"]}, "'ds' in row 3, which is not a time"),
        ({"date": ["a", "b", "c"]}, "'a' as 'date' in row 2"),
        ({"ds": ["01/02/2020", "02/02/2020", "03/02/2020"]}, "x.csv: 'ds' .*'01/02/2020'.*date_order"),
        (
            {"a": ["2020-01-01", "2020-01-02", "2020-01-03"], "b": ["2021-01-01", "2020-01-02", "2020-01-03"]},
            "'a' and 'b'",
        ),
    ],
)
def test_times_that_do_not_order_the_rows_are_one_sentence(columns, message, tmp_path):
    path = written(tmp_path, columns | {"close": [3.5, 1.5, 4.5]})
    with pytest.raises(InputError, match=message):
        read_series(path)
    assert read_series(path, time="none").values[:, 0].tolist() == [3.5, 1.5, 4.5]


def test_inputs_are_named_and_nothing_is_lost_silently(tmp_path):
    count = np.arange(40)
    columns = {
        "row": count,
        "day": START.strftime("%Y-%m-%d"),
        "month": count // 10 + 1,
        "Name": ["A"] * 40,
        "close": WALK,
        "volume": [f"{1000 + n**2:,}" for n in count],
        "yield": [f"{n % 7}.5%" for n in count],
        "expiry": [20200110 + n % 3 for n in count],
    }
    path = written(tmp_path, columns)
    series = read_series(path)
    assert series.columns == ("close", "volume", "yield")
    assert series.values[3].tolist() == [WALK[3], 1009, 0.035]
    assert "terms of close, volume, yield from" in series.origin
    assert "left out: 'row', 'month', 'Name', 'expiry'" in series.origin
    assert read_series(path, ["month", "row"]).values[15].tolist() == [2, 15]
    with pytest.raises(InputError, match="'A' instead of a number in column 'Name', row 2"):
        read_series(path, ["Name"])
    columns["volume"][5] = "many"
    with pytest.raises(InputError, match="'many' instead of a number in column 'volume', row 7"):
        read_series(written(tmp_path, columns))


def test_an_exported_row_index_is_left_out_and_says_when_the_rows_are_reversed(tmp_path):
    for index in (range(40), np.random.default_rng(2).permutation(40)):
        series = read_series(written(tmp_path, {"": index, "close": WALK, "volume": WALK[::-1]}))
        assert series.columns == ("close", "volume")
        assert "left out: 'Unnamed: 0'" in series.origin
        assert series.values[:, 0].tolist() == WALK.tolist()
    path = written(tmp_path, {"": range(39, -1, -1), "close": WALK})
    with pytest.raises(InputError, match=r"'Unnamed: 0' in row 3.*sort=True"):
        read_series(path)
    assert read_series(path, sort=True).values[:, 0].tolist() == WALK.tolist()[::-1]


def test_a_column_that_increases_evenly_is_kept_where_it_is_all_there_is(tmp_path):
    assert read_series(written(tmp_path, {"Date": START.strftime("%d/%m/%Y"), "close": range(40)})).columns == (
        "close",
    )


@pytest.mark.parametrize(
    "columns",
    [
        {"year": START.year, "month": START.month, "day": START.day},
        {
            "Year": [1990 + n // 12 for n in range(40)],
            "Month": [f"{m:%b}" for m in pd.date_range("1990", periods=40, freq="MS")],
        },
        {"YEAR": [1990 + n // 4 for n in range(40)], "QUARTER": [n % 4 + 1 for n in range(40)]},
        {
            "year": [2020] * 40,
            "month": [1] * 40,
            "day": [n // 24 + 1 for n in range(40)],
            "hour": [n % 24 for n in range(40)],
        },
        {"Periode": [f"{1990 + n // 4}-T{n % 4 + 1}" for n in range(40)]},
        {"YEAR": START.year, "MO": START.month, "DY": START.day},
        {"Tag": START.strftime("Mo %d.%m.%Y")},
    ],
)
def test_columns_of_parts_of_dates_order_the_rows(columns, tmp_path):
    rows = {**{name: list(cells) for name, cells in columns.items()}, "close": WALK.tolist()}
    forward = read_series(written(tmp_path, rows))
    assert forward.columns == ("close",)
    assert forward.times is not None
    path = written(tmp_path, {name: cells[::-1] for name, cells in rows.items()})
    with pytest.raises(InputError, match=r"in row 3, which is earlier .*sort=True"):
        read_series(path, ["close"])
    assert read_series(path, ["close"], sort=True).values.equal(forward.values)


def test_terms_that_are_missing_in_the_middle_are_noted(tmp_path):
    def origin(times) -> str:
        return read_series(written(tmp_path, {"day": times.strftime("%Y-%m-%d"), "y": range(len(times))})).origin

    days = pd.date_range("2024-01-01", periods=40)
    note = "1 of 29 steps are at least twice the usual 1 day; the longest, 11 days, begins at 2024-01-12"
    assert note in origin(days.delete(range(12, 22)))
    for equal in (days, pd.date_range("2024-01-31", periods=40, freq="ME"), days[:1]):
        assert "twice" not in origin(equal)


def test_rows_without_known_times_are_taken_in_order_with_a_word(tmp_path):
    path = written(tmp_path, {"mois": ["mars 20"] * 40, "close": WALK})
    assert "no column of times was found, so the rows are taken to be in order" in read_series(path).origin
    for cells in (EPOCH[::-1], [6900 - n**2 for n in range(40)], [f"2020-{140 - n} 093000" for n in range(40)]):
        path = written(tmp_path, {"stempel": cells, "close": WALK})
        with pytest.raises(InputError, match=r"'stempel', which decreases .*time=\"stempel\".*time=\"none\""):
            read_series(path, ["close"])
    path = written(tmp_path, {"stempel": EPOCH[::-1], "close": WALK})
    assert read_series(path, ["close"], time="stempel", sort=True).values[:, 0].tolist() == WALK.tolist()[::-1]
    assert read_series(path, ["close"], time="none").values[:, 0].tolist() == WALK.tolist()


def test_a_column_in_another_notation_is_no_missing_value(tmp_path):
    path = written(tmp_path, {"Date": START.strftime("%Y-%m-%d"), "close": [f"${x:.2f}" for x in WALK]})
    with pytest.raises(InputError, match=r"39 more: write plain numbers.*decimal=\",\""):
        read_series(path, ["close"])


def test_thousands_are_said(tmp_path):
    path = written(tmp_path, {"Date": START.strftime("%Y-%m-%d"), "close": [f"1,{234 + n}" for n in range(40)]})
    assert "column 'close' is numeric: '1,234' is read as 1234" in read_series(path).origin
