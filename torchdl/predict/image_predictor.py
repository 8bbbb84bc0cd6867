"""What the predictors of pictures have in common: pictures come in batches, and answers have the pictures' names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from torchdl.predict.base import Predictor
from torchdl.predict.images import ImageInput, Pictures


class OfImages(Protocol):
    """The settings of a predictor of pictures."""

    @property
    def images(self) -> ImageInput:
        """The images that the network takes."""


OfImagesT = TypeVar("OfImagesT", bound=OfImages)


class ImagePredictor(Predictor[OfImagesT]):
    """A predictor whose inputs are pictures; see :meth:`torchdl.predict.ImageInput.batches`."""

    def batches(self, pictures: Any) -> Iterator[Pictures]:
        """Yield pictures as the model sees them, in batches."""
        return self.settings.images.batches(pictures, self.batch_size, self.workers)

    def outputs(self, function: Callable[[Tensor], Tensor], pictures: Any) -> tuple[Tensor, list[str]]:
        """Apply a function of the model to pictures (N, C, H, W).

        Return its results (N, ...) on the CPU, and what each picture is called.
        """
        found, names = [], []
        with self.ready():
            for batch in self.batches(pictures):
                found.append(function(batch.images.to(self.device)).cpu())
                names += batch.names
        return torch.cat(found), names
