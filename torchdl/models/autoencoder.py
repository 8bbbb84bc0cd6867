"""A convolutional autoencoder: images to small codes and back.

Shapes: B images, C channels, H x W pixels, K channels of a code, h x w its positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.init import keras_init_
from torchdl.models.lenet import check_in_shape, prepared


class Autoencoder(nn.Module):
    """Encode images by ``depth`` times a convolution and max-pooling, decode by as many convolutions and upsamplings.

    Every step halves or doubles both sides. The 3x3 convolutions keep the sides and have ``width`` filters and ReLU,
    but the encoder's last has ``code_channels`` and no activation; the decoder ends in one more, with C filters and
    a sigmoid, so images are in [0, 1]. Sides that 2^depth does not divide are padded by repeating their edge, and
    what is decoded is cropped back.

    Args:
        in_shape: (C, H, W).
        width: Filters of the convolutions.
        depth: Halvings, and doublings.
        code_channels: K; a code has K * h * w numbers, h and w being H and W over 2^depth, rounded up.

    Example:
        >>> model = Autoencoder((1, 28, 28), width=8)
        >>> images = torch.rand(2, 1, 28, 28)
        >>> model.encode(images).shape, model(images).shape
        (torch.Size([2, 8, 4, 4]), torch.Size([2, 1, 28, 28]))
    """

    def __init__(
        self, in_shape: Sequence[int] = (3, 32, 32), width: int = 64, depth: int = 3, code_channels: int = 8
    ) -> None:
        super().__init__()
        channels, height, width_in = check_in_shape(self, in_shape)
        require(min(width, code_channels) >= 1, "Autoencoder: width and code_channels must be positive")
        most = (min(height, width_in) - 1).bit_length()
        require(
            1 <= depth <= most,
            f"Autoencoder: depth must be from 1 to {most} for {height}x{width_in} pixels, not {depth}: "
            "each step halves the sides",
        )
        self.in_shape, self.width, self.depth, self.code_channels = tuple(in_shape), width, depth, code_channels
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        inputs = channels
        for stage in range(depth):
            last = stage == depth - 1
            encoder += [nn.Conv2d(inputs, code_channels if last else width, 3, padding=1)]
            encoder += [*([] if last else [nn.ReLU(inplace=True)]), nn.MaxPool2d(2)]
            decoder += [nn.Conv2d(width if stage else code_channels, width, 3, padding=1)]
            decoder += [nn.ReLU(inplace=True), nn.Upsample(scale_factor=2)]
            inputs = width
        self.encoder = keras_init_(nn.Sequential(*encoder))
        self.decoder = keras_init_(nn.Sequential(*decoder, nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid()))

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """(K, h, w) of a code."""
        _, height, width = self.in_shape
        return self.code_channels, -(-height // 2**self.depth), -(-width // 2**self.depth)

    def encode(self, images: Tensor) -> Tensor:
        """Give the codes (B, K, h, w) of images (B, C, H, W) in [0, 1]."""
        images = prepared(images, self.in_shape)
        _, h, w = self.code_shape
        _, height, width = self.in_shape
        below, right = h * 2**self.depth - height, w * 2**self.depth - width
        return self.encoder(F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images)

    def decode(self, codes: Tensor) -> Tensor:
        """Give the images (B, C, H, W) in [0, 1] of codes (B, K, h, w)."""
        require(
            tuple(codes.shape[1:]) == self.code_shape,
            f"this Autoencoder decodes codes of {self.code_shape}, not {tuple(codes.shape[1:])}",
        )
        _, height, width = self.in_shape
        return self.decoder(codes)[..., :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        """Give the reconstructions (B, C, H, W) of images (B, C, H, W)."""
        return self.decode(self.encode(images))
