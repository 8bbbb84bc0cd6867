"""Train a model on a table and compare it with a linear model and a trivial prediction.

Shapes: N rows, D input numbers per row, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import BatchLoader
from torchdl.data.duplicates import duplicates_note
from torchdl.data.tabular import Columns, Table, category_places, numeric_column
from torchdl.field_docs import with_field_docs
from torchdl.plots import plot_bars, plot_confusion, plot_predictions, plot_roc
from torchdl.predict import ClassAnswers, NumberAnswers, TabularPredictor
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import ScheduleName
from torchdl.tasks.supervised import logits_for, loss_for

if TYPE_CHECKING:
    import pandas

SHOWN = 30  # columns in the figure of weights


@with_field_docs
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
    """Return how many outputs ``columns`` need: 1 for a numeric target or two classes, else the number of classes."""
    return logits_for(len(columns.classes))


def table_training(model: nn.Module, table: Table, learning: TableLearning, seed: int = 0) -> Training:
    """Build the task and batches of training on a table; ``model`` maps (N, D) to (N, :func:`outputs`).

    ``learning`` is how it learns, and ``seed`` that of the batches' order.
    """
    number = len(table.columns.classes)
    loss, correct = loss_for(number)
    task = learning.task(model, loss, {"accuracy": correct}) if number else learning.task(model, F.mse_loss)
    train = BatchLoader(table.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(task, train, BatchLoader(table.test, 500))


def linear_weights(model: nn.Module) -> Tensor | None:
    """Return the weights (outputs, D) of a model that is a single linear layer; None for other models."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    single = len(layers) == 1 and len(list(model.parameters())) == len(list(layers[0].parameters()))
    return layers[0].weight.detach() if single else None


def evaluate_table(predictor: TabularPredictor, table: Table) -> Report:
    """Compare a predictor with logistic regression or least squares, and with a trivial prediction, on the test rows.

    If test rows are in the training part, too, the scores without them are added.

    The table is moved to the CPU.
    """
    model = predictor.model
    for part in (table.train, table.test):
        part.to("cpu")
    report = _evaluate_classes(predictor, table) if table.columns.classes else _evaluate_numbers(predictor, table)
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


def _evaluate_classes(predictor: TabularPredictor, table: Table) -> Report:
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    classes = table.columns.classes
    x, test_x = (part.inputs.double().numpy() for part in (table.train, table.test))
    train, true = (part.targets.flatten().long().numpy() for part in (table.train, table.test))  # (N, 1) -> (N,)
    probabilities = {
        "this model": predictor.answers(table.test.inputs).numpy(),
        "logistic regression": LogisticRegression(max_iter=10_000).fit(x, train).predict_proba(test_x),
    }
    right = {name: p.argmax(1) == true for name, p in probabilities.items()}
    right["the most frequent class"] = DummyClassifier().fit(x, train).predict(test_x) == true
    scores = {name: float(values.mean()) for name, values in right.items()}
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
    new = ~table.duplicates.numpy()
    if 0 < new.sum() < len(new):
        others = {name: float(values[new].mean()) for name, values in right.items()}
        results["without duplicates"] = {"rows": int(new.sum()), "accuracy": others}
        lines.append(duplicates_note(table.duplicates, "rows", f"accuracy {others['this model']:.2%}"))
    return Report(results, "\n".join(lines), figures)


def _evaluate_numbers(predictor: TabularPredictor, table: Table) -> Report:
    from sklearn import metrics  # imported late: it takes a second

    x, test_x = (part.inputs.numpy() for part in (table.train, table.test))
    train, true = (table.columns.numbers(part.targets).numpy() for part in (table.train, table.test))
    predictions = {
        "this model": predictor.answers(table.test.inputs).numpy(),
        "least squares": least_squares(x, train, test_x),
        "the mean": np.full(len(true), train.mean()),
    }
    rules = {"R2": metrics.r2_score, "RMSE": metrics.root_mean_squared_error, "MAE": metrics.mean_absolute_error}

    def errors_of(rows: np.ndarray) -> dict[str, dict[str, float]]:
        return {
            name: {key: float(rule(true[rows], values[rows])) for key, rule in rules.items()}
            for name, values in predictions.items()
        }

    errors, new = errors_of(np.full(len(true), True)), ~table.duplicates.numpy()
    results: dict[str, Any] = {"errors": errors}
    cells = {name: "  ".join(f"{key} {value:10.4g}" for key, value in row.items()) for name, row in errors.items()}
    lines = [f"{name:16} {row}" for name, row in cells.items()]
    if 1 < new.sum() < len(new):  # R2 needs two
        others = errors_of(new)
        results["without duplicates"] = {"rows": int(new.sum()), "errors": others}
        lines.append(duplicates_note(table.duplicates, "rows", f"RMSE {others['this model']['RMSE']:.4g}"))
    figure = plot_predictions(true, predictions["this model"], table.columns.target)
    return Report(results, "\n".join(lines), {"predictions": figure})


def least_squares(inputs: np.ndarray, targets: np.ndarray, test_inputs: np.ndarray) -> np.ndarray:
    """Return the predictions (M,) of the least-squares line, float64; of several lines, the one with the least weights.

    Columns are centred and scaled first, so a large level or another unit costs no digits. (scikit-learn's
    ``LinearRegression`` neglects directions in which columns differ by less than a millionth.)

    Args:
        inputs: (N, D).
        targets: (N,).
        test_inputs: (M, D).
    """
    x, y = inputs.astype("float64"), targets.astype("float64")
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 0, scale, 1)
    weights = np.linalg.lstsq((x - centre) / scale, y - y.mean(), rcond=None)[0]  # (D,)
    predictions: np.ndarray = (test_inputs - centre) / scale @ weights + y.mean()
    return predictions


def score_on_test(predictor: TabularPredictor, table: Table) -> str:
    """Return the accuracy, or the root mean squared error, of a ``predictor`` on the test rows of ``table``."""
    found, target = predictor.answers(table.test.inputs), table.test.targets.cpu()
    if table.columns.classes:
        return f"test accuracy {float((found.argmax(1) == target.flatten()).double().mean()):.2%}"
    return f"test RMSE {float((found - table.columns.numbers(target)).square().mean().sqrt()):.6g}"


def score(columns: Columns, answers: ClassAnswers | NumberAnswers, table: pandas.DataFrame) -> str:
    """Return the accuracy or the errors of a predictor's answers on the rows with a target, as a sentence.

    Args:
        columns: The encoding.
        answers: The answers for the rows.
        table: The rows.
    """
    target = table[columns.target] if columns.target in table.columns else None
    if target is None or not target.notna().any():
        return "there is no target to compare with"
    known = target.notna().to_numpy()
    if isinstance(answers, ClassAnswers):
        labels = category_places(target, columns.classes)
        right = answers.probabilities.argmax(1).numpy() == labels
        accuracy, foreign = right[known].mean(), int((labels[known] < 0).sum())
        others = f", of which {foreign:,} have a class that is not in the training rows" if foreign else ""
        return f"accuracy {accuracy:.2%} on {known.sum():,} rows with a target{others}"
    error = answers.numbers.numpy()[known] - numeric_column(table, columns.target).to_numpy()[known]
    rmse, mae = np.sqrt((error**2).mean()), np.abs(error).mean()
    return f"RMSE {rmse:.4g}, MAE {mae:.4g} on {known.sum():,} rows with a target"
