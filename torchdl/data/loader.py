"""Batches in an order that depends only on ``(seed, epoch)``, so that training can stop and resume at any batch."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, Dataset, IterableDataset

from torchdl import random
from torchdl.data.arrays import require_whole
from torchdl.data.wrappers import draw_globally, get_batch, look_through, order_settings, set_epoch, within
from torchdl.errors import InputError, first_line, kind_of, require

CHUNK = 50  # number of batches whose examples are sorted by length together


class BatchRange(NamedTuple):
    """A rank's part of a batch: ``size`` examples from ``start`` in the epoch's order, of ``total`` over all ranks.

    If the last batch has fewer examples than ranks, some ranks have ``size`` 0: they get one example without weight.
    """

    start: int
    size: int
    total: int


class EpochBatches(Dataset[Any]):
    """The batches of one epoch by number, made in this process or in one of a ``DataLoader``'s workers.

    What a data set draws from the global generators of PyTorch, NumPy or Python depends on the seed, the epoch and the
    batch alone.

    Args:
        loader: The loader, whose data set gets ``set_epoch``.
        epoch: The epoch.
        start: The number of the first batch.
        stream: Separates what the data set draws for different purposes.
    """

    def __init__(self, loader: BatchLoader, epoch: int, start: int, stream: random.Stream) -> None:
        self.dataset, self.seed, self.rank = loader.source, loader.seed, loader.rank
        self.epoch, self.stream, parts = epoch, stream, within(self.dataset)
        for part in parts:
            if hasattr(part, "check_loader"):
                part.check_loader(loader.global_batch_size, loader.shuffle or loader.by_length)
        with random.taking_turns():
            self.changing, self.draws = set_epoch(parts, epoch), draw_globally(parts)
            self.order = loader.order(epoch)
        self.device = torch.device(getattr(self.dataset, "device", None) or "cpu")
        self.ranges = {batch: loader.batch_range(batch) for batch in range(start, len(loader))}

    def __getitem__(self, batch: int) -> Any:
        """Return a batch, with the same random numbers wherever it is made."""
        counters = self.seed, self.epoch, batch, self.rank, self.stream
        start, size, _ = self.ranges[batch]
        # an empty range becomes one example, to which the trainer gives no weight
        indices = self.order[start : start + max(size, 1)]
        with random.seeded(self.device, *counters, everywhere=True) if self.draws else random.taking_turns():
            for part in self.changing:
                if part.epoch != self.epoch:  # another loader of the same data set has set its own
                    part.set_epoch(self.epoch)
            return get_batch(self.dataset, indices)


class FromWorkers(EpochBatches):
    """The same batches made in a worker process, which returns an error of the input instead of raising it."""

    def __getitem__(self, batch: int) -> Any:
        """Return a batch in shared memory, or the error, since a ``DataLoader`` would add the worker's traceback."""
        try:
            # here and not in the queue's thread, where a full /dev/shm would end in waiting for ever
            return tree_map_only(Tensor, Tensor.share_memory_, super().__getitem__(batch))
        except InputError as error:
            return error


def unchanged(batch: Any) -> Any:
    """Return a batch as it is, since it is whole already."""
    return batch


LOST = re.compile(r"DataLoader worker .*(killed|exited)|shared memory ?\(shm\)|</torch_\d|ancdata")


@contextmanager
def explaining_lost_workers() -> Iterator[None]:
    """Turn PyTorch's errors about worker processes that were killed, or lack memory, into a sentence.

    Raises:
        InputError: A worker was lost. PyTorch may say so at any moment, by a signal.
    """
    try:
        yield
    except (RuntimeError, OSError, EOFError) as error:
        reason = loss_of_worker(error)
        if not reason:
            raise
        raise InputError(
            f"a process that prepares batches was lost ({reason}): it was killed, or memory ran out, or shared memory "
            "(/dev/shm); use fewer of them (workers=0 for none) or smaller batches, or enlarge /dev/shm"
        ) from error


def loss_of_worker(error: Exception) -> str:
    """Return what an error says of a lost worker; "" if it is about something else."""
    if isinstance(error, RuntimeError):
        lines = [line for line in str(error).splitlines() if LOST.search(line)]
        return lines[-1].strip().rstrip(".") if lines else ""
    # of a worker that died while its batch was fetched, Python's own connection says so
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    there = frame.f_globals.get("__name__", "").startswith("multiprocessing.")
    return f"DataLoader worker: {first_line(error)}" if there else ""


def check_dataset(dataset: Any) -> None:
    """Raise :class:`InputError` unless an object has a length and items by number, as a data set has."""
    advice = "use one with __len__ and __getitem__"
    if isinstance(dataset, DataLoader):
        advice = "give it the loader's data set"
    elif hasattr(dataset, "iloc"):  # of pandas
        advice = "make an ArrayDataset of its columns first"
    elif hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset):
        return
    raise InputError(
        f"a BatchLoader needs a data set with a length and items by number, not {kind_of(dataset)}: {advice}"
    )


