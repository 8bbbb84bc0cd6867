"""Photographs of handwritten digits, prepared as MNIST's were: a white digit of 20 pixels, centred by its mass.

Shapes: H x W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import as_tensor
from torchdl.data.image_files import decode
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import MAX_PIXELS

if TYPE_CHECKING:
    from PIL import Image

BOX, SIDE = 20, 28  # pixels: MNIST's digits fit in 20 x 20 of 28 x 28
CENTRE = 14  # row and column of the pixel at MNIST's centres of mass
LARGEST = 800  # pixels: a larger photograph is reduced first, which also averages its noise
LEAST_CONTRAST = 0.08  # of ink, as a share of the paper's brightness


def prepare_digit(picture: PathLike | Image.Image | Tensor | np.ndarray, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Turn a photograph of one digit into an image like MNIST's, for a network that was trained on those.

    The photograph becomes grey, and its background is estimated and subtracted, so that uneven light and shadows do not
    matter. What differs from it is ink, darker or brighter; specks and what reaches in from the border are left out.
    The ink is cropped, scaled to fit in 20 x 20 pixels, and centred by its mass in 28 x 28, as LeCun, Cortes and Burges
    describe it (http://yann.lecun.com/exdb/mnist).

    Args:
        picture: An image file, an image of Pillow's, or a tensor or array of pixels (H, W), (1, H, W) or (3, H, W)
            uint8: one digit on a plain background, with some of it on all sides.
        max_pixels: The maximum of H * W of a file.

    Returns:
        A white digit on black, (1, 28, 28) uint8.

    Raises:
        InputError: The file cannot be read, or there is no ink in it.

    Example:
        >>> paper = torch.full((600, 400), 200, dtype=torch.uint8)
        >>> paper[100:300, 50:70] = 40  # a one, far from the centre
        >>> digit = torchdl.prepare_digit(paper)
        >>> digit.shape, digit.nonzero()[:, 1].unique().tolist() == list(range(4, 24))
        (torch.Size([1, 28, 28]), True)
    """
    ink = find_ink(_greys(picture, max_pixels))
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = _resize(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], BOX)
    box /= box.max()
    digit = np.zeros((SIDE, SIDE), np.float32)
    height, width = box.shape
    top, left = (_offset(box.sum(axis)) for axis in (1, 0))
    digit[top : top + height, left : left + width] = box
    return torch.from_numpy(np.rint(255 * digit).astype(np.uint8))[None]


def find_ink(greys: np.ndarray) -> np.ndarray:
    """Return the ink of the digit on a photograph (H, W) in [0, 1]: (H, W), 0 on the background and 1 in its strokes.

    Raises:
        InputError: There is no ink.
    """
    from scipy import ndimage  # imported late: it takes a second

    noise = float(np.median(np.abs(np.diff(greys, axis=0)))) if len(greys) > 1 else 0.0  # between neighbours
    least = max(LEAST_CONTRAST, 3 * noise)
    sign = 1 if _is_bright(greys) else -1  # of bright ink, or of dark ink
    background = sign * _opening(sign * greys)
    contrast = sign * (ndimage.gaussian_filter(greys, max(greys.shape) / 400) - background)
    if sign < 0:
        contrast /= np.maximum(background, 0.2)  # in a shadow, paper and ink are darker by the same factor
    contrast -= np.quantile(contrast, 0.25)  # an opening is as dark as the darkest noise
    seen = contrast[_inside(contrast, least, least)]
    require(len(seen) > 0, "there is no digit on this picture: write one, dark on light paper")
    level = float(np.quantile(seen, 0.9))  # of ink
    strokes = _inside(contrast, max(level / 3, least), 0.7 * level)
    return np.where(strokes, np.clip(contrast / level, 0, 1), 0).astype(np.float32)


