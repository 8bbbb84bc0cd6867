"""Train a forecaster and compare its forecasts with linear and naive ones.

Shapes: N forecasts, T terms seen by the model, D columns, H terms of the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import ArrayDataset, BatchLoader
from torchdl.data.series import Split, Windows
from torchdl.errors import require
from torchdl.forecasts import fit_linear_, naive_forecasts
from torchdl.metrics import error_ratio, forecast_errors
from torchdl.models import SequenceModel
from torchdl.plots import plot_forecast, plot_lines
from torchdl.predict import DirectionForecaster, Forecaster, SeriesInput
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.recipes.tabular import linear_weights
from torchdl.tasks import binary_accuracy

SHOWN = 10  # weights of a linear model in the summary


def forecaster_training(
    model: SequenceModel, split: Split, horizon: int, period: int, learning: Learning, seed: int = 0
) -> Training:
    """Build the task and batches that train a model to forecast.

    Args:
        model: Forecasts the next term, or several terms at once.
        split: The series.
        horizon: H, the number of terms of multi-step forecasts.
        period: Terms per season, for the seasonal naive forecast; 0 for none.
        learning: How the model learns.
        seed: Seed of the order of the windows.

    Raises:
        InputError: The series is too short for the horizon or the period.
    """
    direct = model.horizon or 1
    for split_by in (split, *([Split(split.series, period, split.test_size)] if period else [])):
        split_by.test(horizon)  # raises before training, not after it
    train = BatchLoader(split.train(direct), learning.batch_size, shuffle=True, seed=seed)
    return Training(learning.task(model, F.mse_loss), train, BatchLoader(split.test(direct), 500))


def best_naive(split: Split, horizon: int, period: int = 0) -> str:
    """Return the name of the naive forecast with the least squared error in the training part, for the first column.

    The test part would flatter the best of several. The horizon is shortened to what the training part has room for.

    Args:
        split: The series.
        horizon: H, terms to forecast.
        period: Terms of a season; 0 for none.
    """
    known = max(split.length, period)
    horizon = min(horizon, split.boundary - known)
    x, y = Windows(split.scaled[: split.boundary], known, horizon)[:]  # (N, known, D), (N, H, D)
    naive = naive_forecasts(x, split.length, horizon, period)
    errors = {name: float((v - y)[..., 0].square().mean()) for name, v in naive.items()}
    return min(errors, key=errors.__getitem__)


def series_forecaster(
    model: SequenceModel, split: Split, horizon: int, period: int = 0, device: str = "auto", **described: Any
) -> Forecaster:
    """Return the predictor of a model that learns to forecast a split's series.

    Args:
        model: Forecasts the next term, or several terms at once.
        split: The series.
        horizon: H, the number of terms of multi-step forecasts.
        period: Terms per season; 0 for none.
        device: The device to predict on.
        **described: ``returns``, and how a file is read; see :meth:`torchdl.predict.SeriesInput.of`.
    """
    naive = best_naive(split, horizon, period)
    return Forecaster(model, Forecaster.Settings(SeriesInput.of(split, **described), horizon, naive, period), device)


def forecasts(
    forecaster: Forecaster, linear: SequenceModel, split: Split, horizon: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Forecast H terms from every start in the test part with the model and all baselines.

    Args:
        forecaster: The model's predictor.
        linear: A linear model, which is fitted here by least squares.
        split: The series.
        horizon: H, terms to forecast.

    Returns:
        The forecasts (N, H, D) by name, the actual terms (N, H, D) and the terms before them (N, T, D), all in the
        unit of the series.
    """
    settings, values = forecaster.settings, split.series.values

    def tested(length: int) -> tuple[Tensor, Tensor]:
        return Windows(values[split.boundary - length :], length, horizon)[:]

    x, y = tested(split.length)
    fitted = Forecaster(fit_linear_(linear, *split.train()[:]), settings, "cpu")
    predictions = {
        f"{getattr(forecaster.model, 'kind', 'model')}, trained": forecaster.forecast(x, horizon),
        f"AR({split.length}), least squares": fitted.forecast(x, horizon),
    }
    known, _ = tested(max(split.length, settings.period))  # a season may be longer than the model's window
    return predictions | forecaster.naive_forecasts(known, horizon), y, x


