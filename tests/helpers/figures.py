"""Look at figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def is_drawn(path: str | Path) -> bool:
    """Return whether a PNG is more than a blank page."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L")).std() > 1


def grids_of(path: Path, scale: int) -> list[np.ndarray]:
    """Read the grids (H, W) or (H, W, 3) of images, each framed in grey, under their captions."""
    with Image.open(path) as image:
        pixels = np.array(image)[::scale, ::scale]
    last = pixels[-1] if pixels.ndim == 2 else pixels[-1, :, 0]
    ends = np.flatnonzero(np.diff(np.concatenate([[0], last == 128, [0]])))
    columns = [pixels[:, start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
    return [column[np.flatnonzero((column.reshape(len(column), -1) == 128).all(1))[0] :] for column in columns]
