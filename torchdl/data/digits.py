"""Handwritten digits as the images of contrastive predictive coding: resized, coloured, and looked up by label.

Shapes: N images in a set, B in a batch, C = 3 channels, S x S pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl import random
from torchdl.data.images import ImageDataset
from torchdl.data.sources import LabelledImages, load_labelled, rank_in_class
from torchdl.errors import InputError, require

SUBSETS = ("train", "valid", "test")
COLOURS, LOOKUP, FOUND = 0, 2, 4  # streams: draws that must not be the same; colours take two


class Digits(ImageDataset):
    """Labelled digits as RGB images, in grey as they are or in random colours.

    In colour every image is binarised at 0.5, a random crop of a photograph is averaged, channel by channel, with a
    random constant in [0, 1], and the crop is inverted where the digit is. Both are drawn from the seed, the epoch
    and the image's number alone.

    Args:
        images: (N, H, W) uint8, resized bilinearly to S x S, corners onto corners.
        labels: (N,) int64.
        image_size: S, pixels a side.
        color: Whether to colour them.
        rescale: Whether pixels are in [-1, 1], or in [0, 1].
        seed: What the colours and lookups are drawn from.
        background: A picture to crop from in place of scikit-learn's two photographs.
        classes: The labels' names, the ten digits by default.
        origin: Where the images come from, for the user to read.
        fallback: Whether they stand in for images that could not be had.

    ``digits[i]`` is ``(image, label)``, and ``digits.__getitems__(indices)`` a batch of them, made on the device.

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
        background: str | os.PathLike[str] | None = None,
        classes: Sequence[str] = tuple("0123456789"),
        origin: str = "memory",
        fallback: bool = False,
    ) -> None:
        require(8 <= image_size <= 1024, f"image_size must be from 8 to 1024 pixels, not {image_size}")
        require(
            images.dim() == 3 and images.dtype == torch.uint8,
            f"digits must be (N, H, W) of uint8, not {tuple(images.shape)} of {images.dtype}",
        )
        require(
            labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < len(classes))).all()),
            f"labels must be int64 from 0 to {len(classes) - 1}, a number for each of the classes",
        )
        self.photographs = load_photographs(background, image_size) if color else torch.empty(0, 3, 0, 0)
        pictures, _, height, width = self.photographs.shape  # (P, C, H, W)
        self.corners = torch.tensor([pictures, height - image_size + 1, width - image_size + 1])  # to choose from
        low = -1.0 if rescale else 0.0
        super().__init__(resize(images, image_size), labels, low, 1.0, classes, origin, fallback)
        self.image_size, self.color, self.rescale, self.seed, self.epoch = image_size, color, rescale, seed, 0
        self._find_by_label(labels)

    def _find_by_label(self, labels: Tensor) -> None:
        self.by_label = labels.argsort(stable=True)  # (N,) all images of label 0, then of 1, ...
        self.counts = labels.bincount(minlength=len(self.classes))  # images a label

    def subset(self, indices: Tensor) -> Digits:
        """Return the digits numbered ``indices`` (n,), in that order, as a data set of their own."""
        require(self.labels is not None, "take the subset of digits before leaving their labels out")
        part = cast(Digits, super().subset(indices))
        part._find_by_label(cast(Tensor, part.labels))
        return part

    def to(self, device: str | torch.device) -> Digits:
        """Move the images and photographs to ``device``, in place; returns the data set itself."""
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
        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(self.photographs.cpu().numpy().tobytes())
        return digest.hexdigest()

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Give the batch (B, C, S, S) float32, with its labels (B,) unless they were left out."""
        which = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        images = self.render(which, which)
        return images if self.labels is None else (images, self.labels.index_select(0, which))

    def render(self, which: Tensor, index: Tensor, stream: int = COLOURS) -> Tensor:
        """Make images (B, C, S, S) of the digits numbered ``which`` (B,), in the colours that belong to ``index`` (B,).

        The two differ where one digit is shown several times; ``stream`` tells independent draws apart.
        """
        digits = self.images.index_select(0, which).expand(-1, 3, -1, -1)  # (B, 1, S, S) -> (B, C, S, S)
        if not self.color:
            return self.scale(digits)
        windows = self.photographs.unfold(2, self.image_size, 1).unfold(3, self.image_size, 1)  # (P, C, Y, X, S, S)
        corners = random.integers(self.corners, self.seed, self.epoch, index, 3, stream)  # (B, 3)
        shift = random.uniform(self.seed, self.epoch, index, 3, stream + 1)  # (B, C)
        # 2 * (crop + shift) / 2 - 1 is in [-1, 1], where to invert is to change the sign
        images = windows.permute(0, 2, 3, 1, 4, 5)[corners.unbind(1)].add_(shift[..., None, None] - 1)
        images.mul_((digits[:, :1] >> 7).float().mul_(-2).add_(1))  # by -1 from 128 on; quicker than torch.where
        return images if self.rescale else images.add_(1).mul_(0.5)

    def look_up(self, labels: Tensor, index: Tensor) -> Tensor:
        """Draw the number of an image of each label: (B, K) numbers for (B, K) labels, by ``index`` (B,) and epoch."""
        counts = self.counts[labels]  # (B, K)
        rank = random.integers(counts, self.seed, self.epoch, index, labels.shape[1], LOOKUP)
        return self.by_label[(self.counts.cumsum(0) - self.counts)[labels] + rank]

    def get_batch_by_labels(self, labels: Tensor | Sequence[int], start: int = 0) -> Tensor:
        """Draw an image at random for each label (B,): (B, C, S, S).

        The draw numbered ``start + i`` makes image i, so other numbers make other images.
        """
        labels = torch.as_tensor(labels, dtype=torch.int64, device=self.device)
        known = len(labels) == 0 or bool(((labels >= 0) & (labels < len(self.counts))).all())
        require(known and bool((self.counts[labels] > 0).all()), "every label must be one that the set has images of")
        index = torch.arange(start, start + len(labels), device=self.device)
        return self.render(self.look_up(labels[:, None], index)[:, 0], index, FOUND)


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images (N, H, W) uint8 to (N, size, size) uint8, bilinearly, corners onto corners."""
    if tuple(images.shape[1:]) == (size, size):
        return images
    parts = [
        F.interpolate(part[:, None].float(), (size, size), mode="bilinear", align_corners=True).round_().to(torch.uint8)
        for part in images.split(1000)  # not all at once in float32
    ]
    return torch.cat(parts)[:, 0]  # (N, 1, S, S) -> (N, S, S)


