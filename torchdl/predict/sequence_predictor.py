"""Predict a number or a class for sequences of numbers.

Shapes: N sequences, T terms, D numbers per term, K outputs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdl.data.arrays import read_npy
from torchdl.errors import InputError, kind_of, require
from torchdl.models.rnn import FIXED
from torchdl.predict.base import Predictor
from torchdl.predict.classes import ClassAnswers
from torchdl.predict.numbers import NumberAnswers
from torchdl.tasks.supervised import class_probabilities, logits_for


@dataclass(frozen=True)
class SequenceSettings:
    """The sequences that a network reads, and what its outputs mean.

    Attributes:
        features: D.
        name: What is predicted, if it is a number.
        classes: The names of the classes; none if a number is predicted.
        length: T, if the network needs sequences of that length; None if it reads any.
    """

    features: int
    name: str = "prediction"
    classes: tuple[str, ...] = ()
    length: int | None = None


class SequencePredictor(Predictor[SequenceSettings]):
    """Predict a number or a class by a network that maps sequences (N, T, D) to outputs (N, K).

    K is 1 for a number and for two classes.

    Args:
        model, settings, device, batch_size, workers: As for :class:`Predictor`; the settings are
            ``SequencePredictor.Settings``.

    Example:
        >>> from torchdl.predict import SequencePredictor
        >>> model = torchdl.SequenceModel("gru", in_features=2)
        >>> predictor = SequencePredictor(model, SequencePredictor.Settings(2, name="sum"))
        >>> predictor.predict(torch.zeros(5, 100, 2)).to_frame().columns.tolist()
        ['input', 'sum']
        >>> parity = SequencePredictor(model, SequencePredictor.Settings(2, classes=("even", "odd")))
        >>> parity.predict([torch.zeros(7, 2), torch.zeros(9, 2)]).probabilities.shape
        torch.Size([2, 2])
    """

    kind = "sequence predictor"
    Settings = SequenceSettings

    def check(self) -> None:
        """Raise :class:`InputError` unless the settings are sound and the model's."""
        settings, model = self.settings, self.model
        require(settings.features >= 1, f"sequences need numbers, not {settings.features} per term")
        different = len(set(settings.classes)) == len(settings.classes) != 1
        require(different, "there must be no classes, or two or more with names of their own")
        expected = {
            "in_features": settings.features,
            "out_features": logits_for(len(settings.classes)),
            "horizon": None,
        }
        actual = {name: getattr(model, name, value) for name, value in expected.items()}
        require(actual == expected, f"the model has {actual}, but {expected} are needed")
        needed = getattr(model, "length", None) if getattr(model, "kind", "") in FIXED else settings.length
        require(needed == settings.length, f"the model reads sequences of {needed} terms, not {settings.length}")

    def outputs(self, inputs: Any) -> Tensor:
        """Return the outputs (N, K) for sequences, as the network returns them, on the CPU; see :meth:`predict`."""
        return torch.cat([self.computed(self.model, group) for group in self._groups(inputs)])

    def predict(self, inputs: Any) -> ClassAnswers | NumberAnswers:
        """Return a number, or the probability of each class, for each sequence.

        Args:
            inputs: An array or tensor (N, T, D), or (T, D) for one sequence; a list of sequences (T, D), whose lengths
                may differ; or a file with an array, as NumPy's ``save`` writes it.

        Raises:
            InputError: The shape is another, a value is not a finite number, or the file cannot be read.
        """
        found = self.outputs(inputs).double()
        names = [str(number) for number in range(len(found))]
        if self.settings.classes:
            return ClassAnswers(class_probabilities(found), self.settings.classes, names)
        return NumberAnswers(found[:, 0], self.settings.name, names)

    def _groups(self, inputs: Any) -> list[Tensor]:
        """Return sequences as float32 tensors (N, T, D), in order, each of sequences of one length."""
        if isinstance(inputs, (str, os.PathLike)):
            inputs = read_npy(inputs, np.float32)
        if isinstance(inputs, Sequence) and len({len(each) for each in inputs if hasattr(each, "__len__")}) > 1:
            return [group for each in inputs for group in self._groups(each)]
        try:
            if isinstance(inputs, Sequence) and any(isinstance(each, Tensor) for each in inputs):
                inputs = torch.stack([*inputs])
            x = inputs.detach().cpu() if isinstance(inputs, Tensor) else torch.from_numpy(np.array(inputs, "float32"))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"sequences must be numbers, not {kind_of(inputs)} ({error})") from error
        x = x.float()
        x = x[None] if x.dim() == 2 else x  # (T, D) -> (1, T, D)
        features, length = self.settings.features, self.settings.length
        require(
            x.dim() == 3 and x.shape[2] == features and x.shape[1] == (length or x.shape[1]) and x.numel() > 0,
            f"sequences must be (N, {length or 'T'}, {features}), or ({length or 'T'}, {features}) for one, not "
            f"{tuple(x.shape)}",
        )
        require(bool(x.isfinite().all()), "sequences must be finite numbers, without NaN")
        return [x]
