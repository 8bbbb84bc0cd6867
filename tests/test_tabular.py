from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchdl import InputError
from torchdl.data.tabular import (
    Columns,
    breast_cancer,
    kind_of,
    load_transistors,
    read_table,
    split_table,
)

ROOT = Path(__file__).resolve().parent.parent


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Make rows whose target is a function of a number and of a kind."""
    random = np.random.default_rng(seed)
    size, kind = random.normal(50, 10, rows), random.choice(["red", "green", "blue"], rows)
    price = 3 * size + 20 * (kind == "red") + random.normal(0, 1, rows)
    return pd.DataFrame({"size": size, "kind": kind, "price": price})


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


@given(st.integers(0, 19), st.sampled_from(["x", "1.2.3", "12 kg"]))
@settings(max_examples=20, deadline=None)
def test_a_text_among_numbers_is_named(tmp_path_factory, row, cell):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    column = [str(i) for i in range(20)]
    column[row] = cell
    pd.DataFrame({"a": column, "b": "k"}).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"has '{cell}' in column 'a', row {row + 2}, which otherwise holds numbers"):
        read_table(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no CSV file that can be read"),
        ("a,b\n", "holds no rows below its header"),
        ("a,b,a\n1,2,3\n", "has several columns named a: rename them"),
        ("a;b\n1;2\n", "has one column alone, 'a;b': is its separator a comma"),
        ("a,b\n1,2\n3,inf\n", "has an infinite number in column 'b', row 3"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path / "x.csv")
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "none.csv")


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
    for content in ("", "[]", "{}", '{"numeric": {"a": [1]}, "categorical": {}}'):
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
    with pytest.raises(InputError, match="'x' in column 'size', row 3, is no number"):
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
        ({}, {"target": "kind", "task": "regression"}, "'kind' holds texts, which regression cannot predict"),
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
    assert data.stand_in
    assert "IN ITS PLACE: 24 processors' transistors" in data.origin
    slope = np.polyfit(years.numpy(), logarithms.numpy(), 1)[0]
    assert 1.8 < math.log(2) / slope < 2.4  # years to double
    assert float(data.inputs.mean()) == pytest.approx(0, abs=1e-5)
    (tmp_path / "root" / "csv").mkdir(parents=True)
    (tmp_path / "root" / "csv" / "moore.csv").write_text("1971,2300\n1972,x\n1973,9\n")
    with pytest.raises(InputError, match="a year and a positive count are expected in every row"):
        load_transistors(tmp_path / "root")


# scripts


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def cancer(tmp_path_factory) -> Path:
    """Train on breast cancer as the lecture does."""
    out = tmp_path_factory.mktemp("cancer")
    done = run("train_tabular.py", "--out", out, "--name", "x", "--epochs", "60", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    return out / "tabular" / "x"


def test_the_held_out_score_is_a_computation_by_hand(cancer):
    results = json.loads((cancer / "results.json").read_text())
    state = safetensors.torch.load_file(cancer / "weights.safetensors")
    weight, bias = (state[key].double().numpy() for key in sorted(state, reverse=True))
    found = split_table(breast_cancer(), "diagnosis")
    logits = found.test.inputs.double().numpy() @ weight[0] + bias[0]
    right = ((1 / (1 + np.exp(-logits)) > 0.5) == found.test.targets[:, 0].numpy()).mean()
    assert results["accuracy"]["this model"] == pytest.approx(right)
    assert abs(right - results["accuracy"]["logistic regression"]) <= 0.02
    assert results["accuracy"]["the most frequent class"] == pytest.approx(0.628, abs=0.005)
    assert results["area under the ROC curve"]["this model"] > 0.98
    assert results["weights"]["worst radius"] == pytest.approx(weight[0][20], rel=1e-6)
    for name in ("confusion", "roc", "weights", "history"):
        assert (cancer / "plots" / f"{name}.png").stat().st_size > 5_000


def test_a_new_file_is_predicted_in_any_order_of_its_columns(cancer, tmp_path):
    rows = breast_cancer()
    rows[rows.columns[::-1]].to_csv(tmp_path / "new.csv", index=False)
    done = run("predict_tabular.py", cancer, "--csv", tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "p.csv")
    right = (found["diagnosis"] == rows["diagnosis"]).mean()
    assert right > 0.96
    assert f"{right:.2%} of 569 rows right" in done.stdout
    assert np.allclose(found["probability of benign"] + found["probability of malignant"], 1)
    rows.drop(columns=["mean area", "diagnosis"]).to_csv(tmp_path / "new.csv", index=False)
    done = run("predict_tabular.py", cancer, "--csv", tmp_path / "new.csv")
    assert (done.returncode, "no column 'mean area'" in done.stderr) == (2, True)


def test_a_table_of_ones_own_is_regressed(tmp_path):
    table(200).to_csv(tmp_path / "own.csv", index=False)
    options = ["--csv", tmp_path / "own.csv", "--target", "price", "--epochs", "60", "--lr", "0.03"]
    done = run("train_tabular.py", *options, "--out", tmp_path, "--name", "x", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    errors = json.loads((tmp_path / "tabular" / "x" / "results.json").read_text())["errors"]
    assert errors["this model"]["RMSE"] < 2 < 20 < errors["the mean"]["RMSE"]
    assert errors["least squares"]["R2"] > 0.99
    table(5, seed=3).drop(columns="price").to_csv(tmp_path / "new.csv", index=False)
    done = run(
        "predict_tabular.py", tmp_path / "tabular" / "x", "--csv", tmp_path / "new.csv", "--out", tmp_path / "p.csv"
    )
    assert done.returncode == 0, done.stderr
    assert np.abs(pd.read_csv(tmp_path / "p.csv")["price"] - table(5, seed=3)["price"]).max() < 6


def test_moores_slope_is_the_closed_form(tmp_path):
    (tmp_path / "csv").mkdir()
    years = np.arange(1971, 2019).repeat(2)
    counts = np.exp(7 + 0.34 * (years - 1971) + np.random.default_rng(0).normal(0, 0.8, len(years))).round()
    pd.DataFrame({"y": years, "c": counts}).to_csv(tmp_path / "csv" / "moore.csv", index=False, header=False)
    options = ["--epochs", "200", "--later-epoch", "150", "--out", tmp_path, "--name", "x", "--device", "cpu"]
    done = run("train_moore.py", "--data-root", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "moore" / "x" / "results.json").read_text())
    slope = np.polyfit(years, np.log(counts), 1)[0]
    assert results["slope by least squares"] == pytest.approx(slope, rel=1e-6)
    assert abs(results["slope by training"] - slope) < 1e-3
    assert results["years to double, by least squares"] == pytest.approx(math.log(2) / slope, rel=1e-6)
    scipy_stats = pytest.importorskip("scipy.stats")
    assert results["standard error of the slope"] == pytest.approx(
        scipy_stats.linregress(years, np.log(counts)).stderr, rel=1e-6
    )
    assert (tmp_path / "moore" / "x" / "plots" / "moore.png").stat().st_size > 10_000


def test_a_surface_is_learnt_and_goes_on_with_sines_alone(tmp_path):
    outside = {}
    for activation in ("relu", "sine"):
        options = ["--activation", activation, "--epochs", "40", "--points", "600"]
        done = run("train_surface.py", *options, "--out", tmp_path, "--name", activation, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "surface" / activation / "results.json").read_text())
        assert results["RMSE inside"] < {"relu": 0.8, "sine": 0.1}[activation]  # always 0: 1
        outside[activation] = results["RMSE outside"] / results["RMSE outside of always 0"]
        for name in ("surface", "extrapolation"):
            assert (tmp_path / "surface" / activation / "plots" / f"{name}.png").stat().st_size > 30_000
    assert outside["sine"] < 0.5 < 1 < outside["relu"]


def test_a_table_is_described_and_drawn(tmp_path):
    table(40).assign(note=[f"n{i}" for i in range(40)]).to_csv(tmp_path / "own.csv", index=False)
    done = run("explore.py", tmp_path / "own.csv", "--out", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "40 rows, 4 columns" in done.stdout
    assert "missing: nothing" in done.stdout
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"histograms.png", "scatter_matrix.png"}
    done = run("explore.py", tmp_path / "own.csv", "--columns", "kind")
    assert (done.returncode, "no column of numbers 'kind': choose among size, price" in done.stderr) == (2, True)
