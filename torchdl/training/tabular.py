"""Train on a table in a run, and say what the model is worth beside scikit-learn's linear ones and a trivial answer.

Shapes: N rows, D numbers a row, K classes.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import plots
from torchdl.data import BatchLoader
from torchdl.data.tabular import Columns, Table, numbers, text
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.tasks import ScheduleName
from torchdl.tasks.supervised import class_probabilities, logits_for, loss_for
from torchdl.training.command import Run, say
from torchdl.training.learning import Learning

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


def fit_table(run: Run, model: nn.Module, table: Table, learning: TableLearning) -> dict[str, Any]:
    """Train a model of a table in ``run``, and leave in its folder what :func:`report` writes.

    ``model`` maps (N, D) to (N, :func:`outputs`).
    """
    number = len(table.columns.classes)
    loss, right = loss_for(number)
    task = learning.task(model, loss, {"accuracy": right}) if number else learning.task(model, F.mse_loss)
    train = BatchLoader(table.train, learning.batch_size, shuffle=True, seed=run.trainer.seed)
    for note in table.notes:
        say(note)
    run.fit(task, model, train, BatchLoader(table.test, 500))
    if not run.is_main:
        return {}
    table.columns.save(run.folder / COLUMNS)
    model.cpu().eval()
    for part in (table.train, table.test):
        part.to("cpu")
    return report(run, model, table)


@torch.no_grad()
def answers(model: nn.Module, columns: Columns, inputs: Tensor) -> np.ndarray:
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


def report(run: Run, model: nn.Module, table: Table) -> dict[str, Any]:
    """Measure on held-out rows, beside scikit-learn's linear model and the trivial answer; write, draw and print it."""
    measure = measure_classes if table.columns.classes else measure_numbers
    folder = run.folder / "plots"
    results, pictures = measure(model, table, folder)
    results = {
        "target": table.columns.target,
        "rows": {"train": len(table.train), "held out": len(table.test)},
    } | results
    results |= {"notes": table.notes, "parameters": sum(p.numel() for p in model.parameters())}
    if (weights := linear_weights(model)) is not None:
        classes = table.columns.classes if len(weights) > 1 else table.columns.classes[1:]  # one logit: the second's
        rows = dict(zip(classes or (table.columns.target,), weights.tolist(), strict=True))
        results["weights"] = {name: dict(zip(table.columns.names, row, strict=True)) for name, row in rows.items()}
        # each column's greatest weight says how much it counts
        largest = weights.abs().amax(0).argsort(descending=True, stable=True)[:SHOWN].tolist()
        shown = {name: {table.columns.names[i]: row[i] for i in largest} for name, row in rows.items()}
        pictures.append(folder / "weights.png")
        plots.plot_bars(shown, pictures[-1], "weight, of a number scaled to deviation 1")
    write_json(run.folder / "results.json", results)
    with closing(run.logger()) as logger:
        logger.show(*pictures)
    say(f"pictures and figures: {run.folder}")
    return results


def measure_classes(model: nn.Module, table: Table, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Measure a classifier; returns the results and the pictures' paths."""
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    classes = table.columns.classes
    known, true = (part.targets.flatten().long().numpy() for part in (table.train, table.test))  # (N, 1) -> (N,)
    theirs = LogisticRegression(max_iter=10_000).fit(table.train.inputs.numpy(), known)
    probabilities = {
        "this model": answers(model, table.columns, table.test.inputs),
        "logistic regression": theirs.predict_proba(table.test.inputs.numpy()),
    }
    trivial = DummyClassifier().fit(table.train.inputs.numpy(), known)
    scores = {name: float((p.argmax(1) == true).mean()) for name, p in probabilities.items()}
    scores["the most frequent class"] = float(trivial.score(table.test.inputs.numpy(), true))
    results: dict[str, Any] = {"accuracy": scores}
    say("\n".join(f"{name:24} {score:7.2%} of {len(true):,} held-out rows right" for name, score in scores.items()))
    matrix = metrics.confusion_matrix(true, probabilities["this model"].argmax(1), labels=range(len(classes)))
    paths = [folder / "confusion.png"]
    plots.plot_confusion(matrix, classes, paths[0])
    if len(classes) == 2 and 0 < true.mean() < 1:
        results["area under the ROC curve"] = {
            name: float(metrics.roc_auc_score(true, p[:, 1])) for name, p in probabilities.items()
        }
        curves = {
            f"{name}, area {results['area under the ROC curve'][name]:.4f}": metrics.roc_curve(true, p[:, 1])[:2]
            for name, p in probabilities.items()
        }
        paths.append(folder / "roc.png")
        plots.plot_roc(curves, classes[1], paths[-1])
    return results, paths


def measure_numbers(model: nn.Module, table: Table, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Measure a regression, in the target's own unit; returns the results and the pictures' paths."""
    from sklearn import metrics  # imported late: it takes a second
    from sklearn.linear_model import LinearRegression

    mean, deviation = table.columns.scale
    known, true = (part.targets[:, 0].double().numpy() * deviation + mean for part in (table.train, table.test))
    theirs = LinearRegression().fit(table.train.inputs.numpy(), known)
    found = {
        "this model": answers(model, table.columns, table.test.inputs),
        "least squares": theirs.predict(table.test.inputs.numpy()),
        "the mean": np.full(len(true), known.mean()),
    }
    results = {
        name: {
            "R2": float(metrics.r2_score(true, values)),
            "RMSE": float(metrics.root_mean_squared_error(true, values)),
            "MAE": float(metrics.mean_absolute_error(true, values)),
        }
        for name, values in found.items()
    }
    for name, row in results.items():
        say(f"{name:16} " + "  ".join(f"{key} {value:10.4g}" for key, value in row.items()))
    path = folder / "predictions.png"
    plots.plot_predictions(true, found["this model"], table.columns.target, path)
    return {"errors": results}, [path]


def check_fit(model: nn.Module, columns: Columns) -> None:
    """Raise InputError unless a model has the inputs and outputs that the columns want."""
    wanted = {"in_features": len(columns.names), "out_features": outputs(columns)}
    found = {name: getattr(model, name, None) for name in wanted}
    require(
        found == wanted,
        f"the model and its {COLUMNS} do not belong together ({found} where {wanted} is wanted): name a run of "
        "train_tabular.py as it was left",
    )


def score(columns: Columns, found: np.ndarray, table: pandas.DataFrame) -> str:
    """Say how right the answers of :func:`answers` are, on those rows of a table that have the target."""
    goal = table[columns.target] if columns.target in table.columns else None
    if goal is None or not goal.notna().any():
        return "the file has no target to compare with"
    known = goal.notna().to_numpy()
    if columns.classes:
        right = np.array([columns.classes[i] for i in found.argmax(1)])[known] == goal[known].map(text).to_numpy()
        return f"{right.mean():.2%} of {known.sum():,} rows with a target right"
    error = found[known] - numbers(table, columns.target).to_numpy()[known]
    return (
        f"RMSE {np.sqrt((error**2).mean()):.4g}, MAE {np.abs(error).mean():.4g} on {known.sum():,} rows with a target"
    )
