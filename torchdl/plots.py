"""Pictures: grids of images as PNG, and every matplotlib figure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchdl.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Lay images (N, C, H, W) in [0, 1] out as one uint8 picture (C, rows * (H + p) + p, columns * (W + p) + p).

    A square by default; images (R, N, C, H, W) become R rows of N. Values outside [0, 1] are clamped, gaps mid-grey.
    """
    if images.dim() == 5:
        columns = columns or images.shape[1]
        images = images.flatten(0, 1)  # (R, N, C, H, W) -> (R * N, C, H, W)
    n, channels, height, width = images.shape
    columns = columns or int(n**0.5 + 0.999999)
    rows = -(-n // columns)
    pixels = images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)
    grid = torch.full((channels, rows * (height + padding) + padding, columns * (width + padding) + padding), 128)
    grid = grid.to(torch.uint8)
    for i, image in enumerate(pixels):
        top, left = (padding + (i // columns) * (height + padding), padding + (i % columns) * (width + padding))
        grid[:, top : top + height, left : left + width] = image
    return grid


def side_by_side(pictures: Sequence[Tensor], gap: int = 12) -> Tensor:
    """Put uint8 pictures (C, H, W) of one height beside one another, white between them."""
    white = torch.full((*pictures[0].shape[:2], gap), 255, dtype=torch.uint8)
    return torch.cat([part for picture in pictures for part in (white, picture)][1:], dim=2)


def plot_sequences(
    context: Tensor, future: Tensor, label: Tensor, digits: Tensor | None = None, low: float = 0.0, scale: int = 1
) -> Tensor:
    """Draw sequences as rows: the context, framed in blue, its future, in green if real or red if false, the label.

    Args:
        context: (B, T, C, H, W) in [``low``, 1], grey or RGB.
        future: (B, K, C, H, W).
        label: (B,) 1 where the future is real.
        digits: (B, T + K) what the images show, to be written beside them.
        low: The value that is black.
        scale: Pixels a side for each pixel.

    Returns:
        (3, rows, columns) uint8, for TensorBoard or :func:`save_png`.
    """
    from PIL import Image, ImageDraw, ImageFont

    frame, gap, font = 3, 4, ImageFont.load_default(14)
    images = torch.cat([context, future], dim=1).detach().float().cpu()  # (B, T + K, C, H, W)
    rows, length, _, height, width = images.shape
    pixels = images.sub(low).div(1 - low).clamp(0, 1).mul(255).round().to(torch.uint8)
    pixels = pixels.expand(-1, -1, 3, -1, -1).repeat_interleave(scale, 3).repeat_interleave(scale, 4)
    high, wide = scale * height + 2 * frame + gap, scale * width + 2 * frame + gap
    captions = ["real" if real else "false" for real in label.tolist()]
    if digits is not None:
        numbers = [" ".join(map(str, row)) for row in digits.tolist()]
        cut = 2 * context.shape[1]
        captions = [f"{row[:cut]}| {row[cut:]}   {name}" for row, name in zip(numbers, captions, strict=True)]
    margin = int(max(font.getlength(caption) for caption in captions)) + 4 * gap
    canvas = Image.new("RGB", (wide * length + 3 * gap + margin, max(high, 20) * rows + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for row, caption in enumerate(captions):
        top = gap + row * max(high, 20)
        for column in range(length):
            is_future = column >= context.shape[1]
            left = gap + column * wide + (2 * gap if is_future else 0)
            colour = ("#2a9d2a" if label[row] else "#d03030") if is_future else "#3060c0"
            draw.rectangle((left, top, left + wide - gap - 1, top + high - gap - 1), fill=colour)
            image = Image.fromarray(pixels[row, column].permute(1, 2, 0).numpy())  # (C, H, W) -> (H, W, C)
            canvas.paste(image, (left + frame, top + frame))
        centre = top + (high - gap) // 2
        draw.text((wide * length + 5 * gap, centre), caption, fill="black", font=font, anchor="lm")
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def save_png(picture: Tensor, path: Path, scale: int = 2) -> None:
    """Save a picture (C, H, W) uint8, grey or RGB, as PNG, every pixel enlarged to ``scale`` x ``scale``."""
    from PIL import Image

    large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # (C, scale * H, scale * W)
    array = large[0].numpy() if len(large) == 1 else large.permute(1, 2, 0).numpy()  # (H, W) or (H, W, C)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="png")


def load_png(path: Path) -> Tensor:
    """Load a picture (3, H, W) uint8."""
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that is drawn without a screen; ``width`` and ``height`` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def sheet(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """Make a figure of ``count`` panels in rows of ``columns``, of so many inches each; return it and its panels."""
    rows = max(1, -(-count // columns))
    figure = new_figure(width * columns, height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Group metrics that belong into one panel: ``train/loss`` and ``val/loss``, ``val/top1`` and ``val/top1_chance``.

    Endings ``_chance`` and ``_ceiling`` name what a metric is to be compared with, ``_step_1`` and ``_class_1`` and so
    on its parts.
    """
    grouped: dict[str, list[str]] = {}
    for name in names:
        if "/" in name and not name.startswith("charts/"):
            metric = re.sub("_(chance|ceiling)$", "", name.split("/", 1)[1])
            metric = re.sub(r"_step_\d+$", "_by_step", metric)
            grouped.setdefault(re.sub(r"_class_.*$", "_by_class", metric), []).append(name)
    return grouped


def plot_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw every metric of a run's history over the epochs as PNG, training and validation in one panel."""
    names = panels(dict.fromkeys(key for row in history for key in row))
    if not names:
        return
    figure, axes = sheet(len(names), min(3, len(names)), 4.5, 3.2)
    for (name, keys), axis in zip(names.items(), axes, strict=True):
        for key in keys:
            points = [(row["epoch"], row[key]) for row in history if key in row]
            ending = re.search(r"_(chance|ceiling|step_\d+|class_.*)$", key)
            is_reference = key.endswith(("_chance", "_ceiling"))
            marker, line = "." if len(points) < 30 and not is_reference else "", "--" if is_reference else "-"
            label = ending[1].replace("_", " ") if ending else key.split("/")[0]
            axis.plot(*zip(*points, strict=True), line, marker=marker, label=label)
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(**({"fontsize": 6, "ncols": 2} if len(keys) > 5 else {}))
    save_figure(figure, path)


def plot_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path, normalize: bool = False) -> None:
    """Draw counts (classes, classes), true labels as rows, as PNG; the colours are shares of a row.

    ``normalize`` writes those shares in per cent in place of the counts. Beyond 30 classes colours alone are drawn.
    """
    cell, small = (0.55, False) if len(classes) <= 30 else (0.12, True)
    figure = new_figure(1.5 + cell * len(classes), 1.2 + 0.9 * cell * len(classes))
    axis = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column] and not small:
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.1f}" if normalize else str(matrix[row, column])
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    rotation, size = (0, 10) if max(map(len, classes)) < 3 else (90 if small else 45, 5 if small else 10)
    axis.set_xticks(range(len(classes)), classes, rotation=rotation, fontsize=size, parse_math=False)
    axis.set_yticks(range(len(classes)), classes, fontsize=size, parse_math=False)  # names may hold a $
    right = np.trace(matrix) / max(matrix.sum(), 1)
    unit = ", in % of a row" if normalize else ""
    axis.set(xlabel="predicted", ylabel="true", title=f"{right:.2%} right{unit}")
    save_figure(figure, path)


def plot_answers(images: Tensor, labels: Sequence[str], answers: Sequence[str], path: Path, title: str = "") -> None:
    """Draw images (N, C, H, W) in [0, 1] as a sheet, each under its true name and what it was taken for, as PNG."""
    figure, axes = sheet(len(images), 6, 1.5, 2.0)
    pixels = images.detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()  # (N, C, H, W) -> (N, H, W, C)
    for axis, image, label, answer in zip(axes, pixels, labels, answers, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
        axis.set_title(f"{label}\nnot {answer}", fontsize=9, parse_math=False)  # names may hold a $
    figure.suptitle(title)
    save_figure(figure, path)


def plot_map(points: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str, path: Path) -> None:
    """Draw points (N, 2) in the colours of their labels (N,) as PNG, each class named at its median."""
    figure = new_figure(7, 6)
    axis = figure.add_subplot()
    for label, name in enumerate(classes):
        x, y = points[labels == label].T
        axis.scatter(x, y, s=6, color=f"C{label}", label=name, linewidths=0)
        if len(x) and len(classes) <= 20:  # of more the names would hide the points
            box = {"boxstyle": "round", "facecolor": "white", "alpha": 0.8, "edgecolor": f"C{label}"}
            axis.text(np.median(x), np.median(y), name, ha="center", va="center", bbox=box)
    axis.set(title=title, xticks=[], yticks=[])
    save_figure(figure, path)


def plot_label_efficiency(
    curves: Mapping[str, Mapping[int, Sequence[float]]], path: Path, xlabel: str = "labels"
) -> None:
    """Draw errors (1 - accuracy) over the number of labels, both logarithmic, a curve for each name, as PNG."""
    figure = new_figure(6.5, 4.5)
    axis = figure.add_subplot()
    for name, curve in curves.items():
        means, spreads = ([100 * f(values) for values in curve.values()] for f in (np.mean, np.std))
        axis.errorbar(list(curve), [100 - mean for mean in means], spreads, marker=".", capsize=3, label=name)
    axis.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="test error, %")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    save_figure(figure, path)


def plot_functions(curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]], path: Path) -> None:
    """Draw functions with their derivatives, a panel each, as PNG: (x, values, derivatives) by name."""
    figure, axes = sheet(len(curves), 3, 3.2, 2.6)
    for axis, (name, (x, values, derivatives)) in zip(axes, curves.items(), strict=True):
        axis.plot(x, values, label="f")
        axis.plot(x, derivatives, "--", label="f'")
        axis.set(title=name)
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(figure, path)


def plot_lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, x: str, y: str, log_x: bool = False
) -> None:
    """Draw curves (x, y) by name in one panel as PNG."""
    figure = new_figure(6, 4)
    axis = figure.add_subplot()
    for name, points in curves.items():
        axis.plot(*points, marker=".", label=name)
    axis.set(xlabel=x, ylabel=y, xscale="log" if log_x else "linear")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def plot_measured(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]],
    path: Path,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float],
    log_y: bool = False,
) -> None:
    """Draw what was measured at each x, once or several times, as PNG: a panel each, a line each, by their names.

    A line goes through the means, and bars show the least and the greatest; ``references`` are values to compare with.
    Where there are few points, those of several lines stand a little beside one another, so that none hides another.
    """
    figure, axes = sheet(len(panels), min(3, len(panels)), 5.2, 3.8)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        points = sorted({x for measured in lines.values() for x in measured})
        apart = (points[-1] - points[0]) / 70 if len(points) < 10 else 0.0
        for number, (name, measured) in enumerate(lines.items()):
            means, least, greatest = ([float(f(values)) for values in measured.values()] for f in (np.mean, min, max))
            spread = np.abs(np.array([least, greatest]) - means)  # (2, points), downwards and upwards
            x = [x + apart * (number - (len(lines) - 1) / 2) for x in measured]
            marker = "osv^D<>P*"[number % 9] if len(means) < 30 else ""
            axis.errorbar(x, means, spread, marker=marker, markersize=5, capsize=3, label=name, alpha=0.8)
        for name, value in references.items():
            axis.axhline(value, linestyle="--", color="grey", label=name)
        if len(points) < 10:
            axis.set_xticks(points)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, yscale="log" if log_y else "linear")
        axis.grid(alpha=0.3)
    named = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    # beside the panels: the lines are anywhere in them
    axes[-1].legend(named.values(), named.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def plot_maps(pictures: Mapping[str, Tensor], path: Path) -> None:
    """Draw images (H, W), (1, H, W) or (3, H, W) under their names as PNG; grey ones from their least to greatest."""
    figure, axes = sheet(len(pictures), 3, 3.4, 2.6)
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        if picture.dim() == 3:
            picture = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0).clamp(0, 1)  # (H, W) or (H, W, 3)
        axis.imshow(picture.numpy(), cmap="gray")
        axis.set_axis_off()
        axis.set_title(name, fontsize=9)
    save_figure(figure, path)


