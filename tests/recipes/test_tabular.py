from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import table

import torchdl
from torchdl import MLP, Columns, InputError, Trainer, split_table
from torchdl.recipes.tabular import (
    TableLearning,
    check_fit,
    evaluate_table,
    linear_weights,
    outputs,
    predict,
    score,
    table_training,
)


def columns_of(classes: tuple[str, ...] = ()) -> Columns:
    return Columns({"a": (1.0, 2.0), "b": (0.0, 1.0)}, {}, "y", classes, (10.0, 5.0))


@pytest.mark.parametrize("classes", [(), ("no", "yes"), ("r", "s", "t")])
def test_predictions_are_the_formulas_and_scores_are_counted_by_hand(classes):
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
    found = predict(model, columns, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    goal = [classes[row.argmax()] for row in expected] if classes else list(expected + np.array([1, -1, 3, 0]))
    goal[3] = None  # two of the three rows with a target are correct
    if classes:
        goal[0] = "another"
        assert score(columns, found, pd.DataFrame({"y": goal})) == "accuracy 66.67% on 3 rows with a target"
    else:
        rmse, mae = math.sqrt(11 / 3), 5 / 3
        sentence = score(columns, found, pd.DataFrame({"y": goal}))
        assert sentence == f"RMSE {rmse:.4g}, MAE {mae:.4g} on 3 rows with a target"
        with pytest.raises(InputError, match=r"'y' .*'x' in row 3"):
            score(columns, found, pd.DataFrame({"y": ["1", "x", "2", "3"]}))
    for empty in (pd.DataFrame({"a": [1, 2, 3, 4]}), pd.DataFrame({"y": [None] * 4})):
        assert "no target" in score(columns, found, empty)


def test_a_model_of_another_table_is_refused():
    for wrong in (torchdl.MLP(3, 1, (), 0.0), torchdl.MLP(2, 3, (), 0.0), torchdl.simple_gan()):
        with pytest.raises(InputError, match=r"columns.json"):
            check_fit(wrong, columns_of(("no", "yes")))


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
    report = evaluate_table(model, rows)
    results, predicted = report.results, predict(model, rows.columns, rows.test.inputs)
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
