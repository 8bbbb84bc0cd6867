from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import table

import torchdl
from torchdl import MLP, Trainer, split_table
from torchdl.predict import TabularPredictor
from torchdl.recipes.tabular import (
    TableLearning,
    evaluate_table,
    least_squares,
    linear_weights,
    outputs,
    table_training,
)


def test_only_a_linear_model_has_weights_of_columns():
    line = torchdl.MLP(4, 3, hidden=(), dropout=0.0)
    assert torch.equal(linear_weights(line), line.layers[0].weight)
    assert linear_weights(torchdl.MLP(4, 3, hidden=(2,))) is None
    assert linear_weights(torchdl.SequenceModel("lstm", 4, 3)) is None


@pytest.mark.parametrize("target", ["price", "kind"])
def test_a_model_is_compared_with_a_linear_and_a_trivial_one(quick, capsys, target):
    rows = split_table(table(120), target)
    torch.manual_seed(0)
    model = MLP(len(rows.columns.names), outputs(rows.columns), (), 0.0)
    Trainer(epochs=5, device="cpu").fit(*table_training(model, rows, TableLearning()))
    predictor = TabularPredictor(model, rows.columns, "cpu")
    report = evaluate_table(predictor, rows)
    results, predicted = report.results, predictor.answers(rows.test.inputs).numpy()
    assert (results["target"], results["rows"]) == (target, {"train": len(rows.train), "held out": len(rows.test)})
    if target == "kind":
        accuracy = (predicted.argmax(1) == rows.test.targets.flatten().numpy()).mean()
        assert list(results["accuracy"]) == ["this model", "logistic regression", "the most frequent class"]
        assert results["accuracy"]["this model"] == pytest.approx(accuracy)
        assert f"{accuracy:.2%}" in report.summary
        assert set(report.figures) == {"confusion", "weights"}
        assert list(results["weights"]) == ["blue", "green", "red"]
    else:
        mean, deviation = rows.columns.scale
        true = rows.test.targets[:, 0].double().numpy() * deviation + mean
        assert list(results["errors"]) == ["this model", "least squares", "the mean"]
        assert results["errors"]["this model"]["MAE"] == pytest.approx(abs(predicted - true).mean())
        assert results["errors"]["least squares"]["R2"] > 0.9 > 0.1 > results["errors"]["the mean"]["R2"]
        assert set(report.figures) == {"predictions", "weights"}
    assert all(list(row) == list(rows.columns.names) for row in results["weights"].values())
    assert not capsys.readouterr().out


RANDOM = np.random.default_rng(0)
WALK = RANDOM.normal(size=(200, 3)).cumsum(0)
ILL_CONDITIONED = {
    "a level of 5e7": 5e7 + WALK,
    "units apart": WALK * [1e-8, 1, 1e8],
    "nearly collinear": np.c_[WALK, WALK + 1e-6 * RANDOM.normal(size=(200, 3))],
    "collinear": np.c_[WALK, WALK @ [1, 2, 3], WALK[:, 0] > 0, WALK[:, 0] <= 0],
    "a constant column": np.c_[WALK, np.full(200, 7.0)],
    "more columns than rows": RANDOM.normal(size=(200, 300)),
    "years": np.arange(1900.0, 2100)[:, None] ** [1, 2, 3],
}


@pytest.mark.parametrize("case", ILL_CONDITIONED)
@pytest.mark.parametrize("level", [0, 1e6])
def test_least_squares_leave_the_residual_of_numpys(case, level):
    x, y = ILL_CONDITIONED[case], level + WALK @ [1, -2, 0.5] + RANDOM.normal(size=200)
    found = np.square(least_squares(x, y, x) - y).mean()
    centred = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    least = np.square(centred @ np.linalg.lstsq(centred, y - y.mean(), rcond=None)[0] + y.mean() - y).mean()
    assert found <= least * (1 + 1e-9) + 1e-12 * max(1, level)
    plain = np.c_[x, np.ones(200)]
    assert found <= np.square(plain @ np.linalg.lstsq(plain, y, rcond=None)[0] - y).mean() * 1.001 + 1e-9


@pytest.mark.parametrize("seed", [3, 4, 11])
def test_the_linear_model_beside_ours_is_solved_in_double_precision(seed):
    """Many categories are collinear. In single precision, their R2 is below -4e4 with these seeds."""
    random = np.random.default_rng(seed)
    a, b = random.normal(15, 8, 120).round(), random.normal(1020, 12, 120).round()
    rows = pd.DataFrame({"a": a, "b": b, "y": a + 0.1 * random.normal(size=120)})
    found = split_table(rows.assign(a=rows["a"].map("a{:g}".format), b=rows["b"].map("b{:g}".format)), "y")
    report = evaluate_table(TabularPredictor(MLP(len(found.columns.names), 1, (), 0.0), found.columns, "cpu"), found)
    assert report.results["errors"]["least squares"]["R2"] > 0.3


@pytest.mark.parametrize("target", ["price", "kind"])
def test_test_rows_of_the_training_part_are_counted_and_left_out_once(target):
    rows = table(60)
    assert not split_table(rows, target).duplicates.any()
    assert not any("training part" in note for note in split_table(rows, target).notes)
    double = split_table(pd.concat([rows, rows.iloc[:20], rows.iloc[:5].assign(size=1.5)]), target)
    width = len(double.columns.names)
    train, test = ([part.tolist() for part in (x.inputs, x.targets.flatten())] for x in (double.train, double.test))
    expected = [pair in list(zip(*train, strict=True)) for pair in zip(*test, strict=True)]
    assert double.duplicates.tolist() == expected
    count, total = sum(expected), len(expected)
    assert 0 < count < total
    assert double.notes[-1] == f"{count} of {total} test rows are in the training part, too"
    torch.manual_seed(0)
    predictor = TabularPredictor(MLP(width, outputs(double.columns), (), 0.0), double.columns, "cpu")
    report = evaluate_table(predictor, double)
    others = report.results["without duplicates"]
    assert others["rows"] == total - count
    keep = ~double.duplicates
    alone = replace(double, test=torchdl.ArrayDataset(double.test.inputs[keep], double.test.targets[keep]))
    again = evaluate_table(predictor, alone).results
    key = "errors" if target == "price" else "accuracy"
    for name, scores in again[key].items():
        assert others[key][name] == pytest.approx(scores)
    assert "without duplicates" not in again
    assert f"{count} of {total} test rows are in the training part, too; without them: " in report.summary
