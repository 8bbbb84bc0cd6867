"""Data sets made of others: PyTorch's ``Subset`` (of ``random_split``, too), ``ConcatDataset``, and wrappers of users.

Shapes: N examples, B in a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate

from torchdl.data.arrays import BatchDataset
from torchdl.data.info import fingerprint
from torchdl.errors import InputError, require


def whole_batch(batch: Any) -> Any:
    """Return a whole batch unchanged, and collate a list of items as PyTorch does.

    Use it as the ``collate_fn`` of a ``DataLoader`` over a data set whose ``__getitems__`` returns whole batches.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> images = torchdl.ImageDataset(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6))
        >>> loader = DataLoader(images, batch_size=4, collate_fn=torchdl.whole_batch)
        >>> [batch.shape for batch, labels in loader]
        [torch.Size([4, 1, 4, 4]), torch.Size([2, 1, 4, 4])]
    """
    return collate(batch) if isinstance(batch, list) else batch


def collate(items: list[Any]) -> Any:
    """Make a batch of items as PyTorch does; raise :class:`InputError` if they cannot be stacked."""
    try:
        return default_collate(items)
    except TypeError as error:
        found = str(error).rpartition("found ")[2]
        raise InputError(f"a batch is made of tensors, arrays or numbers, not of {found}: convert the items") from error
    except RuntimeError as error:
        raise InputError("the items of a batch differ in shape: resize, cut or pad them to the same one") from error


def get_batch(dataset: Dataset, indices: Tensor) -> Any:
    """Return a data set's batch of indices (B,), by its ``__getitems__`` or item by item."""
    if isinstance(dataset, View):
        return dataset.__getitems__(indices)
    if not makes_batches(dataset):
        return collate([dataset[index] for index in indices.tolist()])
    return whole_batch(dataset.__getitems__(indices))  # type: ignore[attr-defined]


def makes_batches(dataset: Dataset) -> bool:
    """Return whether a data set has a ``__getitems__`` other than PyTorch's own, which expect lists of items."""
    of_many = getattr(dataset, "__getitems__", None)
    return of_many is not None and not getattr(of_many, "__module__", "").startswith("torch.utils.data")


def within(dataset: Any) -> list[Any]:
    """List the data sets that are attributes of a data set, alone or in a container, and those within them.

    The innermost come first, and the data set itself comes last.
    """
    found: list[Any] = []
    seen: set[int] = set()

    def walk(part: Any) -> None:
        seen.add(id(part))
        for value in getattr(part, "__dict__", {}).values():
            values = list(value.values()) if isinstance(value, dict) else value
            if not isinstance(values, (list, tuple)):
                values = [value]
            elif len(values) > 100 and not is_dataset(values[0]):
                continue  # the data itself, such as a list of texts
            for each in values:
                if is_dataset(each) and id(each) not in seen:
                    walk(each)
        found.append(part)

    walk(dataset)
    return found


def is_dataset(value: Any) -> bool:
    """Return whether an object is a data set, or has ``set_epoch``."""
    return isinstance(value, Dataset) or callable(getattr(value, "set_epoch", None))


def set_epoch(parts: Iterable[Any], epoch: int) -> list[Any]:
    """Call ``set_epoch`` of the data sets that have it; return those whose ``epoch`` is ``epoch`` afterwards."""
    changing = [part for part in parts if hasattr(part, "set_epoch")]
    for part in changing:
        part.set_epoch(epoch)
    return [part for part in changing if getattr(part, "epoch", None) == epoch]


def draw_globally(parts: Iterable[Any]) -> bool:
    """Return whether data sets may draw from global generators, as those of torchdl never do."""
    return any(not type(part).__module__.startswith("torchdl.") for part in parts)


def order_settings(parts: Iterable[Any]) -> dict[str, Any]:
    """Return the settings that determine the items of data sets."""
    settings = (part.order_settings() for part in parts if hasattr(part, "order_settings"))
    return {name: value for each in settings for name, value in each.items()}


def look_through(dataset: Any) -> Any:
    """Return a :class:`View` of the data sets that a ``Subset`` or ``ConcatDataset`` is made of; others unchanged."""
    if not is_transparent(dataset):
        return dataset
    sources: list[Dataset] = []
    return View(sources, *resolve(dataset, torch.arange(len(dataset)), sources))


def is_transparent(dataset: Dataset) -> bool:
    """Return whether each item of a data set is an item of another one, as in ``Subset`` and ``ConcatDataset``."""
    method = getattr(type(dataset), "__getitem__", None)
    return method is ConcatDataset.__getitem__ or (method is Subset.__getitem__ and numbers(dataset) is not None)


def numbers(subset: Any) -> Tensor | None:
    """Return a subset's indices (N,) int64; None if they are not integers."""
    try:
        indices = torch.as_tensor(subset.indices)
    except (TypeError, ValueError, RuntimeError):
        return None
    return None if indices.is_floating_point() or indices.dim() != 1 else indices.long().cpu()


