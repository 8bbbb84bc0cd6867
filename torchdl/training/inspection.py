"""What looks at a generator's samples while it is trained, and rings where they are all alike.

Shapes: N images, (C, H, W) of an image, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import require
from torchdl.metrics import Moments, compare_sets, frechet_distance
from torchdl.training.generation import (
    Judge,
    Judged,
    as_fractions,
    judge_images,
    load_judge,
    make_reference,
    recipe,
    sample_set,
    shares_of,
    usual_judge,
)

CPU = torch.device("cpu")
LEAST_COVERAGE = 0.1  # share of real images with a sample among their neighbours, under which samples are too alike
LEAST_SHARE = 0.5  # of what a class has of the real images


class Inspector:
    """Measure samples against real images by a judge, and name what is missing among them.

    It gives ``frechet_distance`` and ``coverage`` against as many real images, and ``share_class_<name>``, the share
    of the samples that the judge takes for each class.

    Args:
        judge: A classifier of the same data set.
        real: Images to compare with: the training images, so that a run that is chosen by them can be measured by
            others.
        count: How many samples to look at; fewer where there are fewer images.
    """

    def __init__(self, judge: Judge, real: ImageDataset, count: int = 2000) -> None:
        self.judge, self.count = judge, min(count, len(real))
        require(self.count > 5, f"samples are compared with as many real images, 6 at least, not {self.count}")
        index = at_equal_distances(len(real), self.count).to(real.device)
        self.reference = make_reference(judge, judge_images(judge, as_fractions(real, index), CPU), self.count)

    def measure(self, images: Tensor) -> dict[str, float]:
        """Measure samples (N, C, H, W), or flattened ones, in [-1, 1]."""
        pixels = (images.view(len(images), *self.judge.model.in_shape) + 1) / 2  # (N, ...) -> (N, C, H, W)
        found = Judged(*(part.cpu() for part in judge_images(self.judge, pixels, images.device)))
        _, neighbours = compare_sets(self.reference.samples, sample_set(found, self.count))
        shares = shares_of(self.judge, found).tolist()
        return {
            "frechet_distance": frechet_distance(Moments([found.features]), self.reference.moments),
            "coverage": neighbours.coverage,
            **{f"share_class_{name}": share for name, share in zip(self.judge.classes, shares, strict=True)},
        }

    def alarms(self, measured: Mapping[str, float]) -> list[str]:
        """Say which classes the samples lack, and whether they are too alike to cover the real ones."""
        found = []
        shares = {name: measured.get(f"val/share_class_{name}", 1.0) for name in self.judge.classes}
        lacking = [
            f"{name} {share:.1%}"
            for (name, share), usual in zip(shares.items(), self.reference.shares.tolist(), strict=True)
            if share < LEAST_SHARE * usual
        ]
        if lacking:
            most = max(shares, key=lambda name: shares[name])
            word = "collapse" if len(lacking) > len(shares) / 2 else "imbalance"
            found.append(
                f"{word}: {len(lacking)} of {len(shares)} classes have less than half of their share of the samples "
                f"({', '.join(lacking)}), {most} has {shares[most]:.1%}"
            )
        coverage = measured.get("val/coverage", 1.0)
        if coverage < LEAST_COVERAGE:
            found.append(
                f"collapse: the samples are so alike, or so unlike real images, that {coverage:.1%} of the real "
                "ones have one near them (with other real images in their place it would be some 90 %)"
            )
        return found


def find_inspector(
    judge: Path | None, runs: Path, dataset: str, real: ImageDataset, count: int
) -> tuple[Inspector | None, str]:
    """Make an inspector with a judge, the usual one of ``runs`` if none is named; a sentence on which it is."""
    folder = judge or usual_judge(runs, dataset)
    if judge is None and not folder.is_dir():
        return None, f"no judge of the samples: {folder} would be it, made by `{recipe(dataset)}`"
    found = load_judge(folder, dataset)
    return Inspector(found, real, count), f"judge of the samples: {folder}, {found.accuracy:.2%} right"
