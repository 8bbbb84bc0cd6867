"""A PyTorch ``DataLoader`` as the trainer needs it: with the place of each batch, and able to go on after a resume.

Its order depends on the epoch and a seed alone: that of the loader's own generator, or else the trainer's. What its
data set draws depends on these and the batch. After a resume within an epoch, the earlier batches are read again and
left out, unless the loader has a ``state_dict``, as torchdata's ``StatefulDataLoader`` has.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Subset, default_collate

from torchdl import random
from torchdl.data import BatchLoader
from torchdl.data.loader import BatchRange
from torchdl.errors import InputError, kind_of, require
from torchdl.training import distributed

CPU = torch.device("cpu")
END = object()  # instead of a batch


class PyTorchLoader:
    """Yield the batches of a ``DataLoader``, each with its :class:`BatchRange`; see :class:`torchdl.BatchLoader`.

    Args:
        loader: The loader.
        seed: The trainer's seed.
    """

    def __init__(self, loader: DataLoader[Any], seed: int) -> None:
        self.loader, self.seed, self.rank, self.world_size = loader, seed, 0, 1
        found = [getattr(owner, "generator", None) for owner in (loader, *self.samplers)]
        self.seeds = {each: each.initial_seed() for each in found if each is not None}  # of the loader's own generators
        self.within = False  # an epoch that has begun and not ended
        self.examples = 0  # of all processes, in the epoch so far
        self.compared = False  # whether the first batches of all processes were
        self.left: Any = None  # the loader's own state where an epoch was left, whose workers have ended
        self.restored: Any = None  # that of a checkpoint

    def shard(self, rank: int, world_size: int) -> None:
        """Check that each of several processes gets a part of its own."""
        self.rank, self.world_size = rank, world_size
        if world_size == 1 or isinstance(self.loader.dataset, IterableDataset):
            return
        sampler = self.samplers[-1]
        require(
            isinstance(sampler, DistributedSampler) and (sampler.num_replicas, sampler.rank) == (world_size, rank),
            f"the DataLoader would give all {world_size} processes the same examples: give it the sampler "
            "torch.utils.data.DistributedSampler(data_set, size, rank), with rank, size = "
            "torchdl.collective.rank_and_size(), or train with a BatchLoader",
        )

    def to(self, device: torch.device) -> None:
        """Leave the data where they are: the trainer moves each batch."""

    @property
    def samplers(self) -> list[Any]:
        """The loader's batch sampler and sampler, as far as there are such."""
        batch_sampler = self.loader.batch_sampler  # None if the data set itself yields batches
        found = [batch_sampler, getattr(batch_sampler, "sampler", None) or self.loader.sampler]
        return [sampler for sampler in found if sampler is not None]

    def __len__(self) -> int:
        """Return the number of batches in an epoch, on this process; raise TypeError if it is not known."""
        return len(self.loader)

    def order_settings(self) -> dict[str, Any]:
        """Return the settings that determine the order, as far as they are known; a checkpoint compares them."""
        return {
            "batches": length_of(self),
            "samplers": ", ".join(type(sampler).__name__ for sampler in self.samplers),
            "batch size": (self.loader.batch_size or 1) * self.world_size,
            "loader's seed": next(iter(self.seeds.values()), self.seed),
            "num_workers": self.loader.num_workers,  # on which depends what items draw
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's own state within an epoch, if it has one; all processes must call this."""
        if not self.within or not hasattr(self.loader, "state_dict"):
            return {}
        own = self.loader.state_dict() if self.left is None else self.left
        return {"of processes": distributed.of_all(own), "examples": self.examples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; that of another number of processes is of no use, so the batches are read again."""
        known = "examples" in state and len(state["of processes"]) == self.world_size
        if known and hasattr(self.loader, "load_state_dict"):
            self.restored, self.examples = state["of processes"][self.rank], state["examples"]

    def resumes(self, batch: int) -> str:
        """Return what to know of a training that goes on at this batch of an epoch, if anything."""
        found = []
        if batch and self.restored is None:
            found.append(f"the {batch:,} batches of this epoch that the training has had are read again")
        if getattr(self.loader, "persistent_workers", False):
            found.append("what workers that stay (persistent_workers) draw is other numbers after a resume")
        return "; ".join(found)

    def batches(
        self, epoch: int, start: int = 0, stream: random.Stream = random.Stream.DATA
    ) -> Iterator[tuple[Any, BatchRange]]:
        """Yield this process's batches of an epoch from number ``start`` on."""
        self.within, self.left = stream == random.Stream.DATA, None
        for part in (*self.samplers, self.loader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        first, position = 0, 0
        if start and self.restored is not None:
            self.loader.load_state_dict(self.restored)  # type: ignore[attr-defined]
            first, position = start, self.examples
        self.restored = None
        for generator, seed in self.seeds.items():
            generator.manual_seed(random.key(seed, epoch))
        drawing = [sampler for sampler in self.samplers if getattr(sampler, "generator", sampler) is None]
        for sampler in drawing:  # else its order would depend on what else is drawn as an epoch begins
            sampler.generator = torch.Generator().manual_seed(random.key(self.seed, epoch))
        with random.seeded(CPU, self.seed, epoch, first, self.rank, stream, everywhere=True):
            iterator = iter(self.loader)
        unfinished = True
        try:
            for number in itertools.count(first):
                with self.drawing(epoch, number, stream):
                    batch = next(iterator, END)
                sizes = self.sizes(0 if batch is END else examples_in(batch), stream)
                if min(sizes) == 0:
                    break
                self.compare(batch)
                before, total = position + sum(sizes[: self.rank]), sum(sizes)
                position = self.examples = position + total
                if number >= start:
                    yield batch, BatchRange(before, sizes[self.rank], total)
            require(
                number > 0 or self.within or self.world_size > 1,
                "the DataLoader of validation data yields no batches: its data must be there anew in each evaluation",
            )
            self.within = unfinished = False
        except GeneratorExit:  # the training stops within the epoch
            if self.within and hasattr(self.loader, "state_dict"):
                self.left = self.loader.state_dict()  # without its workers, the loader returns that of a new epoch
            raise
        finally:
            for sampler in drawing:
                sampler.generator = None
            for generator, seed in self.seeds.items():
                generator.manual_seed(seed)
            if unfinished or not self.loader.persistent_workers:
                self.end_workers(iterator)

    def end_workers(self, iterator: Any) -> None:
        """End the worker processes of an iterator, for each of which the garbage collector might wait 5 seconds."""
        stop = getattr(iterator, "_shutdown_workers", None)
        if stop is not None and self.loader.num_workers:
            stop()
            self.loader._iterator = None  # of workers that stay

    def close(self) -> None:
        """End the workers that have stayed."""
        self.end_workers(getattr(self.loader, "_iterator", None))

    def drawing(self, epoch: int, number: int, stream: random.Stream) -> AbstractContextManager[None]:
        """Return a context in which a batch draws the same numbers whatever was drawn before; workers do so anyway."""
        if self.loader.num_workers:
            return random.taking_turns()
        return random.seeded(CPU, self.seed, epoch, number, self.rank, stream, everywhere=True)

    def compare(self, batch: Any) -> None:
        """Warn if all processes read the same stream: their first batches are equal."""
        if self.compared or self.world_size == 1 or not isinstance(self.loader.dataset, IterableDataset):
            return
        self.compared = True
        tensors = [leaf.detach().cpu().flatten() for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
        hashes = distributed.of_all([hashlib.sha256(x.view(torch.uint8).numpy().tobytes()).digest() for x in tensors])
        if self.rank == 0 and all(each == hashes[0] for each in hashes):
            warnings.warn(
                f"the first batches of all {self.world_size} processes are equal: let the stream yield each process "
                "its own part, by rank, size = torchdl.collective.rank_and_size()",
                stacklevel=2,
            )

    def sizes(self, own: int, stream: random.Stream) -> list[int]:
        """Return each process's number of examples in a batch, 0 if it has no more; an evaluation asks no other."""
        if self.world_size == 1 or stream != random.Stream.DATA:
            return [own] * self.world_size
        return [int(size) for size in distributed.total([own * (rank == self.rank) for rank in range(self.world_size)])]


def examples_in(batch: Any) -> int:
    """Return the number of examples in a batch, that of its first tensor."""
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.dim():
            require(len(leaf) > 0, "the DataLoader yields a batch without examples: leave such out")
            return len(leaf)
    raise InputError("the DataLoader yields batches without tensors: let its collate_fn return some, (B, ...) each")


def length_of(loader: BatchLoader | PyTorchLoader) -> int | None:
    """Return the number of batches in an epoch; None if it is not known, as of a stream."""
    try:
        return len(loader)
    except TypeError:
        return None


def as_loader(loader: BatchLoader | DataLoader[Any], seed: int) -> BatchLoader | PyTorchLoader:
    """Return a :class:`BatchLoader` as it is, and a ``DataLoader`` as a :class:`PyTorchLoader`."""
    if isinstance(loader, BatchLoader):
        return loader
    advice = "make one of the data set: BatchLoader(data_set, batch_size)"
    wanted = "a BatchLoader, whose order can be resumed exactly, or a PyTorch DataLoader"
    require(isinstance(loader, DataLoader), f"the trainer needs {wanted}, not {kind_of(loader)}: {advice}")
    dataset = loader.dataset
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    whole = getattr(getattr(dataset, "__getitems__", None), "__module__", "").startswith("torchdl.")
    require(
        not whole or loader.collate_fn is not default_collate,
        f"{kind_of(dataset)} makes whole batches: give the DataLoader collate_fn=torchdl.whole_batch",
    )
    made = PyTorchLoader(loader, seed)
    empty = "the DataLoader yields no batches: its data set is empty, or smaller than a batch, with drop_last=True"
    require(length_of(made) != 0, empty)
    return made
