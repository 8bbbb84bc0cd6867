"""How much generated samples resemble real ones, by features of both: distances of the two sets, and what they share.

Everything is computed in float64, on the features' own device, and does not depend on the order of the samples.

Shapes: N real and M generated samples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from torchdl.errors import require

BLOCK = 1024  # samples of each of two sets that are compared at a time


class Moments:
    """The mean (D,) and the covariance (D, D) of features that come in batches, which need not be kept.

    Batches are merged as Chan, Golub and LeVeque (1983) do it, so that nothing is lost where the mean is large against
    the spread.

    Args:
        batches: Features (B, D) to begin with.
    """

    def __init__(self, batches: Iterable[Tensor] = ()) -> None:
        self.count = 0
        self.mean = self.scatter = torch.zeros(0)
        for features in batches:
            self.update(features)

    def update(self, features: Tensor) -> None:
        """Take a batch of features (B, D) in."""
        require(features.dim() == 2, f"features must be (samples, features), not {tuple(features.shape)}")
        x, size = features.detach().double(), len(features)
        if size == 0:
            return
        mean = x.mean(0)
        x = x - mean
        scatter = x.T @ x
        if self.count:
            require(x.shape[1] == len(self.mean), f"features must be {len(self.mean)} a sample, not {x.shape[1]}")
            apart, total = mean - self.mean, self.count + size
            scatter = self.scatter + scatter + apart.outer(apart) * (self.count * size / total)
            mean = self.mean + apart * (size / total)
        self.count, self.mean, self.scatter = self.count + size, mean, scatter

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D)."""
        require(self.count >= 2, f"a covariance takes 2 samples or more, not {self.count}")
        return self.scatter / (self.count - 1)


def root(covariance: Tensor) -> Tensor:
    """Give the symmetric square root (D, D) of a covariance."""
    variances, directions = torch.linalg.eigh(covariance)
    return (directions * variances.clamp(min=0).sqrt()) @ directions.T


def frechet_distance(one: Moments, other: Moments) -> float:
    """Measure the squared Fréchet distance of two normal distributions with these moments (Heusel et al. 2017).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½). For finite sets of equally distributed samples it is above 0, and the less
    the more there are: compare sets of the same size alone, and see what real samples have against real ones.
    """
    first, second = one.covariance, other.covariance
    require(first.shape == second.shape, f"features must be equally many, not {len(first)} and {len(second)}")
    half = root(first)
    # the eigenvalues of C1 C2 are those of C1^½ C2 C1^½, which is symmetric, so that none is complex
    common = torch.linalg.eigvalsh(half @ second @ half).clamp(min=0).sqrt().sum()
    apart = (one.mean - other.mean).square().sum()
    # what rounding leaves below 0 of equal sets is 0
    return max(0.0, float(apart + first.trace() + second.trace() - 2 * common))


def frechet_deviation(features: Tensor, other: Moments) -> float:
    """Estimate the standard deviation of the Fréchet distance of samples (N, D) to a distribution that is fixed.

    By the infinitesimal jackknife (Jaeckel 1972): to first order sample x moves the distance by 1/N of
    2 (x - m1)·(m1 - m2) + (x - m1)ᵀ (1 - T) (x - m1) less that term's mean, T = C2^½ (C2^½ C1 C2^½)^-½ C2^½ being the
    map that carries the samples' distribution into the other. The bootstrap finds the same by a hundred times the work.
    """
    one = Moments([features])
    half = root(other.covariance)
    require(one.covariance.shape == half.shape, f"features must be {len(half)} a sample, not {features.shape[1]}")
    values, directions = torch.linalg.eigh(half @ one.covariance @ half)
    # along what one of them does not vary in, T is 0
    inverse = torch.where(values > 1e-12 * values[-1], values.clamp(min=0).rsqrt(), 0.0)
    carried = half @ directions  # (D, D)
    rest = torch.eye(len(half), dtype=half.dtype, device=half.device) - (carried * inverse) @ carried.T
    x = features.detach().double() - one.mean
    moved = 2 * x @ (one.mean - other.mean) + (x @ rest).mul_(x).sum(1)  # (N,)
    return float(moved.std()) / len(x) ** 0.5


def inception_score(probabilities: Tensor) -> float:
    """Measure how sure a classifier is of samples (N, K), and how much its answers differ (Salimans et al. 2016).

    exp(E KL(p(y|x) || p(y))), from 1 to K: K if it is sure of all of them and finds every class equally often. It does
    not compare with real samples: see what those have.
    """
    require(probabilities.dim() == 2 and len(probabilities) >= 1, "probabilities must be (samples, classes)")
    p = probabilities.double()
    each = torch.special.entr(p).sum(1).mean()
    return float((torch.special.entr(p.mean(0)).sum() - each).exp())


def class_shares(answers: Tensor, classes: int) -> Tensor:
    """Give the share (K,), float64, of each class among answers (N,) of a classifier."""
    require(len(answers) >= 1, "there is no sample to count")
    return torch.bincount(answers, minlength=classes).double() / len(answers)


