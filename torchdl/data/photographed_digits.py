"""Photographs of handwritten digits, prepared as MNIST's were: a white digit of 20 pixels, centred by its mass.

Shapes: H x W pixels, n points of the background.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torchdl.data.decoding import upright
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import MAX_PIXELS, open_picture

BOX, SIDE = 20, 28  # pixels: MNIST's digits fit in 20 x 20 of 28 x 28
CENTRE = 14  # row and column of the pixel at MNIST's centres of mass
LARGEST = 800  # pixels: a larger photograph is reduced first, which also averages its noise
LEAST_CONTRAST = 0.06  # of ink, as a share of the range from black to white


def prepare_digit(picture: PathLike | Tensor, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Turn a photograph of one digit into an image like MNIST's, for a network that was trained on those.

    The photograph becomes grey, and the light of its background is estimated and subtracted, even if it is uneven. What
    differs from the background is ink, darker or brighter; specks and what reaches in from the border are left out. The
    ink is cropped, scaled to fit in 20 x 20 pixels, and centred by its mass in 28 x 28, as LeCun, Cortes and Burges
    describe it (http://yann.lecun.com/exdb/mnist).

    Args:
        picture: An image file, or pixels (H, W), (1, H, W) or (3, H, W) uint8: one digit on a plain background.
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

    contrast, noise = _contrast(greys)
    least = max(LEAST_CONTRAST, 5 * noise)
    require(bool((contrast > least).any()), "there is no digit on this picture: write one, dark on light paper")
    level = float(np.median(contrast[contrast > least]))  # of ink
    ink = np.where(contrast > max(level / 3, 4 * noise), np.clip(contrast / level, 0, 1), 0).astype(np.float32)
    parts, count = ndimage.label(ink, np.ones((3, 3)))
    amounts = ndimage.sum_labels(ink, parts, range(count + 1))
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    inside = amounts.copy()
    inside[border] = 0
    if inside.max() > 1e-3 * ink.size:  # else the digit fills the picture
        amounts = inside  # the edge of the paper, a shadow or a finger is no digit
    amounts[0] = 0
    return np.where(amounts[parts] > 0.05 * amounts.max(), ink, 0)  # no specks


def _greys(picture: PathLike | Tensor, max_pixels: int) -> np.ndarray:
    """Read a picture as greys (H, W) in [0, 1], upright and on white if it is transparent, with sides up to 800."""
    from PIL import Image

    if isinstance(picture, Tensor):
        shape, fits = tuple(picture.shape), picture.dtype == torch.uint8 and picture.dim() in (2, 3)
        fits = fits and picture.numel() > 0 and (picture.dim() == 2 or shape[0] in (1, 3))
        require(fits, f"a digit must be (H, W), (1, H, W) or (3, H, W) of uint8, not {shape} of {picture.dtype}")
        pixels = picture.cpu()[None] if picture.dim() == 2 else picture.cpu()
        array = pixels.float().mean(0).numpy()
    else:
        with open_picture(picture, max_pixels) as image:
            whole = upright(image).convert("RGBA")
            array = np.asarray(Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("L"))
    return _resize(array.astype(np.float32), min(LARGEST, max(array.shape))) / 255


def _resize(greys: np.ndarray, side: int) -> np.ndarray:
    """Resize greys (H, W) so that the longer side has ``side`` pixels; each pixel is a mean of those that it covers."""
    from PIL import Image

    scale = side / max(greys.shape)
    height, width = (max(1, round(scale * length)) for length in greys.shape)
    return np.array(Image.fromarray(greys).resize((width, height), Image.Resampling.BOX))


def _contrast(greys: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how much ink differs from the background, (H, W), positive for ink of either kind, and the noise.

    The background is a polynomial of second degree, fitted by least squares again and again to what is close to it.
    """
    y, x = (np.linspace(-1, 1, length)[:, None] if length > 1 else np.zeros((1, 1)) for length in greys.shape)
    terms = [np.broadcast_to(term, greys.shape) for term in (y**0, y, x.T, y * x.T, y**2, x.T**2)]
    step = max(1, max(greys.shape) // 60)
    points = np.stack([term[::step, ::step].ravel() for term in terms], 1)  # (n, 6)
    values = greys[::step, ::step].ravel().astype(np.float64)
    near = np.abs(values - np.median(values)) <= np.median(np.abs(values - np.median(values))) * 3
    for _ in range(10):
        weights = np.linalg.lstsq(points[near], values[near], rcond=None)[0]
        errors = values - points @ weights
        noise = 1.5 * float(np.median(np.abs(errors[near])))
        near = np.abs(errors) <= max(3 * noise, 2 / 255)
    difference = greys - sum(weight * term for weight, term in zip(weights, terms, strict=True))
    return difference * np.sign((difference**3).sum() or 1), noise


def _offset(sums: np.ndarray) -> int:
    """Return where a box begins, with these sums of its rows or columns, for its centre of mass to be at MNIST's."""
    mass = float((sums * np.arange(len(sums))).sum() / sums.sum())
    return min(max(round(CENTRE - mass), 0), SIDE - len(sums))
