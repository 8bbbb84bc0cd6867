"""Curves: metrics over epochs, forecasts, ROC and precision-recall curves, functions, surfaces and paths."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from torchdl.files import PathLike
from torchdl.history import AnyHistory, as_history
from torchdl.plots.figure import (
    COLORS,
    OWN,
    SHADED,
    colors_of,
    finish,
    finish_curves,
    highlight,
    legend_below,
    logarithmic,
    name_lines,
    new_figure,
    rows_and_columns,
    sheet,
    spans_decades,
    styled,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOTH = "D(x) and D(G(z))"  # the discriminator's outputs, of real and of generated images
#: The metrics of a GAN that share a panel, if both are there: they only make sense together.
SHARED = {
    BOTH: ("D(x)", "D(G(z))"),
    "losses of both networks": ("discriminator_loss", "generator_loss"),
    "the discriminator's accuracy": ("real_accuracy", "generated_accuracy"),
}
REFERENCE = re.compile("(?<!_at)_(chance|ceiling)$")  # steps_at_chance is a metric
PARTS = {"val": "validation"}
LOSS = re.compile("loss|error|norm")  # metrics whose small values matter


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Group metrics that share a panel: ``train/loss`` and ``val/loss``, ``val/top1`` and ``val/top1_chance``.

    The endings ``_chance`` and ``_ceiling`` mark references, ``_step_1`` and ``_class_1`` the parts of a metric.
    """
    grouped: dict[str, list[str]] = {}
    for name in names:
        if "/" in name and not name.startswith("charts/"):
            metric = REFERENCE.sub("", name.split("/", 1)[1])
            metric = re.sub(r"_step_\d+$", "_by_step", metric)
            grouped.setdefault(re.sub(r"_class_.*$", "_by_class", metric), []).append(name)
    return grouped


def compared(history: AnyHistory) -> dict[str, list[dict[str, float]]]:
    """Return the parts of a history to be drawn in colours by :func:`plot_history`, by name; it draws each as a panel.

    They are the metrics with a chance level or ceiling, and D(x) and D(G(z)): TensorBoard has one colour per run.
    """
    rows = as_history(history)
    grouped = _panels(key for row in rows for key in row)
    shown = {name: keys for name, keys in grouped.items() if name == BOTH or any(map(REFERENCE.search, keys))}
    return {name: [{k: row[k] for k in ("epoch", *keys) if k in row} for row in rows] for name, keys in shown.items()}


