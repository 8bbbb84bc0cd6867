"""Classify pictures.

Shapes: N pictures, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from torchdl.errors import InputError, kind_of, require
from torchdl.predict.classes import ClassAnswers
from torchdl.predict.image_predictor import ImagePredictor
from torchdl.predict.images import ImageInput


@dataclass(frozen=True)
class ClassifierSettings:
    """What an image classifier takes, and the names of its classes."""

    images: ImageInput
    classes: tuple[str, ...]


class ImageClassifier(ImagePredictor[ClassifierSettings]):
    """Classify pictures by a network that maps images (N, C, H, W) to logits (N, K).

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``ImageClassifier.Settings``.

    Example:
        >>> from torchdl.predict import ImageClassifier, ImageInput
        >>> settings = ImageClassifier.Settings(ImageInput(1, 28, 28, prepare="digit"), tuple("0123456789"))
        >>> classifier = ImageClassifier(torchdl.LenetLike((1, 28, 28), 10), settings)
        >>> classifier.predict(torch.zeros(5, 28, 28, dtype=torch.uint8)).probabilities.shape
        torch.Size([5, 10])
    """

    kind = "image classifier"
    Settings = ClassifierSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        self.settings.images.check()
        shape, classes = getattr(self.model, "in_shape", self.settings.images.shape), self.settings.classes
        require(tuple(shape) == self.settings.images.shape, "the model takes images of another shape")
        require(
            len(set(classes)) == len(classes) == getattr(self.model, "num_classes", len(classes)) > 1,
            "the classes are not the model's",
        )

    def logits(self, pictures: Any, mirror: bool = False) -> tuple[Tensor, list[str]]:
        """Return the logits (N, K) of pictures on the CPU, and what each picture is called.

        With ``mirror``, a picture's logits are averaged with those of its mirror image.
        """

        def with_mirrored(images: Tensor) -> Tensor:
            return cast(Tensor, (self.model(images) + self.model(images.flip(3))) / 2)

        return self.outputs(with_mirrored if mirror else self.model, pictures)

    def predict(self, inputs: Any) -> ClassAnswers:
        """Return the probability of each class for each picture.

        Args:
            inputs: Pictures; see :meth:`torchdl.predict.ImageInput.batches`.
        """
        logits, names = self.logits(inputs)
        return ClassAnswers(
            logits.double().softmax(1), self.settings.classes, names, self.settings.images.notes(inputs)
        )

    def embed(self, inputs: Any) -> Tensor:
        """Return the activations (N, D) of the hidden layer before the last, float32, by which to compare pictures.

        Raises:
            InputError: The model has no hidden units.
        """
        hidden = getattr(self.model, "hidden_units", None)
        if hidden is None:
            raise InputError(f"{kind_of(self.model)} has no hidden units to compare pictures by")
        return self.outputs(hidden, inputs)[0]
