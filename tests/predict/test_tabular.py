from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import table

from torchdl import MLP, Columns, InputError, TableFormat, load_predictor, read_table, simple_gan, split_table
from torchdl.files import PREPROCESSING
from torchdl.predict import ClassAnswers, NumberAnswers, TabularPredictor
from torchdl.recipes.tabular import evaluate_table, outputs, score

ROWS = table(60)


def columns_of(classes: tuple[str, ...] = ()) -> Columns:
    return Columns({"a": (1.0, 2.0), "b": (0.0, 1.0)}, {}, "y", classes, (10.0, 5.0))


def predictor_of(columns: Columns, hidden: tuple[int, ...] = (4,)) -> TabularPredictor:
    torch.manual_seed(0)
    return TabularPredictor(MLP(len(columns.names), outputs(columns), hidden), columns, "cpu", batch_size=7)


def numbers(answers: ClassAnswers | NumberAnswers) -> torch.Tensor:
    return answers.probabilities if isinstance(answers, ClassAnswers) else answers.numbers


@pytest.mark.parametrize("classes", [(), ("no", "yes"), ("r", "s", "t")])
def test_predictions_are_the_formulas_and_scores_are_counted_by_hand(classes):
    predictor = predictor_of(columns_of(classes), hidden=())
    weight, bias = (p.detach().double().numpy() for p in predictor.model.parameters())
    rows = pd.DataFrame({"a": [2.0, 5.0, -5.0, 1.0], "b": [-1.0, 0.25, 1.0, 0.0]})
    x = np.stack([(rows["a"] - 1) / 2, rows["b"]], 1)
    z = x @ weight.T + bias
    if not classes:
        expected = 5 * z[:, 0] + 10
    elif len(classes) == 2:
        p = 1 / (1 + np.exp(-z[:, 0]))
        expected = np.stack([1 - p, p], 1)
    else:
        expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    answers = predictor.predict(rows)
    np.testing.assert_allclose(numbers(answers), expected, rtol=1e-5)
    goal = [classes[row.argmax()] for row in expected] if classes else list(expected + np.array([1, -1, 3, 0]))
    goal[3] = None  # two of the three rows with a target are correct
    if classes:
        goal[0] = "another"
        assert score(predictor.settings, answers, rows.assign(y=goal)) == (
            "accuracy 66.67% on 3 rows with a target, of which 1 have a class that is not in the training rows"
        )
    else:
        rmse, mae = math.sqrt(11 / 3), 5 / 3
        sentence = score(predictor.settings, answers, rows.assign(y=goal))
        assert sentence == f"RMSE {rmse:.4g}, MAE {mae:.4g} on 3 rows with a target"
        with pytest.raises(InputError, match=r"'y' .*'x' in row 3"):
            predictor.read(rows.assign(y=["1", "x", "2", "3"]))
    for empty in (rows, rows.assign(y=None)):
        assert "no target" in score(predictor.settings, answers, empty)


@pytest.mark.parametrize("target", ["price", "kind"])
def test_evaluation_and_use_are_equal(target, tmp_path):
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    rows = read_table(tmp_path / "rows.csv")
    split = split_table(rows, target)
    predictor = predictor_of(split.columns)
    numbered = split_table(rows.assign(row=range(60)), target)  # the same draw
    mean, deviation = numbered.columns.numeric["row"]
    drawn = numbered.test.inputs[:, numbered.columns.names.index("row")].double() * deviation + mean
    rows = rows.iloc[drawn.round().long().tolist()]
    predictor.save(tmp_path / "run")
    answers = load_predictor(tmp_path / "run", "cpu", batch_size=7).predict(rows)
    assert torch.equal(numbers(answers), predictor.answers(split.test.inputs))
    results = evaluate_table(predictor, split).results
    if target == "kind":
        accuracy = (np.array(answers.labels) == rows["kind"]).mean()
        assert results["accuracy"]["this model"] == accuracy
    else:
        error = answers.numbers.numpy() - rows["price"]
        assert results["errors"]["this model"]["MAE"] == pytest.approx(error.abs().mean(), rel=1e-6)


