"""The generator and discriminator of a generative adversarial network (Goodfellow et al. 2014).

Shapes: B examples, Z dimensions of the noise, D numbers per image (784 for 28x28 grey).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from torchdl import random
from torchdl.errors import require
from torchdl.models.arguments import plain_arguments
from torchdl.models.init import keras_init_
from torchdl.pictures import is_channels_last

DiscriminatorT = TypeVar("DiscriminatorT", bound="ScoresImages")


class ScoresImages(nn.Module):
    """Base class of discriminators: a method ``logits``, its sigmoid when called, and optional spectral norm."""

    spectral_norm = False

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, 1) of images (B, ...); the losses take logits because these do not saturate."""
        raise NotImplementedError(f"{type(self).__name__} has no method logits")

    def forward(self, x: Tensor) -> Tensor:
        """Return the probability (B, 1) in [0, 1] that each image (B, ...) is real."""
        return torch.sigmoid(self.logits(x))

    def limit_(self: DiscriminatorT) -> DiscriminatorT:
        """Divide every layer's weight by its largest singular value from now on (Miyato et al. 2018).

        Each training pass estimates the value by one power iteration, which starts from the previous estimate.
        """
        require(not self.spectral_norm, "this discriminator has spectral norm already")
        for layer in list(self.modules()):
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                parametrizations.spectral_norm(layer)
        self.spectral_norm = True
        return self


@plain_arguments
class Discriminator(ScoresImages):
    """Tell real images from generated ones: hidden layers with LeakyReLU, one output, sigmoid.

    The defaults are the notes' 784-128-1 with 100,609 parameters; ``hidden=(512, 256), slope=0.2`` is the course's
    deeper network (lecture 69) with 533,505.

    Args:
        in_features: D, numbers per image.
        hidden: Widths of the hidden layers.
        slope: The slope of LeakyReLU below zero.
        spectral_norm: Whether to divide every layer's weight by its largest singular value (Miyato et al. 2018).

    Raises:
        InputError: A width is not positive, or the slope is not a finite number.

    Example:
        >>> model, images = torchdl.Discriminator(), torch.randn(2, 1, 28, 28)
        >>> model(images).shape, model.logits(images).sigmoid().equal(model(images))
        (torch.Size([2, 1]), True)
    """

    def __init__(
        self, in_features: int = 784, hidden: Sequence[int] = (128,), slope: float = 0.1, spectral_norm: bool = False
    ) -> None:
        super().__init__()
        require(in_features >= 1 and all(width >= 1 for width in hidden), "Discriminator: every width must be positive")
        require(math.isfinite(slope), f"Discriminator: slope must be a number, not {slope}")
        self.in_features, self.hidden, self.slope = in_features, tuple(hidden), slope
        layers: list[nn.Module] = []
        width = in_features
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), nn.LeakyReLU(slope)]
            width = next_width
        self.disc = nn.Sequential(*layers, nn.Linear(width, 1))
        if spectral_norm:
            self.limit_()

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, 1) of images (B, ...)."""
        return self.disc(x.flatten(1))  # (B, ...) -> (B, D) -> (B, 1)


@plain_arguments
class Generator(nn.Module):
    """Turn noise into images: hidden layers with LeakyReLU, tanh at the end.

    The defaults are the notes' 64-256-784 with 218,128 parameters. ``z_dim=100, hidden=(256, 512, 1024), slope=0.2,
    batch_norm=0.8`` is the course's deeper network (lecture 69) with 1,489,936 trainable parameters.

    Args:
        z_dim: Z, dimensions of the noise.
        img_dim: D, numbers per image.
        hidden: Widths of the hidden layers.
        slope: The slope of LeakyReLU below zero.
        batch_norm: Keras' momentum of a batch norm after every hidden layer: the share of the *old*
            statistics that is kept, so 0.8 is PyTorch's ``momentum=0.2``. Epsilon is Keras' 1e-3. The running variance
            is PyTorch's, n / (n - 1) times Keras' for n values. None: no batch norm.

    Raises:
        InputError: A width is not positive, or the slope is not a finite number.

    Example:
        >>> torchdl.Generator()(torch.randn(2, 64)).shape
        torch.Size([2, 784])
        >>> deep = torchdl.Generator(z_dim=100, hidden=(256, 512, 1024), slope=0.2, batch_norm=0.8)
        >>> sum(p.numel() for p in deep.parameters())
        1489936
    """

    def __init__(
        self,
        z_dim: int = 64,
        img_dim: int = 784,
        hidden: Sequence[int] = (256,),
        slope: float = 0.1,
        batch_norm: float | None = None,
    ) -> None:
        super().__init__()
        require(min(z_dim, img_dim, *hidden) >= 1, "Generator: z_dim, img_dim and every width must be positive")
        require(math.isfinite(slope), f"Generator: slope must be a number, not {slope}")
        self.z_dim, self.img_dim, self.hidden, self.slope = z_dim, img_dim, tuple(hidden), slope
        self.batch_norm = batch_norm
        layers: list[nn.Module] = []
        width = z_dim
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), nn.LeakyReLU(slope)]
            if batch_norm is not None:
                layers.append(nn.BatchNorm1d(next_width, eps=1e-3, momentum=1 - batch_norm))
            width = next_width
        self.gen = nn.Sequential(*layers, nn.Linear(width, img_dim), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Return images (B, D) in [-1, 1] for noise (B, Z)."""
        return self.gen(z)