def load_photographs(path: str | os.PathLike[str] | None, size: int) -> Tensor:
    """Load what backgrounds are cropped from: (P, C, H, W) float32 in [0, 1], at least ``size`` pixels a side.

    By default the two photographs in scikit-learn (``sklearn.datasets.load_sample_images``).
    """
    if path is None:
        from sklearn.datasets import load_sample_images  # imported late: it takes a second

        pictures = np.stack(load_sample_images().images)  # (P, H, W, C)
    else:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(Path(path)) as image:
                pictures = np.array(image.convert("RGB"))[None]  # a copy: torch warns of what cannot be written to
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise InputError(f"{path} is no picture that can be read: name a PNG or JPEG") from error
    height, width = pictures.shape[1:3]
    name = path or "scikit-learn's picture"
    require(
        min(height, width) >= size,
        f"{name} has {width} x {height} pixels: name one of at least {size} x {size}",
    )
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255).contiguous()  # (P, C, H, W)


def split(found: LabelledImages, subset: str) -> tuple[Tensor, Tensor]:
    """Take the first five sixths of training images as ``train``, the rest as ``valid``; of MNIST 50,000 and 10,000.

    Images that are sorted by label are dealt out in turn first, so that both parts have all labels.
    """
    images, labels = found.images, found.labels
    if subset == "test":
        return images, labels
    if bool((labels.diff() >= 0).all()):
        dealt = rank_in_class(labels).argsort(stable=True)
        images, labels = images[dealt], labels[dealt]
    border = len(images) * 5 // 6
    part = slice(0, border) if subset == "train" else slice(border, None)
    return images[part], labels[part]


def load_digits(
    subset: str = "train",
    image_size: int = 64,
    color: bool = True,
    rescale: bool = True,
    seed: int = 0,
    background: str | os.PathLike[str] | None = None,
    name: str = "mnist",
    root: str | os.PathLike[str] | None = None,
    fetch: bool = True,
) -> Digits:
    """Load a subset of the digits: ``train`` (the first five sixths of the training images), ``valid`` or ``test``.

    Of MNIST these are 50,000, 10,000 and 10,000. The sets differ in what they draw from one ``seed``. For the other
    arguments see :class:`Digits` and :func:`torchdl.data.sources.load_labelled`.

    Example:
        >>> digits = torchdl.load_digits("valid", image_size=28, color=False, name="mnist_5k")
        >>> len(digits), digits.image_shape
        (750, (3, 28, 28))
    """
    require(subset in SUBSETS, f"unknown subset {subset!r}: choose one of {', '.join(SUBSETS)}")
    found = load_labelled(name, "test" if subset == "test" else "train", root, fetch)
    images, labels = split(found, subset)
    own_seed = random.key(seed, SUBSETS.index(subset))
    return Digits(
        images, labels, image_size, color, rescale, own_seed, background, found.classes, found.origin, found.fallback
    )
