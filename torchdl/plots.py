"""Pictures: grids of images as PNG, and every matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from torchdl.files import replacing


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Lay images (N, C, H, W) in [0, 1] out as one uint8 picture (C, rows * (H + p) + p, columns * (W + p) + p).

    A square by default; values outside [0, 1] are clamped, gaps are mid-grey.
    """
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


def save_png(picture: Tensor, path: Path, scale: int = 2) -> None:
    """Save a picture (C, H, W) uint8, grey or RGB, as PNG, every pixel enlarged to ``scale`` x ``scale``."""
    from PIL import Image

    large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # (C, scale * H, scale * W)
    array = large[0].numpy() if len(large) == 1 else large.permute(1, 2, 0).numpy()  # (H, W) or (H, W, C)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="png")


def plot_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw every metric of a run's history over the epochs as PNG, training and validation in one panel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names: dict[str, list[str]] = {}
    for key in dict.fromkeys(k for row in history for k in row if "/" in k and not k.startswith("charts/")):
        names.setdefault(key.split("/", 1)[1], []).append(key)
    if not names:
        return
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for (name, keys), axis in zip(names.items(), axes, strict=False):
        for key in keys:
            points = [(row["epoch"], row[key]) for row in history if key in row]
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", label=key.split("/")[0])
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend()
    for axis in list(axes):
        axis.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
