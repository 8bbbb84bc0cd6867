"""Numbers in tables: confusion matrices, bars, histograms, scatter plots."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torchdl.files import PathLike
from torchdl.plots.figure import OTHERS, OWN, colors_of, finish, new_figure, rows_and_columns, sheet, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def plot_confusion(
    matrix: np.ndarray, classes: Sequence[str], normalize: bool = False, path: PathLike | None = None
) -> Figure:
    """Draw a confusion matrix of counts, a row per true label, coloured by shares of the row.

    Two classes get large cells with both counts and shares, more than 30 classes get colours only.

    Args:
        matrix: (K, K) counts.
        classes: The names of the K classes.
        normalize: Whether to write the shares, in per cent, instead of the counts.
        path: The file for the figure, if it is to be saved.
    """
    two, many = len(classes) == 2, len(classes) > 30
    cell = 1.3 if two else 0.12 if many else 0.55
    longest = max(map(len, classes))
    figure, (axis,) = sheet(1, 1, 1.2 + 0.07 * longest + cell * len(classes), 1.2 + cell * len(classes))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    axis.spines[:].set_visible(True)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column] and not many:
            colour = "white" if shares[row, column] > 0.5 else "black"
            share, count = f"{100 * shares[row, column]:.1f}", f"{matrix[row, column]:,}"
            text = f"{count}\n{share} %" if two else share if normalize else count
            size = 12 if two else 8 if len(text) < 6 else 7
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    rotation, size = (0, 10) if longest < (16 if two else 3) else (90 if many else 45, 6 if many else 9)
    axis.set_xticks(range(len(classes)), classes, rotation=rotation, fontsize=size, parse_math=False)
    if rotation == 45:
        for label in axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")  # ends at its column
    axis.set_yticks(range(len(classes)), classes, fontsize=size, parse_math=False)  # names may hold a $
    axis.tick_params(length=0)
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    unit = " (cells in % of a row)" if normalize and not two else ""
    axis.set(xlabel="predicted", ylabel="true", title=f"accuracy {100 * accuracy:.2f} %{unit}")
    return finish(figure, path)


@styled()
def plot_bars(
    panels: Mapping[str, Mapping[str, float]], xlabel: str, own: Collection[str] = (OWN,), path: PathLike | None = None
) -> Figure:
    """Draw horizontal bars with their numbers, the first on top: panel name -> bar name -> value.

    All ``panels`` have the same bars.

    Args:
        panels: Panel name -> bar name -> value.
        xlabel: The label of the values' axis.
        own: The names of the bars or panels that are to stand out among the others.
        path: The file for the figure, if it is to be saved.
    """
    names = list(next(iter(panels.values())))
    low, high = (f([0.0, *(f(values.values()) for values in panels.values())]) for f in (min, max))
    margin = 0.05 * (high - low) or 1.0
    columns = rows_and_columns(len(panels), 4)[1]
    longest = max(map(len, names))
    typical = float(np.median([abs(value) for values in panels.values() for value in values.values()])) or 1.0
    decimals = max(0, 2 - math.floor(math.log10(typical)))  # three digits
    digits = max(len(f"{value:,.{decimals}f}") for values in panels.values() for value in values.values())
    width = max(3.0, 7 / columns)
    room = 0.07 * digits / (width - 0.7) * (high - low)  # for the numbers beside the bars
    stands_out = any(name in own for name in (*panels, *names))
    figure, axes = sheet(len(panels), columns, width + 0.08 * longest / columns, 1 + 0.25 * len(names))
    for number, (axis, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        colors = ["C0" if title in own or name in own or not stands_out else OTHERS for name in names]
        bars = axis.barh(range(len(names)), [values[name] for name in names], color=colors)
        axis.bar_label(bars, [f"{values[name]:,.{decimals}f}" for name in names], padding=3, fontsize=8)
        axis.invert_yaxis()
        # names only in the first panel of a row; they may hold a $
        axis.set_yticks(range(len(names)), [] if number % columns else names, parse_math=False)
        axis.tick_params(axis="y", length=0)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(title, parse_math=False)
        axis.set_xlim(low - margin - (room if low < 0 else 0.0), high + margin + (room if high > 0 else 0.0))
        axis.grid(False, axis="y")
    figure.supxlabel(xlabel, fontsize=10)
    return finish(figure, path)


@styled()
def plot_predictions(actual: np.ndarray, predicted: np.ndarray, name: str, path: PathLike | None = None) -> Figure:
    """Draw ``predicted`` (N,) over ``actual`` values (N,), and the line on which they agree.

    Args:
        name: What is predicted, for the labels.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 5.5, 5)
    axis.scatter(actual, predicted, s=12, alpha=0.6, linewidths=0)
    ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
    axis.plot(ends, ends, "--", color="0.5")
    axis.set_aspect("equal")
    axis.set_xlabel(f"actual {name}", parse_math=False)  # names may hold a $
    axis.set_ylabel(f"predicted {name}", parse_math=False)
    return finish(figure, path)


