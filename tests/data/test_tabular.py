from __future__ import annotations

import csv
import io
import json
import math
import re
import string
from dataclasses import asdict
from decimal import Decimal

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import table
from hypothesis import given, settings, strategies as st

from torchdl import Columns, InputError, TableFormat, read_table, split_table
from torchdl.data.tabular import check_numeric, guess_task, load_transistors

# reading


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.sampled_from(["a", "b c", "é,ü"])), min_size=1, max_size=10))
@settings(max_examples=30, deadline=None)
def test_what_pandas_writes_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    written = pd.DataFrame(rows, columns=["number", "text"])
    written.to_csv(path, index=False)
    found = read_table(path)
    np.testing.assert_allclose(found["number"].to_numpy("float64"), written["number"], rtol=1e-14)
    assert found["text"].tolist() == written["text"].tolist()


LETTERS = string.ascii_letters + "éß_. "
CELLS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(-1e6, 1e6).map(repr),
    st.text(LETTERS + ',;"', min_size=1).map(str.strip).filter(lambda cell: cell and cell[0] != '"'),
    st.just(""),
)


@st.composite
def files(draw):
    """Draw the names and cells of a CSV file whose last row is not empty."""
    names = st.text(LETTERS, min_size=1).map(lambda name: f"{name.strip()}!")  # no cell has a !, so it is no value
    header = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), min_size=1, max_size=6))
    return header, [*rows, ["last", *rows[0][1:]]]


def written(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


@given(files(), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_file_is_read_cell_by_cell_whatever_it_holds(tmp_path_factory, file, blank):
    header, rows = file
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text(written([header, *rows]) + "\n" * blank, encoding="utf-8")
    found = read_table(path, categories=header)
    missing = {"", "NA", "nan", "null", "None", "NaN", "N/A", "n/a", "NULL"}
    assert list(found.columns) == header
    assert len(found) == len(rows)
    for position, row in enumerate(rows):
        for name, cell in zip(header, row, strict=True):
            entry = found[name].iloc[position]
            assert pd.isna(entry) if cell in missing else entry == cell
    # a cell more in each row is no reason to take the first for the row's name
    path.write_text(written([header, *([*row, "9"] for row in rows)]), encoding="utf-8")
    with pytest.raises(InputError, match=f"more cells than the {len(header)} names"):
        read_table(path)


@given(st.text(max_size=60) | st.text('ab,"\n;1.', max_size=60))
@settings(max_examples=80, deadline=None)
def test_any_text_is_a_table_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text(content, encoding="utf-8", errors="replace")
    sentence, found = "", None
    try:
        found = read_table(path)
    except InputError as error:
        sentence = str(error)
    if found is None:
        assert str(path) in sentence
        assert "\n" not in sentence
    else:
        assert len(found) > 0
        assert len(set(found.columns)) == found.shape[1] > 1


@given(st.integers(0, 19), st.sampled_from(["x", "1.2.3", "12 kg", "inf", "-Infinity", "1e999"]))
@settings(max_examples=30, deadline=None)
def test_what_is_no_number_among_numbers_is_named(tmp_path_factory, row, cell):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    column = [str(i) for i in range(20)]
    column[row] = cell
    pd.DataFrame({"a": column, "b": "k", "c": np.arange(20) / 7}).to_csv(path, index=False)
    found = read_table(path)
    shown = {"-Infinity": "-inf|-Infinity", "1e999": "inf|1e999"}.get(cell, cell)  # pandas 3, or pandas 2
    named = f"'a' .*'({shown})' in row {row + 2}\\D.*1 such"
    with pytest.raises(InputError, match=named):
        check_numeric(found)
    with pytest.raises(InputError, match=named):
        split_table(found, "c")
    assert split_table(found.assign(d=range(20)), "c", ignore="a").columns.names == ["d"]


def test_a_column_of_texts_may_hold_numbers_too():
    found = pd.DataFrame({"grade": ["1", "a", "2", "b"] * 10, "y": np.arange(40) / 7})
    check_numeric(found)
    assert split_table(found, "y").columns.categorical == {"grade": ("1", "2", "a", "b")}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "x.csv"),
        ("a,b\n", "no rows"),
        ("a,b,a\n1,2,3\n", "columns named a"),
        ("NA,b,NA\n1,2,3\n", "columns named NA"),
        ("a,b\n,\n\n", "no rows"),
        ("a , a\n1,2\n", "columns named a"),
        ("a;b\n1;2\n", "one column, 'a;b'.*separator"),
        ("a,b\n1,2\n1,2,3\n", "3 cells in row 3"),
        ("a,b\n1,2,3\n1,2\n", "more cells than the 2 names"),
        ('a,b\n"1,2\n', "a quote in row 2 that is not closed"),
        ("75,0,190.5\n54,?,160\n", "header"),
        ("a,b\n\0,2\n", "zero bytes"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, named):
    (tmp_path / "x.csv").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=named):
        read_table(tmp_path / "x.csv")
    with pytest.raises(InputError, match=r"none.csv"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match=str(tmp_path)):
        read_table(tmp_path)


