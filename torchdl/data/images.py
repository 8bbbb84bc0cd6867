"""Images as a resident data set: uint8 in memory or on the device, scaled a whole batch at a time."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl.data.sources import load_labelled
from torchdl.errors import require


class ImageDataset(Dataset):
    """Labelled images, held as uint8 and given as float32 in [``low``, ``high``], up to float32's rounding.

    Shapes: N images, B in a batch, C channels, H x W pixels.

    Args:
        images: (N, C, H, W) or (N, H, W) uint8.
        labels: (N,) int64, or None for images alone.
        low: What the pixel value 0 becomes.
        high: What the pixel value 255 becomes.
        classes: The classes' names.
        origin: Where the images come from, for the user to read.
        stand_in: Whether they stand in for images that could not be had.

    ``dataset[i]`` is ``(image, label)``, or the image alone without labels; ``dataset[a:b]`` is a batch of them, and
    so is ``dataset.__getitems__(indices)``; with PyTorch's own ``DataLoader`` pass ``collate_fn=torchdl.whole_batch``.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        low: float = 0.0,
        high: float = 1.0,
        classes: Sequence[str] = (),
        origin: str = "memory",
        stand_in: bool = False,
    ) -> None:
        require(images.dtype == torch.uint8, f"images must be uint8, from 0 to 255, not {images.dtype}")
        require(images.dim() in (3, 4), f"images must be (N, C, H, W) or (N, H, W), not {tuple(images.shape)}")
        require(labels is None or len(labels) == len(images), "there must be one label an image")
        self.images = images if images.dim() == 4 else images.unsqueeze(1)  # (N, C, H, W)
        self.labels, self.classes, self.origin, self.stand_in = labels, tuple(classes), origin, stand_in
        self.low, self.range = torch.tensor(255.0 * float(low), dtype=torch.float32), float(high - low)

    def to(self, device: str | torch.device) -> ImageDataset:
        """Move the images to ``device``, in place, so that batches are made there; returns the data set itself."""
        self.images = self.images.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)
        return self

    def without_labels(self) -> ImageDataset:
        """Return the same images, not copied, as a data set of images alone."""
        bare = copy.copy(self)
        bare.labels = None
        return bare

    @property
    def device(self) -> torch.device:
        """The device that the images are on."""
        return self.images.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def fingerprint(self) -> str:
        """Return the SHA-256 of all images and labels, in hexadecimal: what a run's record names the data by."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            if tensor is not None:
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def scale(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels of any shape into float32 in [``low``, ``high``]."""
        # the add converts, too; dividing last keeps white at high
        return torch.add(self.low, pixels, alpha=self.range).div_(255)

    def spread(self, n: int) -> Any:
        """Return the batch of ``n`` images at equal distances, so of all classes where the set is sorted by class."""
        return self.__getitems__(torch.linspace(0, len(self) - 1, n).long().tolist())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        batch = self.__getitems__([index])
        return batch[0] if isinstance(batch, Tensor) else (batch[0][0], batch[1][0])

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Give the batch (B, C, H, W) float32, with its labels (B,) where there are any."""
        if not isinstance(indices, Tensor):
            indices = torch.tensor(list(indices), dtype=torch.int64, device=self.images.device)
        images = self.scale(self.images.index_select(0, indices))  # several times as fast as indexing
        return images if self.labels is None else (images, self.labels.index_select(0, indices))


def load_images(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    fetch: bool = True,
) -> ImageDataset:
    """Load a data set of labelled images by name, as :func:`torchdl.data.sources.load_labelled` finds it.

    Example:
        >>> digits = load_images("mnist_5k", low=-1, high=1)
        >>> len(digits), digits.image_shape
        (4500, (1, 28, 28))
    """
    found = load_labelled(name, split, root, fetch)
    return ImageDataset(found.images, found.labels, low, high, found.classes, found.origin, found.stand_in)
