"""Decode image files: upright, as greys or colours of eight bits, and resized.

Shapes: H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from torchdl.errors import InputError, require
from torchdl.files import PathLike
from torchdl.pictures import MAX_PIXELS, open_picture

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = {"1", "F", "I", "I;16", "I;16B", "I;16L", "I;16N", "L", "LA", "La"}
ORIENTATION = 0x0112  # EXIF's tag; the turns for its values 2 to 8 are the names in Image.Transpose
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
BITS, PHOTOMETRIC, MAX_VALUE = 258, 262, 281  # TIFF's tags


class Decoding(NamedTuple):
    """How to decode the files of a folder; see :func:`decode`."""

    image_size: int | None = None
    grey: bool = False
    white_value: float | None = None
    max_pixels: int = MAX_PIXELS


class Header(NamedTuple):
    """What a file's header says: whether it is grey, and its number of pixels."""

    grey: bool
    pixels: int


def read_header(path: PathLike, max_pixels: int = MAX_PIXELS) -> Header | None:
    """Return what a file's header says; None if it is not an image that can be opened."""
    try:
        with open_picture(path, max_pixels) as image:
            return Header(image.mode in GREY_MODES, image.width * image.height)
    except InputError:
        return None


def decode(
    picture: PathLike | Image.Image,
    image_size: int | None = None,
    grey: bool = False,
    white_value: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image to (1, H, W) or (3, H, W) uint8; resize it to a square if ``image_size`` is given.

    Transparent images are laid on white, and palettes become colours. Images are rotated as their EXIF data says. Greys
    of more than eight bits are scaled so that white becomes 255; see :func:`narrow`.

    Args:
        picture: The file, or an image of Pillow's.
        image_size: The side in pixels; None for the image's own size.
        grey: Whether to return one channel.
        white_value: The value of white in greys of more than eight bits; None for what the file says.
        max_pixels: The maximum of width times height.

    Raises:
        InputError: The file cannot be read as an image, is too large, or does not say which value is white.
    """
    from PIL import Image

    with open_picture(picture, max_pixels) as image:
        resized = (image_size or 0) * max(image.size)  # pixels after one of the two axes is resized
        require(resized <= max_pixels, f"resizing it takes {resized:,} pixels, more than max_pixels={max_pixels:,}")
        # channels of 16 bits, of which Pillow keeps the upper eight; BGR;16 has 16 bits for all three together
        coding = str(getattr(image, "tile", ""))
        deep = ";16" in coding and "BGR;16" not in coding
        image.load()
        picture = upright(image)
        if image.mode == "F" or image.mode.startswith("I"):
            greys = np.asarray(picture)
            narrowed = narrow(greys, _white(image, greys) if white_value is None else white_value)
            inverted = _tags(image).get(PHOTOMETRIC) == 0  # Pillow inverts such greys of up to eight bits alone
            picture = Image.fromarray(255 - narrowed if inverted else narrowed)
        transparent = "A" in picture.getbands() or "transparency" in picture.info
        picture = picture.convert("RGBA") if transparent else picture
        flat = picture.convert("L" if grey else "RGB")
        if deep and image.mode in ("RGB", "RGBA", "LA"):
            most = np.max(flat.getextrema())
            require(most == 0 or most > 15, "its colours of 16 bits use no more than 12 of them: save it with 8 bits")
        if transparent:  # its hidden colours may be those of its ink
            white = Image.new(flat.mode, flat.size, "white")
            white.paste(flat, mask=picture.getchannel("A"))
            flat = white
        picture = flat
        if image_size is not None and picture.size != (image_size, image_size):
            picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
        array = np.array(picture)
    return array[None] if grey else np.moveaxis(array, 2, 0)  # (H, W) -> (1, H, W); (H, W, 3) -> (3, H, W)


def narrow(greys: np.ndarray, white: float) -> np.ndarray:
    """Scale greys (H, W) in [0, ``white``] to uint8; of integers below a power of two, the upper eight bits remain.

    Example:
        >>> import numpy
        >>> from torchdl.data.image_files import narrow
        >>> narrow(numpy.array([[0, 16, 4095]]), 4095), narrow(numpy.array([[0.0, 0.5, 1.0]]), 1)
        (array([[  0,   1, 255]], dtype=uint8), array([[  0, 128, 255]], dtype=uint8))
    """
    require(white > 0, f"white_value must be above 0, not {white}")
    require(bool(np.isfinite(greys).all()) and float(greys.min()) >= 0, "some of its greys are not numbers from 0 up")
    values = white + (greys.dtype.kind != "f")  # integers from 0 to white are white + 1 values
    return np.clip(greys * np.float32(256 / values), 0, 255).astype(np.uint8)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Return a TIFF's tags; no other format has any."""
    return getattr(image, "tag_v2", {})


def _white(image: Image.Image, greys: np.ndarray) -> float:
    """Return the value of white in greys (H, W) of more than eight bits; InputError if the file does not say it."""
    tags, most = _tags(image), int(greys.max())
    bits, stated = (int(np.max(tags.get(tag, default))) for tag, default in ((BITS, 16), (MAX_VALUE, 0)))
    advice = "so it does not say which value is white: name it (white_value)"
    if stated > 255:
        return 2 ** stated.bit_length() - 1  # programs state the largest value that they wrote
    require(image.mode != "F", f"its greys are floats, {advice}")
    if bits < 16:
        return 2**bits - 1
    if image.format == "PPM" or most == 0:
        return 65535  # to which Pillow scales
    if bits > 16 and most <= 255:
        return 255
    require(4096 <= most <= 65535, f"its greys of {bits} bits reach {most:,}, {advice}")
    return 65535


def upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data says; data that cannot be parsed says nothing.

    Pillow's ``exif_transpose`` also writes the data anew, which fails for some data that can be read.
    """
    from PIL import Image

    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises what its parser meets: struct.error, ZeroDivisionError, TypeError ...
        return image
    return image if turn is None else image.transpose(Image.Transpose[turn])
