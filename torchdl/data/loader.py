"""Batches in an order that depends on ``(seed, epoch)`` alone, so that training can stop and go on at any batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from torchdl import random
from torchdl.errors import require

CHUNK = 50  # batches within which examples are sorted by length


class BatchRange(NamedTuple):
    """What a batch holds of an epoch's order: ``size`` examples from ``start`` on, of ``total`` over all ranks.

    A rank for which a last batch is too small gets one example with ``size`` 0: it takes part and weighs nothing.
    """

    start: int
    size: int
    total: int


def whole_batch(batch: Any) -> Any:
    """Return a whole batch as it is, and collate a list of items as PyTorch does.

    It is the ``collate_fn`` for a ``DataLoader`` over data sets whose ``__getitems__`` gives whole batches.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> images = torchdl.ImageDataset(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6))
        >>> loader = DataLoader(images, batch_size=4, collate_fn=torchdl.whole_batch)
        >>> [batch.shape for batch, labels in loader]
        [torch.Size([4, 1, 4, 4]), torch.Size([2, 1, 4, 4])]
    """
    return default_collate(batch) if isinstance(batch, list) else batch


class BatchLoader:
    """Iterate over a data set in batches; epoch after epoch, the same again for the same seed.

    At full speed for data sets whose ``__getitems__`` takes a tensor of indices and returns a whole batch; any other
    map-style data set works through PyTorch's collation. ``len(loader)`` is the number of batches an epoch.

    Args:
        dataset: The data; its method ``set_epoch(epoch)`` is called before each epoch if it has one.
        batch_size: Examples a batch, on each process.
        shuffle: Whether the order is a permutation drawn from ``(seed, epoch)``, or the data's own.
        seed: The order's seed.
        drop_last: Whether to leave out a last batch that is smaller.
        workers: Processes that prepare batches, through PyTorch's ``DataLoader``, for data that does not fit in
            memory; the batches are the same ones.
        by_length: Put examples of about the same length into a batch, by the data set's ``lengths`` (N,): as many as
            50 batches are sorted at a time, and batches shuffled again if ``shuffle``.

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
        require(not by_length or hasattr(dataset, "lengths"), "by_length needs a data set that knows its lengths")
        self.rank, self.world_size, self.epoch = 0, 1, 0
        require(self.examples > 0, "the data set is empty: there is nothing to take batches from")
        require(
            len(self) > 0,
            f"batch_size {batch_size} is more than the {self.examples} examples there are: choose a smaller one",
        )

    def shard(self, rank: int, world_size: int) -> None:
        """Give only this rank's part of every global batch of ``world_size * batch_size`` examples."""
        self.rank, self.world_size = rank, world_size
        require(
            len(self) > 0,
            f"{world_size} processes with batch_size {self.batch_size} want more than the {self.examples} examples",
        )

    def to(self, device: torch.device) -> None:
        """Move a data set that is held in memory to ``device``, so that batches are made there."""
        if self.workers == 0 and hasattr(self.dataset, "to"):
            self.dataset.to(device)

    def order_settings(self) -> dict[str, float]:
        """Return all that the order depends on, and a data set's own settings, for a checkpoint to compare."""
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
        return len(self.dataset)  # type: ignore[arg-type]  # Dataset does not declare the length that ours all have

    @property
    def global_batch_size(self) -> int:
        """Examples a batch, over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        size = self.global_batch_size
        return self.examples // size if self.drop_last else -(-self.examples // size)

    def order(self, epoch: int) -> Tensor:
        """Return the order of an epoch as indices (N,), on the data set's device if it says one."""
        generator = torch.Generator().manual_seed(random.key(self.seed, epoch))
        order = torch.randperm(self.examples, generator=generator) if self.shuffle else torch.arange(self.examples)
        if self.by_length:
            lengths, size = self.dataset.lengths.cpu(), self.global_batch_size  # type: ignore[attr-defined]
            chunk = torch.arange(self.examples) // (CHUNK * size)
            order = order[(chunk * (int(lengths.max()) + 1) + lengths[order]).argsort(stable=True)]
            if self.shuffle and (whole := self.examples // size):  # batches, of which the last may be a smaller one
                batches = order[: whole * size].view(whole, size)  # (batches, B)
                batches = batches[torch.randperm(whole, generator=generator)]
                order = torch.cat([batches.flatten(), order[whole * size :]])
        return order.to(getattr(self.dataset, "device", "cpu"))

    def span(self, batch: int) -> BatchRange:
        """Return the positions of this rank's part of a batch."""
        first = batch * self.global_batch_size
        total = min(self.global_batch_size, self.examples - first)
        start, stop = (first + total * r // self.world_size for r in (self.rank, self.rank + 1))
        return BatchRange(start, stop - start, total)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, BatchRange]]:
        """Yield this rank's batches of an epoch from number ``start`` on, each with its :class:`BatchRange`."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)
        order = self.order(epoch)
        spans = [self.span(batch) for batch in range(start, len(self))]
        # a span of nothing becomes one example, which the trainer gives no weight
        mine = [order[s.start : s.start + max(s.size, 1)] for s in spans]
        get_batch = getattr(self.dataset, "__getitems__", None)
        if self.workers == 0 and get_batch is not None:
            yield from ((whole_batch(get_batch(indices)), span) for indices, span in zip(mine, spans, strict=True))
            return
        loader = DataLoader(
            self.dataset,
            batch_sampler=[indices.tolist() for indices in mine],
            num_workers=self.workers,
            collate_fn=whole_batch,
            generator=torch.Generator().manual_seed(random.key(self.seed, epoch, start)),  # not the global one
        )
        yield from zip(loader, spans, strict=True)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next epoch: the first iteration is epoch 0."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return (batch for batch, _ in self.batches(epoch))