def plot_forecast(values: Tensor, boundary: int, one_step: Tensor, own: Tensor, name: str, path: Path) -> None:
    """Draw a series (L,) with forecasts of its terms from ``boundary`` on, (L - boundary,) each, as PNG.

    ``one_step`` are forecasts from true terms, which flatter; ``own`` is one forecast that saw nothing after the
    boundary but its own predictions.
    """
    figure = new_figure(10, 6)
    whole, part = figure.subplots(2, 1)
    time = np.arange(len(values))
    whole.plot(time, values, color="0.4", linewidth=1)
    whole.axvspan(boundary - 0.5, len(values) - 0.5, color="C1", alpha=0.1)
    whole.set(title=f"{name}: what is forecast is shaded")
    later = time[boundary:]
    part.plot(later, values[boundary:], color="0.4", label="what came")
    part.plot(later, one_step, color="C0", linewidth=1, label="one step ahead, from true terms")
    part.plot(later, own, "--", color="C3", label="all steps ahead, from its own predictions")
    came = values[boundary:]
    low, high = float(came.min()), float(came.max())
    margin = (high - low) / 2 or 1.0  # its own predictions may run far away
    part.set(ylim=(low - margin, high + margin), xlabel="term")
    part.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)  # above: curves are anywhere
    for axis in (whole, part):
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def plot_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], positive: str, path: Path) -> None:
    """Draw ROC curves (false positive rates, true positive rates) by name as PNG."""
    figure = new_figure(5.5, 5)
    axis = figure.add_subplot()
    for name, (false_rate, true_rate) in curves.items():
        axis.plot(false_rate, true_rate, label=name)
    axis.plot([0, 1], [0, 1], "--", color="0.6", label="chance")
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.set_title(f"positive: {positive}", parse_math=False)  # names may hold a $
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    save_figure(figure, path)


