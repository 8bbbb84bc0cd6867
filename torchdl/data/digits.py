"""Handwritten digits for contrastive predictive coding: resized, coloured, and drawn by label.

Shapes: N images in a set, B in a batch, C = 3 channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl import random
from torchdl.data.arrays import as_classes, as_tensor
from torchdl.data.images import ImageDataset
from torchdl.data.info import fingerprint
from torchdl.data.sources import LabelledImages, load_labelled, rank_in_class
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import open_picture

SUBSETS = ("train", "validation", "test")
PHOTOGRAPHS = ("china", "flower")  # scikit-learn's
COLOURS, LOOKUP, FOUND = 0, 2, 4  # streams of independent draws; colours take two


class Digits(ImageDataset):
    """Labelled digits as RGB images, in grey or in random colours.

    In colour, the background is a random crop of a photograph. Each of its channels is averaged with a random constant
    in [0, 1]. The colours are inverted where the digit is (binarised at 0.5). The draws depend only on the seed, the
    epoch and the image's index.

    Args:
        images: (N, H, W) uint8; they are resized bilinearly to S x S with aligned corners.
        labels: (N,) int64.
        image_size: S, pixels a side.
        color: Whether to colour the images.
        rescale: Whether pixels are in [-1, 1] instead of [0, 1].
        seed: The seed of the colours and lookups.
        background: A picture file to crop backgrounds from, or scikit-learn's photographs ``china``, ``flower`` or
            ``both`` (default).
        classes: The labels' names, by default the ten digits.
        origin: Where the images come from, in words.
        fallback: Whether they replace images that were not found.

    ``digits[i]`` is ``(image, label)``; ``digits.__getitems__(indices)`` is a batch, made on the device.

    Raises:
        InputError: ``image_size`` is not from 8 to 1024, or the images or labels have another shape or type.

    Example:
        >>> images, labels = torch.zeros(3, 28, 28, dtype=torch.uint8), torch.tensor([7, 1, 7])
        >>> digits = torchdl.Digits(images, labels, image_size=32)
        >>> image, label = digits[0]
        >>> image.shape, label
        (torch.Size([3, 32, 32]), tensor(7))
        >>> digits.get_batch_by_labels([1, 7, 7, 7]).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        image_size: int = 64,
        color: bool = True,
        rescale: bool = True,
        seed: int = 0,
        background: PathLike | None = None,
        classes: Sequence[str] = tuple("0123456789"),
        origin: str = "memory",
        fallback: bool = False,
    ) -> None:
        fits = isinstance(image_size, (int, np.integer)) and 8 <= image_size <= 1024
        require(fits, f"image_size must be from 8 to 1024 pixels, not {image_size}")
        images, labels = as_tensor(images, "images"), as_classes(labels, "labels")
        found = f"{tuple(images.shape)} of {images.dtype}"
        require(images.dim() == 3 and images.dtype == torch.uint8, f"digits must be (N, H, W) of uint8, not {found}")
        known = labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < len(classes))).all())
        require(known, f"labels must be int64 from 0 to {len(classes) - 1}, the indices of the classes")
        self.photographs = load_photographs(background, image_size) if color else torch.empty(0, 3, 0, 0)
        pictures, _, height, width = self.photographs.shape  # (P, C, H, W)
        self.corners = torch.tensor([pictures, height - image_size + 1, width - image_size + 1])  # numbers of choices
        low = -1.0 if rescale else 0.0
        super().__init__(resize(images, image_size), labels, low, 1.0, classes, origin, fallback)
        self.image_size, self.color, self.rescale, self.seed, self.epoch = image_size, color, rescale, seed, 0
        self._find_by_label(labels)

    def _find_by_label(self, labels: Tensor) -> None:
        self.by_label = labels.argsort(stable=True)  # (N,): the images of label 0, then of 1, ...
        self.counts = labels.bincount(minlength=len(self.classes))  # images per label

    def scaled_to(self, low: float, high: float = 1.0) -> Digits:
        """Return a data set of the same digits (not copied) with pixels in [``low``, ``high``].

        Raises:
            InputError: The range is neither [-1, 1] nor [0, 1].
        """
        require((low, high) in ((-1, 1), (0, 1)), f"digits have pixels in [-1, 1] or [0, 1], not [{low:g}, {high:g}]")
        other = cast(Digits, super().scaled_to(low, high))
        other.rescale = low == -1
        return other

    def subset(self, indices: Tensor) -> Digits:
        """Return a new data set of the digits with these indices (n,), in that order.

        Raises:
            InputError: The labels have been removed.
        """
        require(self.labels is not None, "take the subset of digits before removing their labels")
        part = cast(Digits, super().subset(indices))
        part._find_by_label(cast(Tensor, part.labels))
        return part

    def to(self, device: str | torch.device) -> Digits:
        """Move the images and photographs to ``device`` in place; return the data set itself."""
        super().to(device)
        self.by_label, self.counts = self.by_label.to(device), self.counts.to(device)
        self.photographs, self.corners = self.photographs.to(device), self.corners.to(device)
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose colours are drawn."""
        self.epoch = epoch

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, S, S) of every image."""
        return 3, self.image_size, self.image_size

    def fingerprint(self) -> str:
        """Return the SHA-256 of all images, labels and photographs, in hexadecimal."""
        return fingerprint([self.photographs], super().fingerprint())

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Return the batch (B, C, S, S) float32, with labels (B,) unless they were removed."""
        which = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        images = self.render(which, which)
        return images if self.labels is None else (images, self.labels.index_select(0, which))

    def render(self, which: Tensor, index: Tensor, stream: int = COLOURS) -> Tensor:
        """Return images (B, C, S, S) of the digits with indices ``which`` (B,), in colours drawn by ``index`` (B,).

        The two indices differ if one digit is shown several times. Another ``stream`` makes independent draws.
        """
        digits = self.images.index_select(0, which).expand(-1, 3, -1, -1)  # (B, 1, S, S) -> (B, C, S, S)
        if not self.color:
            return self.scale(digits)
        windows = self.photographs.unfold(2, self.image_size, 1).unfold(3, self.image_size, 1)  # (P, C, Y, X, S, S)
        corners = random.integers(self.corners, self.seed, self.epoch, index, 3, stream)  # (B, 3)
        shift = random.uniform(self.seed, self.epoch, index, 3, stream + 1)  # (B, C)
        # 2 * (crop + shift) / 2 - 1 is in [-1, 1], so inverting only changes the sign
        images = windows.permute(0, 2, 3, 1, 4, 5)[corners.unbind(1)].add_(shift[..., None, None] - 1)
        images.mul_((digits[:, :1] >> 7).float().mul_(-2).add_(1))  # by -1 from 128 on; faster than torch.where
        return images if self.rescale else images.add_(1).mul_(0.5)

    def look_up(self, labels: Tensor, index: Tensor) -> Tensor:
        """Draw an image for each of ``labels`` (B, K) by ``index`` (B,) and the epoch; return its index (B, K)."""
        counts = self.counts[labels]  # (B, K)
        rank = random.integers(counts, self.seed, self.epoch, index, labels.shape[1], LOOKUP)
        return self.by_label[(self.counts.cumsum(0) - self.counts)[labels] + rank]

    def get_batch_by_labels(self, labels: Tensor | Sequence[int], start: int = 0) -> Tensor:
        """Draw a random image for each of ``labels`` (B,): (B, C, S, S).

        Image i is drawn by the index ``start + i``, so another ``start`` draws other images.

        Raises:
            InputError: The set has no image of one of the labels.
        """
        labels = torch.as_tensor(labels, dtype=torch.int64, device=self.device)
        known = len(labels) == 0 or bool(((labels >= 0) & (labels < len(self.counts))).all())
        require(known and bool((self.counts[labels] > 0).all()), "the set has no image of one of these labels")
        index = torch.arange(start, start + len(labels), device=self.device)
        return self.render(self.look_up(labels[:, None], index)[:, 0], index, FOUND)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (N, H, W) uint8 to (N, size, size) uint8, bilinearly with aligned corners."""
    if tuple(images.shape[1:]) == (size, size):
        return images
    parts = [
        F.interpolate(part[:, None].float(), (size, size), mode="bilinear", align_corners=True).round_().to(torch.uint8)
        for part in images.split(1000)  # never holds all images in float32
    ]
    return torch.cat(parts)[:, 0]  # (N, 1, S, S) -> (N, S, S)