def evaluate_forecaster(
    forecaster: Forecaster, linear: SequenceModel, split: Split, recurrence: Mapping[str, Sequence[float]] | None = None
) -> Report:
    """Evaluate one-step and multi-step forecasts on the test part, in the unit of the series' first column.

    The model is compared with the naive forecast that is best in the training part (:func:`best_naive`). The results
    also have the forecast of the terms after the series, and of a linear model of one column its weights. The table
    ``forecasts`` has the test terms and both forecasts of them that are drawn.

    Args:
        forecaster: The forecaster.
        linear: Forecasts the next term; it is fitted by least squares.
        split: The series.
        recurrence: By a name, the weights of the recurrence that the series obeys, that of the last term first; they
            are printed below those of a linear model.
    """
    series, settings = split.series, forecaster.settings
    horizon, period = settings.horizon, settings.period
    steps: dict[str, dict[str, dict[str, float]]] = {}
    against: dict[str, dict[str, str | float]] = {}
    by_step: dict[str, tuple[list[int], list[float]]] = {}
    lines: list[str] = []
    known = series.values[: split.boundary, 0]
    scale = float(known.diff().abs().mean())
    for ahead in dict.fromkeys((1, horizon)):
        predictions, y, x = forecasts(forecaster, linear, split, ahead)
        actual, last = y[..., 0], x[:, -1, 0]  # (N, H), (N,)
        values = {name: predicted[..., 0] for name, predicted in predictions.items()}
        title = "one step ahead" if ahead == 1 else f"{ahead} steps ahead"
        steps[title] = {name: forecast_errors(v, actual, last, scale) for name, v in values.items()}
        ours = next(iter(values))
        best = best_naive(split, ahead, period)
        ratio, low, high = error_ratio(values[ours] - actual, values[best] - actual)
        against[title] = {"naive forecast": best, "ratio": ratio, "low": low, "high": high}
        lines += [table(title, steps[title], len(actual)), verdict(title, best, ratio, low, high)]
        if ahead > 1:
            numbers = list(range(1, ahead + 1))
            by_step = {n: (numbers, (v - actual).square().mean(0).sqrt().tolist()) for n, v in values.items()}
    later = forecaster.forecast_after(series)
    results: dict[str, Any] = {
        "series": series.columns[0],
        "train": split.boundary,
        "held out": split.test_size,
        "parameters": sum(p.numel() for p in forecaster.model.parameters()),
        "errors": steps,
        "against the best naive forecast": against,
        "terms after the series": {
            "naive forecast": later.rule,
            "forecast": dict(zip(series.columns, later.values.T.tolist(), strict=True)),
        },
    }
    if trained := weights_of(forecaster.model, split):
        weights = {"trained": trained, "least squares": weights_of(linear, split)}
        results["weights"] = weights
        lines.append(table_of_weights(weights, recurrence or {}))
    one_step, multi_step = both_forecasts(forecaster, split)
    drawn_as = f"return of {series.columns[0]}" if settings.series.returns else series.columns[0]
    drawn = plot_forecast(series.values[:, 0], split.boundary, one_step, multi_step, drawn_as, series.times)
    figures = {"forecast": drawn}
    if by_step:
        error = f"root mean squared error of {series.columns[0]}"
        figures["errors"] = plot_lines(by_step, "steps ahead", error, own=next(iter(by_step)))
    import pandas  # imported late: it takes a second

    times = {} if series.times is None else {"time": series.times[split.boundary :]}
    columns = {"actual": series.values[split.boundary :, 0], "one_step": one_step, "multi_step": multi_step}
    tested = pandas.DataFrame({**times, **{name: values.numpy() for name, values in columns.items()}})
    return Report(results, "\n".join(lines), figures, {"forecasts": tested})


