"""Transfer learning: a frozen network, pretrained on other images, and a new head (lectures 62 to 67).

Shapes: B images, C channels, H x W pixels, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.errors import InputError, require
from torchdl.files import PathLike
from torchdl.models.arguments import plain_arguments
from torchdl.models.backbones import blocks_of, build_backbone, load_backbone
from torchdl.models.frozen import FrozenFeatures

MAX_SIDE = 4096  # pixels
MODES = ("nearest", "bilinear", "bicubic")


class LinearHead(nn.Module):
    """Standardise each feature, then classify by a linear layer: logistic regression, as in lecture 67.

    Args:
        features: D.
        num_classes: K.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.features, self.num_classes = features, num_classes
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.linear = nn.Linear(features, num_classes)

    @torch.no_grad()
    def standardize_(self, features: Tensor) -> LinearHead:
        """Set the means and standard deviations to those of features (N, D), in place; return the head."""
        self.mean.copy_(features.mean(0))
        spread = features.std(0, correction=0)
        self.scale.copy_(torch.where(spread > 1e-6, spread, 1.0))  # constant features are not scaled
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, K) of features (B, D)."""
        return self.linear((features - self.mean) / self.scale)


def lay_out_(model: nn.Module, _: object = None) -> None:
    """Store the kernels of a transfer model's backbone with channels last, which is faster on CPUs."""
    model.features.to(memory_format=torch.channels_last)


def keep_means(block: nn.Module, _: object, output: Tensor) -> None:
    """Store the channel means (B, C) of a block's output, (B, C, H, W) or a transformer's (B, N, C), on the block."""
    block.means = output.mean((2, 3) if output.dim() == 4 else 1)


