"""Random changes of images on their device, in whole batches: the course's augmentation (lectures 34 and 66).

Shapes: B images in a batch, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from torchdl import random
from torchdl.data.arrays import BatchDataset
from torchdl.data.images import ImageDataset
from torchdl.data.wrappers import View, look_through
from torchdl.errors import InputError, kind_of, require
from torchdl.field_docs import with_field_docs
from torchdl.overrides import Overrides

FillMode = Literal["nearest", "constant", "reflect", "wrap"]
SHIFTS, FLIPS, RANGES = 0, 1, 2  # streams of independent draws
MOVES = {"rotation_range", "width_shift_range", "height_shift_range", "shear_range", "zoom_range"}  # interpolated
VALUES = {"brightness_range", "channel_shift_range"}


@with_field_docs
@dataclass(frozen=True, kw_only=True)
class Augmentation(Overrides):
    """How training images are changed at random: the arguments of Keras' ``ImageDataGenerator``, and whole shifts.

    None means not at all. Every number is drawn for each image, uniformly from its range. Angles are in degrees, as in
    Keras, so lecture 66's shear of 0.1 moves hardly a pixel. :class:`AugmentedImages` checks the numbers.

    Example:
        >>> torchdl.Augmentation(rotation_range=20, zoom_range=0.2, horizontal_flip=True).horizontal_flip
        0.5
    """

    shift: float | None = None
    """Maximum horizontal and vertical shift of a training image by whole pixels, as a share of its sides; faster than
    the ranges below."""
    rotation_range: float | None = None
    """Maximum rotation of a training image to either side, in degrees; 20 in lecture 66."""
    width_shift_range: float | None = None
    """Maximum horizontal shift, also by parts of a pixel: a share of the width if below 1, otherwise pixels. In this
    direction it replaces shift; 0.1 in the course."""
    height_shift_range: float | None = None
    """The same for vertical shifts and the height."""
    shear_range: float | None = None
    """Maximum shear to either side, in degrees; 0.1 in lecture 66."""
    zoom_range: float | tuple[float, float] | None = None
    """Smallest and largest factor of the section's width and of its height: the picture gets larger below 1, smaller
    above. A number z means 1 - z and 1 + z; 0.2 in lecture 66."""
    horizontal_flip: float | None = None
    """Probability of mirroring an image left to right; 0.5 in the course (Keras' True)."""
    vertical_flip: float | None = None
    """Probability of mirroring an image top to bottom."""
    brightness_range: tuple[float, float] | None = None
    """Smallest and largest factor of all pixels, whose values stay from 0 to 255."""
    channel_shift_range: float | None = None
    """Maximum number that is added to all pixels (from 0 to 255), within the image's smallest and largest value."""
    fill_mode: FillMode | None = None
    """What fills gaps at the edges: the nearest pixel, the constant cval, the reflected or the repeated image; nearest
    if not given."""
    cval: float | None = None
    """The pixel value, from 0 to 255, that fills gaps with fill_mode constant; 0 if not given."""

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip"):
            if isinstance(value := getattr(self, name), bool):
                object.__setattr__(self, name, 0.5 * value)

    def check(self) -> None:
        """Raise :class:`InputError` if a number is outside its range."""
        degrees, pixels, inf = "degrees from 0 to", "a number from 0 to", math.inf
        limits = {
            "rotation_range": (degrees, 180.0),
            "width_shift_range": ("a number of", inf),
            "height_shift_range": ("a number of", inf),
            "channel_shift_range": (pixels, 255.0),
            "cval": (pixels, 255.0),
        }
        for name, (what, most) in limits.items():
            value = getattr(self, name) or 0
            limit = "0 or more" if most == inf else f"{most:g}"
            require(0 <= value <= most and value != inf, f"{name} must be {what} {limit}, not {value}")
        for name in ("horizontal_flip", "vertical_flip"):
            value = getattr(self, name) or 0
            require(0 <= value <= 1, f"{name} must be a probability in [0, 1], not {value}")
        require(0 <= (self.shift or 0) < 1, f"shift must be a share of the sides in [0, 1), not {self.shift}")
        require(0 <= (self.shear_range or 0) < 90, f"shear_range must be degrees in [0, 90), not {self.shear_range}")
        known = 0 < self.zooms[0] <= self.zooms[1] < inf
        require(known, f"zoom_range must be a number in [0, 1) or two ordered factors above 0, not {self.zoom_range}")
        low, high = as_pair(self.brightness_range or (1, 1))
        known = 0 <= low <= high < inf
        require(known, f"brightness_range must be two ordered factors of 0 or more, not {self.brightness_range}")
        modes = get_args(FillMode)
        require(self.fill_mode in (None, *modes), f"fill_mode must be one of {', '.join(modes)}, not {self.fill_mode}")

    @property
    def zooms(self) -> tuple[float, float]:
        """The smallest and the largest factor of the section's sides."""
        zoom = self.zoom_range or 0.0
        return (1 - zoom, 1 + zoom) if isinstance(zoom, (int, float)) else as_pair(zoom)

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that change images, and if there are any, those that say how."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        zeros = {"width_shift_range", "height_shift_range"} if self.shift else set()  # which replace it
        given = {name: value for name, value in given.items() if value or (name in zeros and value is not None)}
        return given if given.keys() - {"fill_mode", "cval"} else {}


def as_pair(values: Any) -> tuple[float, float]:
    """Return two numbers, and two that are not numbers for anything else."""
    return tuple(values) if isinstance(values, (tuple, list)) and len(values) == 2 else (math.nan, math.nan)


class AugmentedImages(BatchDataset[Tensor | tuple[Tensor, Tensor]]):
    """A data set's images, changed at random, differently in every epoch.

    Pixels move as in Keras' ``ImageDataGenerator``: by a zoom, a shear, a shift and a rotation about the centre, with
    one linear interpolation, and by flips. Then their values change. Two things differ from Keras 3: it exchanges the
    two shift ranges, and its centre is wrong for images that are not square. If there are only whole shifts and flips,
    pixels are copied, not interpolated.

    The draws depend only on the seed, the epoch and the image's index. Whole batches are made on the images' device:
    95,000 images of 3 x 32 x 32 a second with lecture 66's settings, and 8,900 by torchvision's ``RandomAffine`` and
    ``RandomHorizontalFlip`` in a ``DataLoader`` (medians of seven turns on one core of an AMD EPYC, PyTorch 2.14).

    Args:
        images: The images, or a PyTorch ``Subset`` of them, which is copied.
        augmentation: What changes, and how much.
        seed: The seed of the draws.

    Raises:
        InputError: The data set does not store pixels, or a number is outside its range.

    Example:
        >>> row = torchdl.ImageDataset(torch.tensor([[[0, 100, 200]]], dtype=torch.uint8), high=255)
        >>> moved = torchdl.AugmentedImages(row, torchdl.Augmentation(width_shift_range=1.5, horizontal_flip=True))
        >>> for epoch in range(3):
        ...     moved.set_epoch(epoch)
        ...     print(moved[0].flatten().int().tolist())
        [0, 25, 125]
        [200, 136, 36]
        [200, 200, 130]
    """

    def __init__(self, images: ImageDataset | Dataset, augmentation: Augmentation, seed: int = 0) -> None:
        seen, name = look_through(images), type(self).__name__
        if isinstance(seen, View) and len(seen.sources) == 1 and isinstance(seen.sources[0], ImageDataset):
            images = seen.sources[0].subset(seen.index.to(seen.device))
        found = type(images).__name__
        if not isinstance(images, ImageDataset):
            raise InputError(f"{name} changes an ImageDataset or a Subset of one, not a {found}: make one first")
        plain = type(images).__getitems__ is ImageDataset.__getitems__
        require(plain, f"{name} changes stored pixels, but {found} renders its images")
        if not isinstance(augmentation, Augmentation):
            write = "Augmentation(**options)" if isinstance(augmentation, dict) else "Augmentation(rotation_range=10)"
            raise InputError(f"{name} needs an Augmentation, not {kind_of(augmentation)}: write {write}")
        augmentation.check()
        self.images, self.augmentation, self.seed, self.epoch = images, augmentation, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose changes are drawn."""
        self.epoch = epoch

    def to(self, device: str | torch.device) -> AugmentedImages:
        """Move the images to ``device`` in place; return the data set itself."""
        self.images.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the images are on."""
        return self.images.device

    def examples(self, index: int = 0, count: int = 8) -> dict[str, Tensor]:
        """Return what each setting alone, and all together, make of one image in the first epochs.

        Args:
            index: The image's index.
            count: n, the number of epochs.

        Returns:
            By name: images (n, C, H, W) in [0, 1], as :func:`torchdl.plots.plot_image_rows` draws them.
        """
        chosen = self.augmentation.chosen
        manners = {name: chosen[name] for name in ("fill_mode", "cval") if name in chosen}
        rows = {f"{name} {chosen[name]}": {name: chosen[name], **manners} for name in chosen if name not in manners}
        images, rows = self.images.without_labels().subset(torch.tensor([index])), {**rows, "all": chosen}
        shown = {}
        for name, settings in rows.items():
            alone, epochs = AugmentedImages(images, Augmentation(**settings), self.seed), []
            for epoch in range(count):
                alone.set_epoch(epoch)
                epochs.append(alone[0])
            shown[name] = self.images.unscale(torch.stack(cast("list[Tensor]", epochs)))
        return shown

    def order_settings(self) -> dict[str, Any]:
        """Return the settings that determine the batches; a checkpoint compares them."""
        others = self.augmentation.chosen
        shift, flip = others.pop("shift", 0.0), others.pop("horizontal_flip", 0.0)
        known = {"largest shift in %": 100 * shift, "flips in %": 100 * flip, "shifts' seed": self.seed}
        return {**known, **{f"augmentation's {name}": str(value) for name, value in others.items()}}

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Return the batch (B, C, H, W) float32, with labels (B,) if the images have them."""
        chosen = self.augmentation.chosen
        if not chosen:
            return self.images.__getitems__(indices)
        indices = self.images.indices(indices)
        pixels = self.images.pixels(indices)  # (B, C, H, W)
        whole = not chosen.keys() & MOVES and (
            self.augmentation.fill_mode in (None, "nearest") or "shift" not in chosen
        )
        pixels = self._copied(pixels, indices) if whole else self._interpolated(pixels, indices)
        if chosen.keys() & VALUES:
            pixels = self._recoloured(pixels, indices)
        labels = self.images.labels
        scaled = self.images.scale(pixels)
        return scaled if labels is None else (scaled, labels.index_select(0, indices))

    def _shares(self, indices: Tensor) -> tuple[Tensor, ...]:
        """Draw where in its range each setting is: eight of (B,)."""
        return random.uniform(self.seed, self.epoch, indices, 8, RANGES).unbind(1)

    def _whole_shifts(self, indices: Tensor) -> Tensor:
        """Draw the distances, in whole pixels, of the rows and of the columns to copy: (B, 2)."""
        # 0.29 * 100 is slightly less than 29
        limits = [int((self.augmentation.shift or 0) * side + 1e-6) for side in self.images.image_shape[1:]]
        limit = torch.full((2,), limits[0], device=indices.device)
        limit[1] = limits[1]  # copying both from the CPU would make it wait for the device
        return random.integers(2 * limit + 1, self.seed, self.epoch, indices, 2, SHIFTS) - limit

    def _mirrored(self, indices: Tensor) -> Tensor:
        """Draw whether the rows and whether the columns are in reverse: (B, 2)."""
        drawn = random.uniform(self.seed, self.epoch, indices, 2, FLIPS)  # left to right, upside down
        horizontal, vertical = self.augmentation.horizontal_flip or 0, self.augmentation.vertical_flip or 0
        return torch.stack([drawn[:, 1] < vertical, drawn[:, 0] < horizontal], 1)

    def _copied(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Shift by whole pixels and mirror (B, C, H, W): every pixel is a copy of one."""
        channels, height, width = pixels.shape[1:]
        shifts, mirrored = self._whole_shifts(indices), self._mirrored(indices)
        sources = []  # the source row (or column) of each row (or column) of each image: (B, side)
        for axis, side in enumerate((height, width)):
            source = (torch.arange(side, device=pixels.device) + shifts[:, axis, None]).clamp(0, side - 1)
            sources.append(torch.where(mirrored[:, axis, None], source.flip(1), source))
        source = (sources[0][:, :, None] * width + sources[1][:, None, :]).flatten(1)  # (B, H, W) -> (B, H * W)
        source = source[:, None].expand(-1, channels, -1)  # (B, C, H * W)
        return pixels.flatten(2).gather(2, source).view_as(pixels)  # 8x faster than indexing

    def _interpolated(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Move (B, C, H, W) by an affine map of each image, and mirror."""
        settings, shares, whole = self.augmentation, self._shares(indices), self._whole_shifts(indices)
        shifts = [
            whole[:, axis] if most is None else around(most if most >= 1 else most * side, shares[axis])
            for axis, (most, side) in enumerate(
                zip((settings.height_shift_range, settings.width_shift_range), pixels.shape[2:], strict=True)
            )
        ]
        matrix = affine_matrix(
            around(settings.rotation_range, shares[2]),
            shifts[1],
            shifts[0],
            around(settings.shear_range, shares[3]),
            *(between(settings.zooms, shares[number]) for number in (4, 5)),
        )
        matrix[:, :, :2] *= 1 - 2 * self._mirrored(indices).flip(1)[:, None].float()  # the result is mirrored
        return warp(pixels.float(), matrix, settings.fill_mode or "nearest", settings.cval or 0)

    def _recoloured(self, pixels: Tensor, indices: Tensor) -> Tensor:
        """Change the values of (B, C, H, W), from 0 to 255, by a number for each image."""
        settings, shares = self.augmentation, self._shares(indices)
        if settings.channel_shift_range:
            least, most = pixels.amin((1, 2, 3), keepdim=True), pixels.amax((1, 2, 3), keepdim=True)
            pixels = (pixels + around(settings.channel_shift_range, shares[7])[:, None, None, None]).clamp(least, most)
        if settings.brightness_range:
            pixels = (pixels * between(settings.brightness_range, shares[6])[:, None, None, None]).clamp(0, 255)
        return pixels


class ShiftedImages(AugmentedImages):
    """A data set's images, randomly shifted by whole pixels and mirrored, differently in every epoch.

    It is :class:`AugmentedImages` with ``Augmentation(shift=shift, horizontal_flip=flip)``. Edge pixels fill gaps.

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
        super().__init__(images, Augmentation(shift=shift, horizontal_flip=flip), seed)


def between(limits: tuple[float, float], share: Tensor) -> Tensor:
    """Return the numbers that have these shares, in [0, 1), of the way from one limit to the other."""
    return limits[0] + (limits[1] - limits[0]) * share


def around(most: float | None, share: Tensor) -> Tensor:
    """Return the same for a range around 0; zeros if there is none."""
    return between((-(most or 0.0), most or 0.0), share)


def affine_matrix(
    rotation: Tensor, right: Tensor, down: Tensor, shear: Tensor, zoom_x: Tensor, zoom_y: Tensor
) -> Tensor:
    """Return which point (x, y) of an image each point of its changed version shows, about the centre: (B, 2, 3).

    It is the product of Keras' matrices of a rotation, a shift, a shear and a zoom.

    Args:
        rotation, shear: (B,) in degrees.
        right, down: (B,) in pixels: how far from a place it looks, so that the picture moves the other way.
        zoom_x, zoom_y: (B,) the section's width and height, as factors.

    Example:
        >>> from torchdl.data.augment import affine_matrix
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> affine_matrix(zero, 3 * one, zero, zero, 2 * one, one)
        tensor([[[2., -0., 3.],
                 [0., 1., 0.]]])
    """
    turned, sheared = torch.deg2rad(rotation), torch.deg2rad(rotation + shear)
    cosine, sine = turned.cos(), turned.sin()
    rows = [
        torch.stack([cosine * zoom_x, -sheared.sin() * zoom_y, cosine * right - sine * down], 1),
        torch.stack([sine * zoom_x, sheared.cos() * zoom_y, sine * right + cosine * down], 1),
    ]
    return torch.stack(rows, 1)


def warp(pixels: Tensor, matrix: Tensor, fill_mode: FillMode = "nearest", cval: float = 0.0) -> Tensor:
    """Show other points of images, interpolated linearly between pixels, as SciPy's ``affine_transform`` does.

    Each image has a matrix of its own. (``torchvision.transforms.v2.functional.affine`` has one for a whole batch, and
    image by image it takes seven times as long.)

    Args:
        pixels: (B, C, H, W), floating-point.
        matrix: (B, 2, 3); see :func:`affine_matrix`.
        fill_mode: What is outside the images.
        cval: The value outside, with ``fill_mode="constant"``.

    Returns:
        (B, C, H, W).

    Example:
        >>> from torchdl.data.augment import warp
        >>> half = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # look half a pixel to the right
        >>> warp(torch.tensor([[[[0.0, 2.0, 4.0]]]]), half).round()
        tensor([[[[1., 3., 4.]]]])
    """
    count, _, height, width = pixels.shape
    grid = pixels.new_empty(count, height, width, 2)
    x, y = (torch.arange(side, device=pixels.device) - (side - 1) / 2 for side in (width, height))
    for axis in range(2):
        along, across, shift = matrix[:, axis].unbind(1)
        # one operation after another, not a product of matrices: equal to the bit in batches of any size
        start = (across[:, None] * y + shift[:, None])[:, :, None]  # (B, H, 1)
        torch.add(along[:, None, None] * x, start, out=grid[..., axis])
    last = pixels.new_full((2,), (width - 1) / 2)
    last[1] = (height - 1) / 2
    if fill_mode in ("constant", "wrap"):
        outside = grid.abs() > last * (1 + 1e-6)  # rounding moves a pixel at the edge by less
        if fill_mode == "wrap":  # as in SciPy, the last pixel is the first of the next image
            grid = torch.where(outside, (grid + last) % (2 * last).clamp(min=1) - last, grid)
    grid *= 1 / (last + 0.5)
    mode = "reflection" if fill_mode == "reflect" else "border"
    warped = F.grid_sample(pixels, grid, "bilinear", mode, align_corners=False)
    return warped.masked_fill_(outside.any(3)[:, None], cval) if fill_mode == "constant" else warped
