"""Inputs and targets in memory or on the device, indexed in whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl.data.info import fingerprint
from torchdl.errors import require

Batch = TypeVar("Batch", covariant=True)


class BatchDataset(Dataset[Batch]):
    """Base class of data sets that make whole batches: ``dataset[i]`` is an item, ``dataset[a:b]`` a batch."""

    def __getitem__(self, index: int | slice) -> Batch:
        chosen = range(len(self))[index]  # type: ignore[arg-type]  # negative indices and IndexError as usual
        if isinstance(chosen, range):
            return self.__getitems__(chosen)  # type: ignore[attr-defined]
        batch = self.__getitems__([chosen])  # type: ignore[attr-defined]
        item: Any = batch[0] if isinstance(batch, Tensor) else (batch[0][0], batch[1][0])
        return item


class ArrayDataset(Dataset):
    """Pairs of an input and a target, N of each.

    Args:
        inputs: (N, ...).
        targets: (N, ...).
        origin: Where they come from, in words.
        fallback: Whether they replace data that was not found.

    ``dataset[i]`` is ``(input, target)``; ``dataset[a:b]`` and ``dataset.__getitems__(indices)`` are batches of them.

    Example:
        >>> data = torchdl.ArrayDataset(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 1, 0]))
        >>> len(data), data[1]
        (3, (tensor([3., 4.]), tensor(1)))
        >>> data.__getitems__([2, 0])
        (tensor([[5., 6.],
                [1., 2.]]), tensor([0, 0]))
    """

    def __init__(self, inputs: Tensor, targets: Tensor, origin: str = "memory", fallback: bool = False) -> None:
        require(len(inputs) == len(targets), f"there are {len(targets)} targets for {len(inputs)} inputs")
        self.inputs, self.targets, self.origin, self.fallback = inputs, targets, origin, fallback

    def to(self, device: str | torch.device) -> ArrayDataset:
        """Move the data to ``device`` in place, so that batches are made there; return the data set itself."""
        self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """The device that the data is on."""
        return self.inputs.device

    def fingerprint(self) -> str:
        """Return the SHA-256 of all inputs and targets, in hexadecimal."""
        return fingerprint([self.inputs, self.targets], repr((self.inputs.shape, self.targets.shape)))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the inputs (B, ...) and targets (B, ...) of indices (B,)."""
        indices = torch.as_tensor(indices, device=self.device)
        return self.inputs.index_select(0, indices), self.targets.index_select(0, indices)
