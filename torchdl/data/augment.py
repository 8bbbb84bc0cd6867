"""Random shifts and flips on the images' device, in whole batches: the course's augmentation (lecture 34)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl import random
from torchdl.data.arrays import BatchDataset
from torchdl.data.images import ImageDataset
from torchdl.data.wrappers import View, look_through
from torchdl.errors import InputError, require

SHIFTS, FLIPS = 0, 1  # streams of independent draws


class ShiftedImages(BatchDataset[Tensor | tuple[Tensor, Tensor]]):
    """A data set's images, randomly shifted and flipped, differently in every epoch.

    Each image is shifted horizontally and vertically by whole pixels, and its edge pixels fill the gap. (Keras'
    ``fill_mode="nearest"`` does the same, but its shifts may be fractions of a pixel.) The draws depend only on the
    seed, the epoch and the image's index.

    Args:
        images: The images, or a PyTorch ``Subset`` of them, which is copied.
        shift: The maximum shift, as a share of the image's sides, in [0, 1).
        flip: The probability of flipping an image left to right.
        seed: The seed of the shifts and flips.

    Raises:
        InputError: The data set does not store pixels, or a number is outside its range.

    Example:
        >>> row = torchdl.ImageDataset(torch.tensor([[[1, 2, 3, 4]]], dtype=torch.uint8), high=255)
        >>> shifted = torchdl.ShiftedImages(row, shift=0.25)
        >>> for epoch in range(4):
        ...     shifted.set_epoch(epoch)
        ...     print(shifted[0].flatten().int().tolist())
        [1, 1, 2, 3]
        [4, 4, 3, 2]
        [3, 2, 1, 1]
        [2, 3, 4, 4]
    """

    def __init__(self, images: ImageDataset | Dataset, shift: float = 0.1, flip: float = 0.5, seed: int = 0) -> None:
        seen = look_through(images)
        if isinstance(seen, View) and len(seen.sources) == 1 and isinstance(seen.sources[0], ImageDataset):
            images = seen.sources[0].subset(seen.index.to(seen.device))
        found = type(images).__name__
        if not isinstance(images, ImageDataset):
            raise InputError(f"ShiftedImages shifts an ImageDataset or a Subset of one, not a {found}: make one first")
        plain = type(images).__getitems__ is ImageDataset.__getitems__
        require(plain, f"ShiftedImages shifts stored pixels, but {found} renders its images")
        require(0 <= shift < 1, f"shift must be a share of the sides in [0, 1), not {shift}")
        require(0 <= flip <= 1, f"flip must be a probability in [0, 1], not {flip}")
        self.images, self.shift, self.flip, self.seed, self.epoch = images, shift, flip, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose shifts and flips are drawn."""
        self.epoch = epoch

    def to(self, device: str | torch.device) -> ShiftedImages:
        """Move the images to ``device`` in place; return the data set itself."""
        self.images.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the images are on."""
        return self.images.device

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the batches; a checkpoint compares them."""
        return {"largest shift in %": 100 * self.shift, "flips in %": 100 * self.flip, "shifts' seed": self.seed}

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Return the batch (B, C, H, W) float32, with labels (B,) if the images have them."""
        if self.shift == self.flip == 0:
            return self.images.__getitems__(indices)
        indices = self.images.indices(indices)
        pixels = self.images.pixels(indices)  # (B, C, H, W)
        channels, height, width = pixels.shape[1:]
        rows = self._sources(height, indices, 0)  # (B, H)
        columns = self._sources(width, indices, 1)  # (B, W)
        if self.flip:
            flipped = random.uniform(self.seed, self.epoch, indices, 1, FLIPS) < self.flip  # (B, 1)
            columns = torch.where(flipped, columns.flip(1), columns)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H, W) -> (B, H * W)
        source = source[:, None].expand(-1, channels, -1)  # (B, C, H * W)
        moved = pixels.flatten(2).gather(2, source).view_as(pixels)  # 8x faster than indexing
        labels = self.images.labels
        scaled = self.images.scale(moved)
        return scaled if labels is None else (scaled, labels.index_select(0, indices))

    def _sources(self, side: int, indices: Tensor, axis: int) -> Tensor:
        """Draw shifts; return the source row (or column) of each row (or column) of each image: (B, side)."""
        limit = int(self.shift * side + 1e-6)  # 0.29 * 100 is slightly less than 29
        drawn = random.integers(2 * limit + 1, self.seed, self.epoch, indices, 2, SHIFTS)[:, axis, None]  # (B, 1)
        return (torch.arange(side, device=indices.device) + (drawn - limit)).clamp(0, side - 1)
