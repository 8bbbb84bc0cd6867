"""Random sequences that measure how far back a network remembers (lecture 48; Hochreiter and Schmidhuber 1997).

Every sequence is a pure function of the seed, the epoch (of the adding problem) and its index.

Shapes: N sequences, B in a batch, T terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchdl import random
from torchdl.data.arrays import ArrayDataset, BatchDataset
from torchdl.data.info import fingerprint
from torchdl.errors import require

#: The three deciding terms: the last, the first, or (an exercise in the lecture) the first, the middle and the last.
DISTANCES = {"short": (-1, -2, -3), "long": (0, 1, 2), "spread": (0, 0.5, -1)}
NUMBERS, PLACES = 0, 1  # streams of independent draws


def deciding_terms(distance: str, terms: int) -> list[int]:
    """Return the positions of the three deciding terms among ``terms``; ``distance`` is a key of :data:`DISTANCES`."""
    require(distance in DISTANCES, f"unknown distance {distance!r}: choose one of {', '.join(DISTANCES)}")
    require(terms >= 3, f"terms must be at least 3, not {terms}")
    return [int(place * terms) if isinstance(place, float) else place % terms for place in DISTANCES[distance]]


def odd_negatives(x: Tensor, places: Sequence[int]) -> Tensor:
    """Return whether an odd number of the terms at ``places`` are negative and none is 0: (N,) bool for x (N, T)."""
    return x[:, list(places)].sign().prod(1) < 0


def long_distance(count: int = 5000, terms: int = 10, distance: str = "long", seed: int = 0) -> ArrayDataset:
    """Make the course's memory problem (lecture 48): random numbers, three of which decide the label.

    The label is 1 if an odd number of the three are negative. One or two of them carry no information about it, so a
    network must remember all three. Chance accuracy is 50 %.

    Args:
        count: N.
        terms: T.
        distance: One of :data:`DISTANCES`: ``short`` for the last three terms, ``long`` for the first three,
            ``spread`` for the first, the middle and the last.
        seed: The seed of the numbers.

    Returns:
        Standard normal numbers (N, T, 1) and labels (N, 1), 0.0 or 1.0.

    Raises:
        InputError: There is no sequence to make.

    Example:
        >>> data = torchdl.long_distance(count=6, terms=10, seed=1)
        >>> data.inputs.shape, data.targets.flatten()
        (torch.Size([6, 10, 1]), tensor([0., 1., 0., 1., 0., 0.]))
        >>> (data.inputs[:, :3, 0] < 0).sum(1)  # number of negative ones among the first three
        tensor([2, 3, 2, 1, 0, 2])
    """
    require(count >= 1, f"count must be at least 1, not {count}")
    places = deciding_terms(distance, terms)
    x = random.normal(seed, 0, torch.arange(count), terms, NUMBERS)  # (N, T)
    labels = odd_negatives(x, places).float()
    origin = f"{count:,} random sequences of {terms} terms, three of which decide at {distance} distance"
    return ArrayDataset(x[:, :, None], labels[:, None], origin)  # (N, T, 1), (N, 1)


class AddingProblem(BatchDataset[tuple[Tensor, Tensor]]):
    """Sequences of random numbers, of which two are marked and must be added; every epoch has new sequences.

    A term is a pair: a number, uniform in [``low``, 1], and a marker, which is 1 at one place in each half of the
    sequence and 0 elsewhere. The target is the sum of the two marked numbers. The baseline that always predicts the
    mean has a mean squared error of (1 - ``low``)^2 / 6: 0.167 for [0, 1], the usual range today (Le et al. 2015, arXiv
    1504.00941), and 0.667 for [-1, 1], the original range (Hochreiter and Schmidhuber 1997).

    Args:
        count: N, the number of sequences per epoch.
        terms: T, at least 2.
        low: The minimum of the numbers, usually 0 or -1.
        seed: The seed of the numbers and places.

    Raises:
        InputError: A number is outside its range.

    Example:
        >>> problem = torchdl.AddingProblem(count=3, terms=100)
        >>> sequences, sums = problem[:]
        >>> sequences.shape, sequences[..., 1].sum(1)  # two markers each
        (torch.Size([3, 100, 2]), tensor([2., 2., 2.]))
        >>> torch.equal(sequences.prod(2).sum(1, keepdim=True), sums)
        True
    """

    def __init__(self, count: int = 10_000, terms: int = 100, low: float = 0.0, seed: int = 0) -> None:
        require(count >= 1, f"count must be at least 1, not {count}")
        require(terms >= 2, f"terms must be at least 2, not {terms}")
        require(-math.inf < low < 1, f"low must be a finite number below 1, not {low}")
        self.count, self.terms, self.low, self.seed, self.epoch = count, terms, low, seed, 0
        self.device = torch.device("cpu")
        self.origin = f"{count:,} random sequences of {terms} numbers in [{low:g}, 1], two of which must be added"
        self.fallback = False

    @property
    def baseline(self) -> float:
        """The mean squared error of always predicting the mean, 1 + ``low``."""
        return (1 - self.low) ** 2 / 6

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose sequences are drawn."""
        self.epoch = epoch

    def to(self, device: str | torch.device) -> AddingProblem:
        """Make the batches on ``device`` from now on; return the data set itself."""
        self.device = torch.device(device)
        return self

    def order_settings(self) -> dict[str, float]:
        """Return the settings that determine the batches; a checkpoint compares them."""
        return {"terms": self.terms, "least number": self.low, "numbers' seed": self.seed}

    def fingerprint(self) -> str:
        """Return the SHA-256 of the first 100 sequences of epoch 0, in hexadecimal."""
        epoch, self.epoch = self.epoch, 0
        drawn = self.__getitems__(range(min(self.count, 100)))
        self.epoch = epoch
        return fingerprint(drawn, repr((self.count, self.terms)))

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the sequences (B, T, 2) and sums (B, 1) of indices (B,)."""
        index = torch.as_tensor(indices, dtype=torch.int64, device=self.device)
        numbers = random.uniform(self.seed, self.epoch, index, self.terms, NUMBERS)  # (B, T) in [0, 1)
        numbers = numbers * (1 - self.low) + self.low
        half = self.terms // 2
        sizes = torch.tensor([half, self.terms - half], device=self.device)
        places = random.integers(sizes, self.seed, self.epoch, index, 2, PLACES)  # (B, 2), within each half
        places[:, 1] += half
        markers = torch.zeros_like(numbers).scatter_(1, places, 1.0)  # (B, T)
        return torch.stack([numbers, markers], 2), numbers.gather(1, places).sum(1, keepdim=True)  # (B, T, 2), (B, 1)