@styled()
def plot_histograms(columns: Mapping[str, np.ndarray], path: PathLike | None = None) -> Figure:
    """Draw a histogram of each of ``columns``, (N,) numbers or texts; of texts, the 12 most frequent.

    Args:
        path: The file for the figure, if it is to be saved.
    """
    figure, axes = sheet(len(columns), min(4, len(columns)), 3.2, 2.5)
    for axis, (name, values) in zip(axes, columns.items(), strict=True):
        if np.issubdtype(values.dtype, np.number):
            axis.hist(values[np.isfinite(values)], bins=30)
        else:
            texts, counts = np.unique(values.astype(str), return_counts=True)
            order = counts.argsort()[::-1][:12]
            axis.bar(range(len(order)), counts[order])
            short = [text if len(text) < 13 else f"{text[:11]}…" for text in texts[order]]
            axis.set_xticks(range(len(order)), short, rotation=45, parse_math=False)
            for label in axis.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")  # ends at its bar
        axis.grid(False, axis="x")
        axis.set_title(name, parse_math=False)  # names may hold a $
    if axes:
        figure.supylabel("rows", fontsize=9.5)
    return finish(figure, path)


@styled()
def plot_scatter_matrix(columns: Mapping[str, np.ndarray], path: PathLike | None = None) -> Figure:
    """Draw every pair of columns (N,) of numbers as a scatter plot, and histograms on the diagonal.

    Args:
        path: The file for the figure, if it is to be saved.
    """
    from matplotlib.ticker import MaxNLocator
    from pandas import DataFrame
    from pandas.plotting import scatter_matrix

    figure = new_figure(1.8 * len(columns) + 0.8, 1.8 * len(columns) + 0.8)
    figure.set_layout_engine(None)  # pandas lays the panels out itself
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="To output multiple subplots", category=UserWarning)
        options: dict[str, Any] = {"marker": "o", "s": 10, "linewidths": 0, "alpha": 0.5, "hist_kwds": {"bins": 25}}
        axes = scatter_matrix(DataFrame(dict(columns)), ax=figure.add_subplot(), **options)
    for axis in axes.flat:
        axis.xaxis.label.set(parse_math=False, size=8)  # names may hold a $
        axis.yaxis.label.set(parse_math=False, size=8)
        axis.spines[:].set_visible(True)
        axis.grid(False)
    for axis in axes[-1]:
        axis.tick_params(axis="x", labelrotation=0)
        axis.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # so that neighbouring tick labels do not touch
    figure.subplots_adjust(0.1, 0.1, 0.98, 0.98)
    return finish(figure, path)


@styled()
def plot_embeddings(
    points: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str, path: PathLike | None = None
) -> Figure:
    """Draw points in the colours of their labels; each class is named at its median.

    Args:
        points: (N, 2).
        labels: (N,), indices of the classes.
        classes: The names of the classes.
        title: The title.
        path: The file for the figure, if it is to be saved.
    """
    figure, (axis,) = sheet(1, 1, 7, 6)
    for (label, name), color in zip(enumerate(classes), colors_of(len(classes)), strict=True):
        x, y = points[labels == label].T
        axis.scatter(x, y, s=9, color=color, label=name, linewidths=0)
        if len(x) and len(classes) <= 20:  # more names would hide the points
            box = {"boxstyle": "round", "facecolor": "white", "alpha": 0.8, "edgecolor": color}
            axis.text(np.median(x), np.median(y), name, ha="center", va="center", bbox=box, parse_math=False)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(True)
    return finish(figure, path)
