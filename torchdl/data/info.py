"""The origin and the fingerprint of data, for a run's record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class DatasetInfo(Protocol):
    """A data set that has an origin and a fingerprint."""

    @property
    def origin(self) -> str:
        """Where the data comes from, in words."""

    @property
    def fallback(self) -> bool:
        """Whether it replaces data that was not found."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of all the data, in hexadecimal; a run's record identifies the data by it."""


def fingerprint(tensors: Iterable[Tensor], prefix: str = "") -> str:
    """Return the SHA-256 of a text and the bytes of tensors, in hexadecimal."""
    digest = hashlib.sha256(prefix.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