@plain_arguments
class TransferModel(nn.Module):
    """Classify images in [0, 1] by preprocessing on the device, a backbone and a linear head.

    The backbone is frozen. While ``finetuning`` is True, its last ``finetuned`` blocks are trained, too. Even then,
    its batch norms' statistics do not change, and its dropout is off.

    Args:
        backbone: One of :func:`torchdl.models.backbones.backbone_names`.
        num_classes: K.
        input_size: Pixels a side of the central crop that the backbone reads.
        resize_size: Pixels to which the image's shorter side is resized before the crop.
        mean: Subtracted from each channel.
        std: Divides each channel.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        finetuned: Number of the backbone's last blocks that can be trained.
        levels: Number of blocks before the last one that add features: the mean of each channel over the image. These
            features help with small or blurred images.

    The weights are random; :func:`transfer_model` loads pretrained ones.

    Raises:
        InputError: A number is outside its range, or the backbone does not take images of this size.

    Example:
        >>> model = torchdl.TransferModel("pixels", num_classes=3, input_size=8, resize_size=8)  # no network
        >>> images = torch.rand(2, 3, 32, 32)
        >>> model(images).shape, model.encode(images).shape
        (torch.Size([2, 3]), torch.Size([2, 192]))
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        input_size: int = 224,
        resize_size: int = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        interpolation: str = "bilinear",
        finetuned: int = 0,
        levels: int = 0,
    ) -> None:
        super().__init__()
        require(num_classes >= 2, f"TransferModel: num_classes must be at least 2, not {num_classes}")
        require(1 <= input_size <= MAX_SIDE, f"input_size must be from 1 to {MAX_SIDE} pixels, not {input_size}")
        require(
            input_size <= resize_size <= MAX_SIDE,
            f"TransferModel: resize_size must be from {input_size} to {MAX_SIDE}, not {resize_size}",
        )
        require(len(mean) == len(std) == 3 and min(std) > 0, "TransferModel: mean and std must be three numbers each")
        require(interpolation in MODES, f"unknown interpolation {interpolation!r}: choose one of {', '.join(MODES)}")
        self.backbone, self.num_classes = backbone, num_classes
        self.input_size, self.resize_size = input_size, resize_size
        self.mean, self.std, self.interpolation = tuple(mean), tuple(std), interpolation
        self.finetuned, self.finetuning, self.levels = finetuned, False, levels
        try:
            network = build_backbone(backbone, input_size)
        except AssertionError as error:  # a transformer's patches must fill the image
            raise InputError(f"{backbone} takes no images of {input_size} pixels a side: {error}") from error
        self.features = FrozenFeatures(network)
        lay_out_(self)
        self.register_load_state_dict_post_hook(lay_out_)
        blocks = blocks_of(network)
        require(
            0 <= finetuned <= len(blocks),
            f"{backbone} has {len(blocks)} blocks: finetuned must be from 0 to {len(blocks)}, not {finetuned}",
        )
        for module in (module for block in blocks[len(blocks) - finetuned :] for module in block):
            module.requires_grad_(True)
        before = max(0, len(blocks) - 1)
        require(
            0 <= levels <= before,
            f"{backbone} has {before} blocks before its last: levels must be from 0 to {before}, not {levels}",
        )
        require(
            not levels or "swin" not in backbone, f"{backbone} has its channels last, so levels must be 0, not {levels}"
        )
        self.level_blocks = [block[-1] for block in blocks[before - levels : before]]
        for module in self.level_blocks:
            module.register_forward_hook(keep_means)
        first = next(network.parameters(), torch.empty(0))
        try:
            size = self.features_of(torch.zeros(1, 3, input_size, input_size, device=first.device)).shape[1]
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{backbone} takes no images of {input_size} pixels a side: {reason}") from error
        self.head = LinearHead(size, num_classes)

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize, crop and normalise images (B, C, H, W) in [0, 1] to (B, 3, input_size, input_size); C is 1 or 3.

        Raises:
            InputError: The images have neither 1 nor 3 channels.
        """
        channels, height, width = images.shape[1:]
        require(channels in (1, 3), f"images must have 1 or 3 channels, not {channels}")
        shorter, size = min(height, width), self.input_size
        if shorter != self.resize_size:
            sides = [self.resize_size * side // shorter for side in (height, width)]
            nearest = self.interpolation == "nearest"
            images = F.interpolate(
                images, sides, mode=self.interpolation, align_corners=None if nearest else False, antialias=not nearest
            )
            if self.interpolation == "bicubic":
                images = images.clamp(0, 1)  # bicubic interpolation overshoots at edges
        top, left = (round((side - size) / 2) for side in images.shape[2:])
        images = images[:, :, top : top + size, left : left + size]
        mean, std = (torch.tensor(v, device=images.device, dtype=images.dtype) for v in (self.mean, self.std))
        return ((images - mean[:, None, None]) / std[:, None, None]).contiguous(memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features (B, D) of images (B, C, H, W) in [0, 1]."""
        return self.features_of(self.preprocess(images))

    def features_of(self, x: Tensor) -> Tensor:
        """Return the features (B, D) of preprocessed images."""
        output = self.features.backbone(x) if self.finetuning else self.features(x)
        # (B, E, 1, 1) or (B, C, H, W) -> (B, E), followed by the channel means of the level blocks
        return torch.cat([output.flatten(1), *(cast(Tensor, module.means) for module in self.level_blocks)], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in [0, 1]."""
        return self.head(self.encode(images))

    def finetuned_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the backbone's parameters that can be trained."""
        return (p for p in self.features.parameters() if p.requires_grad)

    def transform(self) -> str:
        """Describe everything that determines an image's features, except the backbone's weights."""
        sizes = (self.backbone, self.input_size, self.resize_size, *([self.levels] if self.levels else []))
        return repr((*sizes, self.mean, self.std, self.interpolation))


def transfer_model(
    backbone: str,
    num_classes: int,
    weights: PathLike | None = "default",
    input_size: int | None = None,
    finetuned: int = 0,
    levels: int = 0,
) -> TransferModel:
    """Build a :class:`TransferModel` with pretrained weights and the preprocessing that they need.

    Args:
        backbone: One of :func:`torchdl.models.backbones.backbone_names`.
        num_classes: K.
        weights: See :func:`torchdl.models.backbones.load_backbone`.
        input_size: Resize whole images to this side in pixels instead of the weights' resizing and cropping; a smaller
            number is faster.
        finetuned: See :class:`TransferModel`.
        levels: See :class:`TransferModel`.

    Raises:
        InputError: The backbone does not exist, or its weights cannot be loaded or are another network's.

    Example:
        >>> model = torchdl.transfer_model("mobilenet_v3_small", num_classes=3, weights=None, input_size=64)
        >>> images = torch.rand(2, 1, 28, 28)
        >>> model(images).shape, model.encode(images).shape
        (torch.Size([2, 3]), torch.Size([2, 576]))
    """
    network, preprocessing = load_backbone(backbone, weights)
    if input_size is not None:
        require(
            not backbone.startswith("vit_") or input_size == preprocessing.input_size,
            f"input_size must be {preprocessing.input_size} for these weights of {backbone}, not {input_size}",
        )
        preprocessing = preprocessing._replace(input_size=input_size, resize_size=input_size)
    model = TransferModel(backbone, num_classes, *preprocessing, finetuned=finetuned, levels=levels)
    model.features.backbone.load_state_dict(network.state_dict())
    return model