def load_photographs(path: PathLike | None, size: int) -> Tensor:
    """Load the pictures for the backgrounds: (P, C, H, W) float32 in [0, 1], with sides of at least ``size`` pixels.

    The default, ``both``, is scikit-learn's two photographs (``sklearn.datasets.load_sample_images``); a name of one of
    them, ``china`` or ``flower``, is that one.
    """
    path = None if str(path) == "both" else path
    if path is None or str(path) in PHOTOGRAPHS:
        from sklearn.datasets import load_sample_images  # imported late: it takes a second

        pictures = np.stack(load_sample_images().images)  # (P, H, W, C), in the order of their names
        pictures = pictures if path is None else pictures[[PHOTOGRAPHS.index(str(path))]]
    else:
        named = f"there is no picture {path}: name a file, or scikit-learn's china, flower or both"
        require(Path(path).exists(), named)
        with open_picture(path) as image:
            pictures = np.array(image.convert("RGB"))[None]  # a copy, since torch warns of read-only arrays
    height, width = pictures.shape[1:3]
    name = path or "scikit-learn's picture"
    require(min(height, width) >= size, f"{name} has {width} x {height} pixels: name one of at least {size} x {size}")
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255).contiguous()  # (P, C, H, W)


def split(found: LabelledImages, subset: str) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a subset: ``train`` is the first 5/6 of the training images, validation the rest.

    Images that are sorted by label are interleaved first, so that both subsets have all labels.
    """
    images, labels = found.images, found.labels
    if subset == "test":
        return images, labels
    if bool((labels.diff() >= 0).all()):
        interleaved = rank_in_class(labels).argsort(stable=True)
        images, labels = images[interleaved], labels[interleaved]
    border = len(images) * 5 // 6
    part = slice(0, border) if subset == "train" else slice(border, None)
    return images[part], labels[part]


def load_digits(
    subset: str = "train",
    image_size: int = 64,
    color: bool = True,
    rescale: bool = True,
    seed: int = 0,
    background: PathLike | None = None,
    name: str = "mnist",
    root: PathLike | None = None,
    fetch: bool = True,
) -> Digits:
    """Load a subset of the digits: ``train`` (the first 5/6 of the training images), ``validation`` or ``test``.

    For MNIST these have 50,000, 10,000 and 10,000 digits.

    Args:
        subset: ``train``, ``validation`` (or ``valid``) or ``test``.
        image_size: S, pixels a side.
        color: Whether to colour the images.
        rescale: Whether pixels are in [-1, 1] instead of [0, 1].
        seed: The seed of the colours and lookups; with the same seed, each subset has its own draws.
        background: A picture file to crop backgrounds from, or scikit-learn's photographs ``china``, ``flower`` or
            ``both`` (default).
        name: A data set of grey images, such as ``mnist``, ``fashion_mnist`` or ``mnist_5k``, which needs no download.
        root: The data folder; see :mod:`torchdl.data.sources` for the other places.
        fetch: Whether to download missing data.

    Raises:
        InputError: A name is unknown, or the data was not found or cannot be used.

    Example:
        >>> digits = torchdl.load_digits("validation", image_size=28, color=False, name="mnist_5k")
        >>> len(digits), digits.image_shape
        (750, (3, 28, 28))
    """
    subset = {"valid": "validation"}.get(subset, subset)
    require(subset in SUBSETS, f"unknown subset {subset!r}: choose one of {', '.join(SUBSETS)}")
    found = load_labelled(name, "test" if subset == "test" else "train", root, fetch)
    images, labels = split(found, subset)
    own_seed = random.key(seed, SUBSETS.index(subset))
    return Digits(
        images, labels, image_size, color, rescale, own_seed, background, found.classes, found.origin, found.fallback
    )
