"""Sequences of digits with a true or a false future, for contrastive predictive coding.

Shapes: B sequences, T terms of context, K of future, C channels, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torchdl import random
from torchdl.data.arrays import summary
from torchdl.data.digits import Digits, load_digits
from torchdl.errors import require

START, SHIFTS, LABELS, SEQUENCE = 8, 9, 10, 22  # streams of independent draws; the digits use other ones


class Sequences(NamedTuple):
    """A batch of sequences; a single one has no batch dimension.

    Attributes:
        context: (B, T, C, S, S) float32.
        future: (B, K, C, S, S) float32.
        label: (B,) int64, 1 for a true future, 0 for a false one.
        digits: (B, T + K) int64, the digits in the images.
        expected: (B, K) int64, the digits that a true future has.
    """

    context: Tensor
    future: Tensor
    label: Tensor
    digits: Tensor
    expected: Tensor


class NumberSequences(Dataset):
    """Sequences of numbers that start at random and increase by ``stride``, modulo the number of classes.

    In a false future, a different number, drawn uniformly, replaces every number. Each number's image is drawn from the
    subset. Item ``index`` is a pure function of the seed, the epoch and ``index``. Batch i has the items
    ``[i * batch_size, (i + 1) * batch_size)``, and exactly ``positive_samples`` of them have a true future.

    Args:
        subset: The digits, or ``train``, ``validation`` or ``test`` for :func:`load_digits` with its defaults.
        terms: T, the length of the context.
        predict_terms: K, the length of the future.
        positive_samples: The number of sequences per batch with a true future; None means half of them.
        batch_size: Sequences per batch, over all processes.

    An epoch has ``(images // terms) // batch_size`` batches. The loader must have the same ``batch_size`` (over all
    processes) and no ``shuffle``: the sequences are already random, and another order would mix the batches.
    """

    stride: int

    def __init__(
        self,
        subset: str | Digits = "train",
        terms: int = 4,
        predict_terms: int = 4,
        positive_samples: int | None = None,
        batch_size: int = 32,
    ) -> None:
        require(terms >= 1, f"terms must be at least 1, not {terms}")
        require(predict_terms >= 1, f"predict_terms must be at least 1, not {predict_terms}")
        require(batch_size >= 1, f"batch_size must be at least 1, not {batch_size}")
        positive_samples = batch_size // 2 if positive_samples is None else positive_samples
        possible = 0 <= positive_samples <= batch_size
        require(possible, f"positive_samples must be from 0 to batch_size {batch_size}, not {positive_samples}")
        self.images = load_digits(subset) if isinstance(subset, str) else subset
        missing = [name for name, count in zip(self.images.classes, self.images.counts, strict=True) if count == 0]
        require(len(self.images.counts) > 1, "sequences need digits of at least two classes")
        require(not missing, f"the digits have no image of {', '.join(missing)}: sequences need every class")
        self.terms, self.predict_terms = terms, predict_terms
        self.positive_samples, self.batch_size = positive_samples, batch_size
        require(
            len(self) > 0,
            f"{len(self.images):,} images are too few for a batch of {batch_size} sequences of {terms} terms: "
            "choose a smaller batch_size or fewer terms",
        )

    @property
    def device(self) -> torch.device:
        """The device that batches are made on."""
        return self.images.device

    def to(self, device: str | torch.device) -> NumberSequences:
        """Move the digits to ``device`` in place; return the data set itself."""
        self.images.to(device)
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose sequences are drawn."""
        self.images.set_epoch(epoch)

    def check_loader(self, batch_size: int, shuffle: bool) -> None:
        """Check the batch size, over all processes, and the order of a loader, which calls this before each epoch.

        Raises:
            InputError: Its batches would not have ``positive_samples`` true futures each.
        """
        if self.positive_samples in (0, self.batch_size):
            return  # all futures are of one kind
        name, own = type(self).__name__, self.batch_size
        require(not shuffle, f"{name} is in a random order, and shuffle would mix its batches: choose shuffle=False")
        require(
            batch_size % own == 0,
            f"the loader has {batch_size} sequences in a batch, and {name} has {own}: choose the same batch_size, over "
            "all processes",
        )

    def order_settings(self) -> dict[str, int]:
        """Return the settings that determine the items; a checkpoint compares them."""
        names = ("terms", "predict_terms", "positive_samples", "stride")
        return {**{name: getattr(self, name) for name in names}, "rescale": int(self.images.rescale)}

    def __repr__(self) -> str:
        return summary(self)

    def __len__(self) -> int:
        return len(self.images) // self.terms // self.batch_size * self.batch_size

    def __getitem__(self, index: int | slice) -> Sequences:
        if isinstance(index, slice):
            return self.__getitems__(range(len(self))[index])
        return Sequences(*(field[0] for field in self.__getitems__([range(len(self))[index]])))

    def __getitems__(self, indices: Tensor | Sequence[int]) -> Sequences:
        """Return a batch of sequences, made on the device."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        digits, expected, label = self.numbers(index)
        which = self.images.look_up(digits, index)  # (B, T + K)
        length = digits.shape[1]
        image_index = index[:, None] * length + torch.arange(length, device=index.device)  # (B, T + K)
        images = self.images.render(which.flatten(), image_index.flatten(), SEQUENCE).unflatten(0, which.shape)
        return Sequences(images[:, : self.terms], images[:, self.terms :], label, digits, expected)

    def numbers(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the sequences with these indices (B,): digits (B, T + K), expected (B, K) and label (B,)."""
        seed, epoch, classes = self.images.seed, self.images.epoch, len(self.images.counts)
        steps = torch.arange(self.terms + self.predict_terms, device=index.device) * self.stride  # (T + K,)
        digits = (random.integers(classes, seed, epoch, index, 1, START) + steps) % classes  # (B, T + K)
        expected = digits[:, self.terms :].clone()
        # distinct random words rank a batch's items, so exactly positive_samples items have a rank below that number
        words = random.bits(seed, epoch, index // self.batch_size, self.batch_size, LABELS)  # (B, batch_size)
        own = words.gather(1, (index % self.batch_size)[:, None])  # (B, 1)
        label = ((words < own).sum(1) < self.positive_samples).long()  # (B,)
        shifts = 1 + random.integers(classes - 1, seed, epoch, index, self.predict_terms, SHIFTS)  # (B, K), never 0
        digits[:, self.terms :] += shifts * (1 - label)[:, None]
        return digits % classes, expected, label


class SortedNumbers(NumberSequences):
    """Sequences of consecutive numbers: 7 8 9 0, then 1 2 3 4 or a false future.

    Args:
        subset: The digits, or ``train``, ``validation`` or ``test`` for :func:`load_digits` with its defaults.
        terms: T, the length of the context.
        predict_terms: K, the length of the future.
        positive_samples: The number of sequences per batch with a true future; None means half of them.
        batch_size: Sequences per batch, over all processes; the loader must have the same, and no ``shuffle``.

    Raises:
        InputError: A number is outside its range, or there are too few digits.

    Example:
        >>> digits = torchdl.load_digits("validation", image_size=28, color=False, name="mnist_5k")
        >>> batch = torchdl.SortedNumbers(digits, terms=3, predict_terms=2, batch_size=4)[:4]
        >>> batch.context.shape, batch.future.shape
        (torch.Size([4, 3, 3, 28, 28]), torch.Size([4, 2, 3, 28, 28]))
        >>> batch.digits[batch.label == 1]
        tensor([[9, 0, 1, 2, 3],
                [8, 9, 0, 1, 2]])
        >>> batch.digits[batch.label == 0]  # with false futures
        tensor([[8, 9, 0, 8, 0],
                [7, 8, 9, 5, 3]])
    """

    stride = 1


class SameNumbers(NumberSequences):
    """Sequences of one number: 7 7 7 7, then 7 7 7 7 or a false future.

    Args:
        subset, terms, predict_terms, positive_samples, batch_size: As for :class:`torchdl.SortedNumbers`.

    Example:
        >>> digits = torchdl.load_digits("validation", image_size=28, color=False, name="mnist_5k")
        >>> batch = torchdl.SameNumbers(digits, terms=3, predict_terms=2, batch_size=4)[:4]
        >>> batch.digits[batch.label == 1]
        tensor([[9, 9, 9, 9, 9],
                [8, 8, 8, 8, 8]])
        >>> batch.digits[batch.label == 0]  # with false futures
        tensor([[8, 8, 8, 5, 6],
                [7, 7, 7, 2, 9]])
    """

    stride = 0
