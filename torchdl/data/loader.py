"""Batches in an order that depends only on ``(seed, epoch)``, so that training can stop and resume at any batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from torchdl import random
from torchdl.errors import require

CHUNK = 50  # number of batches whose examples are sorted by length together


class BatchRange(NamedTuple):
    """A rank's part of a batch: ``size`` examples from ``start`` in the epoch's order, of ``total`` over all ranks.

    If the last batch has fewer examples than ranks, some ranks have ``size`` 0: they get one example without weight.
    """

    start: int
    size: int
    total: int


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
    return default_collate(batch) if isinstance(batch, list) else batch


class BatchLoader:
    """Iterate over a data set in batches, epoch after epoch; the same seed gives the same batches.

    It is fastest if the data set's ``__getitems__`` takes a tensor of indices and returns a whole batch. PyTorch
    collates the items of any other map-style data set. ``len(loader)`` is the number of batches per epoch.

    Args:
        dataset: The data; its method ``set_epoch(epoch)``, if any, is called before each epoch.
        batch_size: Examples per batch, on each process.
        shuffle: Whether to permute the data by ``(seed, epoch)``.
        seed: The seed of the order.
        drop_last: Whether to leave out a smaller last batch.
        workers: Number of processes of PyTorch's ``DataLoader`` that prepare the batches, for data that does not fit in
            memory. The batches do not depend on it.
        by_length: Whether to batch examples of similar length, for which the data set needs ``lengths`` (N,). The
            examples of up to 50 batches are sorted together; with ``shuffle``, the batches are then shuffled.

    Example:
        >>> data = torchdl.ArrayDataset(torch.arange(10), torch.zeros(10))
        >>> [numbers.tolist() for numbers, zeros in torchdl.BatchLoader(data, batch_size=4)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        >>> loader = torchdl.BatchLoader(data, 4, shuffle=True, drop_last=True)
        >>> len(loader), loader.order(epoch=0).equal(loader.order(epoch=1))
        (2, False)
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
        by_length: bool = False,
    ) -> None:
        require(batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
        require(workers >= 0, f"workers must be 0 or more, not {workers}")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.drop_last, self.workers, self.by_length = drop_last, workers, by_length
        require(not by_length or hasattr(dataset, "lengths"), "by_length needs a data set with the attribute lengths")
        self.rank, self.world_size, self.epoch = 0, 1, 0
        require(self.examples > 0, "the data set is empty")
        problem = f"batch_size {batch_size} is larger than the data set of {self.examples} examples"
        require(len(self) > 0, f"{problem}: choose a smaller one")

    def shard(self, rank: int, world_size: int) -> None:
        """Yield only this rank's part of every global batch of ``world_size * batch_size`` examples."""
        self.rank, self.world_size = rank, world_size
        all_ranks = f"{world_size} processes with batch_size {self.batch_size}"
        require(len(self) > 0, f"{all_ranks} need more than the {self.examples} examples")

    def to(self, device: torch.device) -> None:
        """Move a data set held in memory to ``device``, so that batches are made there."""
        if self.workers == 0 and hasattr(self.dataset, "to"):
            self.dataset.to(device)

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the order and the data set's items; a checkpoint compares them."""
        return {
            "examples": self.examples,
            "batch size": self.global_batch_size,
            "order's seed": self.seed,
            "shuffle": int(self.shuffle),
            "drop_last": int(self.drop_last),
            "by_length": int(self.by_length),
            **(self.dataset.order_settings() if hasattr(self.dataset, "order_settings") else {}),
        }

    @property
    def examples(self) -> int:
        """The number of examples in the data set."""
        return len(self.dataset)  # type: ignore[arg-type]  # Dataset declares no __len__

    @property
    def global_batch_size(self) -> int:
        """Examples per batch, over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        size = self.global_batch_size
        return self.examples // size if self.drop_last else -(-self.examples // size)

    def order(self, epoch: int) -> Tensor:
        """Return the order of an epoch as indices (N,), on the data set's device if it has one."""
        generator = torch.Generator().manual_seed(random.key(self.seed, epoch))
        order = torch.randperm(self.examples, generator=generator) if self.shuffle else torch.arange(self.examples)
        if self.by_length:
            lengths, size = self.dataset.lengths.cpu(), self.global_batch_size  # type: ignore[attr-defined]
            chunk = torch.arange(self.examples) // (CHUNK * size)
            order = order[(chunk * (int(lengths.max()) + 1) + lengths[order]).argsort(stable=True)]
            if self.shuffle and (whole := self.examples // size):  # number of full batches
                batches = order[: whole * size].view(whole, size)  # (batches, B)
                batches = batches[torch.randperm(whole, generator=generator)]
                order = torch.cat([batches.flatten(), order[whole * size :]])
        return order.to(getattr(self.dataset, "device", "cpu"))

    def batch_range(self, batch: int) -> BatchRange:
        """Return the range of this rank's part of a batch."""
        first = batch * self.global_batch_size
        total = min(self.global_batch_size, self.examples - first)
        start, stop = (first + total * r // self.world_size for r in (self.rank, self.rank + 1))
        return BatchRange(start, stop - start, total)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, BatchRange]]:
        """Yield this rank's batches of an epoch from number ``start`` on, each with its :class:`BatchRange`."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        order = self.order(epoch)
        ranges = [self.batch_range(batch) for batch in range(start, len(self))]
        # an empty range becomes one example, to which the trainer gives no weight
        mine = [order[r.start : r.start + max(r.size, 1)] for r in ranges]
        get_batch = getattr(self.dataset, "__getitems__", None)
        if self.workers == 0 and get_batch is not None:
            yield from ((whole_batch(get_batch(indices)), part) for indices, part in zip(mine, ranges, strict=True))
            return
        loader = DataLoader(
            self.dataset,
            batch_sampler=[indices.tolist() for indices in mine],
            num_workers=self.workers,
            collate_fn=whole_batch,
            generator=torch.Generator().manual_seed(random.key(self.seed, epoch, start)),  # not the global one
        )
        yield from zip(loader, ranges, strict=True)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next epoch: the first iteration is epoch 0."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return (batch for batch, _ in self.batches(epoch))
