from __future__ import annotations

import csv
import io
import math
import string

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import table
from hypothesis import given, settings
from hypothesis import strategies as st

import torchdl
from torchdl import Columns, InputError, read_table, split_table
from torchdl.data.tabular import check_numbers, kind_of, load_transistors
from torchdl.recipes.tabular import answers, check_fit, linear_weights, outputs, score

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
    names = st.text(LETTERS, min_size=1).map(str.strip).filter(bool)
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
    found = read_table(path, texts=header)
    missing = {"", "NA", "nan", "null", "None", "NaN", "N/A", "n/a", "NULL"}
    assert list(found.columns) == header
    assert len(found) == len(rows)
    for position, row in enumerate(rows):
        for name, cell in zip(header, row, strict=True):
            entry = found[name].iloc[position]
            assert pd.isna(entry) if cell in missing else entry == cell
    # a cell more in each row is no reason to take the first for the row's name
    path.write_text(written([header, *([*row, "9"] for row in rows)]), encoding="utf-8")
    with pytest.raises(InputError, match=f"more cells than its header of {len(header)} has names"):
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
    shown = {"-Infinity": "-inf", "1e999": "inf"}.get(cell, cell)
    sentence = f"column 'a' holds '{shown}' in row {row + 2}, which is no finite number .1 such in all"
    with pytest.raises(InputError, match=sentence):
        check_numbers(found)
    with pytest.raises(InputError, match=sentence):
        split_table(found, "c")
    assert split_table(found.assign(d=range(20)), "c", ignore=["a"]).columns.names == ["d"]


def test_a_column_of_texts_may_hold_numbers_too():
    found = pd.DataFrame({"grade": ["1", "a", "2", "b"] * 10, "y": np.arange(40) / 7})
    check_numbers(found)
    assert split_table(found, "y").columns.categorical == {"grade": ("1", "2", "a", "b")}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no CSV file that can be read"),
        ("a,b\n", "holds no rows below its header"),
        ("a,b,a\n1,2,3\n", "has several columns named a: rename them"),
        ("NA,b,NA\n1,2,3\n", "has several columns named NA: rename them"),
        ("a,b\n,\n\n", "holds no rows below its header"),
        ("a , a\n1,2\n", "has several columns named a: rename them"),
        ("a;b\n1;2\n", "has one column alone, 'a;b': is its separator a comma"),
        ("a,b\n1,2\n1,2,3\n", "is no CSV file that can be read .*Expected 2 fields in line 3, saw 3"),
        ("a,b\n1,2,3\n1,2\n", "has rows of more cells than its header of 2 has names"),
        ('a,b\n"1,2\n', "is no CSV file that can be read .*EOF inside string"),
        ("75,0,190.5\n54,?,160\n", "has numbers where its columns' names belong: write a header"),
        ("a,b\né,2\n", "is no CSV file that can be read .*utf-8.*: save it as UTF-8"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "x.csv").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path / "x.csv")
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path)


def test_columns_without_a_name_and_columns_named_like_copies_are_kept(tmp_path):
    (tmp_path / "x.csv").write_text("\ufeffa,a.1,,\n1,2,3,4\n", encoding="utf-8")
    assert list(read_table(tmp_path / "x.csv").columns) == ["a", "a.1", "Unnamed: 2", "Unnamed: 3"]


# columns