def _is_bright(greys: np.ndarray) -> bool:
    """Return whether the ink of a picture (H, W) is brighter than what surrounds it.

    The whole picture and its middle are asked, because a table around the paper misleads the whole, and a digit that
    fills the picture misleads the middle. If they disagree, the background is what most pixels are closer to.
    """
    from scipy import ndimage  # imported late: it takes a second

    def skewness(part: np.ndarray) -> float:
        small = _resize(part, min(max(part.shape), 64))
        return float(((small - ndimage.median_filter(small, size=(max(1, max(small.shape) // 2),) * 2)) ** 3).mean())

    top, left = (length // 6 for length in greys.shape)
    whole, middle = skewness(greys), skewness(greys[top : len(greys) - top, left : greys.shape[1] - left])
    if whole * middle > 0 or abs(middle) < 0.1 * abs(whole):
        return whole > 0
    return bool(np.median(greys) < np.quantile(greys, (0.01, 0.99)).mean())


def _inside(contrast: np.ndarray, least: float, strong: float) -> np.ndarray:
    """Return a mask (H, W) of the connected parts with contrast above ``least`` that are neither specks nor border.

    A part is as large as its number of pixels above ``strong``. The edge of the paper, a line or a finger reach the
    border; only a digit that fills the picture does, too.
    """
    from scipy import ndimage  # imported late: it takes a second

    parts, count = ndimage.label(contrast > least, np.ones((3, 3)))
    sizes = np.bincount(parts[contrast > strong], minlength=count + 1)
    sizes[0] = 0
    inner = sizes.copy()
    inner[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = 0
    chosen = inner if inner.max() > 1e-3 * contrast.size else sizes
    return (chosen > 0.05 * chosen.max())[parts]


def _greys(picture: PathLike | Image.Image | Tensor | np.ndarray, max_pixels: int) -> np.ndarray:
    """Read a picture as greys (H, W) in [0, 1], upright and on white if it is transparent, with sides up to 800."""
    if isinstance(picture, (Tensor, np.ndarray)):
        picture = as_tensor(picture, "a digit")
        shape, fits = tuple(picture.shape), picture.dtype == torch.uint8 and picture.dim() in (2, 3)
        fits = fits and picture.numel() > 0 and (picture.dim() == 2 or shape[0] in (1, 3))
        require(fits, f"a digit must be (H, W), (1, H, W) or (3, H, W) of uint8, not {shape} of {picture.dtype}")
        pixels = picture.cpu()[None] if picture.dim() == 2 else picture.cpu()
        array = pixels.float().mean(0).numpy()
    else:
        array = decode(picture, grey=True, max_pixels=max_pixels)[0]
    return _resize(array.astype(np.float32), min(LARGEST, max(array.shape))) / 255


def _resize(greys: np.ndarray, side: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Resize greys (H, W) so that the longer side has ``side`` pixels, averaging; ``shape`` is the exact result."""
    from PIL import Image

    scale = side / max(greys.shape)
    height, width = shape or [max(1, round(scale * length)) for length in greys.shape]
    filtering = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(greys).resize((width, height), filtering))


def _opening(greys: np.ndarray) -> np.ndarray:
    """Return the background of bright ink: a picture (H, W) without what is brighter and narrower than a quarter of it.

    Shadows are wider, so they belong to the background.
    """
    from scipy import ndimage  # imported late: it takes a second

    reduced = _resize(greys, min(max(greys.shape), 128))
    width = max(3, max(reduced.shape) // 3)
    opened = ndimage.grey_opening(np.pad(reduced, width, "edge"), size=(width, width))[width:-width, width:-width]
    return _resize(opened, max(greys.shape), greys.shape)


def _offset(sums: np.ndarray) -> int:
    """Return where a box begins, with these sums of its rows or columns, for its centre of mass to be at MNIST's."""
    mass = float((sums * np.arange(len(sums))).sum() / sums.sum())
    begin = round(round(CENTRE - mass, 4))  # twice, so that errors of rounding do not decide where symmetric digits go
    return min(max(begin, 0), SIDE - len(sums))
