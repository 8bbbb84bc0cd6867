"""Images as a resident data set: uint8 in memory or on the device, scaled a whole batch at a time."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl import random
from torchdl.data.folder import DecodedLate, read_folder
from torchdl.data.sources import data_roots, load_labelled, names
from torchdl.errors import require


def at_equal_distances(total: int, count: int) -> Tensor:
    """Choose ``count`` of the numbers below ``total``, at equal distances: (count,) int64."""
    return torch.linspace(0, total - 1, count).long()


class ImageDataset(Dataset):
    """Labelled images, held as uint8 and given as float32 in [``low``, ``high``], up to float32's rounding.

    Shapes: N images, B in a batch, C channels, H x W pixels.

    Args:
        images: (N, C, H, W) or (N, H, W) uint8; or files that are decoded late.
        labels: (N,) int64, or None for images alone.
        low: What the pixel value 0 becomes.
        high: What the pixel value 255 becomes.
        classes: The classes' names.
        origin: Where the images come from, for the user to read.
        fallback: Whether they stand in for images that could not be had.

    ``dataset[i]`` is ``(image, label)``, or the image alone without labels; ``dataset[a:b]`` is a batch of them, and
    so is ``dataset.__getitems__(indices)``; with PyTorch's own ``DataLoader`` pass ``collate_fn=torchdl.whole_batch``.

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
        require(images.dtype == torch.uint8, f"images must be uint8, from 0 to 255, not {images.dtype}")
        require(images.dim() in (3, 4), f"images must be (N, C, H, W) or (N, H, W), not {tuple(images.shape)}")
        require(labels is None or len(labels) == len(images), "there must be one label an image")
        if labels is not None:
            require(labels.dtype == torch.int64, f"labels must be int64, the numbers of classes, not {labels.dtype}")
            known = bool((labels >= 0).all()) and (not classes or bool((labels < len(classes)).all()))
            most = f"from 0 to {len(classes) - 1}" if classes else "0 or more"
            require(known, f"the labels must be {most}, a number for each of the classes")
        if isinstance(images, Tensor) and images.dim() == 3:
            images = images.unsqueeze(1)  # (N, H, W) -> (N, C, H, W)
        self.images = cast(Tensor, images)  # files decoded late have what is used of a tensor here
        self.labels, self.classes, self.origin, self.fallback = labels, tuple(classes), origin, fallback
        self.low, self.range = torch.tensor(255.0 * float(low), dtype=torch.float32), float(high - low)

    def to(self, device: str | torch.device) -> ImageDataset:
        """Move the images to ``device``, in place, so that batches are made there; returns the data set itself."""
        self.images = self.images.to(device)
        self.labels = None if self.labels is None else self.labels.to(self.device)  # files stay with the CPU
        return self

    def without_labels(self) -> ImageDataset:
        """Return the same images, not copied, as a data set of images alone."""
        bare = copy.copy(self)
        bare.labels = None
        return bare

    def subset(self, indices: Tensor) -> ImageDataset:
        """Return the images numbered ``indices`` (n,), in that order, with their labels, as a data set of their own."""
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
        """Return the SHA-256 of all images and labels, in hexadecimal: what a run's record names the data by."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        if isinstance(self.images, DecodedLate):
            digest.update(self.images.digest.encode())  # to read them all would take too long
        for tensor in (self.images, self.labels):
            if isinstance(tensor, Tensor):
                digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def indices(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return indices as a tensor (B,) where the images are."""
        if isinstance(indices, Tensor):
            return indices
        return torch.tensor(list(indices), dtype=torch.int64, device=self.device)

    def pixels(self, indices: Tensor) -> Tensor:
        """Give the images (B, C, H, W) as they are held, uint8."""
        return self.images.index_select(0, indices)  # several times as fast as indexing

    def scale(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels of any shape into float32 in [``low``, ``high``]."""
        # the add converts, too; dividing last keeps white at high
        return torch.add(self.low, pixels, alpha=self.range).div_(255)

    def unscale(self, images: Tensor) -> Tensor:
        """Turn what :meth:`scale` has made into values in [0, 1], for a picture."""
        return (images - self.low.item() / 255) / self.range

    def spread(self, n: int) -> Any:
        """Return the batch of ``n`` images at equal distances, so of all classes where the set is sorted by class."""
        return self.__getitems__(at_equal_distances(len(self), n).to(self.device))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        batch = self.__getitems__([range(len(self))[index]])  # IndexError where there is none, counted from the end too
        return batch[0] if isinstance(batch, Tensor) else (batch[0][0], batch[1][0])

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Give the batch (B, C, H, W) float32, with its labels (B,) where there are any."""
        indices = self.indices(indices)
        images = self.scale(self.pixels(indices))
        return images if self.labels is None else (images, self.labels.index_select(0, indices))


def draw_per_class(images: ImageDataset, counts: Sequence[int], seed: int = 0) -> list[ImageDataset]:
    """Draw disjoint parts of a labelled data set, the first with ``counts[0]`` images of every class, and so on.

    Raises:
        InputError: A class has fewer images than are to be drawn.
    """
    require(min(counts) >= 1, f"draw 1 or more images of every class, not {min(counts)}")
    require(images.labels is not None, "images can be drawn by their classes only where they have labels")
    labels = cast(Tensor, images.labels).cpu()
    generator = torch.Generator().manual_seed(random.key(seed))
    drawn: list[list[Tensor]] = [[] for _ in counts]
    for label in range(len(images.classes) or int(labels.max()) + 1):
        members = (labels == label).nonzero()[:, 0]
        name = images.classes[label] if images.classes else label
        require(
            len(members) >= sum(counts),
            f"the class {name} has {len(members):,} images, and {sum(counts):,} are to be drawn: draw fewer",
        )
        members = members[torch.randperm(len(members), generator=generator)]
        for numbers, chosen in zip(drawn, members.split([*counts, len(members) - sum(counts)]), strict=False):
            numbers.append(chosen)
    parts = [images.subset(torch.cat(numbers).sort().values.to(images.device)) for numbers in drawn]
    for part, count in zip(parts, counts, strict=True):
        part.origin = f"{len(part):,} of {images.origin}, {count:,} of every class (drawn by the seed {seed})"
    return parts


def load_images(
    name: str | os.PathLike[str],
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    low: float = 0.0,
    high: float = 1.0,
    fetch: bool = True,
    image_size: int | None = None,
    skip_corrupt: bool = False,
) -> ImageDataset:
    """Load labelled images: a data set by name, or any folder that holds ``train/<class>/`` and ``test/<class>/``.

    Args:
        name: One of :func:`torchdl.data.sources.names`, or a folder, from here or within a data root.
        split: ``train`` or ``test``.
        root: The data folder; see :mod:`torchdl.data.sources` for where else is looked.
        low: What black becomes.
        high: What white becomes.
        fetch: Whether to download what is not on this machine.
        image_size: Pixels a side that a folder's images are resized to; None where they are of one size.
        skip_corrupt: Leave out a folder's files that cannot be read, and say which.

    Raises:
        InputError: Nothing of that name was found, or what was found cannot be used.

    Example:
        >>> digits = torchdl.load_images("mnist_5k", low=-1, high=1)
        >>> len(digits), digits.image_shape
        (4500, (1, 28, 28))
    """
    name = os.fspath(name)
    folder = next((f for r in (Path(), *data_roots(root)) if (f := r / name).is_dir() and name), None)
    if name in names() or folder is None:
        require(image_size is None or name not in names(), "only a folder's images are resized: leave --image-size out")
        found = load_labelled(name, split, root, fetch)
        return ImageDataset(found.images, found.labels, low, high, found.classes, found.origin, found.fallback)
    files = read_folder(folder, split, image_size, skip_corrupt)
    origin = f"{len(files.labels):,} images from {folder / split if (folder / split).is_dir() else folder}"
    if files.corrupt:
        more = f" and {len(files.corrupt) - 5:,} more" if len(files.corrupt) > 5 else ""
        named = ", ".join(files.corrupt[:5])
        origin += f"; {len(files.corrupt):,} that cannot be read were left out: {named}{more}"
    return ImageDataset(files.images, files.labels, low, high, files.classes, origin)