@plain_arguments
class GAN(nn.Module):
    """A generator and its discriminator as one model, to save, load and generate samples.

    Args:
        generator: Maps noise (B, Z) to images and has ``z_dim``, which is Z.
        discriminator: Maps images to probabilities and has a method ``logits``.
        image_shape: (C, H, W) of an image.

    Raises:
        InputError: A part is not a module.

    Example:
        >>> model = torchdl.GAN(torchdl.Generator(z_dim=8), torchdl.Discriminator(), image_shape=(1, 28, 28))
        >>> model.generate_samples(3, seed=1).shape
        torch.Size([3, 1, 28, 28])
        >>> torch.equal(model.noise(3), model.noise(100)[:3])
        True
    """

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, image_shape: Sequence[int] = (1, 28, 28)
    ) -> None:
        super().__init__()
        modules = isinstance(generator, nn.Module) and isinstance(discriminator, nn.Module)
        require(modules, "GAN: the generator and the discriminator must be modules")
        first = f"GAN: image_shape must be (channels, height, width), not {tuple(image_shape)}"
        require(not is_channels_last(image_shape), first)
        self.generator, self.discriminator, self.image_shape = generator, discriminator, tuple(image_shape)

    def forward(self, z: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] for noise (B, Z).

        Raises:
            InputError: The generator makes images of another size than ``image_shape``.
        """
        images = self.generator(z)
        size, expected = images.shape[1:].numel(), torch.Size(self.image_shape).numel()
        require(
            size == expected,
            f"GAN: the generator's images have {size} numbers, but image_shape {self.image_shape} has {expected}",
        )
        return images.view(images.shape[0], *self.image_shape)  # (B, D) -> (B, C, H, W)

    def noise(self, n: int, seed: int = 0) -> Tensor:
        """Draw noise (n, Z) that training does not, in the generator's type of numbers.

        With the same ``seed``, a larger draw starts with the same rows.
        """
        weight = next(self.parameters())  # the generator's
        index, size = torch.arange(n, device=weight.device), int(self.generator.z_dim)  # type: ignore[arg-type]
        return random.normal(seed, 0, index, size, random.Stream.SAMPLES).to(weight.dtype)

    @torch.no_grad()
    def generate_samples(self, n: int, seed: int = 0) -> Tensor:
        """Generate ``n`` images (n, C, H, W) in [-1, 1] in evaluation mode (batch norms use running statistics).

        The same ``seed`` gives the same noise, and so the same images.

        Raises:
            InputError: ``n`` is noise, not a number.
        """
        require(
            not isinstance(n, Tensor), "generate_samples(n) draws noise for n images: call gan(noise) to give noise"
        )
        was_training = self.training
        try:
            return self.eval()(self.noise(n, seed))
        finally:
            self.train(was_training)


def simple_gan(image_shape: Sequence[int] = (1, 28, 28), z_dim: int = 64, spectral_norm: bool = False) -> GAN:
    """Build the notes' GAN: a generator Z-256-D and a discriminator D-128-1, with PyTorch's initial weights.

    Args:
        image_shape: (C, H, W) of an image; D is C * H * W.
        z_dim: Z, dimensions of the noise.
        spectral_norm: Whether to divide the discriminator's weights by their largest singular values.

    Example:
        >>> model = torchdl.simple_gan()
        >>> model.generate_samples(2).shape, sum(p.numel() for p in model.generator.parameters())
        (torch.Size([2, 1, 28, 28]), 218128)
    """
    img_dim = torch.Size(image_shape).numel()
    return GAN(Generator(z_dim, img_dim), Discriminator(img_dim, spectral_norm=spectral_norm), image_shape)


def deep_gan(image_shape: Sequence[int] = (1, 28, 28), z_dim: int = 100, spectral_norm: bool = False) -> GAN:
    """Build the course's deeper GAN (lecture 69): Z-256-512-1024-D and D-512-256-1, with Keras' initial weights.

    Args:
        image_shape: (C, H, W) of an image; D is C * H * W.
        z_dim: Z, dimensions of the noise.
        spectral_norm: Whether to divide the discriminator's weights by their largest singular values.

    Example:
        >>> model = torchdl.deep_gan()
        >>> model.generate_samples(2).shape, sum(p.numel() for p in model.discriminator.parameters())
        (torch.Size([2, 1, 28, 28]), 533505)
    """
    img_dim = torch.Size(image_shape).numel()
    generator = Generator(z_dim, img_dim, hidden=(256, 512, 1024), slope=0.2, batch_norm=0.8)
    discriminator = keras_init_(Discriminator(img_dim, hidden=(512, 256), slope=0.2))
    if spectral_norm:
        discriminator.limit_()  # after the weights are drawn, since the estimates start from them
    return GAN(keras_init_(generator), discriminator, image_shape)
