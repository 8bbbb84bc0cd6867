from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import gaussian
from helpers.servers import FolderServer, serving
from hypothesis import given, settings, strategies as st

from torchdl import InputError
from torchdl.data import ArrayDataset, BatchLoader, ImageDataset, course_files
from torchdl.data.course_files import FILES, find_file
from torchdl.data.download import NotFound
from torchdl.data.info import fingerprint
from torchdl.data.series import (
    PRICES,
    Series,
    Split,
    Windows,
    google_prices,
    load_prices,
    read_series,
    sine,
    sine_of_square,
)
from torchdl.data.tabular import load_transistors


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Keep this machine's own data and the network out of every test."""
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, source in FILES.items():
        monkeypatch.setitem(FILES, name, dataclasses.replace(source, urls=("http://127.0.0.1:9/",)))


def series(values) -> Series:
    values = torch.as_tensor(values, dtype=torch.float64)
    return Series(values, tuple(f"column{i}" for i in range(values.shape[1])))


# windows


def test_the_lectures_example_has_seven_windows():
    windows = Windows(torch.tensor([1.0, 2, 3, 2, 1, 2, 3, 2, 1, 2])[:, None], 3)
    inputs, targets = windows[:]
    assert len(windows) == 10 - 3 - 1 + 1 == 7
    assert inputs[:, :, 0].tolist()[:2] == [[1, 2, 3], [2, 3, 2]]
    assert targets[:, 0, 0].tolist() == [2, 1, 2, 3, 2, 1, 2]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 8), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_windows_are_those_of_a_loop(length, horizon, more, columns):
    values = gaussian(length + horizon + more, columns)
    windows = Windows(values, length, horizon)
    assert len(windows) == len(values) - length - horizon + 1 == more + 1
    expected = [(values[i : i + length], values[i + length : i + length + horizon]) for i in range(more + 1)]
    for i, (x, y) in enumerate(expected):
        assert torch.equal(windows[i][0], x)
        assert torch.equal(windows[i][1], y)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(more))
    inputs, targets = windows.__getitems__(order)
    assert torch.equal(inputs, torch.stack([expected[i][0] for i in order]))
    assert torch.equal(targets, torch.stack([expected[i][1] for i in order]))
    assert torch.equal(windows[-1][1], expected[-1][1])


def test_a_loader_gives_every_window_once():
    windows = Windows(gaussian(30, 2), 4, 3)
    seen = torch.cat([x[:, 0, 0] for x, _ in BatchLoader(windows, 7, shuffle=True)])
    assert sorted(seen.tolist()) == sorted(windows[:][0][:, 0, 0].tolist())


@pytest.mark.parametrize(("length", "horizon"), [(5, 6), (10, 1), (1, 10)])
def test_a_series_that_is_too_short_is_one_sentence(length, horizon):
    with pytest.raises(InputError, match=f"10 terms .*{length} terms .*{horizon}"):
        Windows(torch.zeros(10, 1), length, horizon)
    assert len(Windows(torch.zeros(11, 1), length, horizon)) == 1


@pytest.mark.parametrize(("length", "horizon"), [(0, 1), (1, 0), (-1, 1)])
def test_windows_of_nothing_are_refused(length, horizon):
    with pytest.raises(InputError, match=f"length and horizon .*{length} and {horizon}"):
        Windows(torch.zeros(10, 1), length, horizon)


# the split


def test_no_training_target_is_held_out_and_no_held_out_target_was_learnt():
    split = Split(series(torch.arange(50.0)[:, None]), length=4, test_size=20)
    for horizon in (1, 3, 20):
        x, y = split.train(horizon)[:]
        assert split.unscale(y).max() < 30
        assert len(x) == 30 - 4 - horizon + 1
        x, y = split.test(horizon)[:]
        assert split.unscale(y).min() == pytest.approx(30, abs=1e-5)
        assert split.unscale(x)[0, -1, 0] == pytest.approx(29, abs=1e-5)  # the past is known
        assert len(x) == 20 - horizon + 1


