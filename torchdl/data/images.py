"""Images stored as uint8 in memory or on the device, and scaled in whole batches."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from torchdl import random
from torchdl.data.arrays import BatchDataset, as_classes, as_tensor
from torchdl.data.duplicates import hashes
from torchdl.data.folder import DecodedLate, named, read_folder
from torchdl.data.info import fingerprint
from torchdl.data.sources import data_roots, load_labelled, names
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import MAX_PIXELS, is_channels_last


def at_equal_distances(total: int, count: int) -> Tensor:
    """Return ``count`` equally spaced indices below ``total``: (count,) int64."""
    return torch.linspace(0, total - 1, count).long()


class ImageDataset(BatchDataset[Any]):
    """Labelled images, stored as uint8 and returned as float32 in [``low``, ``high``], up to rounding.

    Shapes: N images, B in a batch, C channels, H x W pixels.

    Args:
        images: (N, C, H, W) or (N, H, W) uint8, a tensor or a NumPy array; or files that are decoded on access.
        labels: (N,) int64, or None for images without labels.
        low: The pixel value 0 becomes this value.
        high: The pixel value 255 becomes this value.
        classes: The classes' names.
        origin: Where the images come from, in words.
        fallback: Whether they replace images that were not found.

    ``dataset[i]`` is ``(image, label)``, or just the image if there are no labels. ``dataset[a:b]`` and
    ``dataset.__getitems__(indices)`` are batches. PyTorch's ``DataLoader`` needs ``collate_fn=torchdl.whole_batch``.

    Raises:
        InputError: The images or labels have another shape or type, or differ in number.

    Example:
        >>> pixels = torch.tensor([[[0, 255]]], dtype=torch.uint8)
        >>> images = torchdl.ImageDataset(pixels, torch.tensor([1]), low=-1, classes=("cat", "dog"))
        >>> images[0]
        (tensor([[[-1.,  1.]]]), tensor(1))
        >>> images.image_shape, images.without_labels()[0]
        ((1, 1, 2), tensor([[[-1.,  1.]]]))
    """

    def __init__(
        self,
        images: Tensor | DecodedLate,
        labels: Tensor | None = None,
        low: float = 0.0,
        high: float = 1.0,
        classes: Sequence[str] = (),
        origin: str = "memory",
        fallback: bool = False,
    ) -> None:
        turn = "permute" if isinstance(images, Tensor) else "transpose"
        images = images if isinstance(images, DecodedLate) else as_tensor(images, "images")
        labels = labels if labels is None else as_classes(labels, "labels")
        require(images.dtype == torch.uint8, f"images must be uint8, from 0 to 255, not {images.dtype}")
        require(images.dim() in (3, 4), f"images must be (N, C, H, W) or (N, H, W), not {tuple(images.shape)}")
        last = f"images must be (N, C, H, W), not {tuple(images.shape)}: write images.{turn}(0, 3, 1, 2)"
        require(not is_channels_last(images.shape[1:]), last)
        if labels is not None:
            mend = "argmax(1)" if labels.numel() > len(labels) else "flatten()"
            require(labels.dim() == 1, f"labels must be (N,), not {tuple(labels.shape)}: write labels.{mend}")
            require(len(labels) == len(images), f"there are {len(labels)} labels for {len(images)} images")
            require(labels.dtype == torch.int64, f"labels must be int64, the indices of classes, not {labels.dtype}")
            known = bool((labels >= 0).all()) and (not classes or bool((labels < len(classes)).all()))
            expected = f"from 0 to {len(classes) - 1}" if classes else "0 or more"
            require(known, f"the labels must be {expected}, the indices of classes")
        if isinstance(images, Tensor) and images.dim() == 3:
            images = images.unsqueeze(1)  # (N, H, W) -> (N, C, H, W)
        self.images = cast(Tensor, images)  # files decoded on access have the tensor methods used here
        self.labels, self.classes, self.origin, self.fallback = labels, tuple(classes), origin, fallback
        self.low, self.range = torch.tensor(255.0 * float(low), dtype=torch.float32), float(high - low)

    def to(self, device: str | torch.device) -> ImageDataset:
        """Move the images to ``device`` in place, so that batches are made there; return the data set itself."""
        self.images = self.images.to(device)
        self.labels = None if self.labels is None else self.labels.to(self.device)  # files stay on the CPU
        return self

    def scaled_to(self, low: float, high: float = 1.0) -> ImageDataset:
        """Return a data set of the same images (not copied) with pixels in [``low``, ``high``]."""
        other = copy.copy(self)
        other.low, other.range = torch.tensor(255.0 * float(low), dtype=torch.float32), float(high - low)
        return other

    def without_labels(self) -> ImageDataset:
        """Return a data set of the same images (not copied) without labels."""
        bare = copy.copy(self)
        bare.labels = None
        return bare

    def subset(self, indices: Tensor) -> ImageDataset:
        """Return a new data set of the images with these indices (n,), in that order, and their labels."""
        part = copy.copy(self)
        part.images = self.images[indices]
        part.labels = None if self.labels is None else self.labels[indices.to(self.labels.device)]
        return part

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
        """Return the SHA-256 of all images and labels, in hexadecimal; a run's record identifies the data by it."""
        # reading all files that are decoded on access would take too long
        digest = self.images.digest if isinstance(self.images, DecodedLate) else ""
        tensors = [tensor for tensor in (self.images, self.labels) if isinstance(tensor, Tensor)]
        return fingerprint(tensors, f"{tuple(self.images.shape)}{digest}")

    def hashes(self) -> Tensor:
        """Return a number per image (N,) int64; equal images have equal numbers, and other ones do not in practice."""
        found = self.images.hashes if isinstance(self.images, DecodedLate) else hashes(self.images)
        return torch.from_numpy(found.view(np.int64).copy())  # PyTorch warns of read-only arrays

    def indices(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return indices as a tensor (B,); a sequence becomes a tensor on the images' device."""
        if isinstance(indices, Tensor):
            return indices
        return torch.tensor(list(indices), dtype=torch.int64, device=self.device)

    def pixels(self, indices: Tensor) -> Tensor:
        """Return the stored images (B, C, H, W), uint8."""
        return self.images.index_select(0, indices)  # several times faster than indexing

    def scale(self, pixels: Tensor) -> Tensor:
        """Scale uint8 pixels of any shape to float32 in [``low``, ``high``]."""
        # the addition also converts to float32; dividing last maps 255 exactly to high
        return torch.add(self.low, pixels, alpha=self.range).div_(255)

    def unscale(self, images: Tensor) -> Tensor:
        """Scale pixels from [``low``, ``high``] to [0, 1], to show or save them."""
        return (images - self.low.item() / 255) / self.range

    def spread(self, n: int) -> Any:
        """Return a batch of ``n`` equally spaced images; if the images are sorted by class, it has all classes."""
        return self.__getitems__(at_equal_distances(len(self), n).to(self.device))

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Return the batch (B, C, H, W) float32, with labels (B,) if there are any."""
        indices = self.indices(indices)
        images = self.scale(self.pixels(indices))
        return images if self.labels is None else (images, self.labels.index_select(0, indices))


def draw_per_class(images: ImageDataset, counts: Sequence[int], seed: int = 0) -> list[ImageDataset]:
    """Draw disjoint parts of a labelled data set; part i has ``counts[i]`` images of every class.

    The same ``seed`` draws the same images.

    Raises:
        InputError: A class has too few images.
    """
    require(min(counts) >= 1, f"draw at least 1 image of every class, not {min(counts)}")
    require(images.labels is not None, "images without labels cannot be drawn by class")
    labels = cast(Tensor, images.labels).cpu()
    generator = torch.Generator().manual_seed(random.key(seed))
    drawn: list[list[Tensor]] = [[] for _ in counts]
    for label in range(len(images.classes) or int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        name = images.classes[label] if images.classes else label
        rest = len(members) - sum(counts)
        require(rest >= 0, f"the class {name} has {len(members):,} images, fewer than {sum(counts):,}: draw fewer")
        members = members[torch.randperm(len(members), generator=generator)]
        for indices, chosen in zip(drawn, members.split([*counts, rest]), strict=False):
            indices.append(chosen)
    parts = [images.subset(torch.cat(indices).sort().values.to(images.device)) for indices in drawn]
    for part, count in zip(parts, counts, strict=True):
        part.origin = f"{len(part):,} of {images.origin}, {count:,} of every class (drawn by the seed {seed})"
    return parts


def load_images(
    name: PathLike,
    split: str = "train",
    root: PathLike | None = None,
    low: float = 0.0,
    high: float = 1.0,
    fetch: bool = True,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    white_value: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ImageDataset:
    """Load labelled images: a data set by name, or any folder with ``train/<class>/`` and ``test/<class>/``.

    Args:
        name: One of :func:`torchdl.data.sources.names`, or a folder, relative to the working folder or a data root.
        split: ``train`` or ``test``.
        root: The data folder; see :mod:`torchdl.data.sources` for the other places.
        low: The new value of black pixels.
        high: The new value of white pixels.
        fetch: Whether to download missing data.
        image_size: The side in pixels to which a folder's images are resized; None if all have the same size.
        skip_corrupt: Whether to leave out a folder's unreadable files; ``origin`` then names them.
        white_value: The value of white in a folder's greys of more than eight bits; None for what the files say.
        max_pixels: The maximum width times height of a folder's images.

    Raises:
        InputError: The data was not found or cannot be used.

    Example:
        >>> digits = torchdl.load_images("mnist_5k", low=-1, high=1)
        >>> len(digits), digits.image_shape
        (4500, (1, 28, 28))
    """
    name = os.fspath(name)
    folder = next((f for r in (Path(), *data_roots(root)) if (f := r / name).is_dir() and name), None)
    if name in names() or folder is None:
        require(image_size is None or name not in names(), "only a folder's images are resized: leave out image_size")
        found = load_labelled(name, split, root, fetch)
        return ImageDataset(found.images, found.labels, low, high, found.classes, found.origin, found.fallback)
    files = read_folder(folder, split, image_size, skip_corrupt, None, white_value, max_pixels)
    origin = f"{len(files.labels):,} images from {folder / split if (folder / split).is_dir() else folder}"
    if files.corrupt:
        origin += f"; left out {named(files.corrupt, what='unreadable image')}"
    return ImageDataset(files.images, files.labels, low, high, files.classes, "; ".join([origin, *files.notes]))
