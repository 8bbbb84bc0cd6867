"""How much generated samples resemble real ones, by features of both: distances of the two sets, and what they share.

Everything is computed in float64, on the features' own device, and does not depend on the order of the samples.

Shapes: N real and M generated samples, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from torchdl.errors import require

BLOCK = 2048  # samples that are compared with all others at a time


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


def frechet_distance(one: Moments, other: Moments) -> float:
    """Measure the squared Fréchet distance of two normal distributions with these moments (Heusel et al. 2017).

    |m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½). For finite sets of equally distributed samples it is above 0, and the less
    the more there are: compare sets of the same size alone, and see what real samples have against real ones.
    """
    first, second = one.covariance, other.covariance
    require(first.shape == second.shape, f"features must be equally many, not {len(first)} and {len(second)}")
    variances, directions = torch.linalg.eigh(first)
    root = (directions * variances.clamp(min=0).sqrt()) @ directions.T
    # the eigenvalues of C1 C2 are those of C1^½ C2 C1^½, which is symmetric, so that none is complex
    common = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    apart = (one.mean - other.mean).square().sum()
    # what rounding leaves below 0 of equal sets is 0
    return max(0.0, float(apart + first.trace() + second.trace() - 2 * common))


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """Estimate the squared maximum mean discrepancy of two sets without bias (Binkowski et al. 2018, "KID").

    The kernel is (x·y / D + 1)³. Of equally distributed sets of any size it is 0 on average, so below it at times.

    Args:
        one: (N, D), 2 samples or more.
        other: (M, D), 2 samples or more.
    """
    require(one.dim() == other.dim() == 2 and one.shape[1] == other.shape[1], "features must be equally many")
    require(min(len(one), len(other)) >= 2, "the kernel distance takes 2 samples or more of each set")

    def total(x: Tensor, y: Tensor) -> Tensor:
        y = y.double().T / x.shape[1]
        return sum(((part.double() @ y + 1) ** 3).sum() for part in x.split(BLOCK))

    def within(x: Tensor) -> Tensor:
        alone = ((x.double().square().sum(1) / x.shape[1] + 1) ** 3).sum()
        return (total(x, x) - alone) / (len(x) * (len(x) - 1))

    return float(within(one) + within(other) - 2 * total(one, other) / (len(one) * len(other)))


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


def neighbour_scores(real: Tensor, generated: Tensor, k: int = 5) -> Neighbours:
    """Compare two sets, (N, D) and (M, D), by their ``k`` nearest neighbours."""
    require(real.dim() == generated.dim() == 2 and real.shape[1] == generated.shape[1], "features must be equally many")
    least = min(len(real), len(generated))
    require(1 <= k < least, f"k must be from 1 to {least - 1}, one less than there are samples, not {k}")
    x, y = real.double(), generated.double()

    def reach(points: Tensor) -> Tensor:
        # the nearest of all is the point itself
        return torch.cat([torch.cdist(p, points).kthvalue(k + 1).values for p in points.split(BLOCK)])

    real_reach, generated_reach = reach(x), reach(y)  # (N,), (M,)
    inside = torch.zeros(len(y), dtype=torch.int64, device=y.device)  # real samples that reach each generated one
    reached, covers = [], []
    for part, far in zip(x.split(BLOCK), real_reach.split(BLOCK), strict=True):
        distance = torch.cdist(part, y)  # (B, M)
        within = distance <= far[:, None]
        inside += within.sum(0)
        covers.append(within.any(1))
        reached.append((distance <= generated_reach).any(1))
    return Neighbours(
        precision=float((inside > 0).double().mean()),
        recall=float(torch.cat(reached).double().mean()),
        density=float(inside.double().mean()) / k,
        coverage=float(torch.cat(covers).double().mean()),
    )


def resampled_deviation(measure: Callable[[Tensor], float], samples: Tensor, times: int = 10, seed: int = 0) -> float:
    """Estimate the standard deviation of a measure of samples (N, ...) by the bootstrap (Efron 1979).

    Args:
        measure: The measure.
        samples: The samples; each resample has as many of them, drawn with replacement.
        times: How many resamples.
        seed: What they are drawn by.
    """
    require(times >= 2, f"a deviation takes 2 resamples or more, not {times}")
    generator = torch.Generator().manual_seed(seed)
    size = len(samples)
    drawn = (torch.randint(size, (size,), generator=generator).to(samples.device) for _ in range(times))
    return float(torch.tensor([measure(samples[rows]) for rows in drawn], dtype=torch.float64).std())