def test_columns_without_a_name_and_columns_named_like_copies_are_kept(tmp_path):
    (tmp_path / "x.csv").write_text("\ufeffa,a.1,,\n1,2,3,4\n", encoding="utf-8")
    assert list(read_table(tmp_path / "x.csv").columns) == ["a", "a.1", "Unnamed: 2", "Unnamed: 3"]


# columns


def test_numbers_are_scaled_and_categories_encoded_by_the_training_rows_alone():
    rows = table()
    one = split_table(rows, "price", seed=1)
    assert one.columns.names == ["size", "kind=blue", "kind=green", "kind=red"]
    np.testing.assert_allclose(one.train.inputs[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(one.train.inputs[:, 0].std(correction=0), 1, rtol=1e-5)
    assert one.train.inputs[:, 1:].sum(1).eq(1).all()
    assert abs(float(one.test.inputs[:, 0].mean())) > 1e-4  # its own mean is another
    mean, deviation = one.columns.scale
    restored = one.train.targets[:, 0].double() * deviation + mean
    assert set(np.round(restored.numpy(), 2)) <= set(np.round(rows["price"], 2))
    assert len(one.train) + len(one.test) == 60
    assert len(one.test) == round(0.33 * 60)


def test_a_category_that_is_not_in_training_is_all_zeros_and_counted():
    columns = split_table(table(), "price").columns
    new = pd.DataFrame({"kind": ["violet", "red"], "size": [50.0, 60.0]})
    assert columns.inputs(new)[:, 1:].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert columns.unseen(new) == {"kind": 1}
    with pytest.raises(InputError, match="'kind'"):
        columns.inputs(new[["size"]])
    with pytest.raises(InputError, match=r"'size' .*'x' in row 3"):
        columns.inputs(new.astype({"size": object}).assign(size=[1, "x"]))


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1] * 10, "classification"),
        (["yes", "no"] * 10, "classification"),
        ([True, False] * 10, "classification"),
        (list(range(20)), "regression"),
        ([0.5, 1.5] * 10, "regression"),
        ([1, 2, 3], "regression"),
    ],
)
def test_the_task_is_guessed_from_the_target_or_given(values, task):
    assert guess_task(pd.Series(values)) == task
    assert guess_task(pd.Series(values), "regression") == "regression"


def test_classes_are_targets_in_every_number_there_may_be():
    rows = table().assign(two=["b", "a"] * 30, three=[1, 2, 3] * 20)
    two = split_table(rows, "two", ignore=["three"])
    assert two.columns.classes == ("a", "b")
    assert sorted(two.train.targets.flatten().unique().tolist()) == [0, 1]
    assert two.train.targets.shape[1] == 1
    three = split_table(rows, "three", ignore=["two"])
    assert three.columns.classes == ("1", "2", "3")
    assert three.train.targets.dtype == torch.int64
    assert three.test.targets.bincount().tolist() in ([7, 7, 6], [7, 6, 7], [6, 7, 7])  # each class alike


