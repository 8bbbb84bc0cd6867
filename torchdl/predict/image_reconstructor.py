"""Encode pictures by an autoencoder, and decode their latent codes.

Shapes: N pictures, B in a batch, C channels, H x W pixels, D numbers per latent code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from torchdl.errors import kind_of, require
from torchdl.files import encodable
from torchdl.models import Autoencoder
from torchdl.pictures import to_pixels
from torchdl.predict.base import require_finite
from torchdl.predict.image_predictor import ImagePredictor
from torchdl.predict.images import ImageInput

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class ReconstructorSettings:
    """What an autoencoder takes."""

    images: ImageInput


class Reconstructed(NamedTuple):
    """Images (B, C, H, W) in [0, 1], their latent codes (B, D) and the decoded images (B, C, H, W) in [0, 1]."""

    images: Tensor
    codes: Tensor
    decoded: Tensor

    @property
    def errors(self) -> Tensor:
        """Mean squared error (B,) of each decoded image."""
        return (self.decoded - self.images).square().flatten(1).mean(1)  # (B, C, H, W) -> (B,)


@dataclass(frozen=True)
class Reconstructions:
    """Pictures, and what an autoencoder makes of their latent codes.

    Attributes:
        originals: (N, C, H, W) uint8, the pictures as the network sees them.
        images: (N, C, H, W) uint8, the reconstructions.
        errors: (N,) float32, the mean squared error of each reconstruction, of pixels in [0, 1].
        inputs: What each picture is called, such as its file; or its number, from 0.
    """

    originals: Tensor
    images: Tensor
    errors: Tensor
    inputs: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def to_frame(self) -> pandas.DataFrame:
        """Return a table: the inputs and the errors of their reconstructions."""
        import pandas  # imported late: it takes a second

        return pandas.DataFrame(
            {"input": list(map(encodable, self.inputs)), "mean squared error": self.errors.tolist()}
        )


class ImageReconstructor(ImagePredictor[ReconstructorSettings]):
    """Encode and decode pictures by an :class:`torchdl.Autoencoder`.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``ImageReconstructor.Settings``.

    Example:
        >>> from torchdl.predict import ImageInput, ImageReconstructor
        >>> settings = ImageReconstructor.Settings(ImageInput(1, 28, 28, prepare="digit"))
        >>> reconstructor = ImageReconstructor(torchdl.Autoencoder((1, 28, 28), code_size=16), settings)
        >>> pictures = torch.zeros(5, 28, 28, dtype=torch.uint8)
        >>> reconstructor.embed(pictures).shape, reconstructor.predict(pictures).images.dtype
        (torch.Size([5, 16]), torch.uint8)
    """

    kind = "image reconstructor"
    Settings = ReconstructorSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        self.settings.images.check()
        require(isinstance(self.model, Autoencoder), f"{kind_of(self.model)} does not decode what it encodes")
        require(self.model.in_shape == self.settings.images.shape, "the model takes images of another shape")
        require(self.settings.images.low == 0, "an autoencoder takes and returns pixels in [0, 1]")

    def reconstruct(self, images: Tensor) -> Reconstructed:
        """Encode and decode images (B, C, H, W) in [0, 1]; the model must be :meth:`ready`."""
        images = images.to(self.device)
        codes = self.model.encode(images)  # type: ignore[operator]
        return Reconstructed(images, codes, self.model.decode(codes))  # type: ignore[operator]

    def predict(self, inputs: Any) -> Reconstructions:
        """Return the reconstruction of each picture.

        Args:
            inputs: Pictures; see :meth:`torchdl.predict.ImageInput.batches`.
        """
        parts, names = [], []
        with self.ready():
            for batch in self.batches(inputs):
                found = self.reconstruct(batch.images)
                require_finite(found.decoded)
                parts.append((to_pixels(found.images), to_pixels(found.decoded), found.errors.cpu()))
                names += batch.names
        originals, images, errors = (torch.cat(column) for column in zip(*parts, strict=True))
        return Reconstructions(originals, images, errors, names)

    def embed(self, inputs: Any) -> Tensor:
        """Return the latent codes (N, D) of pictures, float32."""
        return self.outputs(self.model.encode, inputs)[0]  # type: ignore[arg-type]
