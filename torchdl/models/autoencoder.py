"""A convolutional autoencoder: images to small latent codes and back.

Shapes: B images, C channels, H x W pixels, D numbers per code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments
from torchdl.models.init import keras_init_
from torchdl.models.lenet import check_in_shape, prepared


class Maps(nn.Unflatten):
    """Make feature maps (B, F, H, W) of rows (B, F * H * W): on a GPU channels last, which the convolutions keep."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the feature maps."""
        maps = super().forward(rows)
        return maps.contiguous(memory_format=torch.channels_last) if maps.is_cuda else maps


@plain_arguments
class Autoencoder(nn.Module):
    """Encode images by ``depth`` convolutions with max-pooling; decode them by as many convolutions with upsampling.

    Every step halves or doubles both sides. The 3x3 convolutions keep the sides and have ``width`` filters and GELU.
    The encoder ends with a linear layer, and the decoder starts with one. The decoder ends with a convolution of C
    filters and a sigmoid, so images are in [0, 1]. If 2^depth does not divide a side, the image's edge pixels pad it,
    and the decoded images are cropped back.

    Args:
        in_shape: (C, H, W).
        width: Filters of the convolutions.
        depth: Number of halvings, and of doublings; at most ceil(log2(min(H, W))).
        code_size: D.

    Raises:
        InputError: A size is not positive, or the images are too small for the depth.

    Example:
        >>> model = torchdl.Autoencoder((1, 28, 28), width=8)
        >>> images = torch.rand(2, 1, 28, 28)
        >>> model.encode(images).shape, model(images).shape
        (torch.Size([2, 32]), torch.Size([2, 1, 28, 28]))
    """

    def __init__(
        self, in_shape: Sequence[int] = (3, 32, 32), width: int = 32, depth: int = 2, code_size: int = 32
    ) -> None:
        super().__init__()
        channels, height, width_in = check_in_shape(self, in_shape)
        require(min(width, code_size) >= 1, "Autoencoder: width and code_size must be positive")
        require(min(height, width_in) >= 2, f"Autoencoder: images must be at least 2x2 pixels, not {height}x{width_in}")
        most = (min(height, width_in) - 1).bit_length()
        require(
            1 <= depth <= most,
            f"Autoencoder: depth must be from 1 to {most} for {height}x{width_in} pixels, not {depth}: "
            "each step halves the sides",
        )
        self.in_shape, self.width, self.depth, self.code_size = tuple(in_shape), width, depth, code_size
        step = 2**depth
        h, w = -(-height // step), -(-width_in // step)  # sides at the code
        self.padding = (0, w * step - width_in, 0, h * step - height)  # left, right, top, below
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = [nn.Linear(code_size, width * h * w), Maps(1, (width, h, w))]
        for stage in range(depth):
            inputs = width if stage else channels
            encoder += [nn.Conv2d(inputs, width, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)]
            decoder += [nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Upsample(scale_factor=2)]
        encoder += [nn.Flatten(), nn.Linear(width * h * w, code_size)]
        decoder += [nn.Conv2d(width, channels, 3, padding=1), nn.Sigmoid()]
        self.encoder, self.decoder = keras_init_(nn.Sequential(*encoder)), keras_init_(nn.Sequential(*decoder))

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (B, D) of images (B, C, H, W) in [0, 1]."""
        images = prepared(images, self.in_shape)
        return self.encoder(F.pad(images, self.padding, mode="replicate") if any(self.padding) else images)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images (B, C, H, W) in [0, 1] of codes (B, D).

        Raises:
            InputError: The codes have another size.
        """
        require(
            tuple(codes.shape[1:]) == (self.code_size,),
            f"this Autoencoder decodes codes of {self.code_size} numbers, not {tuple(codes.shape[1:])}",
        )
        _, height, width = self.in_shape
        return self.decoder(codes)[..., :height, :width]

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstructions (B, C, H, W) of images (B, C, H, W)."""
        return self.decode(self.encode(images))