def test_numbers_are_scaled_and_kinds_are_counted_by_the_training_rows_alone():
    rows = table()
    one = split_table(rows, "price", seed=1)
    held_out = one.test.inputs
    assert one.columns.names == ["size", "kind=blue", "kind=green", "kind=red"]
    np.testing.assert_allclose(one.train.inputs[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(one.train.inputs[:, 0].std(correction=0), 1, rtol=1e-5)
    assert one.train.inputs[:, 1:].sum(1).eq(1).all()
    assert abs(float(held_out[:, 0].mean())) > 1e-4  # its own mean is another
    mean, deviation = one.columns.scale
    restored = one.train.targets[:, 0].double() * deviation + mean
    assert set(np.round(restored.numpy(), 2)) <= set(np.round(rows["price"], 2))
    assert len(one.train) + len(one.test) == 60
    assert len(one.test) == round(0.33 * 60)


def test_columns_come_back_from_json_and_nothing_else_does(tmp_path):
    columns = split_table(table(), "price").columns
    columns.save(tmp_path / "columns.json")
    assert Columns.load(tmp_path / "columns.json") == columns
    good = (tmp_path / "columns.json").read_text()
    zero = good.replace(str(columns.scale[1]), "0.0")
    assert zero != good
    for content in ("", "[]", "{}", '{"numeric": {"a": [1]}, "categorical": {}}', zero, good[:-20]):
        (tmp_path / "columns.json").write_text(content)
        with pytest.raises(InputError, match="does not describe a table"):
            Columns.load(tmp_path / "columns.json")


def test_a_kind_that_training_has_not_seen_is_none_and_counted():
    columns = split_table(table(), "price").columns
    new = pd.DataFrame({"kind": ["violet", "red"], "size": [50.0, 60.0]})
    assert columns.inputs(new)[:, 1:].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert columns.unseen(new) == {"kind": 1}
    with pytest.raises(InputError, match="the table has no column 'kind', which the model was trained on"):
        columns.inputs(new[["size"]])
    with pytest.raises(InputError, match="column 'size' holds 'x' in row 3, which is no finite number"):
        columns.inputs(new.astype({"size": object}).assign(size=[1, "x"]))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1] * 10, "classification"),
        (["yes", "no"] * 10, "classification"),
        ([True, False] * 10, "classification"),
        (list(range(20)), "regression"),
        ([0.5, 1.5] * 10, "regression"),
        ([1, 2, 3], "regression"),
    ],
)
def test_the_kind_of_a_target_is_guessed_and_can_be_said(values, kind):
    assert kind_of(pd.Series(values)) == kind
    assert kind_of(pd.Series(values), "regression") == "regression"


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
    with pytest.raises(InputError, match=r"'size' 2 \(first in row 5\), 'kind' 1 .*'price' 1 .*--missing drop or"):
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
    assert int((both[:, 1:].sum(1) == 0).sum()) == 1  # of no kind


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({}, {"target": "cost"}, "there is no column 'cost': choose among size, kind, price"),
        ({}, {"target": "price", "ignore": ["x"]}, "there is no column 'x'"),
        ({}, {"target": "price", "ignore": ["price"]}, "cannot be both the target and ignored"),
        ({}, {"target": "price", "share": 1.0}, r"the held-out share must be in \(0, 1\)"),
        ({"price": "yes"}, {"target": "price"}, "all rows have the 'price' 'yes'"),
        ({"price": ["yes"] * 59 + ["no"]}, {"target": "price"}, "the 'price' 'no' has one row alone"),
        ({"kind": [f"n{i}" for i in range(60)], "size": 1}, {"target": "price", "share": 0.1}, "54 different texts"),
        ({"kind": "red", "size": 1}, {"target": "price"}, "no column beside the target tells rows apart"),
        ({}, {"target": "kind", "task": "regression"}, "'kind' holds texts or truths, which regression cannot predict"),
        ({"size": [1e300, -1e300] * 30}, {"target": "price"}, "the numbers in column 'size' are too large"),
        ({"price": [1e300, -1e300] * 30}, {"target": "price", "task": "regression"}, "column 'price' are too large"),
        ({"size": [0, 5e-324] * 30}, {"target": "price"}, "too near to one another"),
        (
            {"size": [math.inf, *range(59)]},
            {"target": "price"},
            "column 'size' holds 'inf' in row 2, which is no finite",
        ),
        ({}, {"target": "price", "share": 0.01}, "a share of 0.01 leaves 1 of 60 rows on one side"),
        ({}, {"target": "price", "share": 0.999}, "cannot be split with a share of 0.999 held out"),
        ({"price": np.nan}, {"target": "price", "missing": "drop"}, "0 rows are too few"),
    ],
)
def test_a_table_with_nothing_to_learn_is_one_sentence(change, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        split_table(table().assign(**change), **arguments)


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
    with pytest.raises(InputError, match="a year and a positive count are expected in every row"):
        load_transistors(tmp_path / "root")


def test_a_table_with_two_columns_of_a_name_is_refused():
    with pytest.raises(InputError, match="must have names, texts of which no two are the same"):
        split_table(pd.concat([table(), table()], axis=1), "price")
    with pytest.raises(InputError, match="must have names, texts"):
        split_table(table().rename(columns={"size": 7}), "price")


def test_a_held_out_number_that_is_out_of_all_proportion_is_named_by_its_row():
    rows = table().assign(size=np.r_[np.arange(59) % 2, 1e300])
    said = set()
    for seed in range(10):
        with pytest.raises(
            InputError, match=r"column 'size' (holds 1e.300 in row 61, too far|are too large)"
        ) as caught:
            split_table(rows, "price", seed=seed)
        said.add("row 61" in str(caught.value))
    assert said == {True, False}  # held out, and among the training rows


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


def test_truths_are_kinds_whether_or_not_some_are_missing():
    rows = table().assign(sold=[True, False] * 30)
    whole = split_table(rows, "price").columns
    assert whole.categorical["sold"] == ("False", "True")
    rows["sold"] = rows["sold"].astype(object)
    rows.loc[4, "sold"] = None
    gappy = split_table(rows, "price", missing="fill").columns
    assert gappy.categorical == whole.categorical
    assert whole.inputs(rows[:6])[:, -2:].tolist() == [[0, 1], [1, 0], [0, 1], [1, 0], [0, 0], [1, 0]]


def test_texts_that_look_like_numbers_in_a_new_file_stay_texts(tmp_path):
    rows = table().assign(zip=["007", "1.50", "a7", "b7"] * 15, sold=[True, False] * 30)
    columns = split_table(rows, "price").columns
    assert columns.texts == ["kind", "zip"]
    rows[~rows["zip"].isin(["a7", "b7"])].to_csv(tmp_path / "x.csv", index=False)
    found = read_table(tmp_path / "x.csv", columns.texts)
    assert columns.unseen(found) == {}
    assert columns.unseen(read_table(tmp_path / "x.csv")) == {"zip": 30}  # as numbers: 7 and 1.5
    assert columns.gaps(found) == {}
    assert columns.gaps(found.assign(zip=None, size=[1.0, np.nan] * 15)) == {"size": 15, "zip": 30}
    classes = split_table(rows, "zip").columns
    assert "zip" in classes.texts
    assert "grade" not in split_table(rows.assign(grade=[1, 2] * 30), "grade").columns.texts


# answers and scores


def columns_of(classes: tuple[str, ...] = ()) -> Columns:
    return Columns({"a": (1.0, 2.0), "b": (0.0, 1.0)}, {}, "y", classes, (10.0, 5.0))


@pytest.mark.parametrize("classes", [(), ("no", "yes"), ("r", "s", "t")])
def test_answers_are_the_formulas_and_scores_are_counted_by_hand(classes):
    columns = columns_of(classes)
    model = torchdl.MLP(2, outputs(columns), hidden=(), dropout=0)
    check_fit(model, columns)
    weight, bias = (p.detach().double().numpy() for p in model.parameters())
    x = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-3.0, 1.0], [0.0, 0.0]])
    z = x.double().numpy() @ weight.T + bias
    if not classes:
        expected = 5 * z[:, 0] + 10
    elif len(classes) == 2:
        p = 1 / (1 + np.exp(-z[:, 0]))
        expected = np.stack([1 - p, p], 1)
    else:
        expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    found = answers(model, columns, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    goal = [classes[row.argmax()] for row in expected] if classes else list(expected + np.array([1, -1, 3, 0]))
    goal[3] = None  # of the rows with a target two of three, or none exactly, are right
    if classes:
        goal[0] = "another"
        assert score(columns, found, pd.DataFrame({"y": goal})) == "66.67% of 3 rows with a target right"
    else:
        rmse, mae = math.sqrt(11 / 3), 5 / 3
        said = score(columns, found, pd.DataFrame({"y": goal}))
        assert said == f"RMSE {rmse:.4g}, MAE {mae:.4g} on 3 rows with a target"
        with pytest.raises(InputError, match="column 'y' holds 'x' in row 3"):
            score(columns, found, pd.DataFrame({"y": ["1", "x", "2", "3"]}))
    for empty in (pd.DataFrame({"a": [1, 2, 3, 4]}), pd.DataFrame({"y": [None] * 4})):
        assert score(columns, found, empty) == "the file has no target to compare with"


def test_a_model_of_another_table_is_refused():
    for wrong in (torchdl.MLP(3, 1, (), 0.0), torchdl.MLP(2, 3, (), 0.0), torchdl.simple_gan()):
        with pytest.raises(InputError, match="do not belong together"):
            check_fit(wrong, columns_of(("no", "yes")))


def test_only_a_linear_model_has_weights_of_columns():
    line = torchdl.MLP(4, 3, hidden=(), dropout=0.0)
    assert torch.equal(linear_weights(line), line.layers[0].weight)
    assert linear_weights(torchdl.MLP(4, 3, hidden=(2,))) is None
    assert linear_weights(torchdl.SequenceModel("lstm", 4, 3)) is None
