"""What every data set says of itself, for a run's record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class Described(Protocol):
    """Data that knows where it comes from."""

    @property
    def origin(self) -> str:
        """Where it comes from, for the user to read."""

    @property
    def stand_in(self) -> bool:
        """Whether it stands in for data that could not be had."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of all of it, in hexadecimal: what a run's record names the data by."""


def fingerprint(tensors: Iterable[Tensor], prefix: str = "") -> str:
    """Return the SHA-256 of a text and the bytes of tensors, in hexadecimal."""
    digest = hashlib.sha256(prefix.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def introduce(data: Described) -> str:
    """Say where data comes from, loudly if it stands in for other data."""
    return f"{'!' * 20} STAND-IN DATA {'!' * 20}\n{data.origin}" if data.stand_in else f"data: {data.origin}"
