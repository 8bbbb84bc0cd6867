"""Numbers in tables: confusion matrices, bars, histograms, scatter plots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchdl.files import PathLike
from torchdl.plots.figure import finish, new_figure, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_confusion(
    matrix: np.ndarray, classes: Sequence[str], normalize: bool = False, path: PathLike | None = None
) -> Figure:
    """Draw a confusion matrix of counts, a row per true label, coloured by shares of the row.

    More than 30 classes get colours only.

    Args:
        matrix: (K, K) counts.
        classes: The names of the K classes.
        normalize: Whether to write the shares, in per cent, instead of the counts.
        path: The file for the figure, if it is to be saved.
    """
    cell, many = (0.55, False) if len(classes) <= 30 else (0.12, True)
    figure, (axis,) = sheet(1, 1, 1.5 + cell * len(classes), 1.2 + 0.9 * cell * len(classes))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column] and not many:
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.1f}" if normalize else str(matrix[row, column])
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    rotation, size = (0, 10) if max(map(len, classes)) < 3 else (90 if many else 45, 5 if many else 10)
    axis.set_xticks(range(len(classes)), classes, rotation=rotation, fontsize=size, parse_math=False)
    if rotation == 45:
        for label in axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")  # ends at its column
    axis.set_yticks(range(len(classes)), classes, fontsize=size, parse_math=False)  # names may hold a $
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    unit = " (cells in % of a row)" if normalize else ""
    axis.set(xlabel="predicted", ylabel="true", title=f"accuracy {100 * accuracy:.2f} %{unit}")
    return finish(figure, path)


def plot_bars(panels: Mapping[str, Mapping[str, float]], xlabel: str, path: PathLike | None = None) -> Figure:
    """Draw horizontal bars, the first on top: panel name -> bar name -> value; all ``panels`` have the same bars.

    Args:
        xlabel: The label of the values' axis.
        path: The file for the figure, if it is to be saved.
    """
    names = list(next(iter(panels.values())))
    low, high = (f([0.0, *(f(values.values()) for values in panels.values())]) for f in (min, max))
    margin = 0.05 * (high - low) or 1.0
    columns = min(4, len(panels))
    longest = max(map(len, names))
    figure, axes = sheet(len(panels), columns, max(3.0, 7 / columns) + 0.08 * longest / columns, 1 + 0.25 * len(names))
    for number, (axis, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.barh(range(len(names)), [values[name] for name in names])
        axis.invert_yaxis()
        # names only in the first panel of a row; they may hold a $
        axis.set_yticks(range(len(names)), [] if number % columns else names, parse_math=False)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(title, parse_math=False)
        axis.set_xlim(low - margin, high + margin)
        axis.grid(alpha=0.3, axis="x")
    figure.supxlabel(xlabel, fontsize=10)
    return finish(figure, path)


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
    axis.set_xlabel(f"actual {name}", parse_math=False)  # names may hold a $
    axis.set_ylabel(f"predicted {name}", parse_math=False)
    axis.grid(alpha=0.3)
    return finish(figure, path)


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
            axis.set_xticks(range(len(order)), short, rotation=60, parse_math=False)
        axis.set_title(name, fontsize=9, parse_math=False)  # names may hold a $
    return finish(figure, path)


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
        axes = scatter_matrix(DataFrame(dict(columns)), ax=figure.add_subplot(), s=8, alpha=0.4, hist_kwds={"bins": 25})
    for axis in axes.flat:
        axis.xaxis.label.set(parse_math=False, size=8)  # names may hold a $
        axis.yaxis.label.set(parse_math=False, size=8)
    for axis in axes[-1]:
        axis.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # so that neighbouring tick labels do not touch
    figure.subplots_adjust(0.1, 0.1, 0.98, 0.98)
    return finish(figure, path)


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
    for label, name in enumerate(classes):
        x, y = points[labels == label].T
        axis.scatter(x, y, s=6, color=f"C{label}", label=name, linewidths=0)
        if len(x) and len(classes) <= 20:  # more names would hide the points
            box = {"boxstyle": "round", "facecolor": "white", "alpha": 0.8, "edgecolor": f"C{label}"}
            axis.text(np.median(x), np.median(y), name, ha="center", va="center", bbox=box)
    axis.set(title=title, xticks=[], yticks=[])
    return finish(figure, path)