def test_missing_values_are_refused_dropped_or_filled_and_said():
    rows = table()
    rows.loc[[3, 7], "size"] = np.nan
    rows.loc[5, "kind"] = None
    rows.loc[9, "price"] = np.nan
    with pytest.raises(InputError, match=r"'size' 2 .*row 5.*'kind' 1 .*'price' 1 .*missing=\"drop\""):
        split_table(rows, "price")
    dropped = split_table(rows, "price", missing="drop")
    assert len(dropped.train) + len(dropped.test) == 56
    assert "4 rows dropped" in dropped.notes[0]
    filled = split_table(rows, "price", missing="fill")
    assert len(filled.train) + len(filled.test) == 59
    assert "1 rows dropped, others filled" in filled.notes[0]
    both = torch.cat([filled.train.inputs, filled.test.inputs])
    assert both.isfinite().all()
    assert int((both[:, 0] == 0).sum()) == 2  # the mean
    assert int((both[:, 1:].sum(1) == 0).sum()) == 1  # of no category


@pytest.mark.parametrize(
    ("change", "arguments", "named"),
    [
        ({}, {"target": "cost"}, "'cost'.*size, kind, price"),
        ({}, {"target": "price", "ignore": ["x"]}, "'x'"),
        ({"kind": [[i] for i in range(60)]}, {"target": "price"}, "'kind' .*type list.*ignore"),
        ({}, {"target": "price", "ignore": ["price"]}, "'price'.*ignored"),
        ({}, {"target": "price", "share": 1.0}, "share.*1.0"),
        ({"price": "yes"}, {"target": "price"}, "'price' 'yes'"),
        ({"price": ["yes"] * 59 + ["no"]}, {"target": "price"}, "'price' 'no' .*one row"),
        (
            {"kind": [f"n{i}" for i in range(60)], "size": 1},
            {"target": "price", "share": 0.1},
            "'kind' .*54 categories.*50",
        ),
        ({"kind": "red", "size": 1}, {"target": "price"}, "columns .*constant"),
        ({}, {"target": "kind", "task": "regression"}, "'kind' .*regression"),
        ({"size": [1e300, -1e300] * 30}, {"target": "price"}, "'size' .*too large"),
        ({"price": [1e300, -1e300] * 30}, {"target": "price", "task": "regression"}, "'price' .*too large"),
        ({"size": [0, 5e-324] * 30}, {"target": "price"}, "'size' .*too close"),
        ({"size": [math.inf, *range(59)]}, {"target": "price"}, "'size' .*'inf' in row 2"),
        ({}, {"target": "price", "share": 0.01}, "share of 0.01 .*1 of 60 rows"),
        ({}, {"target": "price", "share": 0.999}, "share of 0.999"),
        ({"price": np.nan}, {"target": "price", "missing": "drop"}, "0 rows"),
    ],
)
def test_a_table_with_nothing_to_learn_is_one_sentence(change, arguments, named):
    with pytest.raises(InputError, match=named):
        split_table(table().assign(**change), **arguments)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([None, *range(59)], dtype="Int64"),
        pd.Series([Decimal(i) / 4 for i in range(60)], dtype=object),
        pd.Series([i if i % 2 else i / 3 for i in range(60)], dtype=object),
        np.arange(60, dtype="float16"),
    ],
)
def test_numbers_of_any_type_are_numeric(column):
    rows = table().assign(size=column)
    columns = split_table(rows, "price", missing="fill").columns
    assert columns.names[0] == "size"
    assert columns.inputs(rows).isfinite().all()


def test_constant_columns_are_left_out_and_named():
    found = split_table(table().assign(same=7, also="x"), "price")
    assert found.columns.constant == ("same", "also")
    assert "same, also" in found.notes[-1]
    assert found.columns.names[0] == "size"


