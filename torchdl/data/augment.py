"""Shifts and flips of whole batches, where the images are, as the course augments its data (lecture 34)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl import random
from torchdl.data.images import ImageDataset
from torchdl.errors import require

SHIFTS, FLIPS = 0, 1  # streams: draws that must not be the same


class ShiftedImages(Dataset):
    """The images of a data set, each shifted and perhaps mirrored anew in every epoch.

    An image is moved by a whole number of pixels up to ``shift`` of its sides in both directions, its edge repeated
    where there is nothing (as Keras' ``fill_mode="nearest"`` does, whose shifts may be parts of a pixel), and
    mirrored with probability ``flip``. What is drawn depends on the seed, the epoch and the image's number alone.

    Args:
        images: What is shifted.
        shift: The share of a side that an image is moved by at most, in [0, 1).
        flip: The probability of mirroring an image, left and right.
        seed: What the shifts and flips are drawn from.

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

    def __init__(self, images: ImageDataset, shift: float = 0.1, flip: float = 0.5, seed: int = 0) -> None:
        plain = type(images).__getitems__ is ImageDataset.__getitems__
        require(plain, f"ShiftedImages moves images as they are held, not what {type(images).__name__} makes of them")
        require(0 <= shift < 1, f"shift must be a share of the sides in [0, 1), not {shift}")
        require(0 <= flip <= 1, f"flip must be a probability in [0, 1], not {flip}")
        self.images, self.shift, self.flip, self.seed, self.epoch = images, shift, flip, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Draw what is the epoch's."""
        self.epoch = epoch

    def to(self, device: str | torch.device) -> ShiftedImages:
        """Move the images to ``device``, in place; returns the data set itself."""
        self.images.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the images are on."""
        return self.images.device

    def order_settings(self) -> dict[str, float]:
        """Return what the batches depend on, for a checkpoint to compare."""
        return {
            "largest shift in %": 100 * self.shift,
            "flips in %": 100 * self.flip,
            "shifts' seed": self.seed,
        }

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        batch = self.__getitems__([range(len(self))[index]])
        return batch[0] if isinstance(batch, Tensor) else (batch[0][0], batch[1][0])

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Give the batch (B, C, H, W) float32, with its labels (B,) where there are any."""
        if self.shift == self.flip == 0:
            return self.images.__getitems__(indices)
        indices = self.images.indices(indices)
        pixels = self.images.pixels(indices)  # (B, C, H, W)
        channels, height, width = pixels.shape[1:]
        rows = self._moved(height, indices, 0)  # (B, H)
        columns = self._moved(width, indices, 1)  # (B, W)
        if self.flip:
            mirrored = random.uniform(self.seed, self.epoch, indices, 1, FLIPS) < self.flip  # (B, 1)
            columns = torch.where(mirrored, columns.flip(1), columns)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H, W) -> (B, H * W)
        source = source[:, None].expand(-1, channels, -1)  # (B, C, H * W)
        moved = pixels.flatten(2).gather(2, source).view_as(pixels)  # eight times as fast as indexing
        labels = self.images.labels
        scaled = self.images.scale(moved)
        return scaled if labels is None else (scaled, labels.index_select(0, indices))

    def _moved(self, side: int, indices: Tensor, axis: int) -> Tensor:
        """Draw for each image which of its rows (or columns) stands at each place: (B, side)."""
        most = int(self.shift * side + 1e-6)  # 0.29 * 100 is a little less than 29
        drawn = random.integers(2 * most + 1, self.seed, self.epoch, indices, 2, SHIFTS)[:, axis, None]  # (B, 1)
        return (torch.arange(side, device=indices.device) + (drawn - most)).clamp(0, side - 1)