def plot_precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], positive: str, share: float, path: Path
) -> None:
    """Draw precision-recall curves (precision, recall) by name as PNG, with the positive class's share for chance."""
    figure = new_figure(5.5, 5)
    axis = figure.add_subplot()
    for name, (precision, recall) in curves.items():
        axis.step(recall, precision, where="post", label=name)
    axis.axhline(share, linestyle="--", color="0.6", label="chance")
    axis.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(0, 1.02))
    axis.set_title(f"positive: {positive}", parse_math=False)  # names may hold a $
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", title="with average precision")
    save_figure(figure, path)


def plot_bars(panels: Mapping[str, Mapping[str, float]], path: Path, xlabel: str) -> None:
    """Draw numbers by name as horizontal bars, the first on top, as PNG: a panel each, all of the same names."""
    names = list(next(iter(panels.values())))
    least, greatest = (f([0.0, *(f(values.values()) for values in panels.values())]) for f in (min, max))
    margin = 0.05 * (greatest - least) or 1.0
    columns = min(4, len(panels))
    longest = max(map(len, names))
    figure, axes = sheet(len(panels), columns, max(3.0, 7 / columns) + 0.08 * longest / columns, 1 + 0.25 * len(names))
    for number, (axis, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
        axis.barh(range(len(names)), [values[name] for name in names])
        axis.invert_yaxis()
        # the names stand once a row of panels, and may hold a $
        axis.set_yticks(range(len(names)), [] if number % columns else names, parse_math=False)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(title, parse_math=False)
        axis.set_xlim(least - margin, greatest + margin)
        axis.grid(alpha=0.3, axis="x")
    figure.supxlabel(xlabel, fontsize=10)
    save_figure(figure, path)


def plot_ratios(ratios: Mapping[str, tuple[float, float, float]], path: Path, xlabel: str) -> None:
    """Draw ratios by name, each with its least and greatest, as bars from a line at 1, the first on top, as PNG."""
    figure = new_figure(8, 1.2 + 0.4 * len(ratios))
    axis = figure.subplots()
    for place, (median, least, greatest) in enumerate(ratios.values()):
        axis.barh(place, median - 1, left=1, color="C0" if median >= 1 else "C3")
        axis.plot([least, greatest], [place, place], color="0.2", linewidth=1.2, marker="|")
        axis.annotate(f"{median:.3g}", (max(greatest, 1.0), place), (6, 0), textcoords="offset points", va="center")
    axis.axvline(1, color="0.2", linewidth=1)
    axis.set_xscale("log")
    ends = [1.0, *(end for _, *both in ratios.values() for end in both)]
    axis.set_xlim(min(ends) / 1.2, max(ends) * 1.5)  # room for the last number
    ticks = [
        tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if min(ends) / 1.2 <= tick <= max(ends) * 1.5
    ]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(ratios)), list(ratios), parse_math=False)
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    axis.grid(alpha=0.3, axis="x")
    save_figure(figure, path)


