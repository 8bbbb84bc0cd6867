"""The course's convolutional networks for small images (lectures 32, 33 and 36).

Shapes: B images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments
from torchdl.models.init import keras_init_
from torchdl.models.lenet import check_classifier, classifier, prepared


@plain_arguments
class StridedCNN(nn.Module):
    """Classify images by three 3x3 convolutions of stride 2 (32, 64 and 128 filters), a hidden and a linear layer.

    The defaults are lecture 32's network for Fashion-MNIST, 28x28 grey, with 360,458 parameters. With ``hidden=1024,
    dropout=(0.5, 0.2)`` it is lecture 33's for CIFAR-10, with 1,284,170.

    Args:
        in_shape: (C, H, W), at least 15 pixels a side.
        num_classes: K.
        hidden: Units of the hidden layer.
        dropout: The probabilities of dropping a unit before and after the hidden layer.

    Raises:
        InputError: The images are smaller than 15x15, or a number is outside its range.

    Example:
        >>> model = torchdl.StridedCNN()
        >>> model(torch.zeros(2, 1, 28, 28)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([2, 10]), 360458)
        >>> torchdl.StridedCNN((3, 32, 32), hidden=1024, dropout=(0.5, 0.2))(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        hidden: int = 512,
        dropout: Sequence[float] = (0.2, 0.2),
    ) -> None:
        super().__init__()
        channels, *sides = check_classifier(self, in_shape, num_classes)
        require(hidden >= 1, "StridedCNN: hidden must be positive")
        require(len(dropout) == 2, f"StridedCNN: dropout must be two probabilities, not {list(dropout)}")
        check_dropout(self, dropout)
        self.in_shape, self.num_classes, self.hidden = tuple(in_shape), num_classes, hidden
        self.dropout = tuple(dropout)
        require(min(sides) >= 15, f"StridedCNN: images must be at least 15x15 pixels, not {sides[0]}x{sides[1]}")
        layers: list[nn.Module] = []
        for filters in (32, 64, 128):
            layers += [nn.Conv2d(channels, filters, 3, stride=2), nn.ReLU(inplace=True)]
            channels, sides = filters, [(side - 3) // 2 + 1 for side in sides]
        self.features = keras_init_(nn.Sequential(*layers))
        self.classifier = keras_init_(classifier(channels * sides[0] * sides[1], hidden, num_classes, *dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        return self.classifier(self.features(prepared(images, self.in_shape)))


@plain_arguments
class VGGLike(nn.Module):
    """Classify images by three VGG-like blocks (Simonyan and Zisserman 2015), as lecture 36 intends.

    A block has two 3x3 convolutions that keep the sides, each with ReLU and batch norm; then max-pooling halves the
    sides. Batch norm has Keras' epsilon, 1e-3, but PyTorch's unbiased running variance and its momentum: with Keras'
    0.99, at a high learning rate, the running statistics lag too far behind. In the lecture's listing every convolution
    reads the input, so only the last one matters; here each reads the one before. For CIFAR-10 it has 2,396,330
    trainable parameters.

    Args:
        in_shape: (C, H, W), at least 8 pixels a side.
        num_classes: K.
        width: Filters of the first block; the second has twice as many, the third four times as many.
        hidden: Units of the hidden layer.
        dropout: The probability of dropping a unit before and after the hidden layer.

    Raises:
        InputError: The images are smaller than 8x8, or a size is not positive.

    Example:
        >>> model = torchdl.VGGLike()
        >>> model(torch.zeros(2, 3, 32, 32)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([2, 10]), 2396330)
    """

    def __init__(
        self,
        in_shape: Sequence[int] = (3, 32, 32),
        num_classes: int = 10,
        width: int = 32,
        hidden: int = 1024,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        channels, height, width_in = check_classifier(self, in_shape, num_classes)
        require(min(width, hidden) >= 1, "VGGLike: width and hidden must be positive")
        check_dropout(self, [dropout])
        require(min(height, width_in) >= 8, f"VGGLike: images must be at least 8x8 pixels, not {height}x{width_in}")
        self.in_shape, self.num_classes = tuple(in_shape), num_classes
        self.width, self.hidden, self.dropout = width, hidden, dropout
        layers: list[nn.Module] = []
        for filters in (width, 2 * width, 4 * width):
            for _ in range(2):
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
                layers += [nn.BatchNorm2d(filters, eps=1e-3)]
                channels = filters
            layers += [nn.MaxPool2d(2)]
        self.features = keras_init_(nn.Sequential(*layers))
        flat = channels * (height // 8) * (width_in // 8)
        self.classifier = keras_init_(classifier(flat, hidden, num_classes, dropout, dropout))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        return self.classifier(self.features(prepared(images, self.in_shape)))


def check_dropout(model: nn.Module, probabilities: Sequence[float]) -> None:
    """Raise :class:`InputError` unless every probability is in [0, 1)."""
    name = type(model).__name__
    require(all(0 <= p < 1 for p in probabilities), f"{name}: dropout must be in [0, 1), not {list(probabilities)}")