def test_the_transistors_torchdl_carries_stand_in_loudly_and_obey_moores_law(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    years, logarithms, data = load_transistors(fetch=False)
    assert data.fallback
    assert "IN ITS PLACE: 24 processors' transistors" in data.origin
    slope = np.polyfit(years.numpy(), logarithms.numpy(), 1)[0]
    assert 1.8 < math.log(2) / slope < 2.4  # years to double
    assert float(data.inputs.mean()) == pytest.approx(0, abs=1e-5)
    (tmp_path / "root" / "csv").mkdir(parents=True)
    (tmp_path / "root" / "csv" / "moore.csv").write_text("1971,2300\n1972,x\n1973,9\n")
    with pytest.raises(InputError, match=r"moore.csv.*year"):
        load_transistors(tmp_path / "root")


def test_a_table_with_two_columns_of_a_name_is_refused():
    with pytest.raises(InputError, match="names"):
        split_table(pd.concat([table(), table()], axis=1), "price")
    with pytest.raises(InputError, match="names"):
        split_table(table().rename(columns={"size": 7}), "price")


def test_a_test_number_that_is_out_of_all_proportion_is_named_by_its_row():
    rows = table().assign(size=np.r_[np.arange(59) % 2, 1e300])
    said = set()
    for seed in range(10):
        with pytest.raises(InputError, match=r"'size' (.*1e.300 in row 61|.*too large)") as caught:
            split_table(rows, "price", seed=seed)
        said.add("row 61" in str(caught.value))
    assert said == {True, False}  # among the test rows, and among the training rows


@given(st.lists(st.integers(-(10**6), 10**6), min_size=4, max_size=30, unique=True), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_row_is_on_one_side_and_comes_back_from_its_numbers(values, seed):
    rows = pd.DataFrame({"a": values, "y": np.arange(len(values)) + 0.5})
    found = split_table(rows, "y", seed=seed)
    mean, deviation = found.columns.numeric["a"]
    own_mean, own_deviation = found.columns.scale
    restored = []
    for part in (found.train, found.test):
        for x, y in zip(part.inputs[:, 0].double(), part.targets[:, 0].double(), strict=True):
            restored.append((float(y * own_deviation + own_mean), float(x * deviation + mean)))
    restored.sort()
    np.testing.assert_allclose([y for y, _ in restored], rows["y"], atol=1e-3)
    np.testing.assert_allclose([x for _, x in restored], values, rtol=1e-4, atol=1e-5 * max(map(abs, [1, *values])))
    # by an independent way
    known = [values[round(y - 0.5)] for y in (found.train.targets[:, 0].double() * own_deviation + own_mean).tolist()]
    np.testing.assert_allclose([mean, deviation], [np.mean(known), np.std(known)], rtol=1e-6, atol=1e-6)


def test_booleans_are_categories_whether_or_not_some_are_missing():
    rows = table().assign(sold=[True, False] * 30)
    whole = split_table(rows, "price").columns
    assert whole.categorical["sold"] == ("False", "True")
    rows["sold"] = rows["sold"].astype(object)
    rows.loc[4, "sold"] = None
    gappy = split_table(rows, "price", missing="fill").columns
    assert gappy.categorical == whole.categorical
    assert whole.inputs(rows[:6])[:, -2:].tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 0], [1, 0]]


def test_categories_that_look_like_numbers_in_a_new_file_stay_categories(tmp_path):
    rows = table().assign(zip=["007", "1.50", "a7", "b7"] * 15, sold=[True, False] * 30)
    columns = split_table(rows, "price").columns
    rows[~rows["zip"].isin(["a7", "b7"])].to_csv(tmp_path / "x.csv", index=False)
    found = columns.read(tmp_path / "x.csv")
    assert found["zip"].tolist() == ["007", "1.50"] * 15
    assert columns.unseen(found) == {}
    assert columns.gaps(found) == {}
    assert columns.gaps(found.assign(zip=None, size=[1.0, np.nan] * 15)) == {"size": 15, "zip": 30}


# kinds of columns, decided once


def train(path, target, **options):
    """Read and split a file; return the table, all rows of the file, and the encoding read back from JSON."""
    rows = read_table(path, options.pop("categories", ()), target=target)
    found = split_table(rows, target, missing="fill", **options)
    return found, rows, from_json(json.dumps(asdict(found.columns)))


def from_json(text: str) -> Columns:
    columns = msgspec.json.decode(text, type=Columns)
    columns.check()
    return columns


