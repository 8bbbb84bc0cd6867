"""Embed pictures by the encoder of a CPC model.

Shapes: N pictures, D numbers per embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchdl.errors import require
from torchdl.predict.embeddings import EmbeddingAnswers
from torchdl.predict.image_predictor import ImagePredictor
from torchdl.predict.images import ImageInput


@dataclass(frozen=True)
class EmbedderSettings:
    """What an encoder of images takes."""

    images: ImageInput


class ImageEmbedder(ImagePredictor[EmbedderSettings]):
    """Embed pictures by a :class:`torchdl.CPC` of images, or by an encoder alone.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``ImageEmbedder.Settings``.

    Example:
        >>> from torchdl.predict import ImageEmbedder, ImageInput
        >>> settings = ImageEmbedder.Settings(ImageInput(3, 28, 28, low=-1, prepare="digit"))
        >>> embedder = ImageEmbedder(torchdl.image_cpc(28, code_size=16), settings)
        >>> embedder.embed(torch.zeros(5, 28, 28, dtype=torch.uint8)).shape
        torch.Size([5, 16])
    """

    kind = "image embedder"
    Settings = EmbedderSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        self.settings.images.check()
        encoder = getattr(self.model, "encoder", self.model)
        channels, side = (getattr(encoder, name, None) for name in ("channels", "image_size"))
        require(
            (channels, side, side) == self.settings.images.shape, "the model takes images of another shape, or none"
        )

    def predict(self, inputs: Any) -> EmbeddingAnswers:
        """Return the embedding of each picture, and what the picture is called.

        Args:
            inputs: Pictures; see :meth:`torchdl.predict.ImageInput.batches`.
        """
        return EmbeddingAnswers(*self.outputs(getattr(self.model, "encoder", self.model), inputs))

    def embed(self, inputs: Any) -> Tensor:
        """Return the embeddings (N, D) of pictures, float32."""
        return self.predict(inputs).embeddings
