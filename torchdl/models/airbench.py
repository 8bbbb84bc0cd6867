"""A small network that learns CIFAR-10 in few epochs (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", 2404.00498).

Shapes: B images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments
from torchdl.models.lenet import check_classifier, prepared

PATCH = 2  # pixels a side of the whitened patches


@plain_arguments
class AirbenchLike(nn.Module):
    """Classify images by whitened patches, six VGG-like convolutions without shortcuts, and a linear layer.

    Unlike in VGG, each block halves the sides after its first convolution, not its second, which halves the arithmetic.
    There is no hidden layer: the linear layer reads the maximum of each filter over the image. Three parts of the
    paper's recipe are left out: batch norm without scales, biases that learn 64x faster, and look-ahead.

    The first convolution whitens 2x2 patches: it returns uncorrelated numbers of equal variance, and their negatives.
    It is not trained: :meth:`whiten_` computes it from images.

    Args:
        in_shape: (C, H, W), at least 17 pixels a side.
        num_classes: K.
        widths: Filters of the three blocks; (64, 256, 256) in the paper.

    Raises:
        InputError: A width is not positive, or the images are smaller than 17x17.

    Example:
        >>> images = torch.rand(100, 3, 32, 32)
        >>> model = torchdl.AirbenchLike(widths=(8, 16, 16)).whiten_(images)
        >>> model(images[:2]).shape, model.patches.weight.requires_grad
        (torch.Size([2, 10]), False)
    """

    def __init__(
        self, in_shape: Sequence[int] = (3, 32, 32), num_classes: int = 10, widths: Sequence[int] = (64, 128, 256)
    ) -> None:
        super().__init__()
        channels, *sides = check_classifier(self, in_shape, num_classes)
        require(len(widths) == 3 and min(widths) >= 1, "AirbenchLike: widths must be three positive numbers")
        require(min(sides) >= 17, f"AirbenchLike: images must be at least 17x17 pixels, not {sides[0]}x{sides[1]}")
        self.in_shape, self.num_classes, self.widths = tuple(in_shape), num_classes, tuple(widths)
        numbers = channels * PATCH**2
        self.patches = nn.Conv2d(channels, 2 * numbers, PATCH)
        self.patches.weight.requires_grad_(False)
        layers: list[nn.Module] = [nn.GELU()]
        before = 2 * numbers
        for width in widths:
            layers += [convolution(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU()]
            layers += [convolution(width, width), nn.BatchNorm2d(width), nn.GELU()]
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, num_classes, bias=False)

    @torch.no_grad()
    def whiten_(self, images: Tensor, eps: float = 5e-4) -> AirbenchLike:
        """Compute the first convolution from a few thousand images (B, C, H, W), scaled as in training.

        Args:
            images: The images.
            eps: Added to the variances, so that directions in which patches hardly differ are not amplified.
        """
        patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # (B, C, H', W', 2, 2)
        rows = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2).double()  # (B * H' * W', 4 * C)
        variances, directions = torch.linalg.eigh(torch.cov(rows.T))
        kernels = (directions / (variances + eps).sqrt()).T.unflatten(1, (-1, PATCH, PATCH))  # (4 * C, C, 2, 2)
        self.patches.weight.copy_(torch.cat([kernels, -kernels]))
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        maxima = self.features(self.patches(prepared(images, self.in_shape))).amax((2, 3))  # (B, widths[2])
        return self.classifier(maxima) / 9  # keeps the initial logits small


def convolution(before: int, after: int) -> nn.Conv2d:
    """Build a 3x3 convolution that keeps the sides and starts as the identity on as many channels as possible."""
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    channel = torch.arange(min(before, after))
    with torch.no_grad():
        layer.weight[channel] = 0
        layer.weight[channel, channel, 1, 1] = 1
    return layer
