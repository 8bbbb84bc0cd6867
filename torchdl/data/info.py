"""What every data set says of itself, for a run's record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class DatasetInfo(Protocol):
    """Data that knows where it comes from."""

    @property
    def origin(self) -> str:
        """Where it comes from, for the user to read."""

    @property
    def fallback(self) -> bool:
        """Whether it stands in for data that could not be had."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of all of it, in hexadecimal: what a run's record names the data by."""


def fingerprint(tensors: Iterable[Tensor], prefix: str = "") -> str:
    """Return the SHA-256 of a text and the bytes of tensors, in hexadecimal."""
    digest = hashlib.sha256(prefix.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
