"""Pictures as uint8 tensors: lay images out as a grid, save PNG files, and open files that may be anybody's."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchdl.errors import InputError, require
from torchdl.files import PathLike, make_folder, replacing, require_suffix

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Formats that may be opened, whatever a file's name says: Pillow would start Ghostscript for EPS
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 2**26  # per picture: 8192 x 8192, 200 MB in RGB


def is_channels_last(shape: Sequence[int]) -> bool:
    """Return whether the shape of an image can only be (height, width, channels), the order of Keras and Pillow.

    Example:
        >>> from torchdl.pictures import is_channels_last
        >>> [is_channels_last(shape) for shape in ((32, 32, 3), (28, 28, 1), (3, 32, 32), (16, 4, 4))]
        [True, True, False, False]
    """
    return len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) > 4


def to_pixels(images: Tensor) -> Tensor:
    """Return images in [0, 1], of any shape, as uint8 on the CPU; values outside are clamped."""
    return images.detach().float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8)


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Lay images (N, C, H, W) in [0, 1] out as one uint8 picture (C, rows * (H + p) + p, columns * (W + p) + p).

    The grid is square by default; images (R, N, C, H, W) become R rows of N. Images of uint8 are laid out as they are;
    other values outside [0, 1] are clamped. The gaps, ``padding`` p pixels wide, are grey.
    """
    if images.dim() == 5:
        columns = columns or images.shape[1]
        images = images.flatten(0, 1)  # (R, N, C, H, W) -> (R * N, C, H, W)
    n, channels, height, width = images.shape
    columns = columns or int(n**0.5 + 0.999999)
    rows = -(-n // columns)
    pixels = images.cpu() if images.dtype == torch.uint8 else to_pixels(images)
    grid = torch.full((channels, rows * (height + padding) + padding, columns * (width + padding) + padding), 128)
    grid = grid.to(torch.uint8)
    for i, image in enumerate(pixels):
        top, left = (padding + (i // columns) * (height + padding), padding + (i % columns) * (width + padding))
        grid[:, top : top + height, left : left + width] = image
    return grid


def pairs_grid(above: Tensor, below: Tensor, columns: int = 8) -> Tensor:
    """Lay two batches of images (N, C, H, W) out in one picture: rows of ``above``, each over its row of ``below``.

    There are ``columns`` images a row; see :func:`image_grid`.
    """
    missing = -len(above) % columns
    pairs = torch.stack([torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) for x in (above, below)], 1)
    # (N, 2, C, H, W) -> (rows, columns, 2, C, H, W) -> (rows * 2, columns, C, H, W)
    return image_grid(pairs.unflatten(0, (-1, columns)).transpose(1, 2).flatten(0, 1))


def side_by_side(pictures: Mapping[str, Tensor], gap: int = 12) -> Tensor:
    """Join uint8 pictures (C, H, W) of the same height from left to right, each under its name, on white.

    Between them are ``gap`` pixels. A name wider than its picture widens that picture's column. The larger the whole,
    the larger the letters, so that they can be read in TensorBoard's thumbnails, too.

    Example:
        >>> from torchdl.pictures import side_by_side
        >>> black = torch.zeros(1, 90, 60, dtype=torch.uint8)
        >>> picture = side_by_side({"generated": black, "real": black})
        >>> picture.shape  # a line of text above both
        torch.Size([1, 109, 147])
    """
    from matplotlib import get_data_path
    from PIL import ImageFont

    width = sum(picture.shape[2] + gap for picture in pictures.values()) - gap
    # comes with matplotlib, so it is the same everywhere; Pillow's own has no letters beyond ASCII
    font = ImageFont.truetype(os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), max(14, width // 30))
    columns = [_under(" ".join(name.split()), font, picture) for name, picture in pictures.items()]
    white = torch.full((*columns[0].shape[:2], gap), 255, dtype=torch.uint8)
    return torch.cat([part for column in columns for part in (white, column)][1:], dim=2)


def _under(caption: str, font: ImageFont.FreeTypeFont, picture: Tensor) -> Tensor:
    """Write a caption in black above a picture (C, H, W), on white as wide as both need."""
    from PIL import Image, ImageDraw

    channels, height, width = picture.shape
    size = (max(width, math.ceil(font.getlength(caption)) + 2), sum(font.getmetrics()) + 2)
    text = Image.new("L", size, 255)
    ImageDraw.Draw(text).text((1, 0), caption, 0, font)
    line = torch.from_numpy(np.array(text))  # (h, w)
    below = torch.full((channels, height, line.shape[1]), 255, dtype=torch.uint8)
    below[:, :, :width] = picture
    return torch.cat([line.expand(channels, -1, -1), below], dim=1)


def save_png(picture: Tensor, path: PathLike, scale: int = 2) -> None:
    """Save a uint8 picture (C, H, W), grey or RGB, at ``path`` as PNG; each pixel becomes ``scale`` x ``scale`` pixels.

    Raises:
        InputError: The file's name does not end in ``.png``.
    """
    from PIL import Image

    require_suffix(path, ".png")
    path = Path(path)
    large = picture.repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # (C, scale * H, scale * W)
    array = large[0].numpy() if len(large) == 1 else large.permute(1, 2, 0).numpy()  # (H, W) or (H, W, C)
    make_folder(path.parent)
    with replacing(path) as temporary:
        Image.fromarray(array).save(temporary, format="png")


def load_png(path: PathLike) -> Tensor:
    """Load the picture at ``path`` as uint8 (3, H, W), in RGB.

    Raises:
        InputError: It cannot be read; see :func:`open_picture`.
    """
    with open_picture(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)  # (H, W, 3) -> (3, H, W)


@contextmanager
def open_picture(path: PathLike | Image.Image, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture that may be anybody's; its size is checked before its pixels are decoded.

    Args:
        path: A file in one of :data:`FORMATS`, or an image of Pillow's, which stays open.
        max_pixels: The maximum of width times height.

    Raises:
        InputError: The file is not such a picture, is too large, or cannot be decoded within the block.

    Example:
        >>> import os, tempfile
        >>> from torchdl.pictures import open_picture
        >>> path = os.path.join(tempfile.mkdtemp(), "white.png")
        >>> torchdl.pictures.save_png(torch.full((1, 2, 3), 255, dtype=torch.uint8), path, scale=1)
        >>> with open_picture(path) as image:
        ...     image.size
        (3, 2)
        >>> with open_picture(path, max_pixels=5) as image:  # doctest: +ELLIPSIS
        ...     image.load()
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: ... cannot be read as an image: it has 3 x 2 pixels, more than max_pixels=5
    """
    from PIL import Image

    Image.init()  # registers all formats that this Pillow has
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > MAX_PIXELS:  # asked for: raise Pillow's own limit as well
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    name = "this picture" if isinstance(path, Image.Image) else path
    try:
        with nullcontext(path) if isinstance(path, Image.Image) else _opened(path) as image:
            width, height = image.size
            size = f"it has {width:,} x {height:,} pixels, more than max_pixels={max_pixels:,}"
            require(width * height <= max_pixels, size)
            yield image
    except FileNotFoundError as error:
        if os.path.islink(str(path)):
            raise InputError(f"{name} cannot be read as an image: it is a link to a file that is not there") from error
        advice = ": save the picture first" if "//" in str(path) or ":/" in str(path) else ""
        raise InputError(f"there is no file {name}{advice}") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit comes first
        reason = f"it has more pixels than max_pixels={max_pixels:,}"
        raise InputError(f"{name} cannot be read as an image: {reason}") from error
    except Exception as error:  # a damaged file makes Pillow raise anything: struct.error, RuntimeError, KeyError ...
        raise InputError(f"{name} cannot be read as an image: {error or type(error).__name__}") from error


def _opened(path: PathLike) -> Image.Image:
    from PIL import Image

    require(stat.S_ISREG(os.stat(path).st_mode), "it is not a file")  # reading from a pipe might never end
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