def resolve(dataset: Any, rows: Tensor, sources: list[Dataset]) -> tuple[Tensor, Tensor]:
    """Find the examples (N,) of a data set: return the place of each one's source in ``sources``, and its index there.

    Sources that are not in the list yet are appended.
    """
    if hasattr(dataset, "__len__") and len(rows):
        count, kind = len(dataset), type(dataset).__name__
        known = -count <= int(rows.min()) and int(rows.max()) < count
        require(known, f"the indices of a Subset must be from {-count} to {count - 1}, for the examples of its {kind}")
        rows = torch.where(rows < 0, rows + count, rows)
    if not is_transparent(dataset):
        place = next((i for i, source in enumerate(sources) if source is dataset), len(sources))
        sources[place:] = [dataset]
        return torch.full_like(rows, place), rows
    if type(dataset).__getitem__ is Subset.__getitem__:
        return resolve(dataset.dataset, cast(Tensor, numbers(dataset))[rows], sources)
    ends = torch.tensor(dataset.cumulative_sizes)
    part = torch.bucketize(rows, ends, right=True)
    which, index = torch.empty_like(rows), torch.empty_like(rows)
    for number, inner in enumerate(dataset.datasets):
        chosen, start = part == number, ends[number] - len(inner)
        which[chosen], index[chosen] = resolve(inner, rows[chosen] - start, sources)
    return which, index


class View(BatchDataset[Any]):
    """Examples of other data sets, in any order.

    Args:
        sources: The other data sets.
        which: (N,) int64, the place of each example's data set in ``sources``.
        index: (N,) int64, its index there.
    """

    def __init__(self, sources: Sequence[Dataset], which: Tensor, index: Tensor) -> None:
        self.sources, self.which, self.index = list(sources), which, index

    @property
    def lengths(self) -> Tensor:
        """The length (N,) of each example, if the sources have ``lengths``."""
        lengths = torch.empty_like(self.index)
        for place, source in enumerate(self.sources):
            chosen = self.which == place
            lengths[chosen] = source.lengths.to(lengths.device)[self.index[chosen]]  # type: ignore[attr-defined]
        return lengths

    @property
    def device(self) -> torch.device:
        """The device that the sources are on."""
        return torch.device(getattr(self.sources[0], "device", "cpu"))

    def to(self, device: str | torch.device) -> View:
        """Move the sources to ``device`` in place if all can be moved; return the view itself."""
        if all(hasattr(source, "to") for source in self.sources):
            for source in self.sources:
                source.to(device)  # type: ignore[attr-defined]
            self.which, self.index = self.which.to(self.device), self.index.to(self.device)
        return self

    @property
    def origin(self) -> str:
        """Where the examples come from, in words."""
        origins = [getattr(source, "origin", type(source).__name__) for source in self.sources]
        return f"{len(self):,} examples of {' and of '.join(origins)}"

    @property
    def fallback(self) -> bool:
        """Whether a source replaces data that was not found."""
        return any(getattr(source, "fallback", False) for source in self.sources)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the sources' fingerprints and of the choice of examples, in hexadecimal."""
        for source in self.sources:
            lacks = f"{type(source).__name__} has no method fingerprint, which identifies the data of a run: add one"
            require(hasattr(source, "fingerprint"), lacks)
        return fingerprint([self.which, self.index], "".join(s.fingerprint() for s in self.sources))  # type: ignore[attr-defined]

    def order_settings(self) -> dict[str, str]:
        """Return what determines the choice of examples; a checkpoint compares it."""
        return {"choice of examples": fingerprint([self.which, self.index])[:12]}

    def __len__(self) -> int:
        return len(self.index)

    def take(self, place: int, index: Tensor) -> Any:
        """Return the batch of indices (B,) of one source."""
        source = self.sources[place]
        return get_batch(source, index.to(getattr(source, "device", "cpu")))

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Any:
        """Return the batch of indices (B,), as the sources make it."""
        rows = torch.as_tensor(indices, dtype=torch.int64, device=self.index.device)
        which, index = self.which[rows], self.index[rows]
        places = which.unique().tolist() if len(self.sources) > 1 else [0]
        if len(places) == 1:
            return self.take(places[0], index)
        if not all(map(makes_batches, self.sources)):
            examples = zip(which.tolist(), index.tolist(), strict=True)
            return collate([self.sources[place][row] for place, row in examples])
        found = [self.take(place, index[which == place]) for place in places]
        order = torch.cat([(which == place).nonzero()[:, 0] for place in places]).argsort()
        return merge(found, order)


def merge(batches: Sequence[Any], order: Tensor) -> Any:
    """Concatenate batches of the same structure, and return their examples in ``order`` (B,)."""
    # PyTorch collates tuples to a list
    (first, structure), *others = (tree_flatten(tuple(b) if type(b) is list else b) for b in batches)
    columns = list(zip(first, *(leaves for leaves, _ in others), strict=False))
    alike = all(
        isinstance(tensor, Tensor) and tensor.shape[1:] == column[0].shape[1:]
        for column in columns
        for tensor in column
    )
    require(
        alike and all(other == structure for _, other in others),
        "the data sets of a ConcatDataset make batches of different kinds or shapes: make their items alike",
    )
    return tree_unflatten([torch.cat(column)[order.to(column[0].device)] for column in columns], structure)