def _panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Group metrics as :func:`panels` does, but those of :data:`SHARED` together and first."""
    grouped = panels(dict.fromkeys(names))
    shared = {title: pair for title, pair in SHARED.items() if grouped.keys() >= set(pair)}
    return {title: [key for name in pair for key in grouped.pop(name)] for title, pair in shared.items()} | grouped


@styled()
def plot_history(history: AnyHistory, path: PathLike | None = None) -> Figure:
    """Draw every metric of a run's history over the epochs, training and validation in the same panel.

    A GAN's D(x) and D(G(z)) share a panel, dotted where they are the training's beside a validation's, and so do both
    losses, and the discriminator's accuracies on real and on generated images. Training, validation, chance, ceiling,
    and what is of real and of generated images, have the same colours in every figure.

    Args:
        history: Rows, a table of them, or a run's folder.
        path: The file for the figure, if it is to be saved.
    """
    history = as_history(history)
    names = _panels(key for row in history for key in row)
    figure, axes = sheet(len(names), 3, 4.5, 3.2)
    for (name, keys), axis in zip(names.items(), axes, strict=True):
        beside = {key.split("/")[0] for key in keys} > {"train"}  # a validation, too
        for key, free in zip(keys, colors_of(len(keys), ordered=name.endswith("_by_step")), strict=True):
            points = [(row["epoch"], row[key]) for row in history if key in row]
            is_reference = REFERENCE.search(key) is not None
            ending = REFERENCE.search(key) or re.search(r"_(step_\d+|class_.*)$", key)
            marker, line = "." if len(points) < 30 and not is_reference else "", "--" if is_reference else "-"
            part = key.split("/")[0]
            label = re.sub("^class_", "", ending[1]).replace("_", " ") if ending else PARTS.get(part, part)
            color = COLORS.get(label, free)
            if name in SHARED:
                metric = key.split("/", 1)[1]
                label, color = f"{metric.replace('_', ' ')}, {label}", COLORS[metric]
                line = ":" if beside and part == "train" else "-"
            axis.plot(*zip(*points, strict=True), line, marker=marker, label=label, color=color)
        _finish_panel(axis, name, "epoch")
        name_lines(figure, axis)
    return finish(figure, path)


def _finish_panel(axis: Axes, name: str, x: str) -> None:
    """Name a panel of a history and choose its scales."""
    axis.set_title(name.replace("_", " "), parse_math=False)
    axis.set_xlabel(x)
    whole_numbers(axis)
    if LOSS.search(name) and spans_decades(y for line in axis.lines for y in np.asarray(line.get_ydata(), float)):
        logarithmic(axis, "y")


@styled()
def plot_comparison(histories: Mapping[str, AnyHistory], x: str = "epoch", path: PathLike | None = None) -> Figure:
    """Draw every metric of several runs' histories, each run in one colour in all panels.

    Lines are solid, but dotted where they show the training beside a validation; chance and ceilings are dashed and
    grey.
    The parts of a metric, such as those of its classes, are left out.

    Args:
        histories: The history of each run by its name; see :func:`plot_history`.
        x: The horizontal axis: ``epoch``, or ``step`` for runs whose epochs differ in length.
        path: Where to save the figure as PNG.
    """
    from matplotlib.lines import Line2D

    runs = {name: as_history(history) for name, history in histories.items()}
    known = dict.fromkeys(key for history in runs.values() for row in history for key in row)
    names = panels(key for key in known if not re.search(r"_(step_\d+|class_.*)$", key))
    figure, axes = sheet(len(names), 3, 4.5, 3.2)
    colors = colors_of(len(runs))
    used = set()
    for (name, keys), axis in zip(names.items(), axes, strict=True):
        beside = {key.split("/")[0] for key in keys} > {"train"}  # a validation, too
        for color, history in zip(colors, runs.values(), strict=True):
            for key in keys:
                reference = REFERENCE.search(key)
                style = "--" if reference else ":" if beside and key.startswith("train/") else "-"
                used.add(style)
                points = [(row[x], row[key]) for row in history if math.isfinite(row.get(key, math.nan))]
                marker = "." if len(points) < 30 and (style == "-" or len(points) == 1) else ""
                shade = COLORS[reference[1]] if reference else color
                axis.plot(
                    *zip(*points, strict=True) if points else ((), ()),
                    style,
                    marker=marker,
                    color=shade,
                    zorder=1.5 if reference else 2,
                )
        _finish_panel(axis, name, x)
    names_and_colors = zip(runs, colors, strict=True)
    entries: list[tuple[str, Any, str]] = [(name.replace("$", r"\$"), color, "-") for name, color in names_and_colors]
    styles = {"-": "validation or samples", ":": "training", "--": "chance or ceiling"}
    shades = {"--": COLORS["chance"]}
    entries += [(name, shades.get(s, "0.2"), s) for s, name in styles.items() if s in used and len(used) > 1]
    lines = [Line2D([], [], color=color, linestyle=style, label=name) for name, color, style in entries]
    columns = max(2, rows_and_columns(len(names), 3)[1])
    figure.legend(handles=lines, loc="outside lower center", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(lines) // columns))  # the panels keep their height
    return finish(figure, path)


@styled()
def plot_label_efficiency(
    curves: Mapping[str, Mapping[int, Sequence[float]]], xlabel: str = "labels", path: PathLike | None = None
) -> Figure:
    """Draw test errors (1 - accuracy) over the number of labels, one curve per name; both axes are logarithmic.

    The bars are sample standard deviations.

    Args:
        curves: Name -> number of labels -> the accuracies measured there.
        xlabel: The label of the numbers' axis.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 6.5, 4.5)
    for name, curve in curves.items():
        means = [100 * np.mean(values) for values in curve.values()]
        spreads = [100 * statistics.stdev(values) if len(values) > 1 else 0.0 for values in curve.values()]
        axis.errorbar(list(curve), [100 - mean for mean in means], spreads, marker=".", capsize=3, label=name)
    axis.set(xlabel=xlabel, ylabel="test error, % (mean ± standard deviation)")
    logarithmic(axis, "x", "y")
    name_lines(figure, axis)
    return finish(figure, path)


@styled()
def plot_functions(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]], path: PathLike | None = None
) -> Figure:
    """Draw each function and its derivative in a panel of their own, all at the same scale.

    Args:
        curves: (x, values, derivatives) by name, (N,) each.
        path: The file for the figure, if it is to be saved.
    """
    figure, axes = sheet(len(curves), 3, 3.2, 2.6)
    for axis in axes[1:]:
        axis.sharey(axes[0])
    for axis, (name, (x, values, derivatives)) in zip(axes, curves.items(), strict=True):
        axis.plot(x, values, label="f")
        axis.plot(x, derivatives, "--", color="C3", label="f'")
        axis.set(title=name)
    legend_below(figure, axes)
    return finish(figure, path)


