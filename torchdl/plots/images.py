"""Images: with predictions, with their nearest neighbours, as sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchdl.files import PathLike
from torchdl.pictures import image_grid
from torchdl.plots.figure import COLORS, finish, finish_curves, new_figure, sheet, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled()
def plot_predicted_images(
    images: Tensor, labels: Sequence[str], predictions: Sequence[str], title: str = "", path: PathLike | None = None
) -> Figure:
    """Draw images, each under its label and its prediction: ``true 3, predicted 7``.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels, predictions: The names of the N true and predicted classes.
        title: The title above all images.
        path: The file for the figure, if it is to be saved.
    """
    texts = [f"true {label}, predicted {predicted}" for label, predicted in zip(labels, predictions, strict=True)]
    if max(map(len, texts), default=0) > 22:  # wider than an image
        texts = [f"true {label},\npredicted {predicted}" for label, predicted in zip(labels, predictions, strict=True)]
    figure, axes = sheet(len(images), 6, 1.5, 1.85)
    pixels = images.detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy()  # (N, C, H, W) -> (N, H, W, C)
    for axis, image, text in zip(axes, pixels, texts, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
        axis.set_title(text, fontsize=8, parse_math=False)  # names may hold a $
    figure.suptitle(title)
    return finish(figure, path)


@styled()
def plot_images(pictures: Mapping[str, Tensor], path: PathLike | None = None) -> Figure:
    """Draw images under their names; grey ones from their minimum to their maximum.

    Args:
        pictures: Images (H, W), (1, H, W) or (3, H, W) by name.
        path: The file for the figure, if it is to be saved.
    """
    shapes = [picture.shape[-2:] for picture in pictures.values()]
    wide = max((width / height for height, width in shapes), default=1.0)
    figure, axes = sheet(len(pictures), 3, max(2.3 * min(wide, 2.0), 0.085 * max(map(len, pictures), default=0)), 2.6)
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        if picture.dim() == 3:
            picture = picture[0] if len(picture) == 1 else picture.permute(1, 2, 0).clamp(0, 1)  # (H, W) or (H, W, 3)
        axis.imshow(picture.numpy(), cmap="gray")
        axis.set_axis_off()
        axis.set_title(name, fontsize=9.5, parse_math=False)  # names may hold a $
    return finish(figure, path)


@styled()
def plot_image_rows(rows: Mapping[str, Tensor], path: PathLike | None = None) -> Figure:
    """Draw rows of images, each beside its name, such as those of :meth:`torchdl.AugmentedImages.examples`.

    Args:
        rows: Images (N, C, H, W) in [0, 1] by name.
        path: The file for the figure, if it is to be saved.
    """
    grid = image_grid(torch.stack(list(rows.values()))).permute(1, 2, 0).numpy()  # (R, N, C, H, W) -> (H', W', C)
    count = len(next(iter(rows.values())))
    figure = new_figure(0.3 + 0.065 * max(map(len, rows)) + 0.9 * count, 0.2 + 0.9 * len(rows))
    axis = figure.add_subplot()
    axis.imshow(grid, cmap="gray", vmin=0, vmax=255)
    axis.grid(False)
    high = (len(grid) - 2) / len(rows)
    axis.set_yticks([1 + high * (row + 0.5) for row in range(len(rows))], list(rows), parse_math=False)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    if engine := figure.get_layout_engine():
        engine.execute(figure)  # the first layout has the names beside a panel of another shape, and cuts them
    return finish(figure, path)


@styled()
def plot_nearest(
    closest: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    distances: Mapping[str, Tensor],
    near: float,
    path: PathLike | None = None,
) -> Figure:
    """Draw images above their nearest training images, and a histogram of all distances.

    Args:
        closest: By kind: images and their nearest training images, both (n, C, H, W) in [0, 1], and distances (n,).
        distances: By kind: the distances (N,) of all its images.
        near: The distance below which an image counts as near.
        path: The PNG to write.
    """
    figure = new_figure(max(5.6 * len(closest), 7), 5.2)
    grid = figure.add_gridspec(2, len(closest), height_ratios=[1, 1.4])
    for number, (name, (images, training, far)) in enumerate(closest.items()):
        axis = figure.add_subplot(grid[0, number])
        high, wide = images.shape[2] + 2, images.shape[3] + 2
        picture = image_grid(torch.stack([images.cpu(), training.cpu()])).permute(1, 2, 0)  # (C, H, W) -> (H, W, C)
        axis.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        centres = [1 + wide * (column + 0.5) for column in range(len(images))]
        axis.set_xticks(centres, [f"{value:.3f}" for value in far.tolist()], fontsize=8)
        axis.set_yticks([1 + high * 0.5, 1 + high * 1.5], [name, "nearest\ntraining\nimage"], fontsize=8)
        axis.tick_params(length=0)
        title = f"{name}: the {len(images)} of {len(distances[name]):,} nearest to a training image"
        axis.set_title(title, fontsize=9.5)
        axis.set_xlabel("distance", fontsize=8)
    axis = figure.add_subplot(grid[1, :])
    edges = np.linspace(0, max(float(far.max()) for far in distances.values()) or 1.0, 61)
    for name, values in distances.items():
        axis.hist(
            values.cpu().numpy(),
            bins=edges.tolist(),
            alpha=0.5,
            color=COLORS.get(name),
            label=f"{name} ({len(values):,} images)",
        )
    axis.axvline(near, linestyle="--", color="0.5", label="the nearest 1 % of the test images are left of it")
    axis.set_xlabel("distance to the nearest training image (root mean squared error of a pixel in [0, 1])")
    axis.set_ylabel("images")
    return finish_curves(figure, axis, path)


@styled()
def plot_sequences(
    context: Tensor,
    future: Tensor,
    label: Tensor,
    digits: Tensor | None = None,
    low: float = 0.0,
    path: PathLike | None = None,
) -> Figure:
    """Draw each sequence as a row: the context framed in blue, the future in green if real, in red if false.

    Args:
        context: (B, T, C, H, W) in [``low``, 1], grey or RGB.
        future: (B, K, C, H, W).
        label: (B,) 1 where the future is real.
        digits: (B, T + K) the digits that the images show, to be written beside them.
        low: The value of black.
        path: The PNG to write.
    """
    frame, gap = 3, 4  # pixels
    images = torch.cat([context, future], dim=1).detach().float().cpu()  # (B, T + K, C, H, W)
    rows, length, _, height, width = images.shape
    known = context.shape[1]
    pixels = images.sub(low).div(1 - low).clamp(0, 1).expand(-1, -1, 3, -1, -1)
    shown = pixels.permute(0, 1, 3, 4, 2).numpy()  # (B, T + K, 3, H, W) -> (B, T + K, H, W, 3)
    high, wide = height + 2 * frame + gap, width + 2 * frame + gap
    canvas = np.ones((high * rows + gap, wide * length + 3 * gap, 3))
    for row, real in enumerate(label.tolist()):
        for column in range(length):
            top, left = gap + row * high, gap + column * wide + (2 * gap if column >= known else 0)
            colour = (0.19, 0.38, 0.75) if column < known else (0.16, 0.62, 0.16) if real else (0.82, 0.19, 0.19)
            canvas[top : top + high - gap, left : left + wide - gap] = colour
            canvas[top + frame : top + frame + height, left + frame : left + frame + width] = shown[row, column]
    captions = ["real" if real else "false" for real in label.tolist()]
    if digits is not None:
        numbers = [" ".join(map(str, row[:known])) + " | " + " ".join(map(str, row[known:])) for row in digits.tolist()]
        captions = [f"{row}   {caption}" for row, caption in zip(numbers, captions, strict=True)]
    drawn, size, heading = canvas.shape[1] / 60, canvas.shape[0] / 60, 0.25  # inches
    figure = new_figure(drawn + 0.15 + 0.07 * max(map(len, captions)), size + heading)
    figure.set_layout_engine(None)  # the captions stand beside the axes
    axis = figure.add_axes((0, 0, drawn / figure.get_figwidth(), size / (size + heading)))
    axis.imshow(canvas, interpolation="nearest")
    axis.set_axis_off()
    for column, name in ((0, "context"), (known, "future")):
        left = gap + column * wide + (2 * gap if column else 0)
        axis.annotate(name, (left, 0), (0, 2), textcoords="offset points", annotation_clip=False)
    for row, caption in enumerate(captions):
        axis.text(canvas.shape[1] + gap, gap + (row + 0.5) * high, caption, va="center", fontsize=9)
    return finish(figure, path)