def both_forecasts(forecaster: Forecaster, split: Split) -> tuple[Tensor, Tensor]:
    """Forecast all N test terms of a split's first column, (N,): each from those before it, and all from the first.

    ``forecaster`` forecasts the series of ``split``.
    """
    x, _ = Windows(split.series.values[split.boundary - split.length :], split.length)[:]
    return forecaster.forecast(x, 1)[:, 0, 0], forecaster.forecast(x[:1], split.test_size)[0, :, 0]


def weights_of(model: nn.Module, split: Split) -> dict[str, float]:
    """Return the weights of an autoregressive model of one column by the terms that they belong to, the last one first.

    They are in the unit of the series of ``split``, and so is the constant. A ``model`` of another kind has none.
    """
    weights = linear_weights(model)
    if weights is None or len(weights) != 1 or len(split.series.columns) != 1:
        return {}
    (bias,) = (parameter.item() for name, parameter in model.named_parameters() if name.endswith("bias"))
    found = {f"x[t-{number}]": weight for number, weight in enumerate(weights[0].flip(0).tolist(), 1)}
    # the model's own terms are (x - mean) / deviation
    constant = float(split.deviation) * bias + float(split.mean) * (1 - sum(found.values()))
    return found | {"constant": constant}


def table_of_weights(weights: Mapping[str, Mapping[str, float]], recurrence: Mapping[str, Sequence[float]]) -> str:
    """Return weights by :func:`weights_of`, those of the last terms, as a table; a ``recurrence`` has no constant."""
    *terms, constant = next(iter(weights.values()))
    terms = terms[:SHOWN]
    rows = {name: [*(row[term] for term in terms), row[constant]] for name, row in weights.items()}
    rows |= {name: [*values, 0.0] for name, values in recurrence.items() if len(values) == len(terms)}
    width = max(map(len, ("weights", *rows)))
    lines = ["  ".join([f"{'weights':{width}}", *(f"{name:>8}" for name in (*terms, constant))])]
    lines += ["  ".join([f"{name:{width}}", *(f"{value:8.4f}" for value in row)]) for name, row in rows.items()]
    return "\n".join(lines)


def table(title: str, errors: Mapping[str, Mapping[str, float]], count: int) -> str:
    """Return the errors of ``count`` forecasts as a table with a ``title``, one row per method."""
    width = max(map(len, errors))
    lines = [f"{title}, {count:,} forecasts", f"{'':{width}}  {'MAE':>10} {'RMSE':>10} {'MASE':>7} {'direction':>9}"]
    for name, row in errors.items():
        direction = "" if math.isnan(row["direction"]) else f"{row['direction']:.1%}"
        lines.append(f"{name:{width}}  {row['mae']:10.4g} {row['rmse']:10.4g} {row['mase']:7.3f} {direction:>9}")
    return "\n".join(lines)


def verdict(title: str, naive: str, ratio: float, low: float, high: float) -> str:
    """Return a sentence on whether the model's forecasts are better than the naive ones that were best in training.

    Args:
        title: What is forecast.
        naive: The name of the best naive forecast.
        ratio: The ratio of the model's RMSE to that one's; NaN if that one has no error.
        low, high: The ends of its 95 % interval.
    """
    if math.isnan(ratio):
        return f"{title}: the naive forecast {naive!r} has no error, so nothing can be better"
    comparison = f"{ratio:.3g} times the RMSE of {naive!r}, the best naive forecast in the training part"
    return f"{title}: {comparison} (95 % interval {low:.3g} to {high:.3g}): {conclusion(low, high)}"


def conclusion(low: float, high: float) -> str:
    """Return the conclusion that the interval of a ratio of errors, from ``low`` to ``high``, supports."""
    if low == 0 and math.isinf(high):
        return "no verdict, because the test part has too few terms that are independent"
    return "the model is better" if high < 1 else "the model is WORSE" if low > 1 else "no clear difference"