@styled()
def plot_lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    log_x: bool = False,
    own: str = OWN,
    path: PathLike | None = None,
) -> Figure:
    """Draw curves in one panel.

    Args:
        curves: The points (x, y) by name, (N,) each.
        x, y: The labels of the axes.
        log_x: Whether the x axis is logarithmic.
        own: The beginning of the name of the curve that is to stand out among the others.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 6, 4)
    for name, points in curves.items():
        axis.plot(*points, marker=".", label=name)
    axis.set(xlabel=x, ylabel=y)
    if log_x:
        logarithmic(axis, "x")
    highlight(axis, own)
    name_lines(figure, axis)
    return finish(figure, path)


@styled()
def plot_learning_rates(
    rates: Sequence[float], losses: Sequence[float], suggestion: float, path: PathLike | None = None
) -> Figure:
    """Draw ``losses`` over the learning ``rates`` at which they were measured, and mark the ``suggestion``.

    Args:
        path: The file for the figure, if it is to be saved.
    """
    figure = new_figure(6, 4)
    axis = figure.subplots()
    axis.plot(rates, losses)
    axis.axvline(suggestion, color="0.5", linestyle="--", label=f"the loss falls fastest at {suggestion:.2g}")
    lowest = min(losses)
    axis.set(xlabel="learning rate", ylabel="loss, a mean over the last steps")
    axis.set_ylim(None, max(losses[0], lowest) + 0.5 * abs(losses[0] - lowest))  # an explosion would hide the rest
    logarithmic(axis, "x")
    return finish_curves(figure, axis, path)


@styled()
def plot_measured(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float],
    log_y: bool = False,
    path: PathLike | None = None,
) -> Figure:
    """Draw repeated measurements: panel name -> line name -> x -> the values measured there.

    Each line joins the means; bars reach from the minimum to the maximum. With fewer than 10 points, the lines are
    shifted slightly against each other, so that none hides another.

    Args:
        panels: Panel name -> line name -> x -> the values measured there.
        xlabel, ylabel: The labels of the axes.
        references: Values by name, drawn as dashed lines.
        log_y: Whether the y axes are logarithmic.
        path: The file for the figure, if it is to be saved.
    """
    figure, axes = sheet(len(panels), 3, 5.2, 3.8)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        points = sorted({x for measured in lines.values() for x in measured})
        shift = (points[-1] - points[0]) / 70 if len(points) < 10 else 0.0
        for number, (name, measured) in enumerate(lines.items()):
            means, low, high = ([float(f(values)) for values in measured.values()] for f in (np.mean, min, max))
            spread = np.abs(np.array([low, high]) - means)  # (2, points), downwards and upwards
            x = [x + shift * (number - (len(lines) - 1) / 2) for x in measured]
            marker = "osv^D<>P*"[number % 9] if len(means) < 30 else ""
            axis.errorbar(x, means, spread, marker=marker, markersize=5, capsize=3, label=name, alpha=0.8)
        for name, value in references.items():
            axis.axhline(value, linestyle="--", color=COLORS["chance"], label=name)
        if len(points) < 10:
            axis.set_xticks(points)
        else:
            whole_numbers(axis)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if log_y:
            logarithmic(axis, "y")
    legend_below(figure, axes)
    return finish(figure, path)


@styled()
def plot_forecast(
    values: Tensor,
    boundary: int,
    one_step: Tensor,
    multi_step: Tensor,
    name: str,
    times: np.ndarray | None = None,
    path: PathLike | None = None,
) -> Figure:
    """Draw a series, ``values`` (L,), and two forecasts of its terms from ``boundary`` on, (L - boundary,) each.

    ``one_step`` predicts each term from the actual terms before it. ``multi_step`` predicts all terms from those
    before the boundary and its own predictions.

    Args:
        name: The name of the series, for the title.
        times: (L,), the horizontal positions, such as the dates of :attr:`torchdl.Series.times`; None counts terms.
        path: The file for the figure, if it is to be saved.
    """
    figure = new_figure(10, 6)
    whole, part = figure.subplots(2, 1)
    time = np.arange(len(values)) if times is None else times
    whole.plot(time, values, color="0.4", linewidth=1)
    whole.axvspan(time[boundary], time[-1], color=SHADED)
    whole.set_title(f"{name}: the forecast terms are shaded", parse_math=False)  # names may hold a $
    later = time[boundary:]
    part.plot(later, values[boundary:], color="0.4", label="actual")
    part.plot(later, one_step, color="C0", linewidth=1, label="one-step forecast")
    part.plot(later, multi_step, "--", color="C3", label="multi-step forecast")
    part.set(ylim=_limits(values[boundary:]), xlabel="term" if times is None else "")
    legend_below(figure, [part])
    return finish(figure, path)


@styled()
def plot_forecasts(
    actual: Tensor,
    forecasts: Mapping[str, tuple[Tensor, Tensor]],
    name: str,
    times: np.ndarray | None = None,
    path: PathLike | None = None,
) -> Figure:
    """Draw the forecasts of several models over the same terms, one step ahead and many steps ahead in a panel each.

    Args:
        actual: (N,), the terms.
        forecasts: The one-step and the multi-step forecast of each model, (N,) each, by the model's name; as those of
            :func:`plot_forecast`.
        name: The name of the series, for the titles.
        times: (N,), the horizontal positions, such as dates; None counts terms.
        path: The file for the figure, if it is to be saved.
    """
    figure = new_figure(10, 6)
    panels = figure.subplots(2, 1, sharex=True)
    time = np.arange(len(actual)) if times is None else times
    for number, (axis, title) in enumerate(zip(panels, ("one step ahead", "many steps ahead"), strict=True)):
        axis.plot(time, actual, color="0.4", linewidth=1.6, label="actual")
        for (model, pair), color in zip(forecasts.items(), colors_of(len(forecasts)), strict=True):
            axis.plot(time, pair[number], color=color, linewidth=1, label=model)
        axis.set_ylim(_limits(actual))
        axis.set_title(f"{name}, {title}", loc="left", parse_math=False)  # names may hold a $
    panels[-1].set_xlabel("term" if times is None else "")
    legend_below(figure, panels)
    return finish(figure, path)


def _limits(actual: Tensor) -> tuple[float, float]:
    """Return the ends of an axis that shows the ``actual`` terms; a multi-step forecast may diverge."""
    low, high = float(actual.min()), float(actual.max())
    margin = (high - low) / 2 or 1.0
    return low - margin, high + margin


@styled()
def plot_next_terms(
    panels: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]],
    times: np.ndarray | None = None,
    path: PathLike | None = None,
) -> Figure:
    """Draw the last known terms of series and forecasts of what comes next: a panel per series.

    Args:
        panels: The known terms (K,) and the forecasts (H,) by name, for each series by name.
        times: (K + H,), those of all terms; None counts terms from the last known one, which is 0.
        path: The file for the figure, if it is to be saved.
    """
    figure, axes = sheet(len(panels), 1, 9, 3.6 if len(panels) == 1 else 3.0)
    for axis, (title, (known, forecasts)) in zip(axes, panels.items(), strict=True):
        now = len(known) - 1
        ahead = len(next(iter(forecasts.values())))
        x = np.arange(-now, ahead + 1) if times is None else times
        axis.axvspan(x[now], x[-1], color=SHADED, linewidth=0)
        axis.plot(x[: now + 1], known, color="0.4", label="known", marker="." if now < 60 else "")
        for number, ((name, values), line) in enumerate(zip(forecasts.items(), ("-", "--", ":", "-."), strict=False)):
            later = np.concatenate([known[-1:], values])  # from the last known term on
            color, marker = ("C3", "C0", "C2", "C4")[number % 4], "." if ahead <= 60 and not number else ""
            axis.plot(x[now:], later, line, color=color, label=name, marker=marker, markevery=(1, 1))
        axis.set_title(title, parse_math=False, loc="left")  # names may hold a $
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)  # above the curves
    if times is None:
        axes[-1].set_xlabel("step (0: the last known term)")
    return finish(figure, path)


@styled()
def plot_roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], positive: str, path: PathLike | None = None
) -> Figure:
    """Draw ROC curves by name.

    Args:
        curves: False and true positive rates, (N,) each, by name.
        positive: The name of the positive class.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 5.5, 5)
    for name, (false_rate, true_rate) in curves.items():
        axis.plot(false_rate, true_rate, label=name)
    axis.plot([0, 1], [0, 1], "--", color=COLORS["chance"], label="chance")
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(f"positive: {positive}", parse_math=False)  # names may hold a $
    return finish_curves(figure, axis, path)


