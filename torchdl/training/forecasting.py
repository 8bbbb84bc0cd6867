"""Train a forecaster in a run, and say what its forecasts are worth beside those that need no training.

Shapes: N starts of forecasts, T terms seen, D numbers a term, H terms to come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchdl import plots
from torchdl.data import ArrayDataset, BatchLoader
from torchdl.data.series import Series, Split, Windows
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.forecasts import drift, fit_linear_, forecast, last_value, seasonal_last_value
from torchdl.metrics import error_ratio, forecast_errors
from torchdl.tasks import binary_accuracy
from torchdl.tasks.supervised import Loss
from torchdl.training.command import Run, say
from torchdl.training.learning import Learning

NAIVE = ("last value", "mean of the training part", "drift", "season before")


def fit(
    run: Run,
    model: nn.Module,
    train: Dataset,
    test: Dataset,
    loss: Loss,
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    learning: Learning,
) -> None:
    """Train on windows, in the run; the model is left on the CPU, in evaluation mode."""
    loader = BatchLoader(train, learning.batch_size, shuffle=True, seed=run.trainer.seed)
    run.fit(learning.task(model, loss, metrics), model, loader, BatchLoader(test, 500))
    model.cpu().eval()


def fit_forecaster(
    run: Run, model: Any, linear: Any, split: Split, horizon: int, period: int, learning: Learning
) -> dict[str, Any]:
    """Train a model to give the next terms, and leave in the run's folder what :func:`report` writes.

    Args:
        run: The run.
        model: A :class:`torchdl.SequenceModel` that gives the next term, or ``horizon`` of them in one go.
        linear: A linear one that gives the next term, to be fitted by least squares.
        split: The series.
        horizon: H, how far ahead the long forecasts go.
        period: Terms of a season, for the baseline that repeats it; 0 for none.
        learning: How it learns.
    """
    direct = model.horizon or 1
    for split_by in (split, *([Split(split.series, period, split.held_out)] if period else [])):
        split_by.test(horizon)  # what cannot be forecast is said before anything is trained
    fit(run, model, split.train(direct), split.test(direct), F.mse_loss, {}, learning)
    return report(run, model, linear, split, horizon, period) if run.is_main else {}


@torch.no_grad()
def forecasts(
    model: Any, linear: Any, split: Split, horizon: int, period: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Forecast H terms from every start in the held-out part, by the model and by what stands beside it.

    Returns:
        The forecasts by name, what came, and what was seen before: scaled, (N, H, D), and (N, T, D).
    """
    x, y = split.test(horizon)[:]
    found = {
        f"{model.kind}, trained": forecast(model, x, horizon),
        f"AR({split.length}), least squares": forecast(fit_linear_(linear, *split.train()[:]), x, horizon),
        NAIVE[0]: last_value(x, horizon),
        NAIVE[1]: torch.zeros_like(y),  # it is what has been subtracted
    }
    if split.length > 1:
        found[NAIVE[2]] = drift(x, horizon)
    if period:  # a season may be longer than what the model sees
        seen, _ = Split(split.series, period, split.held_out).test(horizon)[:]
        found[NAIVE[3]] = seasonal_last_value(seen, horizon, period)
    return found, y, x


def report(run: Run, model: Any, linear: Any, split: Split, horizon: int, period: int) -> dict[str, Any]:
    """Measure one step and H steps ahead, in the unit of the series' first column; write, draw and print it.

    It leaves ``results.json``, ``plots/forecast.png`` and ``plots/errors.png``.
    """
    series = split.series
    steps: dict[str, dict[str, dict[str, float]]] = {}
    against: dict[str, dict[str, Any]] = {}
    by_step: dict[str, tuple[list[int], list[float]]] = {}
    known = series.values[: split.boundary, 0]
    scale = float(known.diff().abs().mean())
    for ahead in dict.fromkeys((1, horizon)):
        found, y, x = forecasts(model, linear, split, ahead, period)
        actual, last = split.unscale(y)[..., 0], split.unscale(x)[:, -1, 0]  # (N, H), (N,)
        values = {name: split.unscale(predicted)[..., 0] for name, predicted in found.items()}
        title = "one step ahead" if ahead == 1 else f"{ahead} steps ahead"
        steps[title] = {name: forecast_errors(v, actual, last, scale) for name, v in values.items()}
        ours = next(iter(values))
        block = max(ahead, round(len(actual) ** (1 / 3)))
        naive = {name: row["rmse"] for name, row in steps[title].items() if name in NAIVE}
        best = min(naive, key=naive.__getitem__)
        ratio, low, high = error_ratio(values[ours] - actual, values[best] - actual, block)
        against[title] = {"naive forecast": best, "ratio": ratio, "low": low, "high": high}
        say(table(title, steps[title], len(actual)))
        say(verdict(title, best, ratio, low, high))
        if ahead > 1:
            numbers = list(range(1, ahead + 1))
            by_step = {n: (numbers, (v - actual).square().mean(0).sqrt().tolist()) for n, v in values.items()}
    results = {
        "series": series.columns[0],
        "train": split.boundary,
        "held out": split.held_out,
        "parameters": sum(p.numel() for p in model.parameters()),
        "errors": steps,
        "against the best naive forecast": against,
    }
    write_json(run.folder / "results.json", results, default=str)
    paths = [run.folder / "plots" / "forecast.png", run.folder / "plots" / "errors.png"]
    draw(model, split, paths[0])
    if by_step:
        plots.plot_lines(by_step, paths[1], "steps ahead", f"root mean squared error of {series.columns[0]}")
    with closing(run.logger()) as logger:
        logger.show(*(path for path in paths if path.exists()))
    say(f"pictures and figures: {run.folder}")
    return results