def rises(split: Split, target: str, values: Tensor | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """Return windows (N, T, D) of all columns, labelled (N, 1) by whether ``target`` rises next (lecture 53).

    The first data set is the training part of ``split``, the second its test part. The windows are those of ``values``
    (L, D), by default of the scaled series.
    """
    series, length, start = split.series, split.length, split.boundary - split.length
    values = split.scaled if values is None else values
    column = series.values[:, series.columns.index(target)]

    def labelled(part: slice) -> ArrayDataset:
        known, change = column[part][length - 1 : -1], column[part][length:]
        windows = Windows(values[part], length)[:][0]
        return ArrayDataset(windows, (change > known).float()[:, None], series.origin, series.fallback)

    return labelled(slice(split.boundary)), labelled(slice(start, None))


class Direction(NamedTuple):
    """Windows (N, T, D), labelled (N, 1) by whether the target rises next, to ``train`` and to ``test`` on."""

    train: ArrayDataset
    test: ArrayDataset


def direction_data(split: Split, target: str) -> Direction:
    """Label a split's windows by whether the target rises next.

    Raises:
        InputError: There is no such column, or the target always or never rises in one of the parts.
    """
    split.series.select([target])  # raises with the names of the columns
    data = Direction(*rises(split, target))
    for part, name in ((data.train, "training"), (data.test, "test")):
        share = float(part.targets.mean())
        does = "rises" if share else "falls or stays"
        require(0 < share < 1, f"{target!r} always {does} in the {name} part: there is nothing to predict")
    return data


def direction_training(model: SequenceModel, data: Direction, learning: Learning, seed: int = 0) -> Training:
    """Build the task and batches that train a model to predict whether a column rises next.

    Args:
        model: Maps windows (N, T, D) to logits (N, 1).
        data: The labelled windows.
        learning: How the model learns.
        seed: The seed of the batches' order.
    """
    task = learning.task(model, F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy})
    train = BatchLoader(data.train, learning.batch_size, shuffle=True, seed=seed)
    return Training(task, train, BatchLoader(data.test, 500))


def direction_forecaster(
    model: SequenceModel, split: Split, target: str, device: str = "auto", **file: Any
) -> DirectionForecaster:
    """Return the predictor of a model that learns whether the column ``target`` of a split's series rises next.



    Args:
        model: The model.
        split: The series.
        target: The column.
        device: auto, cpu, cuda, cuda:N or mps.
        file: How a file is read; see :meth:`torchdl.predict.SeriesInput.of`.
    """
    share = float(rises(split, target)[0].targets.double().mean())
    return DirectionForecaster(
        model, DirectionForecaster.Settings(SeriesInput.of(split, **file), target, share), device
    )


def evaluate_direction(forecaster: DirectionForecaster, split: Split) -> Report:
    """Compare predicted directions with the baseline of always predicting the training part's more frequent direction.

    The ``forecaster`` predicts the test part of ``split``. The results also have the probability that the target rises
    after the series.
    """
    target = forecaster.settings.target
    train, test = rises(split, target, split.series.values)  # windows in the unit of the series
    correct = binary_accuracy(forecaster.logits(test.inputs), test.targets)
    train_accuracy = float(binary_accuracy(forecaster.logits(train.inputs), train.targets).mean())
    ups = float(train.targets.mean())
    always = binary_accuracy(torch.full_like(test.targets, ups - 0.5), test.targets)
    _, low, high = error_ratio(1 - correct, 1 - always)
    low, high = low**2, high**2  # errors are 0 or 1: the squared ratio of RMSEs is that of error counts
    accuracy, baseline = float(correct.mean()), float(always.mean())
    ratio = (1 - accuracy) / (1 - baseline)
    results = {
        "target": target,
        "held out": len(test),
        "accuracy": accuracy,
        "accuracy in training": train_accuracy,
        "accuracy of the more frequent answer": baseline,
        "wrong answers against it": {"ratio": ratio, "low": low, "high": high},
        "probability of a rise after the series": forecaster.predict(split.series).probability,
        "parameters": sum(p.numel() for p in forecaster.model.parameters()),
    }
    summary = (
        f"test accuracy {accuracy:.1%} on {len(test):,} terms, training accuracy {train_accuracy:.1%}\n"
        f"accuracy of always predicting the more frequent direction {baseline:.1%}\n"
        f"{ratio:.3g} times as many wrong predictions as that (95 % interval {low:.3g} to {high:.3g}): "
        f"{conclusion(low, high)}"
    )
    return Report(results, summary)
