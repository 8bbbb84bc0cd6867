"""What metrics accept: tensors, NumPy arrays and lists of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchdl.errors import InputError, kind_of, require

ArrayLike = Any  # a tensor, a NumPy array or nested lists of numbers


def as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Return the numbers as a tensor without gradients; messages use ``name``.

    Raises:
        InputError: The values are not numbers.
    """
    if not isinstance(values, Tensor):
        try:
            values = torch.tensor(np.asarray(values))
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{name} must be a tensor or an array of numbers, not {kind_of(values)}") from error
    return values.detach()


def as_features(values: ArrayLike) -> Tensor:
    """Return features (N, D) as a tensor.

    Raises:
        InputError: The features are not (N, D), or not finite.
    """
    features = as_tensor(values, "features")
    require(features.dim() == 2, f"features must be (samples, features), not {tuple(features.shape)}")
    wrong = (~features.isfinite()).any(1)
    require(not wrong.any(), f"features must be finite, but those of {int(wrong.sum()):,} samples have NaN or infinity")
    return features


def as_labels(values: ArrayLike, number: int, name: str) -> Tensor:
    """Return labels (N,) as an int64 tensor; they must be below ``number``.

    Raises:
        InputError: The labels are not whole numbers (N,) from 0 to ``number`` - 1, or there are none.
    """
    labels = as_tensor(values, name)
    whole = labels.dim() == 1 and not (labels.is_floating_point() or labels.is_complex())
    require(whole, f"{name} must be whole numbers (samples,), not {labels.dtype} {tuple(labels.shape)}")
    require(len(labels) >= 1, f"{name} must be of 1 sample or more, not 0")
    low, high = (int(each) for each in labels.aminmax())
    require(low >= 0 and high < number, f"{name} must be from 0 to {number - 1}, not {low if low < 0 else high}")
    return labels.long()