@pytest.mark.parametrize(
    ("names", "odd"),
    [
        ("01 02", "xx"),
        ("TRUE FALSE", "unknown"),
        ("1.0 0.0", "unknown"),
        ("True False", "no"),
        ("1 0", "2.5"),
        ("yes no", "1"),
    ],
)
def test_classes_keep_their_names_whatever_other_rows_hold(tmp_path, names, odd):
    """A file alone has dtypes of its own; with the odd value it has others."""
    first, second = names.split()
    rows = [f"{i / 7},{[first, second][i % 3 == 0]}" for i in range(30)]
    for more in ([], [f"0.1,{odd}", f"0.2,{odd}"]):
        path = tmp_path / "x.csv"
        path.write_text("\n".join(["x,code", *more, *rows, ""]))
        found, _, columns = train(path, "code", categories=["code"] if more else ())
        assert columns == found.columns
        assert columns.classes == tuple(sorted([first, second, *([odd] if more else [])]))
        # the same file, and the same file without the odd rows
        for lines in ([*more, *rows], rows):
            path.write_text("\n".join(["x,code", *lines, ""]))
            labels = columns.targets(columns.read(path)).flatten().tolist()
            assert [columns.classes[int(label)] for label in labels] == [line.split(",")[1] for line in lines]


def test_another_spelling_of_a_class_is_the_same_class(tmp_path):
    columns = split_table(table().assign(a=["1", "007"] * 30, b=["TRUE", "FALSE"] * 30), "price").columns
    # as pandas writes them where a value is missing, and where all are booleans
    (tmp_path / "x.csv").write_text("size,kind,a,b\n1,red,1.0,True\n1,red,,False\n1,red,007,false\n1,red,7,no\n")
    found = columns.read(tmp_path / "x.csv")
    assert columns.unseen(found) == {"a": 1, "b": 1}
    names = columns.names
    ones = [[name for name, one in zip(names, row, strict=True) if one == 1] for row in columns.inputs(found).tolist()]
    assert [[name for name in row if name[0] in "ab"] for row in ones] == [
        ["a=1", "b=TRUE"],
        ["b=FALSE"],
        ["a=007", "b=FALSE"],
        [],
    ]


WORDS = ["TRUE", "false", "True", "x", "NA", "", " a ", "a", "é", "nan"]
NUMBERS = ["01", "1", "1.0", "0", "-0", "007", "1e3", "12%", "1,013", "2020-01-01", "1.50", "0x1f", "+3", "3.", ".5"]
ODD = st.sampled_from([*WORDS, *NUMBERS, "9007199254740993"])


