"""Pictures as uint8 tensors: lay images out as a grid, save and load PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torchdl.files import PathLike, replacing


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Lay images (N, C, H, W) in [0, 1] out as one uint8 picture (C, rows * (H + p) + p, columns * (W + p) + p).

    The grid is square by default; images (R, N, C, H, W) become R rows of N. Values outside [0, 1] are clamped.
    The gaps, ``padding`` p pixels wide, are grey.
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
    """Join uint8 pictures (C, H, W) of the same height from left to right, with white gaps between them."""
    white = torch.full((*pictures[0].shape[:2], gap), 255, dtype=torch.uint8)
    return torch.cat([part for picture in pictures for part in (white, picture)][1:], dim=2)


def save_png(picture: Tensor, path: PathLike, scale: int = 2) -> None:
    """Save a uint8 picture (C, H, W), grey or RGB, as PNG; each pixel becomes ``scale`` x ``scale`` pixels."""
    from PIL import Image

    path = Path(path)
    large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # (C, scale * H, scale * W)
    array = large[0].numpy() if len(large) == 1 else large.permute(1, 2, 0).numpy()  # (H, W) or (H, W, C)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="png")


def load_png(path: PathLike) -> Tensor:
    """Load a picture as uint8 (3, H, W), in RGB."""
    from PIL import Image

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)
