"""A convolutional classifier similar to LeNet (LeCun et al. 1998), of any width and depth.

Shapes: B images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.fast.blocks import suits_blocks
from torchdl.models.arguments import plain_arguments, require_tensor
from torchdl.models.init import keras_init_
from torchdl.pictures import is_channels_last

MAX_NUMBERS = 2**28  # of an image


@plain_arguments
class LenetLike(nn.Module):
    """Classify images by convolutions and max-pooling, a hidden layer and a linear layer.

    Each of ``depth`` stages is a 3x3 convolution that keeps the sides, ReLU, and max-pooling that halves them (13
    becomes 6). The first stage has ``width`` filters; each further one has twice as many as the one before.

    Args:
        in_shape: (C, H, W); H and W at least ``2**depth``.
        num_classes: K.
        width: Filters of the first convolution.
        depth: Number of convolutions.
        hidden: Units of the hidden layer.

    Raises:
        InputError: A size is not positive, or the depth does not suit the images.

    Example:
        >>> model, images = torchdl.LenetLike((1, 28, 28), num_classes=10, width=8), torch.zeros(2, 1, 28, 28)
        >>> model(images).shape, model.hidden_units(images).shape
        (torch.Size([2, 10]), torch.Size([2, 512]))
        >>> torchdl.LenetLike((1, 28, 28), 10, depth=5)
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: LenetLike: depth must be from 0 to 4 for 28x28 pixels, not 5
    """

    def __init__(
        self, in_shape: Sequence[int], num_classes: int, width: int = 32, depth: int = 2, hidden: int = 512
    ) -> None:
        super().__init__()
        channels, height, width_in = check_classifier(self, in_shape, num_classes)
        require(min(width, hidden) >= 1, "LenetLike: width and hidden must be positive")
        most = min(height, width_in).bit_length() - 1
        size = f"{height}x{width_in} pixels"
        require(0 <= depth <= most, f"LenetLike: depth must be from 0 to {most} for {size}, not {depth}")
        self.in_shape, self.num_classes = tuple(in_shape), num_classes
        self.width, self.depth, self.hidden = width, depth, hidden
        stages: list[nn.Module] = []
        for stage in range(depth):
            filters = width * 2**stage
            # ReLU after pooling equals ReLU before it, at a quarter of the cost;
            # not in place: in oneDNN's blocked layout, the derivative of pooling needs its unchanged output
            stages += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
            channels = filters
        self.features = keras_init_(nn.Sequential(*stages))
        flat = channels * (height >> depth) * (width_in >> depth)
        self.classifier = keras_init_(classifier(flat, hidden, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        logits = self.classifier(self.features(prepared(images, self.in_shape, blocks_for=self)))
        return logits.to_dense() if logits.is_mkldnn else logits

    def hidden_units(self, images: Tensor) -> Tensor:
        """Return the hidden layer's activations (B, hidden), which are 0 or more, to compare images by."""
        return self.classifier[:-1](self.features(prepared(images, self.in_shape)))

    def logits_of(self, units: Tensor) -> Tensor:
        """Return the logits (B, K) of the :meth:`hidden_units`."""
        return self.classifier[-1](units)


def check_in_shape(model: nn.Module, in_shape: Sequence[int]) -> tuple[int, int, int]:
    """Check that ``in_shape`` is the shape of an image; return (C, H, W)."""
    require(
        len(in_shape) == 3 and all(isinstance(size, int) and size >= 1 for size in in_shape),
        f"{type(model).__name__}: in_shape must be (channels, height, width), not {tuple(in_shape)}",
    )
    channels, height, width = in_shape
    require(
        not is_channels_last(in_shape),
        f"{type(model).__name__}: in_shape must be (channels, height, width), ({width}, {channels}, {height}), "
        f"not {tuple(in_shape)}",
    )
    require(
        channels * height * width <= MAX_NUMBERS,
        f"{type(model).__name__}: an image must have {MAX_NUMBERS:,} numbers or less, not {tuple(in_shape)}",
    )
    return channels, height, width


def check_classifier(model: nn.Module, in_shape: Sequence[int], num_classes: int) -> tuple[int, int, int]:
    """Check ``in_shape`` and ``num_classes`` of a classifier; return (C, H, W)."""
    require(num_classes >= 2, f"{type(model).__name__}: num_classes must be at least 2, not {num_classes}")
    return check_in_shape(model, in_shape)


def prepared(images: Tensor, in_shape: Sequence[int], blocks_for: nn.Module | None = None) -> Tensor:
    """Check that images (B, C, H, W) have ``in_shape``, and convert them to the fastest memory layout for convolutions.

    That is channels last, 1.3x faster on CPUs, or oneDNN's blocks. A network passes itself as ``blocks_for`` if it
    supports blocks and converts its output back; see :mod:`torchdl.fast.blocks` for when they are used.
    """
    require_tensor(images)
    require(
        tuple(images.shape[1:]) == tuple(in_shape),
        f"this network takes images of (channels, height, width) {tuple(in_shape)}, not {tuple(images.shape[1:])}",
    )
    if blocks_for is not None and suits_blocks(images, blocks_for):
        return images.to_mkldnn()
    return images.contiguous(memory_format=torch.channels_last)


def classifier(features: int, hidden: int, num_classes: int, before: float = 0.0, after: float = 0.0) -> nn.Sequential:
    """Build flattening, a hidden layer with ReLU and a linear layer; dropout is before and after the hidden layer."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(before),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Dropout(after),
        nn.Linear(hidden, num_classes),
    )