class Neighbours(NamedTuple):
    """What neighbours say: the shares of samples that lie among the others, both ways, and how thickly.

    ``precision`` is the share of generated samples that lie within reach of a real one, ``recall`` that of real samples
    within reach of a generated one (Kynkäänniemi et al. 2019); ``density`` how many real samples reach a generated one
    against what is expected of real ones, and ``coverage`` the share of real samples that reach a generated one (Naeem
    et al. 2020), neither of which an outlier spoils. A sample reaches as far as its k-th neighbour in its own set.
    """

    precision: float
    recall: float
    density: float
    coverage: float


class SampleSet:
    """Samples with what is measured of them alone: once, however many sets they are compared with.

    One product of two sets, block by block, serves the kernel (x·y / D + 1)³ and the distances alike: a 1 beside
    x / √D makes the product of two samples the kernel's base, and changes no distance but by the factor √D.

    Args:
        features: (N, D), 2 samples or more.
        k: The neighbour in its own set that a sample reaches as far as.
    """

    def __init__(self, features: Tensor, k: int = 5) -> None:
        require(features.dim() == 2, f"features must be (samples, features), not {tuple(features.shape)}")
        size, dim = features.shape
        require(size >= 2, f"to compare sets takes 2 samples or more of each, not {size}")
        require(1 <= k < size, f"k must be from 1 to {size - 1}, one less than there are samples, not {k}")
        self.k = k
        x = features.detach().double() / dim**0.5
        self.points = torch.cat([x, torch.ones_like(x[:, :1])], 1)  # (N, D + 1)
        self.lengths = self.points.square().sum(1) / 2  # (N,), halves of squares, as all distances here
        self.blocks = [slice(start, start + BLOCK) for start in range(0, size, BLOCK)]
        nearest = self.points.new_full((size, k), torch.inf)
        total = self.points.new_zeros(())

        def take(rows: slice, distances: Tensor) -> None:
            some = distances.topk(min(k, distances.shape[1]), largest=False, sorted=False).values
            nearest[rows] = torch.cat([nearest[rows], some], 1).topk(k, largest=False).values

        for number, rows in enumerate(self.blocks):
            for columns in self.blocks[number:]:
                base, distances = self.against(rows, self, columns)
                if rows == columns:
                    base.fill_diagonal_(0)  # a sample is not its own neighbour
                    distances.fill_diagonal_(torch.inf)
                else:  # the block's mirror image
                    total += (base**3).sum()
                    take(columns, distances.T)
                total += (base**3).sum()
                take(rows, distances)
        self.kernel = float(total) / (size * (size - 1))
        # rounding is not to part what is equal
        self.reach = nearest[:, -1].clamp(min=0) + 1e-12 * self.lengths  # (N,)

    def __len__(self) -> int:
        return len(self.points)

    def against(self, rows: slice, other: SampleSet, columns: slice) -> tuple[Tensor, Tensor]:
        """Give the kernel's bases and half the squared distances of some samples, (B, B') both."""
        base = self.points[rows] @ other.points[columns].T
        return base, (self.lengths[rows, None] + other.lengths[columns]).sub_(base)


def compare_sets(real: SampleSet, generated: SampleSet) -> tuple[float, Neighbours]:
    """Give what :func:`kernel_distance` and :func:`neighbour_scores` give, by one pass through all pairs."""
    require(real.points.shape[1] == generated.points.shape[1], "features must be equally many")
    total, reaching = real.points.new_zeros(()), torch.zeros((), dtype=torch.int64, device=real.points.device)
    # how far the nearest real sample is beyond its reach for each generated one, and so on: 0 or less is within
    precise, recalled, covered = (torch.full_like(s.lengths, torch.inf) for s in (generated, real, real))
    for rows in real.blocks:
        for columns in generated.blocks:
            base, distances = real.against(rows, generated, columns)
            total += (base**3).sum()
            beyond = distances - real.reach[rows, None]
            reaching += (beyond <= 0).sum()
            precise[columns] = precise[columns].minimum(beyond.amin(0))
            covered[rows] = covered[rows].minimum(beyond.amin(1))
            recalled[rows] = recalled[rows].minimum((distances - generated.reach[columns]).amin(1))
    pairs = len(real) * len(generated)
    precision, recall, coverage = (float((far <= 0).double().mean()) for far in (precise, recalled, covered))
    neighbours = Neighbours(precision, recall, float(reaching) / (real.k * len(generated)), coverage)
    return real.kernel + generated.kernel - 2 * float(total) / pairs, neighbours


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Estimate the squared maximum mean discrepancy of two sets without bias (Binkowski et al. 2018, "KID").

    The kernel is (x·y / D + 1)³. Of equally distributed sets of any size it is 0 on average, so below it at times.

    Args:
        one: (N, D), 2 samples or more.
        other: (M, D), 2 samples or more.
    """
    return compare_sets(SampleSet(one, k=1), SampleSet(other, k=1))[0]


def neighbour_scores(real: Tensor, generated: Tensor, k: int = 5) -> Neighbours:
    """Compare two sets, (N, D) and (M, D), by their ``k`` nearest neighbours."""
    return compare_sets(SampleSet(real, k), SampleSet(generated, k))[1]
