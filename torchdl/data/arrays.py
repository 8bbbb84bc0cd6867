"""Inputs and targets in memory or on the device, indexed in whole batches."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import index, itemgetter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from torchdl.data.info import fingerprint
from torchdl.errors import InputError, first_line, kind_of, require
from torchdl.files import PathLike

Batch = TypeVar("Batch", covariant=True)
ArrayLike = Any  # a tensor, a NumPy array or nested lists of numbers


class BatchDataset(Dataset[Batch]):
    """Base class of data sets that make whole batches: ``dataset[i]`` is an item, ``dataset[a:b]`` a batch."""

    def __getitem__(self, index: int | slice) -> Batch:
        chosen = range(len(self))[index]  # type: ignore[arg-type]  # negative indices and IndexError as usual
        if isinstance(chosen, range):
            return self.__getitems__(chosen)  # type: ignore[attr-defined]
        batch = self.__getitems__([chosen])  # type: ignore[attr-defined]
        return tree_map(itemgetter(0), batch)

    def __repr__(self) -> str:
        return summary(self)


def summary(dataset: Any) -> str:
    """Return the size of a data set, the shapes of the tensors it was made of, its classes and its origin.

    Example:
        >>> torchdl.ArrayDataset(torch.zeros(3, 2), torch.zeros(3), origin="an example")
        ArrayDataset(3 items, inputs (3, 2) float32, targets (3,) float32, from an example)
    """
    parts = [f"{len(dataset):,} items"]
    for name in inspect.signature(type(dataset)).parameters:
        value = getattr(dataset, name, None)
        if isinstance(value, Tensor) and value.dim() and value.numel():
            parts.append(f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}")
    if classes := getattr(dataset, "classes", ()):
        shown = f"{', '.join(map(str, classes[:10]))}{', ...' if len(classes) > 10 else ''}"
        parts.append(f"{len(classes)} classes ({shown})")
    if origin := getattr(dataset, "origin", ""):
        parts.append(f"from {origin}")
    return f"{type(dataset).__name__}({', '.join(parts)})"


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise :class:`InputError` unless a value is a whole number, and ``least`` or more."""
    try:
        whole = index(value) >= least
    except TypeError:  # an array of several has __index__, too
        whole = False
    if not whole:
        found = f"{value!r}" if isinstance(value, (int, float, str, tuple)) or value is None else kind_of(value)
        minimum = "0 or more" if least == 0 else f"at least {least}"
        raise InputError(f"{name} must be a whole number, {minimum}, not {found}")


def as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Return a tensor unchanged, and make one of a NumPy array, a table, a list of numbers or of tensors.

    Decimals become float32, and integers int64, except bytes (uint8), of which images consist. Messages use ``name``.

    Raises:
        InputError: The values are not numbers, there is a single one, or rows differ in shape.
    """
    if not isinstance(values, Tensor):
        try:
            if isinstance(values, (list, tuple)) and any(isinstance(value, Tensor) for value in values):
                values = torch.stack([torch.as_tensor(value) for value in values])
            array = values if isinstance(values, Tensor) else np.asarray(values)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"the rows of {name} differ in shape: make them equal") from error
        if not isinstance(array, Tensor):
            known = array.dtype.kind in "biuf"
            given = f"{array.dtype}: encode other values first, or leave them out" if array.ndim else kind_of(values)
            require(known, f"{name} must be numbers, not {given}")
            kinds = {"f": np.float32, "b": np.bool_}
            kind = np.uint8 if array.dtype == np.uint8 else kinds.get(array.dtype.kind, np.int64)
            array = torch.from_numpy(np.array(array, dtype=kind, order="C"))  # a copy, so that any strides will do
        values = array
    require(values.dim() >= 1, f"{name} must have a row for each example, not be a single number")
    return values


def as_classes(labels: ArrayLike, name: str) -> Tensor:
    """Return a tensor unchanged, and otherwise what :func:`as_tensor` makes, with bytes as int64."""
    tensor = as_tensor(labels, name)
    return tensor if isinstance(labels, Tensor) or tensor.dtype != torch.uint8 else tensor.long()


def read_npy(path: PathLike, dtype: type[np.floating] | None = None) -> np.ndarray:
    """Read an array of numbers from a file of NumPy's, which may be anybody's; as ``dtype``, if it is given.

    Raises:
        InputError: The file is missing or damaged, or holds anything but numbers.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a map allocates nothing that is not there
        numbers = isinstance(values, np.ndarray) and values.dtype.kind in "iuf" and values.size > 0
        require(numbers, f"{path} holds no array of numbers, but {getattr(values, 'dtype', 'several arrays')}")
        return np.array(values, dtype)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged files raise many kinds; NumPy's advice is to allow pickles
        known = "" if "pickle" in str(error) else f" ({first_line(error)})"
        advice = "save an array of numbers with numpy.save"
        raise InputError(f"{path} is damaged, or no array of numbers in NumPy's format{known}: {advice}") from error


class ArrayDataset(Dataset):
    """Pairs of an input and a target, N of each.

    Args:
        inputs: (N, ...), a tensor; or a NumPy array or list, whose decimals become float32 and integers int64.
        targets: (N, ...), the same; integers of a NumPy array or list become int64, as classes must be.
        origin: Where they come from, in words.
        fallback: Whether they replace data that was not found.

    ``dataset[i]`` is ``(input, target)``; ``dataset[a:b]`` and ``dataset.__getitems__(indices)`` are batches of them.

    Raises:
        InputError: Inputs and targets differ in number.

    Example:
        >>> data = torchdl.ArrayDataset(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 1, 0]))
        >>> len(data), data[1]
        (3, (tensor([3., 4.]), tensor(1)))
        >>> data.__getitems__([2, 0])
        (tensor([[5., 6.],
                [1., 2.]]), tensor([0, 0]))
    """

    def __init__(self, inputs: ArrayLike, targets: ArrayLike, origin: str = "memory", fallback: bool = False) -> None:
        inputs, targets = as_tensor(inputs, "inputs"), as_classes(targets, "targets")
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

    def __repr__(self) -> str:
        return summary(self)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int | slice) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the inputs (B, ...) and targets (B, ...) of indices (B,)."""
        indices = torch.as_tensor(indices, device=self.device)
        return self.inputs.index_select(0, indices), self.targets.index_select(0, indices)