def plot_predictions(true: np.ndarray, predicted: np.ndarray, name: str, path: Path) -> None:
    """Draw predicted over true numbers (N,) as PNG, with the line on which they agree."""
    figure = new_figure(5.5, 5)
    axis = figure.add_subplot()
    axis.scatter(true, predicted, s=12, alpha=0.6, linewidths=0)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    axis.plot(ends, ends, "--", color="0.5")
    axis.set_xlabel(f"true {name}", parse_math=False)  # names may hold a $
    axis.set_ylabel(f"predicted {name}", parse_math=False)
    axis.grid(alpha=0.3)
    save_figure(figure, path)


def plot_line_fit(x: Tensor, y: Tensor, lines: Mapping[str, Tensor], xlabel: str, ylabel: str, path: Path) -> None:
    """Draw logarithms (N,) as points and lines through them, the axis in what they are logarithms of, as PNG."""
    figure = new_figure(7, 4.5)
    axis = figure.add_subplot()
    axis.scatter(x, y.exp(), s=14, color="0.4")
    order = x.argsort()
    for (name, values), style in zip(lines.items(), ("-", "--", ":"), strict=False):
        axis.plot(x[order], values[order].exp(), style, label=name)
    axis.set(yscale="log", xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def plot_surfaces(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path, points: np.ndarray | None = None
) -> None:
    """Draw surfaces (x, y, z), (S, S) each, by name side by side in 3-d as PNG, with points (N, 3) on the first."""
    figure = new_figure(4.6 * len(surfaces), 4.4)
    low, high = (float(f([f(z) for *_, z in surfaces.values()])) for f in (np.min, np.max))
    for number, (name, (x, y, z)) in enumerate(surfaces.items(), 1):
        axis: Any = figure.add_subplot(1, len(surfaces), number, projection="3d")
        axis.plot_surface(x, y, z, cmap="viridis", alpha=0.8, linewidth=0, vmin=low, vmax=high)
        if points is not None and number == 1:
            axis.scatter(*points.T, s=3, color="C3", depthshade=False)
        axis.set(title=name, xlabel="x1", ylabel="x2", zlim=(low, high))
    save_figure(figure, path)


def plot_histograms(columns: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw a histogram of each column (N,), of numbers or of texts, as PNG."""
    figure, axes = sheet(len(columns), min(4, len(columns)), 3.2, 2.5)
    for axis, (name, values) in zip(axes, columns.items(), strict=True):
        if np.issubdtype(values.dtype, np.number):
            axis.hist(values[np.isfinite(values)], bins=30)
        else:
            kinds, counts = np.unique(values.astype(str), return_counts=True)
            order = counts.argsort()[::-1][:12]
            axis.bar(range(len(order)), counts[order])
            short = [kind if len(kind) < 13 else f"{kind[:11]}…" for kind in kinds[order]]
            axis.set_xticks(range(len(order)), short, rotation=60, parse_math=False)
        axis.set_title(name, fontsize=9, parse_math=False)  # names may hold a $
    save_figure(figure, path)


def plot_scatter_matrix(columns: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw each column of numbers (N,) over each other one, and histograms on the diagonal, as PNG."""
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
        axis.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # else neighbours' numbers touch
    figure.subplots_adjust(0.1, 0.1, 0.98, 0.98)
    save_figure(figure, path)


def plot_paths(
    surface: tuple[np.ndarray, np.ndarray, np.ndarray],
    paths: Mapping[str, np.ndarray],
    losses: Mapping[str, np.ndarray],
    path: Path,
) -> None:
    """Draw paths (S + 1, 2) by name over a surface's contours (x, y, z), a panel each, and losses (S + 1,), as PNG."""
    columns = 3
    rows = -(-len(paths) // columns)
    figure = new_figure(3 * columns + 6, 2.6 * rows)
    grid = figure.add_gridspec(rows, 2 * columns)
    for number, (name, points) in enumerate(paths.items()):
        axis = figure.add_subplot(grid[number // columns, number % columns])
        axis.contour(*surface, levels=np.geomspace(surface[2].min() + 1e-3, surface[2].max(), 15), colors="0.75")
        axis.plot(*points.T, "-", color=f"C{number}", linewidth=1)
        axis.plot(*points[0], "ko", markersize=4)
        axis.plot(*points[-1], "*", color="k", markersize=9)
        axis.set(title=name, xlim=(surface[0].min(), surface[0].max()), ylim=(surface[1].min(), surface[1].max()))
    axis = figure.add_subplot(grid[:, columns:])
    for number, (name, values) in enumerate(losses.items()):
        axis.plot(values, color=f"C{number}", label=name, linewidth=1.2, linestyle="--" if number > 8 else "-")
    axis.set(yscale="log", xlabel="updates", ylabel="loss over all examples, above the least there is")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def plot_nearest(
    closest: Mapping[str, tuple[Tensor, Tensor, Tensor]], distances: Mapping[str, Tensor], near: float, path: Path
) -> None:
    """Draw images above their nearest training images, and how far all are from theirs, as PNG.

    Args:
        closest: By kind, images and training images, (n, C, H, W) in [0, 1] both, with their distances (n,).
        distances: By kind, the distances (N,) of all images that were looked up.
        near: The distance up to which an image is called near.
        path: The PNG to write.
    """
    figure = new_figure(5.6 * len(closest), 5.2)
    grid = figure.add_gridspec(2, len(closest), height_ratios=[1, 1.4])
    for number, (name, (images, training, far)) in enumerate(closest.items()):
        axis = figure.add_subplot(grid[0, number])
        high, wide = images.shape[2] + 2, images.shape[3] + 2
        picture = image_grid(torch.stack([images.cpu(), training.cpu()])).permute(1, 2, 0)  # (C, H, W) -> (H, W, C)
        axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
        centres = [1 + wide * (column + 0.5) for column in range(len(images))]
        axis.set_xticks(centres, [f"{value:.3f}" for value in far.tolist()], fontsize=8)
        axis.set_yticks([1 + high * 0.5, 1 + high * 1.5], [name, "nearest\ntraining\nimage"], fontsize=8)
        axis.tick_params(length=0)
        axis.set_title(
            f"{name}: the {len(images)} of {len(distances[name]):,} nearest to a training image", fontsize=10
        )
        axis.set_xlabel("distance", fontsize=8)
    axis = figure.add_subplot(grid[1, :])
    edges = np.linspace(0, max(float(far.max()) for far in distances.values()) or 1.0, 61)
    for name, values in distances.items():
        axis.hist(values.cpu().numpy(), bins=edges.tolist(), alpha=0.5, label=f"{name} ({len(values):,} images)")
    axis.axvline(near, linestyle="--", color="0.3", label="left of it: the nearest 1 % of held out")
    axis.set(xlabel="distance to the nearest training image (root mean squared pixel, of 1)", ylabel="images")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)
