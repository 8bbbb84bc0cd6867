"""Classify pictures.

Shapes: N pictures, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchdl.errors import InputError, require
from torchdl.predict.base import Predictor
from torchdl.predict.classes import ClassAnswers
from torchdl.predict.images import ImageInput, Pictures


@dataclass(frozen=True)
class ClassifierSettings:
    """What an image classifier takes, and the names of its classes."""

    images: ImageInput
    classes: tuple[str, ...]


class ImageClassifier(Predictor[ClassifierSettings]):
    """Classify pictures by a network that maps images (N, C, H, W) to logits (N, K).

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

    def batches(self, pictures: Any) -> Iterator[Pictures]:
        """Yield pictures as the model sees them, in batches."""
        return self.settings.images.batches(pictures, self.batch_size, self.workers)

    def logits(self, pictures: Any, mirror: bool = False) -> tuple[Tensor, list[str]]:
        """Return the logits (N, K) of pictures on the CPU, and what each picture is called.

        With ``mirror``, a picture's logits are averaged with those of its mirror image.
        """
        found, names = [], []
        with self.ready():
            for batch in self.batches(pictures):
                x = batch.images.to(self.device)
                found.append(((self.model(x) + self.model(x.flip(3))) / 2 if mirror else self.model(x)).cpu())
                names += batch.names
        return torch.cat(found), names

    def predict(self, inputs: Any) -> ClassAnswers:
        """Return the probability of each class for each picture.

        Args:
            inputs: Pictures; see :meth:`torchdl.predict.ImageInput.batches`.
        """
        logits, names = self.logits(inputs)
        return ClassAnswers(logits.double().softmax(1), self.settings.classes, names)

    def embed(self, inputs: Any) -> Tensor:
        """Return the activations (N, D) of the hidden layer before the last, float32, by which to compare pictures."""
        hidden = getattr(self.model, "hidden_units", None)
        if hidden is None:
            raise InputError(f"a {type(self.model).__name__} has no hidden units to compare pictures by")
        with self.ready():
            parts = [hidden(batch.images.to(self.device)).cpu() for batch in self.batches(inputs)]
        return torch.cat(parts)
