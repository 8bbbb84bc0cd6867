"""Measure a generator's samples during training, and warn where they are all alike.

Shapes: N images, (C, H, W) of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import require
from torchdl.metrics import Moments, compare_sets, frechet_distance
from torchdl.recipes.gan_evaluation import (
    FeatureExtractor,
    Features,
    as_fractions,
    extract_features,
    make_reference,
    sample_set,
    shares_of,
)

CPU = torch.device("cpu")
MIN_COVERAGE = 0.1  # coverage below which the samples count as too alike
MIN_SHARE = 0.5  # of a class's share of the real images


class SampleMonitor:
    """Measure samples against real images, and name the classes that are missing among them.

    It measures ``frechet_distance`` and ``coverage`` against as many real images, and ``share_class_<name>``, the
    share of the samples that the feature extractor takes for each class.

    Args:
        extractor: A classifier of the same data set.
        real: Images to compare with: the training images, so that a run chosen by them can be tested on others.
        count: Number of samples to measure; fewer where there are fewer images.
    """

    def __init__(self, extractor: FeatureExtractor, real: ImageDataset, count: int = 2000) -> None:
        self.extractor, self.count = extractor, min(count, len(real))
        require(self.count > 5, f"samples are compared with as many real images, 6 at least, not {self.count}")
        index = at_equal_distances(len(real), self.count).to(real.device)
        self.reference = make_reference(
            extractor, extract_features(extractor, as_fractions(real, index), CPU), self.count
        )

    def measure(self, images: Tensor) -> dict[str, float]:
        """Measure samples (N, C, H, W), or flattened ones, in [-1, 1]."""
        pixels = (images.view(len(images), *self.extractor.model.in_shape) + 1) / 2  # (N, ...) -> (N, C, H, W)
        found = Features(*(part.cpu() for part in extract_features(self.extractor, pixels, images.device)))
        _, neighbours = compare_sets(self.reference.samples, sample_set(found, self.count))
        shares = shares_of(self.extractor, found).tolist()
        return {
            "frechet_distance": frechet_distance(Moments([found.features]), self.reference.moments),
            "coverage": neighbours.coverage,
            **{f"share_class_{name}": share for name, share in zip(self.extractor.classes, shares, strict=True)},
        }

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Warn of classes that the samples lack, and of samples too alike to cover the real images."""
        found = []
        shares = {name: measured.get(f"share_class_{name}", 1.0) for name in self.extractor.classes}
        lacking = [
            f"{name} {share:.1%}"
            for (name, share), usual in zip(shares.items(), self.reference.shares.tolist(), strict=True)
            if share < MIN_SHARE * usual
        ]
        if lacking:
            most = max(shares, key=lambda name: shares[name])
            word = "collapse" if len(lacking) > len(shares) / 2 else "imbalance"
            found.append(
                f"{word}: {len(lacking)} of {len(shares)} classes have less than half of their share of the samples "
                f"({', '.join(lacking)}), {most} has {shares[most]:.1%}"
            )
        coverage = measured.get("coverage", 1.0)
        if coverage < MIN_COVERAGE:
            found.append(
                f"collapse: the samples are so alike, or so unlike real images, that {coverage:.1%} of the real "
                "ones have one near them (with other real images in their place it would be some 90 %)"
            )
        return found
