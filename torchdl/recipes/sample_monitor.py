"""Measure a generator's samples during training and warn of collapse.

Shapes: N images, (C, H, W) of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from torchdl.callbacks import Callback, Training
from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import require
from torchdl.metrics import Moments, compare_sets, frechet_distance
from torchdl.recipes.gan_evaluation import (
    LEAST,
    FeatureExtractor,
    Features,
    as_fractions,
    extract_features,
    make_reference,
    sample_set,
    shares_of,
)
from torchdl.tasks import GANTask

CPU = torch.device("cpu")
MIN_COVERAGE = 0.1  # a lower coverage is reported as collapse
MIN_SHARE = 0.5  # a class is reported if its share of samples is below this fraction of its share of real images
EARLY = "; this is usual in the first epochs"


class SampleMonitor(Callback):
    """Compare samples of a :class:`torchdl.GANTask` with real images, and warn of collapse and of rare classes.

    It measures ``samples/frechet_distance`` and ``samples/coverage`` against the same number of real images, and
    ``samples/share_class_<name>``, the share of the samples that the feature extractor assigns to each class.

    Args:
        extractor: A feature extractor of the same data set.
        real: Real images to compare with. Use training images, so that the test images influence no choice.
        count: Number of samples to measure; at most the number of real images.

    Raises:
        InputError: There are too few samples or real images.
    """

    def __init__(self, extractor: FeatureExtractor, real: ImageDataset, count: int = 2000) -> None:
        self.extractor, self.count = extractor, min(count, len(real))
        require(self.count >= LEAST, f"at least {LEAST} samples and real images are needed, not {self.count}")
        index = at_equal_distances(len(real), self.count).to(real.device)
        features = extract_features(extractor, as_fractions(real, index), CPU)
        self.reference = make_reference(extractor, features, self.count)

    def on_validation_end(self, training: Training) -> None:
        """Measure the samples of the task's generator, the averaged one if there is one."""
        measured = self.measure(cast(GANTask, training.task).generate(self.count))
        training.measure({f"samples/{name}": value for name, value in measured.items()})
        for sentence in self.warnings(measured):
            training.warn(sentence)

    def measure(self, images: Tensor) -> dict[str, float]:
        """Measure samples (N, C, H, W) or (N, C * H * W), in [-1, 1]."""
        pixels = (images.view(len(images), *self.extractor.model.in_shape) + 1) / 2  # (N, ...) -> (N, C, H, W)
        found = Features(*(part.cpu() for part in extract_features(self.extractor, pixels, images.device)))
        real = self.reference.samples
        _, neighbours = compare_sets(real, sample_set(found, self.count, real.centre))
        shares = shares_of(self.extractor, found).tolist()
        return {
            "frechet_distance": frechet_distance(Moments([found.features]), self.reference.moments),
            "coverage": neighbours.coverage,
            **{f"share_class_{name}": share for name, share in zip(self.extractor.classes, shares, strict=True)},
        }

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Return warnings of rare classes and of low coverage."""
        sentences = []
        shares = {name: measured.get(f"share_class_{name}", 1.0) for name in self.extractor.classes}
        expected = dict(zip(self.extractor.classes, self.reference.shares.tolist(), strict=True))
        rare = [f"{name} {share:.1%}" for name, share in shares.items() if share < MIN_SHARE * expected[name]]
        if rare:
            most = max(shares, key=lambda name: shares[name])
            word = "collapse" if len(rare) > len(shares) / 2 else "imbalance"
            sentences.append(
                f"{word}: {len(rare)} of {len(shares)} classes are less than half as frequent among the samples "
                f"as among the real images ({', '.join(rare)}); {most} has {shares[most]:.1%} of the samples{EARLY}"
            )
        coverage = measured.get("coverage", 1.0)
        if coverage < MIN_COVERAGE:
            sentences.append(
                f"collapse: the samples are so alike, or so unlike real images, that only {coverage:.1%} of the real "
                f"images have a sample near them (about 90 % have another real image near them){EARLY}"
            )
        return sentences
