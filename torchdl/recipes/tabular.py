"""Train on a table, and compare the model with scikit-learn's linear ones and a trivial prediction.

Shapes: N rows, D numbers a row, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import BatchLoader
from torchdl.data.tabular import Columns, Table, numbers, text
from torchdl.errors import require
from torchdl.plots import plot_bars, plot_confusion, plot_predictions, plot_roc
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import ScheduleName
from torchdl.tasks.supervised import class_probabilities, logits_for, loss_for

if TYPE_CHECKING:
    import pandas

COLUMNS = "columns.json"
SHOWN = 30  # columns whose weights are drawn


@dataclass(frozen=True)
class TableLearning(Learning):
    """How a network learns a table."""

    lr: float = 1e-2
    schedule: ScheduleName = "cosine"
    weight_decay: float = 3e-3
    hidden: tuple[int, ...] = ()
    """Widths of hidden layers; none for a linear model."""
    activation: str = "relu"
    """What follows a hidden layer: relu, leaky_relu, elu, gelu, silu, softplus, tanh, sigmoid, sine, bru."""
    dropout: float = 0.0
    """Probability of dropping a hidden unit."""


def outputs(columns: Columns) -> int:
    """Count a model's outputs: one for a number or for two classes, else one for each class."""
    return logits_for(len(columns.classes))


def table_training(model: nn.Module, table: Table, learning: TableLearning, seed: int = 0) -> Training:
    """Build the task and the batches of a table's training; ``model`` maps (N, D) to (N, :func:`outputs`)."""
    number = len(table.columns.classes)
    loss, correct = loss_for(number)
    task = learning.task(model, loss, {"accuracy": correct}) if number else learning.task(model, F.mse_loss)
    train = BatchLoader(table.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(task, train, BatchLoader(table.test, 500))


@torch.no_grad()
def predict(model: nn.Module, columns: Columns, inputs: Tensor) -> np.ndarray:
    """Give the probabilities of the classes (N, K), or the predicted numbers (N,) in their own unit, float64."""
    output = model(inputs).double()
    if not columns.classes:
        mean, deviation = columns.scale
        return (output[:, 0] * deviation + mean).numpy()
    return class_probabilities(output).numpy()


def linear_weights(model: nn.Module) -> Tensor | None:
    """Give the weights (K, D) of a model that is one linear layer, and None of any other."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    alone = len(layers) == 1 and len(list(model.parameters())) == len(list(layers[0].parameters()))
    return layers[0].weight.detach() if alone else None


def evaluate_table(model: nn.Module, table: Table) -> Report:
    """Compare a model with scikit-learn's linear model and a trivial prediction on the test rows.

    ``model`` is left on the CPU, in evaluation mode.
    """
    model.cpu().eval()
    for part in (table.train, table.test):
        part.to("cpu")
    found = _evaluate_classes(model, table) if table.columns.classes else _evaluate_numbers(model, table)
    results = {
        "target": table.columns.target,
        "rows": {"train": len(table.train), "held out": len(table.test)},
        **found.results,
        "notes": table.notes,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    figures = dict(found.figures)
    if (weights := linear_weights(model)) is not None:
        classes = table.columns.classes if len(weights) > 1 else table.columns.classes[1:]  # one logit: the second's
        rows = dict(zip(classes or (table.columns.target,), weights.tolist(), strict=True))
        results["weights"] = {name: dict(zip(table.columns.names, row, strict=True)) for name, row in rows.items()}
        # each column's greatest weight says how much it counts
        largest = weights.abs().amax(0).argsort(descending=True, stable=True)[:SHOWN].tolist()
        shown = {name: {table.columns.names[i]: row[i] for i in largest} for name, row in rows.items()}
        figures["weights"] = plot_bars(shown, "weight, of inputs scaled to a standard deviation of 1")
    return Report(results, found.summary, figures)


def _evaluate_classes(model: nn.Module, table: Table) -> Report:
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    classes = table.columns.classes
    known, true = (part.targets.flatten().long().numpy() for part in (table.train, table.test))  # (N, 1) -> (N,)
    theirs = LogisticRegression(max_iter=10_000).fit(table.train.inputs.numpy(), known)
    probabilities = {
        "this model": predict(model, table.columns, table.test.inputs),
        "logistic regression": theirs.predict_proba(table.test.inputs.numpy()),
    }
    trivial = DummyClassifier().fit(table.train.inputs.numpy(), known)
    scores = {name: float((p.argmax(1) == true).mean()) for name, p in probabilities.items()}
    scores["the most frequent class"] = float(trivial.score(table.test.inputs.numpy(), true))
    results: dict[str, Any] = {"accuracy": scores}
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
    known, true = (part.targets[:, 0].double().numpy() * deviation + mean for part in (table.train, table.test))
    theirs = LinearRegression().fit(table.train.inputs.numpy(), known)
    found = {
        "this model": predict(model, table.columns, table.test.inputs),
        "least squares": theirs.predict(table.test.inputs.numpy()),
        "the mean": np.full(len(true), known.mean()),
    }
    errors = {
        name: {
            "R2": float(metrics.r2_score(true, values)),
            "RMSE": float(metrics.root_mean_squared_error(true, values)),
            "MAE": float(metrics.mean_absolute_error(true, values)),
        }
        for name, values in found.items()
    }
    lines = [
        f"{name:16} " + "  ".join(f"{key} {value:10.4g}" for key, value in row.items()) for name, row in errors.items()
    ]
    figure = plot_predictions(true, found["this model"], table.columns.target)
    return Report({"errors": errors}, "\n".join(lines), {"predictions": figure})


def check_fit(model: nn.Module, columns: Columns) -> None:
    """Raise InputError unless a model has the inputs and outputs that the columns want."""
    wanted = {"in_features": len(columns.names), "out_features": outputs(columns)}
    found = {name: getattr(model, name, None) for name in wanted}
    require(
        found == wanted,
        f"the model and its {COLUMNS} do not belong together ({found} where {wanted} is needed): name the folder of a "
        "finished run, unchanged",
    )


def score(columns: Columns, found: np.ndarray, table: pandas.DataFrame) -> str:
    """Return a sentence on the error of what :func:`predict` returned, on those rows that have the target."""
    goal = table[columns.target] if columns.target in table.columns else None
    if goal is None or not goal.notna().any():
        return "the file has no target to compare with"
    known = goal.notna().to_numpy()
    if columns.classes:
        right = np.array([columns.classes[i] for i in found.argmax(1)])[known] == goal[known].map(text).to_numpy()
        return f"accuracy {right.mean():.2%} on {known.sum():,} rows with a target"
    error = found[known] - numbers(table, columns.target).to_numpy()[known]
    return (
        f"RMSE {np.sqrt((error**2).mean()):.4g}, MAE {np.abs(error).mean():.4g} on {known.sum():,} rows with a target"
    )