@torch.no_grad()
def draw(model: nn.Module, split: Split, path: Any) -> None:
    """Draw the held-out terms with both kinds of forecast: each from true terms, and one by its own predictions."""
    x, _ = split.test()[:]
    one_step = split.unscale(forecast(model, x, 1))[:, 0, 0]  # (held out,)
    own = split.unscale(forecast(model, x[:1], split.held_out))[0, :, 0]  # (held out,)
    plots.plot_forecast(split.series.values[:, 0], split.boundary, one_step, own, split.series.columns[0], path)


def table(title: str, errors: Mapping[str, Mapping[str, float]], starts: int) -> str:
    """Lay errors out as text, a row a forecast."""
    width = max(map(len, errors))
    lines = [f"{title}, {starts:,} forecasts", f"{'':{width}}  {'MAE':>10} {'RMSE':>10} {'MASE':>7} {'direction':>9}"]
    for name, row in errors.items():
        side = "" if math.isnan(row["direction"]) else f"{row['direction']:.1%}"
        lines.append(f"{name:{width}}  {row['mae']:10.4g} {row['rmse']:10.4g} {row['mase']:7.3f} {side:>9}")
    return "\n".join(lines)


def verdict(title: str, naive: str, ratio: float, low: float, high: float) -> str:
    """Say whether a forecast beats a naive one, and no more than the interval allows."""
    if not math.isfinite(ratio):
        return f"{title}: the {naive} is never wrong here, so that nothing can be better"
    conclusion = "it is better" if high < 1 else "it is WORSE" if low > 1 else "the two cannot be told apart"
    found = f"{ratio:.3g} times the error of the best naive forecast, the {naive}"
    return f"{title}: {found} (95 % interval {low:.3g} to {high:.3g}): {conclusion}"


def rises(series: Series, split: Split, target: str) -> tuple[ArrayDataset, ArrayDataset]:
    """Pair windows of all columns with whether the target rises at the next term (lecture 53): (N, T, D) and (N, 1)."""
    column = series.columns.index(target)

    def labelled(windows: Windows, values: Tensor) -> ArrayDataset:
        change = values[split.length :] > values[split.length - 1 : -1]
        return ArrayDataset(windows[:][0], change.float()[:, None], series.origin, series.stand_in)

    values, start = series.values[:, column], split.boundary - split.length
    return labelled(split.train(), values[: split.boundary]), labelled(split.test(), values[start:])


def fit_direction(run: Run, model: nn.Module, split: Split, target: str, learning: Learning) -> dict[str, Any]:
    """Train a model to say whether a column will rise, and compare it with saying always the more frequent answer."""
    split.series.select([target])  # which says what there is to choose from
    train, test = rises(split.series, split, target)
    ups, later = (float(part.targets.mean()) for part in (train, test))
    for share, name in ((ups, "training"), (later, "held-out")):
        does = "rises" if share else "falls or stays"
        require(0 < share < 1, f"{target!r} always {does} in the {name} part: no question")
    fit(run, model, train, test, F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy}, learning)
    if not run.is_main:
        return {}
    for part in (train, test):
        part.to("cpu")
    with torch.no_grad():
        right = binary_accuracy(model(test.inputs), test.targets)
        known = float(binary_accuracy(model(train.inputs), train.targets).mean())
    always = binary_accuracy(torch.full_like(test.targets, ups - 0.5), test.targets)
    block = round(len(right) ** (1 / 3))
    _, low, high = error_ratio(1 - right, 1 - always, block)
    low, high = low**2, high**2  # of wrong answers, not of their root mean square
    share, usual = float(right.mean()), float(always.mean())
    ratio = (1 - share) / (1 - usual)
    conclusion = "it is better" if high < 1 else "it is WORSE" if low > 1 else "the two cannot be told apart"
    results = {
        "target": target,
        "held out": len(test),
        "accuracy": share,
        "accuracy in training": known,
        "accuracy of the more frequent answer": usual,
        "wrong answers against it": {"ratio": ratio, "low": low, "high": high},
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    write_json(run.folder / "results.json", results)
    say(
        f"{share:.1%} of {len(test):,} held-out terms right, {known:.1%} of those learnt from, {usual:.1%} by always "
        f"the more frequent answer\n{ratio:.3g} times its wrong answers (95 % interval {low:.3g} to {high:.3g}): "
        f"{conclusion}"
    )
    return results