@pytest.mark.parametrize("target", ["price", "kind"])
def test_a_file_a_table_dictionaries_and_one_dictionary_are_answered_alike(target, tmp_path):
    predictor = predictor_of(split_table(ROWS, target).columns)
    new = ROWS.iloc[:9][ROWS.columns[::-1]].assign(other="x")
    expected = numbers(predictor.predict(new))
    new.to_csv(tmp_path / "new.csv", index=False, sep=";", decimal=",")
    written = TableFormat(separator=";", decimal=",")
    assert numbers(predictor.predict(tmp_path / "new.csv", format=written)).allclose(expected)
    dictionaries = new.drop(columns=target).to_dict("records")
    assert torch.equal(numbers(predictor.predict(dictionaries)), expected)
    assert torch.equal(numbers(predictor.predict(new.astype(object))), expected)
    texts = [{name: str(value) for name, value in row.items()} for row in dictionaries]
    assert torch.equal(numbers(predictor.predict(texts)), expected)
    assert numbers(predictor.predict(dictionaries[3])).allclose(expected[3:4])
    assert predictor.embed(new).shape == (9, 4)
    assert (predictor.embed(new) >= 0).all()  # ReLU


def test_numbers_with_thousands_are_said(tmp_path):
    predictor = predictor_of(columns_of())
    said = "column 'a' is numeric: '1,013' is read as 1013"
    for cell, more in {"1,013": ', not 1.013 (decimal=",")', "1,013\t2\n1,013.5": ""}.items():
        (tmp_path / "new.csv").write_text(f"a\tb\n{cell}\t2\n")  # perhaps 1.013, written with a decimal comma
        assert predictor.predict(tmp_path / "new.csv", format=TableFormat(separator="tab")).notes == (said + more,)
    (tmp_path / "new.csv").write_text("a;b\n1,013;2\n")
    with pytest.raises(InputError, match=r"'a' has '1,013', which is 1.013 or 1013: .*decimal=\",\""):
        predictor.predict(tmp_path / "new.csv", format=TableFormat(separator=";"))
    assert predictor.predict(tmp_path / "new.csv", format=TableFormat(separator=";", decimal=",")).notes == ()


def test_a_run_remembers_how_its_file_was_written_and_how_gaps_were_filled(tmp_path):
    written = TableFormat(separator=";", decimal=",", na=("?",))
    gaps = ROWS.assign(size=ROWS["size"].where(ROWS.index != 3))
    gaps.to_csv(tmp_path / "rows.csv", index=False, sep=";", decimal=",", na_rep="?")
    predictor = predictor_of(
        split_table(read_table(tmp_path / "rows.csv", format=written), "price", missing="fill").columns
    )
    predictor.save(tmp_path / "run")
    answers = load_predictor(tmp_path / "run", "cpu").predict(tmp_path / "rows.csv")
    assert answers.notes == ("missing values, filled: 'size' 1",)
    assert answers.numbers.allclose(predictor.predict(gaps, missing="fill").numbers)
    saved = json.loads((tmp_path / "run" / PREPROCESSING).read_text())
    assert saved["settings"].pop("format")
    assert saved["settings"].pop("missing") == "fill"
    (tmp_path / "run" / PREPROCESSING).write_text(json.dumps(saved))  # as an older version has written it
    with pytest.raises(InputError, match=r"3 cells in row 2.*separator=\";\", decimal"):
        load_predictor(tmp_path / "run", "cpu").predict(tmp_path / "rows.csv")


def test_the_rows_keep_their_order_and_their_index():
    for target in ("price", "kind"):
        predictor = predictor_of(split_table(ROWS, target).columns)
        shuffled = ROWS.sample(frac=1, random_state=0).set_axis([f"row {i}" for i in range(60)])
        answers = predictor.predict(shuffled)
        frame = answers.to_frame()
        assert list(frame.index) == list(shuffled.index)
        assert frame.columns[0] == ("price" if target == "price" else "class")
        one = predictor.predict(shuffled.loc["row 5"].to_dict()).to_frame()
        assert frame.loc["row 5"].drop("class", errors="ignore").astype(float).to_numpy() == pytest.approx(
            one.iloc[0].drop("class", errors="ignore").astype(float).to_numpy()
        )


