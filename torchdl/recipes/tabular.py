"""Train a model on a table and compare it with scikit-learn's linear model and a trivial prediction.

Shapes: N rows, D input numbers per row, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import BatchLoader
from torchdl.data.tabular import Columns, Table, category_places, numeric_column
from torchdl.errors import require
from torchdl.plots import plot_bars, plot_confusion, plot_predictions, plot_roc
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import ScheduleName
from torchdl.tasks.supervised import class_probabilities, logits_for, loss_for

if TYPE_CHECKING:
    import pandas

COLUMNS = "columns.json"
SHOWN = 30  # columns in the figure of weights


@dataclass(frozen=True)
class TableLearning(Learning):
    """How a model of a table learns, and its hidden layers."""

    lr: float = 1e-2
    schedule: ScheduleName = "cosine"
    weight_decay: float = 3e-3
    hidden: tuple[int, ...] = ()
    """Widths of hidden layers; none for a linear model."""
    activation: str = "relu"
    """Activation of hidden layers: relu, leaky_relu, elu, gelu, silu, softplus, tanh, sigmoid, sine, bru."""
    dropout: float = 0.0
    """Probability of dropping a hidden unit."""


def outputs(columns: Columns) -> int:
    """Return the number of outputs of a model: 1 for a numeric target or two classes, else the number of classes."""
    return logits_for(len(columns.classes))


def table_training(model: nn.Module, table: Table, learning: TableLearning, seed: int = 0) -> Training:
    """Build the task and batches of training on a table; ``model`` maps (N, D) to (N, :func:`outputs`)."""
    number = len(table.columns.classes)
    loss, correct = loss_for(number)
    task = learning.task(model, loss, {"accuracy": correct}) if number else learning.task(model, F.mse_loss)
    train = BatchLoader(table.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(task, train, BatchLoader(table.test, 500))


@torch.no_grad()
def predict(model: nn.Module, columns: Columns, inputs: Tensor) -> np.ndarray:
    """Return class probabilities (N, K), or predicted numbers (N,) in the target's unit, as float64."""
    output = model(inputs).double()
    if not columns.classes:
        mean, deviation = columns.scale
        return (output[:, 0] * deviation + mean).numpy()
    return class_probabilities(output).numpy()