@styled()
def plot_precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], positive: str, share: float, path: PathLike | None = None
) -> Figure:
    """Draw precision-recall curves by name, and chance level.

    Args:
        curves: Precision and recall, (N,) each, by name.
        positive: The name of the positive class.
        share: The share of positives, from 0 to 1, which is chance level.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 5.5, 5)
    for name, (precision, recall) in curves.items():
        axis.step(recall, precision, where="post", label=name)
    axis.axhline(share, linestyle="--", color=COLORS["chance"], label="chance")
    axis.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(0, 1.02))
    axis.set_title(f"positive: {positive}", parse_math=False)  # names may hold a $
    return finish_curves(figure, axis, path, title="average precision")


@styled()
def plot_line_fit(
    x: Tensor, y: Tensor, lines: Mapping[str, Tensor], xlabel: str, ylabel: str, path: PathLike | None = None
) -> Figure:
    """Draw points with logarithms ``y`` (N,) at ``x`` (N,), and lines (N,) of logarithms, on a logarithmic axis.

    A panel before it has the points alone, on a linear axis: what the logarithm is good for.

    Args:
        x: (N,), horizontal positions.
        y: (N,), the points' logarithms.
        lines: (N,) logarithms by name.
        xlabel, ylabel: The labels of the axes.
        path: The file for the figure, if it is to be saved.
    """
    figure, (before, axis) = sheet(2, 2, 5.5, 4.2)
    for panel in (before, axis):
        panel.scatter(x, y.exp(), s=14, color="0.4", label="data")
        panel.set(xlabel=xlabel, ylabel=ylabel)
    before.set_title("before the logarithm")
    before.ticklabel_format(axis="y", useMathText=True)
    order = x.argsort()
    for (name, values), style in zip(lines.items(), itertools.cycle(("-", "--", ":")), strict=False):
        axis.plot(x[order], values[order].exp(), style, label=name)
    axis.set(title="after it: a line")
    logarithmic(axis, "y")
    return finish_curves(figure, axis, path)


@styled()
def plot_surfaces(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    points: np.ndarray | None = None,
    path: PathLike | None = None,
) -> Figure:
    """Draw surfaces (x, y, z), (S, S) each, by name, side by side in 3-D; the first one with points (N, 3).

    Args:
        path: The file for the figure, if it is to be saved.
    """
    figure = new_figure(4.6 * len(surfaces), 4.4)
    low, high = (float(f([f(z) for *_, z in surfaces.values()])) for f in (np.min, np.max))
    for number, (name, (x, y, z)) in enumerate(surfaces.items(), 1):
        axis: Any = figure.add_subplot(1, len(surfaces), number, projection="3d")
        axis.plot_surface(x, y, z, cmap="viridis", alpha=0.8, linewidth=0, vmin=low, vmax=high)
        if points is not None and number == 1:
            axis.scatter(*points.T, s=3, color="C3", depthshade=False)
        axis.set(title=name, xlabel="x1", ylabel="x2", zlim=(low, high))
    return finish(figure, path)


@styled()
def plot_paths(
    surface: tuple[np.ndarray, np.ndarray, np.ndarray],
    paths: Mapping[str, np.ndarray],
    losses: Mapping[str, np.ndarray],
    path: PathLike | None = None,
) -> Figure:
    """Draw paths (S + 1, 2) by name, each over the contours of a surface (x, y, z), and their losses (S + 1,).

    Args:
        path: The file for the figure, if it is to be saved.
    """
    columns = 3
    rows = -(-len(paths) // columns)
    figure = new_figure(3 * columns + 6, 2.6 * rows)
    grid = figure.add_gridspec(rows, 2 * columns)
    colors = colors_of(len(paths))
    for number, (name, points) in enumerate(paths.items()):
        axis = figure.add_subplot(grid[number // columns, number % columns])
        axis.contour(*surface, levels=np.geomspace(surface[2].min() + 1e-3, surface[2].max(), 15), colors="0.75")
        axis.plot(*points.T, "-", color=colors[number], linewidth=1)
        axis.plot(*points[0], "ko", markersize=4)
        axis.plot(*points[-1], "*", color="k", markersize=9)
        axis.set(title=name, xlim=(surface[0].min(), surface[0].max()), ylim=(surface[1].min(), surface[1].max()))
    axis = figure.add_subplot(grid[:, columns:])
    for (name, values), color in zip(losses.items(), colors_of(len(losses)), strict=True):
        axis.plot(values, color=color, label=name, linewidth=1.2)
    axis.set(xlabel="updates", ylabel="loss over all examples, minus the minimum")
    logarithmic(axis, "y")
    name_lines(figure, axis)
    return finish(figure, path)
