"""Generate images by a GAN.

Shapes: N images, C channels, H x W pixels, Z dimensions of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from torchdl.errors import kind_of, require
from torchdl.latent import INTERPOLATIONS
from torchdl.models import GAN
from torchdl.pictures import to_pixels
from torchdl.predict.base import Predictor, require_finite


@dataclass(frozen=True)
class GeneratorSettings:
    """What a generator makes.

    Attributes:
        channels: C, 1 for greys or 3 for colours.
        height: H.
        width: W.
        low: The value of black; white is 1.
    """

    channels: int
    height: int
    width: int
    low: float = -1.0


class ImageGenerator(Predictor[GeneratorSettings]):
    """Generate images by a :class:`torchdl.GAN`.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``ImageGenerator.Settings``.

    Example:
        >>> from torchdl.predict import ImageGenerator
        >>> generator = ImageGenerator(torchdl.simple_gan(), ImageGenerator.Settings(1, 28, 28))
        >>> images = generator.predict(3, seed=1)
        >>> images.shape, images.dtype, torch.equal(images, generator.predict(9, seed=1)[:3])
        (torch.Size([3, 1, 28, 28]), torch.uint8, True)
    """

    kind = "image generator"
    Settings = GeneratorSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        settings = self.settings
        require(isinstance(self.model, GAN), f"{kind_of(self.model)} is no generator with its discriminator")
        shape = (settings.channels, settings.height, settings.width)
        require(tuple(self.model.image_shape) == shape, "the model makes images of another shape")  # type: ignore[arg-type]
        require(settings.channels in (1, 3), f"images have one channel or three, not {settings.channels}")
        require(settings.low in (0.0, -1.0), f"black must be 0 or -1, not {settings.low}")

    @classmethod
    def of(cls, gan: torch.nn.Module, device: str | torch.device = "auto") -> ImageGenerator:
        """Return the predictor of ``gan``, a :class:`torchdl.GAN` with images in [-1, 1], on a ``device``."""
        return cls(gan, GeneratorSettings(*cast(GAN, gan).image_shape), device)

    def predict(self, inputs: int = 64, seed: int = 0) -> Tensor:
        """Generate ``inputs`` images (N, C, H, W) uint8; a larger number begins with the same images.

        The same ``seed`` gives the same images.

        Raises:
            InputError: The number is less than 1.
        """
        require(inputs >= 1, f"the number of images must be 1 or more, not {inputs}")
        return self.decode(cast(GAN, self.model).noise(inputs, seed))

    def interpolate(self, count: int = 64, seed: int = 0, path: str = "spherical", steps: int = 8) -> Tensor:
        """Generate images (N, C, H, W) uint8, of which each ``steps`` lead from one image to another.

        Args:
            count: N; the last path may be cut.
            seed: The seed of the noise at the ends of the paths.
            path: ``spherical`` or ``linear``; see :mod:`torchdl.latent`.
            steps: The number of images of a path, both ends included.

        Raises:
            InputError: The number of images is less than 1, or the path is unknown.
        """
        require(count >= 1, f"the number of images must be 1 or more, not {count}")
        require(path in INTERPOLATIONS, f"unknown path {path!r}: choose one of {', '.join(INTERPOLATIONS)}")
        ends = cast(GAN, self.model).noise(2 * -(-count // steps), seed)
        return self.decode(INTERPOLATIONS[path](ends[::2], ends[1::2], steps)[:count])

    def decode(self, noise: Tensor) -> Tensor:
        """Generate images (N, C, H, W) uint8 from noise (N, Z)."""
        with self.ready():
            parts = [self.model(part.to(self.device)) for part in noise.split(self.batch_size)]
            low = self.settings.low
            for images in parts:
                require_finite(images)
            return torch.cat([to_pixels((images - low) / (1 - low)) for images in parts])