@pytest.mark.slow
@given(st.lists(ODD, min_size=3, max_size=3), st.lists(ODD, min_size=3, max_size=3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_training_file_and_each_row_alone_are_encoded_as_in_training(tmp_path_factory, values, targets, categories):
    values, targets = values * 4, targets[:2] * 5 + targets[2:] * 2
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    header = ["id", "odd", "target"]
    lines = [[f"{i / 7}", *pair] for i, pair in enumerate(zip(values, targets, strict=True))]
    path.write_text(written([header, *lines]), encoding="utf-8")
    try:
        found, rows, columns = train(path, "target", categories=header[1:] if categories else (), share=0.5)
    except InputError:
        return  # nothing to learn, or a mistake that has its own test
    again = columns.read(path)
    whole = again["target"].notna()
    inputs, known = columns.inputs(again), columns.targets(again[whole])
    assert inputs.equal(columns.inputs(rows))
    assert known.equal(columns.targets(rows[whole]))
    training = torch.cat([found.train.inputs, found.test.inputs])
    order = training[:, 0].argsort()
    assert training[order].equal(inputs[whole.tolist()])
    for place, line in enumerate(lines):
        path.write_text(written([header, line]), encoding="utf-8")
        assert columns.inputs(columns.read(path)).equal(inputs[place : place + 1])


def test_old_columns_mean_the_same(tmp_path):
    old = """{"numeric": {"x": [0.5, 2.0]}, "categorical": {"b": ["False", "True"], "c": ["1", "2"]}, "target": "y",
      "classes": ["0", "1"], "scale": [0.0, 1.0], "constant": []}"""
    columns = from_json(old)
    (tmp_path / "x.csv").write_text("x,b,c,y\n0.5,TRUE,2.0,1.0\n2.5,False,1,0\n")
    found = columns.read(tmp_path / "x.csv")
    assert columns.inputs(found).tolist() == [[0, 0, 1, 0, 1], [1, 1, 0, 1, 0]]
    assert columns.targets(found).flatten().tolist() == [1, 0]
    # a row index was an input
    (tmp_path / "x.csv").write_text(",b,c,y\n0,TRUE,2.0,1.0\n1,False,1,0\n")
    columns = from_json(old.replace('"x"', '"Unnamed: 0"'))
    assert columns.inputs(columns.read(tmp_path / "x.csv"))[:, 0].tolist() == [-0.25, 0.25]


def test_leading_zeros_mean_nothing_in_a_column_that_was_numeric_in_training(tmp_path):
    columns = split_table(table(), "price", ignore=["kind"]).columns
    for cell in ("50", "050", "00050.0"):
        (tmp_path / "x.csv").write_text(f"size\n{cell}\n{cell}\n")
        assert columns.read(tmp_path / "x.csv")["size"].tolist() == [50, 50]


def test_thousands_and_percents_are_numbers_and_said(tmp_path):
    (tmp_path / "x.csv").write_text('share,people,y\n23%,"1,013",1.5\n3%,950,2.5\n')
    found = read_table(tmp_path / "x.csv")
    assert found.to_numpy().tolist() == [[0.23, 1013, 1.5], [0.03, 950, 2.5]]
    assert "'23%' is read as 0.23" in found.attrs["notes"][0]
    assert "'1,013' is read as 1013" in found.attrs["notes"][1]
    (tmp_path / "x.csv").write_text("a;b;c\n1.013,5;1;x\n950;2;y\n")
    assert read_table(tmp_path / "x.csv", format=TableFormat(separator=";", decimal=","))["a"].tolist() == [1013.5, 950]


def test_notes_of_a_file_reach_the_run(tmp_path):
    table(30).to_csv(tmp_path / "x.csv")
    found = split_table(read_table(tmp_path / "x.csv"), "price", ignore=["kind"])
    assert found.columns.names == ["size"]
    assert "numbers the rows" in found.notes[0]
    rows = "".join(f"\n{i},{i * i % 7}" for i in range(30))
    (tmp_path / "x.csv").write_text(f"\n\na,b{rows}\n5,\n")
    with pytest.raises(InputError, match=r"'b' 1 \(first in row 34\)"):
        split_table(read_table(tmp_path / "x.csv"), "a")
    (tmp_path / "x.csv").write_text(f"{rows[1:]}\n5,\n")
    with pytest.raises(InputError, match=r"'V2' 1 \(first in row 31\)"):
        split_table(read_table(tmp_path / "x.csv", format=TableFormat(header=False)), "V1")


@pytest.mark.parametrize(
    ("entry", "advice"), [("${}", "na="), ("{} €", "categories="), ("{},5", 'or name .*decimal=","')]
)
def test_numbers_in_another_notation_are_refused_by_name(entry, advice):
    rows = table(30).assign(paid=[entry.format(i % 7) for i in range(30)])
    with pytest.raises(InputError, match=rf"'paid' has '{re.escape(entry.format(0))}' in row 2, .*30 such.*{advice}"):
        split_table(rows, "price")
    assert split_table(rows.astype({"paid": "category"}), "price").columns.categorical["paid"][0] == entry.format(0)


def test_a_column_that_numbers_the_rows_is_named(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Id,x,year\n" + "".join(f"{n + 1},{n**2 % 7},{1990 + n % 9}\n" for n in range(20)))
    assert read_table(path).attrs["notes"] == (
        "column 'Id' increases by 1 from row to row: ignore it, unless it is a measurement",
    )
    assert read_table(path, target="Id").attrs["notes"] == ()


def test_complex_numbers_are_categories_and_lose_no_part():
    table = pd.DataFrame({"z": np.array([1 + 1j, 1 - 1j] * 10), "kind": ["up", "down"] * 10})
    columns = Columns.fit(table, "kind")
    assert len(columns.categorical["z"]) == 2
    assert columns.inputs(table)[:, 0].tolist() == [float(row % 2 == 0) for row in range(20)]
