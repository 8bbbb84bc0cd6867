"""From pictures, in any form in which people have them, to the images that a network was trained on.

Shapes: N pictures, B in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdl.data import BatchLoader, ImageDataset, prepare_digit
from torchdl.data.arrays import as_tensor
from torchdl.data.digits import resize
from torchdl.data.folder import SUFFIXES, DecodedLate
from torchdl.data.image_files import decode
from torchdl.errors import InputError, kind_of, require
from torchdl.pictures import MAX_PIXELS, open_picture

Preparation = Literal["digit", "crop", "squash"]
DIGITS = ("mnist", "mnist_5k")
DIGIT = (1, 28, 28)  # the shape of their images
DARK = 64  # of 255: a picture of MNIST's size with such a border is an image like MNIST's, not a photograph


class Pictures(NamedTuple):
    """Images (B, C, H, W) float32 as a network sees them, and what each is called."""

    images: Tensor
    names: list[str]


@dataclass(frozen=True)
class ImageInput:
    """The images that a network takes, and how other pictures become such images.

    Arrays of uint8 that have the network's shape are scaled and nothing else, as in training. Files and other pictures
    are prepared:

    - ``digit``: a photograph of a handwritten digit becomes an image like MNIST's; see :func:`torchdl.prepare_digit`.
      A network of larger images gets it enlarged, as in training.
    - ``crop``: the largest square (or other rectangle of the network's shape) in the middle is resized.
    - ``squash``: all of the picture is resized, whatever its sides.

    Attributes:
        channels: C, 1 for greys or 3 for colours.
        height: H.
        width: W.
        low: The value of black; white is 1.
        prepare: How to prepare a picture.
        white_value: The value of white in greys of more than eight bits; None for what the files say.
    """

    channels: int
    height: int
    width: int
    low: float = 0.0
    prepare: Preparation = "crop"
    white_value: float | None = None

    @classmethod
    def of(cls, data: ImageDataset, prepare: Preparation, white_value: float | None = None) -> ImageInput:
        """Describe the images of a data set.

        Args:
            data: The data set.
            prepare: How a picture becomes such an image; see the class.
            white_value: The value of white in greys of more than eight bits; None for what a file says.
        """
        return cls(*data.image_shape, data.low.item() / 255, prepare, white_value)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def check(self) -> None:
        """Raise :class:`InputError` unless these are images."""
        sizes = self.channels in (1, 3) and min(self.height, self.width) >= 1 and self.height * self.width <= MAX_PIXELS
        require(sizes, f"images cannot have the (channels, height, width) {self.shape}")
        require(self.low in (0.0, -1.0), f"black must be 0 or -1, not {self.low}")
        white = 1.0 if self.white_value is None else self.white_value
        require(0 < white < math.inf, f"white_value must be a finite number above 0, not {white}")
        fits = self.prepare != "digit" or self.height == self.width
        require(fits, f"a photographed digit becomes a square image, not one of {self.shape}")

    def scale(self, pixels: Tensor) -> Tensor:
        """Scale uint8 pixels (B, C, H, W) to float32 in [``low``, 1], as training did."""
        return ImageDataset(pixels, low=self.low).scale(pixels)

    def unscale(self, images: Tensor) -> Tensor:
        """Scale images from [``low``, 1] to [0, 1], to show or save them."""
        return (images - self.low) / (1 - self.low)

    def batches(self, pictures: Any, size: int, workers: int = 0) -> Iterator[Pictures]:
        """Yield batches of at most ``size`` pictures, prepared and scaled.

        Args:
            pictures: A file; a folder, whose files are sorted by name; an image of Pillow's; an array or tensor (H, W),
                (C, H, W), (H, W, 3) or with N in front, uint8 or floats in [0, 1]; a data set of torchdl's; or a list
                of files, images and arrays.
            size: B.
            workers: The number of processes that decode the files of a data set that are not in memory.

        Raises:
            InputError: There are no pictures, or one cannot be read.
        """
        if isinstance(pictures, ImageDataset):
            yield from self._of_dataset(pictures, size, workers)
            return
        found = listed(pictures, self.shape)
        for start in range(0, len(found), size):
            part = found[start : start + size]
            pixels = torch.stack([self._named(name, picture, len(found)) for name, picture in part])
            yield Pictures(self.scale(pixels), [name for name, _ in part])

    def _of_dataset(self, data: ImageDataset, size: int, workers: int) -> Iterator[Pictures]:
        channels, *sides = data.image_shape
        require(
            tuple(sides) == self.shape[1:] and channels in (1, self.channels),
            f"the network takes images of (channels, height, width) {self.shape}, not {data.image_shape}",
        )
        late = isinstance(data.images, DecodedLate)
        loader = BatchLoader(data.without_labels().scaled_to(self.low), size, workers=workers if late else 0)
        loader.shard(0, 1)  # this process answers on all of them
        done = 0
        for images, _ in loader.batches(0):
            images = images.expand(-1, *self.shape)  # greys become three equal channels
            yield Pictures(images, [str(number) for number in range(done, done + len(images))])
            done += len(images)

    def _named(self, name: str, picture: Any, count: int) -> Tensor:
        """Prepare one of several pictures; the message of an error says which one it is."""
        try:
            return self.prepared(picture)
        except InputError as error:
            if count == 1:
                raise
            sentence = str(error) if str(picture) in str(error) else f"{name}: {error}"
            raise InputError(f"{sentence}; repair it, or leave it out of the {count:,} pictures") from error

    def notes(self, pictures: Any) -> tuple[str, ...]:
        """Return a sentence on the pictures that lose their colours; ``pictures`` are as for :meth:`batches`."""
        if (self.channels == 3 and self.prepare != "digit") or isinstance(pictures, ImageDataset):
            return ()
        colours = [in_colour(picture) for _, picture in listed(pictures, self.shape)]
        way = {"digit": "as photographs of a digit", "crop": "their middle", "squash": "squashed"}[self.prepare]
        made = f"pictures in colour, made grey and resized to {self.height} x {self.width} ({way})"
        return (f"{made}: {sum(colours):,} of {len(colours):,}",) if any(colours) else ()

    def prepared(self, picture: Any) -> Tensor:
        """Return a picture as the pixels (C, H, W) uint8 that the network sees."""
        if isinstance(picture, Tensor):
            if picture.shape[1:] == self.shape[1:] and len(picture) in (1, self.channels):
                return picture.expand(self.shape)  # greys become three equal channels
            picture = as_picture(picture)
        if self.prepare == "digit":
            pixels = torch.from_numpy(decode(picture, grey=True))  # (1, h, w)
            border = torch.cat([pixels[0, [0, -1]].flatten(), pixels[0, :, [0, -1]].flatten()])
            like_training = tuple(pixels.shape) == DIGIT and int(border.max()) < DARK
            digit = pixels if like_training else prepare_digit(picture)
            return resize(digit, self.height).expand(self.shape)  # (1, 28, 28) -> (1, S, S) -> (C, S, S)
        return torch.from_numpy(self.resized(decode(picture, None, self.channels == 1, self.white_value)))

    def resized(self, pixels: np.ndarray) -> np.ndarray:
        """Resize pixels (C, h, w) uint8 to (C, H, W), after cropping them unless they are to be squashed."""
        from PIL import Image

        height, width = pixels.shape[1:]
        if (height, width) == (self.height, self.width):
            return pixels
        box = (0.0, 0.0, float(width), float(height))
        if self.prepare == "crop":
            scale = min(width / self.width, height / self.height)
            across, down = scale * self.width, scale * self.height
            left, top = (width - across) / 2, (height - down) / 2
            box = (left, top, left + across, top + down)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
        array = np.array(image.resize((self.width, self.height), Image.Resampling.BILINEAR, box))
        return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0).copy()


def in_colour(picture: Any) -> bool:
    """Return whether a file, an image or a tensor (C, H, W) has more than greys."""
    if isinstance(picture, Tensor):
        return len(picture) == 3
    with open_picture(picture, MAX_PIXELS) as image:
        return image.mode == "P" or len(image.getbands()) > 2


def listed(pictures: Any, shape: tuple[int, int, int]) -> list[tuple[str, Any]]:
    """Return pictures for a network's ``shape`` as a list of names and files, images or tensors (C, H, W) uint8."""
    from PIL import Image

    if isinstance(pictures, (str, os.PathLike)):
        require(str(pictures) != "", "an empty text names no picture and no folder")
        path = Path(pictures)
        if not path.is_dir():
            return [(str(path), path)]
        found = [p.relative_to(path) for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        files = sorted(file for file in found if not any(part.startswith(".") for part in file.parts))  # none hidden
        require(bool(files), f"there are no images in {path}: name a folder with files such as .png or .jpg")
        return [(str(file), path / file) for file in files]
    if isinstance(pictures, Image.Image):
        return [("0", pictures)]
    if isinstance(pictures, (Tensor, np.ndarray)):
        return [(str(number), pixels) for number, pixels in enumerate(as_pixels(pictures, shape))]
    require(isinstance(pictures, Sequence), f"pictures are files, images or arrays, not {kind_of(pictures)}")
    require(len(pictures) > 0, "there are no pictures")
    several: list[tuple[str, Any]] = []
    for number, picture in enumerate(pictures):
        parts = listed(picture, shape)
        own = isinstance(picture, (str, os.PathLike))
        if own and Path(picture).is_dir():  # several folders may hold files of the same name
            parts = [(str(Path(picture) / name), file) for name, file in parts]
        several += parts if own else [(str(number), pixels) for _, pixels in parts]
    return several


def as_pixels(array: Tensor | np.ndarray, shape: tuple[int, int, int]) -> Tensor:
    """Return an array of pictures as uint8 pixels (N, C, H, W); if it could be read in two ways, ``shape`` decides."""
    values = as_tensor(array, "pictures").detach().cpu()
    if values.is_floating_point():
        inside = values.numel() > 0 and bool(((values >= 0) & (values <= 1)).all())
        require(inside, "pixels that are floats must be in [0, 1]; pixels in [0, 255] must be uint8")
        values = (255 * values).round().to(torch.uint8)
    require(values.dtype == torch.uint8, f"pixels must be uint8, or floats in [0, 1], not {values.dtype}")
    transparent = values.dim() == 3 and values.shape[2] in (2, 4) and values.shape[1:] != shape[1:]
    found = f"an array of the shape {tuple(values.shape)} seems to have a channel of transparency"
    require(not transparent, f"{found}: convert the picture to RGB, or pass the image of Pillow's")
    if values.dim() == 2:
        values = values[None, None]  # (H, W) -> (1, 1, H, W)
    elif values.dim() == 3:
        greys = (1, *values.shape[1:]) == shape or (values.shape[0] not in (1, 3) and values.shape[2] not in (1, 3))
        values = values[:, None] if greys else values[None]  # (N, H, W) -> (N, 1, H, W), or one picture of (C, H, W)
    last = values.dim() == 4 and values.shape[1] not in (1, 3)
    values = values.permute(0, 3, 1, 2) if last else values  # (N, H, W, C) -> (N, C, H, W)
    fits = values.dim() == 4 and values.shape[1] in (1, 3) and values.numel() > 0
    require(fits, f"pictures must be (N, C, H, W) or (N, H, W, C) with one or three channels, not {tuple(array.shape)}")
    return values


def as_picture(pixels: Tensor) -> Any:
    """Return pixels (C, H, W) uint8 as an image of Pillow's."""
    from PIL import Image

    return Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy())