def test_the_scale_is_the_training_parts_alone():
    values = gaussian(60, 2).double() * 3 + 5
    changed = values.clone()
    changed[40:] = 1e6
    one, other = (Split(series(v), 5, 20) for v in (values, changed))
    assert torch.equal(one.train()[:][0], other.train()[:][0])
    np.testing.assert_allclose(one.scaled[:40].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(one.scaled[:40].std(0, correction=0), 1, rtol=1e-5)
    torch.testing.assert_close(one.unscale(one.scaled), values, rtol=1e-5, atol=1e-5)


def test_a_split_that_leaves_nothing_to_learn_is_one_sentence():
    with pytest.raises(InputError, match=r"20 terms .*length 5 .*test_size 15"):
        Split(series(gaussian(20, 1)), 5, 15)
    assert len(Split(series(gaussian(20, 1)), 5, 14).train()) == 1


def test_a_column_that_is_constant_in_training_is_named():
    values = gaussian(30, 2).double()
    values[:20, 1] = 0.1
    with pytest.raises(InputError, match="constant in 'column1'"):
        Split(series(values), 5, 10)


# series


def test_the_made_up_series_are_their_formulas():
    time = np.arange(200)
    np.testing.assert_allclose(sine().values[:, 0], np.sin(0.1 * time), atol=1e-12)
    np.testing.assert_allclose(sine_of_square(200).values[:, 0], np.sin((0.1 * time) ** 2), atol=1e-12)
    noise = sine(20_000, noise=0.5, seed=3).values[:, 0] - sine(20_000).values[:, 0]
    assert float(noise.std()) == pytest.approx(0.5, rel=0.03)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert torch.equal(sine(9, noise=1, seed=1).values, sine(20, noise=1, seed=1).values[:9])
    assert not torch.equal(sine(9, noise=1, seed=1).values, sine(9, noise=1, seed=2).values)


def test_a_series_is_made_of_arrays_tables_and_lists_and_a_single_text_is_one_name():
    numbers = [[1.0, 2.0], [3.0, 4.0]]
    for values in (numbers, np.array(numbers, "float32"), torch.tensor(numbers), pd.DataFrame(numbers)):
        made = Series(values, ["a", "b"])
        assert made.values.dtype == torch.float64
        assert (made.values.tolist(), made.columns) == (numbers, ("a", "b"))
        assert made.select("b").values.tolist() == [[2], [4]]
    assert Series([1, 2], "close").select("close").columns == ("close",)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Series([[1.0, 2.0]], ("a",)), "each of its 2 columns, not the 1 of 'a'"),
        (lambda: Series([[[1.0]]], ("a",)), r"\(1, 1, 1\)"),
        (lambda: Series([["x"]], ("a",)), "numbers, not a list"),
        (lambda: Series([[1, 2], [3, math.nan], [math.inf, 4]], ("a", "b")), "'b' has nan at term 2, and 1 more"),
        (lambda: Series([1, 2], ("a",), times=np.array(["2024-01-01"], "datetime64[us]")), "2 terms needs as many"),
        (lambda: Split(np.ones((9, 1)), 2, 3), "torchdl.Series, not a ndarray"),
        (lambda: read_series(pd.DataFrame({"a": [1, 2]})), "table_series takes a DataFrame"),
    ],
)
def test_what_is_no_series_is_said_where_it_is_made(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_returns_are_pandas_and_a_zero_price_is_named():
    prices = google_prices().select(["close"])
    expected = pd.Series(prices.values[:, 0].numpy()).pct_change().to_numpy()[1:]
    np.testing.assert_allclose(prices.returns().values[:, 0], expected, rtol=1e-12, atol=1e-15)
    with pytest.raises(InputError, match="'column0' is 0 at term 2"):
        series([[1.0], [0.0], [2.0]]).returns()


def test_selecting_keeps_the_order_asked_for_and_names_what_is_not_there():
    prices = google_prices()
    assert prices.columns == PRICES
    chosen = prices.select(["volume", "open"])
    assert torch.equal(chosen.values, prices.values[:, [4, 0]])
    with pytest.raises(InputError, match=r"'clse'.*open, high, low, close, volume"):
        prices.select(["clse"])


def test_the_fingerprint_is_of_values_and_names():
    one = series(gaussian(5, 2))
    prints = {
        one.fingerprint(),
        series(gaussian(5, 2).double() + 1e-9).fingerprint(),
        one.select(["column1"]).fingerprint(),
    }
    assert len(prints | {Series(one.values, ("a", "b")).fingerprint()}) == 4
    assert series(gaussian(5, 2)).fingerprint() == one.fingerprint()


# CSV files


@given(st.lists(st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=2), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_what_pandas_writes_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    pd.DataFrame(rows, columns=["a", "b"]).to_csv(path, index=False)
    found = read_series(path)
    assert found.columns == ("a", "b")
    np.testing.assert_allclose(found.values.numpy(), np.array(rows), rtol=1e-14)


@given(st.integers(0, 7), st.sampled_from(["a", "b"]), st.sampled_from(["", "nan", "n/a", "twelve", "inf", "-inf"]))
@settings(max_examples=40, deadline=None)
def test_one_spoilt_cell_is_named_by_column_and_row(tmp_path_factory, row, column, cell):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    table = pd.DataFrame({"a": range(8), "b": range(8, 16)}).astype(str)
    table.loc[row, column] = cell
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"number .*'{column}', row {row + 2}"):
        read_series(path, ["a", "b"])


def test_several_spoilt_cells_are_counted(tmp_path):
    (tmp_path / "x.csv").write_text("a\n1\n\nx\n4\n")
    with pytest.raises(InputError, match=r"nothing .*'a', row 3, and 1 more"):
        read_series(tmp_path / "x.csv", ["a"])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "x.csv"),
        (b"a,b\n", "no rows"),
        (b"a;b\n1;2\n3;4\n", "no numeric column.*separator"),
        (b"a, a\n1,2\n", "columns named a"),
        (b"\x00\xff\xfe\x89PNG", "x.csv"),
        (b"date,a\n2020-01-02,1\n2020-01-01,2\n", "'2020-01-01' as 'date' in row 3"),
        (b"Date,a\n2020-01-02,1\n2020-01-02,2\n", "'2020-01-02' as 'Date' in row 3"),
        (b"date,a\n2020-01-02,1\nsoon,2\n", "'soon' as 'date' in row 3"),
    ],
)
def test_what_is_no_series_is_one_sentence(tmp_path, content, named):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=named):
        read_series(path)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv"):
        read_series(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_text("date,a,b\n2020-01-03,1,2\n2020-01-06,3,4\n")  # a weekend is no gap
    assert read_series(tmp_path / "x.csv").columns == ("a", "b")
    with pytest.raises(InputError, match=r"'c'.*date, a, b"):
        read_series(tmp_path / "x.csv", ["c"])


# files by name, and arrays


@pytest.fixture
def served(tmp_path, monkeypatch):
    folder = tmp_path / "served"
    folder.mkdir()

    content = b"date,open,high,low,close,volume,Name\n2020-01-01,1,2,1,2,5,X\n2020-01-02,2,3,2,3,6,X\n"
    (folder / "sbux.csv").write_bytes(content)
    with serving(FolderServer(folder)) as server:
        url = f"{server.url}/sbux.csv"
        source = course_files.FileSource("csv/sbux.csv", (url,), hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(FILES, "sbux", source)
        yield folder


def test_a_file_is_downloaded_once_checked_and_found_afterwards(served, tmp_path):
    path = find_file("sbux", tmp_path / "root")
    assert path == tmp_path / "root" / "csv" / "sbux.csv"
    (served / "sbux.csv").unlink()
    assert find_file("sbux", tmp_path / "root") == path
    prices = load_prices(tmp_path / "root")
    assert not prices.fallback
    assert prices.values.tolist() == [[1, 2, 1, 2, 5], [2, 3, 2, 3, 6]]


def test_a_file_with_other_bytes_is_refused_and_google_stands_in_loudly(served, tmp_path):
    (served / "sbux.csv").write_text("something else")
    with pytest.raises(NotFound, match=r"sbux .* SHA-256 .*sbux\.csv"):
        find_file("sbux", tmp_path / "root")
    assert not (tmp_path / "root" / "csv" / "sbux.csv").exists()
    prices = load_prices(tmp_path / "root")
    assert prices.fallback
    assert "IN ITS PLACE: 1,047 days of Google's prices" in prices.origin
    assert not google_prices().fallback


def test_a_damaged_file_is_an_error_and_no_reason_for_a_stand_in(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "sbux.csv").write_text("open,high,low,close,volume\n1,2,3,x,5\n")
    with pytest.raises(InputError, match=r"'x' .*'close', row 2"):
        load_prices(tmp_path)


def test_a_wrong_folder_of_data_is_an_error_and_no_reason_for_a_stand_in(tmp_path):
    (tmp_path / "file").touch()
    for load in (load_prices, load_transistors):
        with pytest.raises(InputError, match=str(tmp_path / "file")):
            load(tmp_path / "file")


def test_an_unknown_file_and_one_not_to_be_fetched_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"'sbx'.*moore, spam, sbux"):
        find_file("sbx")
    with pytest.raises(NotFound, match=f"turned off.*{tmp_path}"):
        find_file("sbux", tmp_path, fetch=False)


def test_a_data_set_shows_its_size_shapes_classes_and_origin():
    pixels, names = torch.zeros(12, 1, 2, 2, dtype=torch.uint8), [f"c{n}" for n in range(12)]
    images = ImageDataset(pixels, torch.arange(12), classes=names, origin="a test")
    shapes = "images (12, 1, 2, 2) uint8, labels (12,) int64"
    assert repr(images) == f"ImageDataset(12 items, {shapes}, 12 classes ({', '.join(names[:10])}, ...), from a test)"
    assert repr(Split(sine(100), 10, 20).train()) == "Windows(70 items, values (80, 1) float32)"


def test_arrays_are_indexed_by_the_batch_and_fingerprinted():
    x, y = gaussian(9, 3), torch.arange(9)
    data = ArrayDataset(x, y, "here")
    inputs, targets = data.__getitems__([4, 2, 4])
    assert torch.equal(inputs, x[[4, 2, 4]])
    assert targets.tolist() == [4, 2, 4]
    assert torch.equal(data[2][0], x[2])
    assert torch.equal(data[1:3][0], x[1:3])
    assert data.fingerprint() == ArrayDataset(x.clone(), y, "there").fingerprint()
    others = [ArrayDataset(x, y + 1), ArrayDataset(x.view(9, 1, 3), y), ArrayDataset(-x, y)]
    assert len({data.fingerprint(), *(other.fingerprint() for other in others)}) == 4
    with pytest.raises(InputError, match=r"8 targets .*9 inputs"):
        ArrayDataset(x, y[:8])


def test_a_fingerprint_is_the_sha_256_of_text_and_bytes():
    tensor = torch.tensor([1, 2], dtype=torch.int32)
    assert fingerprint([tensor], "x") == hashlib.sha256(b"x\x01\0\0\0\x02\0\0\0").hexdigest()