class BatchLoader:
    """Iterate over a data set in batches, epoch after epoch; the same seed gives the same batches.

    It is fastest if the data set's ``__getitems__`` takes a tensor of indices and returns a whole batch. PyTorch
    collates the items of any other map-style data set. ``len(loader)`` is the number of batches per epoch.

    Args:
        dataset: The data, also a list of examples. Its method ``set_epoch(epoch)``, if any, is called before each
            epoch, and so are those of the data sets within it; so is ``check_loader(batch_size, shuffle)``, which may
            refuse the loader's batches. PyTorch's ``Subset`` and ``ConcatDataset`` are as fast
            as the data sets in them.
        batch_size: Examples per batch, on each process.
        shuffle: Whether to permute the data by ``(seed, epoch)``.
        seed: The seed of the order, and of what the data set draws from the global generators of PyTorch, NumPy or
            Python: it draws the same numbers for a batch whatever was drawn before, with workers and without.
        drop_last: Whether to leave out a smaller last batch.
        workers: Number of processes of PyTorch's ``DataLoader`` that prepare the batches, for data that does not fit in
            memory. The batches do not depend on it.
        by_length: Whether to batch examples of similar length, for which the data set needs ``lengths`` (N,). The
            examples of up to 50 batches are sorted together; with ``shuffle``, the batches are then shuffled.

    Raises:
        InputError: The data set is empty or unsuitable, or a number is outside its range.

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
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        workers: int = 0,
        by_length: bool = False,
    ) -> None:
        pairs = "pair inputs and targets first, BatchLoader(ArrayDataset(inputs, targets), batch_size)"
        require(len(getattr(batch_size, "shape", ())) == 0, f"batch_size must be a number, not an array: {pairs}")
        require_whole("batch_size", batch_size)
        require_whole("workers", workers, 0)
        check_dataset(dataset)
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, int(batch_size), shuffle, int(seed)
        self.drop_last, self.workers, self.by_length = drop_last, int(workers), by_length
        self.source = look_through(dataset)
        sorts = not by_length or hasattr(self.source, "lengths")
        require(sorts, "by_length needs a data set with the attribute lengths")
        self.rank, self.world_size, self.epoch = 0, 1, 0
        require(self.examples > 0, "the data set is empty")
        problem = f"batch_size {batch_size} is larger than the data set of {self.examples} examples"
        require(len(self) > 0, f"{problem}: choose a smaller one")

    def shard(self, rank: int, world_size: int) -> None:
        """Yield only this rank's part of every global batch of ``world_size * batch_size`` examples.

        Raises:
            InputError: There are too few examples for all ranks.
        """
        self.rank, self.world_size = rank, world_size
        all_ranks = f"{world_size} processes with batch_size {self.batch_size}"
        require(len(self) > 0, f"{all_ranks} need more than the {self.examples} examples")

    def to(self, device: torch.device) -> None:
        """Move a data set held in memory to ``device``, so that batches are made there."""
        if self.workers == 0 and hasattr(self.source, "to"):
            self.source.to(device)

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the order and the data set's items; a checkpoint compares them."""
        return {
            "examples": self.examples,
            "batch size": self.global_batch_size,
            "order's seed": self.seed,
            "shuffle": int(self.shuffle),
            "drop_last": int(self.drop_last),
            "by_length": int(self.by_length),
            **order_settings(within(self.source)),
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
            lengths, size = self.source.lengths.cpu(), self.global_batch_size
            chunk = torch.arange(self.examples) // (CHUNK * size)
            order = order[(chunk * (int(lengths.max()) + 1) + lengths[order]).argsort(stable=True)]
            if self.shuffle and (whole := self.examples // size):  # number of full batches
                batches = order[: whole * size].view(whole, size)  # (batches, B)
                batches = batches[torch.randperm(whole, generator=generator)]
                order = torch.cat([batches.flatten(), order[whole * size :]])
        return order.to(getattr(self.source, "device", "cpu"))

    def batch_range(self, batch: int) -> BatchRange:
        """Return the range of this rank's part of a batch."""
        first = batch * self.global_batch_size
        total = min(self.global_batch_size, self.examples - first)
        start, stop = (first + total * r // self.world_size for r in (self.rank, self.rank + 1))
        return BatchRange(start, stop - start, total)

    def batches(
        self, epoch: int, start: int = 0, stream: random.Stream = random.Stream.DATA
    ) -> Iterator[tuple[Any, BatchRange]]:
        """Yield this rank's batches of an epoch from number ``start`` on, each with its :class:`BatchRange`.

        ``stream`` separates what a data set draws for training from what it draws for an evaluation.
        """
        batches = (FromWorkers if self.workers else EpochBatches)(self, epoch, start, stream)
        ranges = batches.ranges
        if self.workers == 0:
            yield from ((batches[batch], part) for batch, part in ranges.items())
            return
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=list(ranges),
            num_workers=self.workers,
            collate_fn=unchanged,
            generator=torch.Generator().manual_seed(random.key(self.seed, epoch, start)),  # not the global one
        )
        with explaining_lost_workers():
            made_there = iter(loader)
            try:
                for batch, part in zip(made_there, ranges.values(), strict=True):
                    if isinstance(batch, InputError):
                        raise batch
                    yield batch, part
            finally:  # after an error the garbage collector would wait 5 seconds for each worker
                made_there._shutdown_workers()  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next epoch: the first iteration is epoch 0."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        return (batch for batch, _ in self.batches(epoch))