def test_gaps_and_unknown_texts_are_refused_or_said():
    predictor = predictor_of(split_table(ROWS, "price").columns)
    new = ROWS.iloc[:4].assign(kind=["violet", None, "red", "red"], size=[50.0, 60.0, np.nan, 70.0])
    with pytest.raises(InputError, match=r"'size' 1, 'kind' 1.*missing=\"fill\""):
        predictor.predict(new)
    answers = predictor.predict(new, missing="fill")
    assert answers.notes == (
        "missing values, filled: 'size' 1, 'kind' 1",
        "rows with a text that the training data lack, which counts as no category: 'kind' 1",
    )
    mean = predictor.settings.numeric["size"][0]
    assert torch.equal(predictor.predict(new.iloc[2:].fillna(mean)).numbers, answers.numbers[2:])
    assert predictor.predict(ROWS).notes == ()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no rows"),
        (ROWS.iloc[:0], "no rows"),
        (3, "DataFrame.*not an int"),
        ([1, 2], "DataFrame.*not a list"),
        ({"size": 1}, "no column 'kind': its columns are size"),
        ({"size": "x", "kind": "red"}, "'size' has 'x' in row 0"),
        ({"size": 1, "kind": ["red"]}, "'kind' holds values of type list"),
        ({"size": math.inf, "kind": "red"}, "'size' has 'inf'"),
        ({"size": 1e300, "kind": "red"}, "'size' .*too far"),
        (pd.concat([ROWS, ROWS[["size"]]], axis=1), "several columns named size"),
        ("nowhere.csv", "no file nowhere.csv"),
    ],
)
def test_what_is_wrong_with_rows_is_one_sentence(rows, said):
    with pytest.raises(InputError, match=said) as caught:
        predictor_of(split_table(ROWS, "price").columns).predict(rows)
    assert "\n" not in str(caught.value)


def test_a_logarithm_is_learned_and_undone():
    columns = Columns({"year": (2000.0, 1.0)}, {}, "transistors", scale=(1.0, 2.0), logarithm=True)
    predictor = predictor_of(columns, hidden=())
    rows = pd.DataFrame({"year": [1990, 2000, 2010], "transistors": [10, 1000, 2_000_000]})
    with torch.no_grad():
        expected = (predictor.model(columns.inputs(rows))[:, 0].double() * 2 + 1).exp()
    assert torch.equal(predictor.predict(rows).numbers, expected)
    np.testing.assert_allclose(columns.numbers(columns.targets(rows)), rows["transistors"], rtol=1e-5)
    with pytest.raises(InputError, match="'transistors' must be positive"):
        columns.targets(rows.assign(transistors=[1, 0, 2]))
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(100.0)
    with pytest.raises(InputError, match=r"input 1.*not a finite number"):
        predictor.predict([{"year": 1990}, {"year": 2990}])


def test_a_model_of_another_table_is_refused():
    for wrong in (MLP(3, 1, (), 0.0), MLP(2, 3, (), 0.0), simple_gan()):
        with pytest.raises(InputError, match=r"columns need .*'in_features': 2, 'out_features': 1"):
            TabularPredictor(wrong, columns_of(("no", "yes")))


def test_a_linear_model_has_no_features():
    with pytest.raises(InputError, match="no hidden layer"):
        predictor_of(columns_of(), hidden=()).embed({"a": 1, "b": 2})


GOOD = columns_of(("no", "yes"))
HOSTILE = {
    "a scale of 0": replace(GOOD, numeric={"a": (1.0, 0.0), "b": (0.0, 1.0)}),
    "an infinite scale": replace(GOOD, scale=(0.0, math.inf)),
    "a mean that is no number": replace(GOOD, numeric={"a": (math.nan, 1.0), "b": (0.0, 1.0)}),
    "no columns": replace(GOOD, numeric={}),
    "a repeated category": replace(GOOD, numeric={}, categorical={"a": ("x", "x")}),
    "one class": replace(GOOD, classes=("x",)),
    "a repeated class": replace(GOOD, classes=("x", "x")),
    "two names of one input": replace(GOOD, numeric={"a=x": (0.0, 1.0)}, categorical={"a": ("x",)}),
    "classes that are no texts": replace(GOOD, classes=(1, 2)),
    "classes in one text": replace(GOOD, classes="xy"),
    "more columns": replace(GOOD, numeric={**GOOD.numeric, "c": (0.0, 1.0)}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_strangers_settings_are_refused(tmp_path, case):
    predictor_of(GOOD).save(tmp_path)
    assert load_predictor(tmp_path).settings == GOOD
    changed = predictor_of(GOOD)
    changed.settings = HOSTILE[case]
    changed.save_settings(tmp_path)
    with pytest.raises(InputError, match=PREPROCESSING) as caught:
        load_predictor(tmp_path)
    assert "\n" not in str(caught.value)


def test_settings_of_an_older_version_are_read(tmp_path):
    predictor_of(GOOD).save(tmp_path)
    saved = json.loads((tmp_path / PREPROCESSING).read_text())
    del saved["settings"]["logarithm"], saved["settings"]["constant"]
    (tmp_path / PREPROCESSING).write_text(json.dumps(saved))
    assert load_predictor(tmp_path).settings == GOOD