def linear_weights(model: nn.Module) -> Tensor | None:
    """Return the weights (outputs, D) of a model that is a single linear layer; None for other models."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    single = len(layers) == 1 and len(list(model.parameters())) == len(list(layers[0].parameters()))
    return layers[0].weight.detach() if single else None


def evaluate_table(model: nn.Module, table: Table) -> Report:
    """Compare a model with scikit-learn's linear model and a trivial prediction on the test rows.

    The model and the table are moved to the CPU; the model is set to evaluation mode.
    """
    model.cpu().eval()
    for part in (table.train, table.test):
        part.to("cpu")
    report = _evaluate_classes(model, table) if table.columns.classes else _evaluate_numbers(model, table)
    results = {
        "target": table.columns.target,
        "rows": {"train": len(table.train), "held out": len(table.test)},
        **report.results,
        "notes": table.notes,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    figures = dict(report.figures)
    if (weights := linear_weights(model)) is not None:
        # with two classes, the only logit is that of the second class
        classes = table.columns.classes if len(weights) > 1 else table.columns.classes[1:]
        rows = dict(zip(classes or (table.columns.target,), weights.tolist(), strict=True))
        results["weights"] = {name: dict(zip(table.columns.names, row, strict=True)) for name, row in rows.items()}
        # the columns with the largest absolute weights are shown
        largest = weights.abs().amax(0).argsort(descending=True, stable=True)[:SHOWN].tolist()
        shown = {name: {table.columns.names[i]: row[i] for i in largest} for name, row in rows.items()}
        figures["weights"] = plot_bars(shown, "weight of the input with standard deviation 1")
    return Report(results, report.summary, figures)


def _evaluate_classes(model: nn.Module, table: Table) -> Report:
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    classes = table.columns.classes
    x, test_x = table.train.inputs.numpy(), table.test.inputs.numpy()
    train, true = (part.targets.flatten().long().numpy() for part in (table.train, table.test))  # (N, 1) -> (N,)
    probabilities = {
        "this model": predict(model, table.columns, table.test.inputs),
        "logistic regression": LogisticRegression(max_iter=10_000).fit(x, train).predict_proba(test_x),
    }
    scores = {name: float((p.argmax(1) == true).mean()) for name, p in probabilities.items()}
    scores["the most frequent class"] = float(DummyClassifier().fit(x, train).score(test_x, true))
    results = {"accuracy": scores}
    matrix = metrics.confusion_matrix(true, probabilities["this model"].argmax(1), labels=range(len(classes)))
    figures = {"confusion": plot_confusion(matrix, classes)}
    if len(classes) == 2 and 0 < true.mean() < 1:
        areas = {name: float(metrics.roc_auc_score(true, p[:, 1])) for name, p in probabilities.items()}
        results["area under the ROC curve"] = areas
        curves = {
            f"{name}, area {areas[name]:.4f}": metrics.roc_curve(true, p[:, 1])[:2] for name, p in probabilities.items()
        }
        figures["roc"] = plot_roc(curves, classes[1])
    lines = [f"test accuracy on {len(true):,} rows", *(f"{name:24} {score:7.2%}" for name, score in scores.items())]
    return Report(results, "\n".join(lines), figures)


def _evaluate_numbers(model: nn.Module, table: Table) -> Report:
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.linear_model import LinearRegression

    mean, deviation = table.columns.scale
    x, test_x = table.train.inputs.numpy(), table.test.inputs.numpy()
    train, true = (part.targets[:, 0].double().numpy() * deviation + mean for part in (table.train, table.test))
    predictions = {
        "this model": predict(model, table.columns, table.test.inputs),
        "least squares": LinearRegression().fit(x, train).predict(test_x),
        "the mean": np.full(len(true), train.mean()),
    }
    rules = {"R2": metrics.r2_score, "RMSE": metrics.root_mean_squared_error, "MAE": metrics.mean_absolute_error}
    errors = {name: {key: float(f(true, values)) for key, f in rules.items()} for name, values in predictions.items()}
    cells = {name: "  ".join(f"{key} {value:10.4g}" for key, value in row.items()) for name, row in errors.items()}
    lines = [f"{name:16} {row}" for name, row in cells.items()]
    figure = plot_predictions(true, predictions["this model"], table.columns.target)
    return Report({"errors": errors}, "\n".join(lines), {"predictions": figure})


def check_fit(model: nn.Module, columns: Columns) -> None:
    """Raise :class:`InputError` unless a model's numbers of inputs and outputs match the columns."""
    expected = {"in_features": len(columns.names), "out_features": outputs(columns)}
    actual = {name: getattr(model, name, None) for name in expected}
    require(actual == expected, f"the model has {actual}, but its {COLUMNS} needs {expected}: use an unchanged run")


def score(columns: Columns, predicted: np.ndarray, table: pandas.DataFrame) -> str:
    """Return the accuracy or the errors of predictions by :func:`predict` on the rows with a target, as a sentence."""
    target = table[columns.target] if columns.target in table.columns else None
    if target is None or not target.notna().any():
        return "there is no target to compare with"
    known = target.notna().to_numpy()
    if columns.classes:
        accuracy = (predicted.argmax(1) == category_places(target, columns.classes))[known].mean()
        return f"accuracy {accuracy:.2%} on {known.sum():,} rows with a target"
    error = predicted[known] - numeric_column(table, columns.target).to_numpy()[known]
    rmse, mae = np.sqrt((error**2).mean()), np.abs(error).mean()
    return f"RMSE {rmse:.4g}, MAE {mae:.4g} on {known.sum():,} rows with a target"
