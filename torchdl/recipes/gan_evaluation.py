"""Measure how much a generator's images resemble real ones, by the features of a classifier of the same images.

Shapes: N images, M training images, D features, K classes, (C, H, W) of an image.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdl import artifacts, random
from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import InputError, require
from torchdl.files import RESULTS, WEIGHTS, read_config
from torchdl.metrics import (
    Moments,
    SampleSet,
    class_shares,
    compare_sets,
    frechet_deviation,
    frechet_distance,
    inception_score,
)
from torchdl.models import GAN, LenetLike
from torchdl.plots import plot_bars, plot_nearest
from torchdl.recipes.report import Report

BATCH = 500
NEIGHBOUR = 5  # how far a sample reaches: as far as this neighbour of its
LEAST = NEIGHBOUR + 1  # images of each kind that can be compared
KID_SAMPLES = 5000  # images of each kind that are compared in pairs, at a cost of their square
NOISE = 1000  # images of noise, which are so far from all others that more would say the same
LOOKED_UP = 1000  # images whose nearest training image is looked for
TRAINING_BLOCK = 5000  # training images among which it is looked for at a time
NEAR = 0.01  # share of the real images that are called near a training image
SHOWN = 8  # of the nearest in the picture


class FeatureExtractor(NamedTuple):
    """A classifier whose hidden layer gives the features that images are compared by.

    Attributes:
        model: The classifier; its hidden units are the features.
        classes: The names of the K classes.
        low: What black is scaled to.
        accuracy: Its test accuracy.
        fingerprint: The SHA-256 of its weights.
    """

    model: LenetLike
    classes: tuple[str, ...]
    low: float
    accuracy: float
    fingerprint: str


class Features(NamedTuple):
    """Features (N, D) and class probabilities (N, K) of images."""

    features: Tensor
    probabilities: Tensor


class Reference(NamedTuple):
    """Held-out images as others are compared with them: what is measured of them alone is measured once."""

    moments: Moments
    samples: SampleSet
    shares: Tensor


class Nearest(NamedTuple):
    """Images (N, C, H, W), the nearest training image of each, both in [0, 1], and the distances (N,)."""

    images: Tensor
    training: Tensor
    distances: Tensor


def load_feature_extractor(folder: Path, dataset: str) -> FeatureExtractor:
    """Load a finished run of a :class:`torchdl.LenetLike` on the same data set.

    Raises:
        InputError: The folder holds something else, or an unfinished run.
    """
    model = artifacts.load(folder)
    if not isinstance(model, LenetLike):
        raise InputError(f"{folder} holds a {type(model).__name__}: a feature extractor is a LenetLike")
    config = read_config(folder).get("config", {})
    known = config.get("images", {}).get("dataset")
    require(known == dataset, f"the feature extractor {folder} was trained on {known}, and the images are of {dataset}")
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        classes, accuracy = tuple(found["accuracy by class"]), float(found["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is not a finished run: finish it first") from error
    low = -1.0 if config.get("learning", {}).get("centred") else 0.0
    fingerprint = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return FeatureExtractor(model.eval(), classes, low, accuracy, fingerprint)


@torch.no_grad()
def extract_features(extractor: FeatureExtractor, images: Tensor, device: torch.device) -> Features:
    """Return the features and class probabilities of images (N, C, H, W) in [0, 1], on the device if it has float64."""
    extractor.model.to(device)
    kept = torch.device("cpu") if device.type == "mps" else device
    units, logits = [], []
    for batch in images.split(BATCH):
        found = extractor.model.hidden_units(extractor.low + (1 - extractor.low) * batch.to(device))
        units.append(found.to(kept))
        logits.append(extractor.model.logits_of(found).to(kept))
    return Features(torch.cat(units), torch.cat(logits).double().softmax(1))


def shares_of(extractor: FeatureExtractor, found: Features) -> Tensor:
    """Give the share (K,) of each class among images."""
    return class_shares(found.probabilities.argmax(1), len(extractor.classes))


def sample_set(found: Features, kid_samples: int) -> SampleSet:
    """Take so many of the images, at equal distances, to be compared pair by pair."""
    features = found.features
    chosen = at_equal_distances(len(features), min(kid_samples, len(features)))
    return SampleSet(features[chosen.to(features.device)], NEIGHBOUR)


def make_reference(extractor: FeatureExtractor, real: Features, kid_samples: int = KID_SAMPLES) -> Reference:
    """Measure of real images what is measured of them alone."""
    return Reference(Moments([real.features]), sample_set(real, kid_samples), shares_of(extractor, real))


def compare(
    extractor: FeatureExtractor, found: Features, reference: Reference, kid_samples: int = KID_SAMPLES
) -> dict[str, Any]:
    """Measure images against real ones, by the features of both.

    The kernel distance and the neighbours are those of at most ``kid_samples`` images of each kind. A class is rare if
    its share of the images is less than half its share of the real ones.
    """
    samples = sample_set(found, kid_samples)
    kernel, neighbours = compare_sets(reference.samples, samples)
    shares = shares_of(extractor, found)
    rare = (shares < reference.shares / 2).tolist()
    return {
        "images": len(found.features),
        "of them in pairs": len(samples),
        "Fréchet distance": frechet_distance(Moments([found.features]), reference.moments),
        "its deviation": frechet_deviation(found.features, reference.moments),
        "kernel distance": kernel,
        "inception-style score": inception_score(found.probabilities),
        **neighbours._asdict(),
        "class shares": dict(zip(extractor.classes, shares.tolist(), strict=True)),
        "rarest share": float(shares.min()),
        "rare classes": [name for name, is_rare in zip(extractor.classes, rare, strict=True) if is_rare],
    }


def nearest_training_images(images: Tensor, train: ImageDataset) -> Nearest:
    """Find the training image that is nearest to each image (N, C, H, W) in [0, 1], by the root mean squared pixel."""
    x = images.flatten(1)  # (N, C * H * W)
    least = torch.full((len(x),), torch.inf, device=x.device)
    number = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(train), TRAINING_BLOCK):
        rows = torch.arange(start, min(start + TRAINING_BLOCK, len(train)), device=train.device)
        others = as_fractions(train, rows).flatten(1).to(x.device)  # (B, C * H * W)
        # half the squared distance but for |x|² / 2, which is the same for all of them
        far, place = (others.square().sum(1) / 2).sub(x @ others.T).min(1)
        closer = far < least
        least, number = torch.where(closer, far, least), torch.where(closer, place + start, number)
    training = as_fractions(train, number.to(train.device)).to(x.device)
    # of the pair itself again, so that a copy's is 0, whatever was rounded
    return Nearest(images, training, (images - training).square().flatten(1).mean(1).sqrt())


def as_fractions(data: ImageDataset, rows: Tensor) -> Tensor:
    """Give images as float32 in [0, 1], whatever the data set scales them to."""
    return data.pixels(rows).float() / 255


@torch.no_grad()
def generate(gan: GAN, count: int, seed: int, device: torch.device) -> Tensor:
    """Generate images (N, C, H, W) in [0, 1], a batch at a time, with the batch norms' running statistics."""
    gan.to(device).eval()
    return torch.cat([((gan(z) + 1) / 2).clamp(0, 1) for z in gan.noise(count, seed).split(BATCH)])


@torch.no_grad()
def evaluate_generator(
    gan: GAN,
    extractor: FeatureExtractor,
    train: ImageDataset,
    test: ImageDataset,
    count: int,
    seed: int,
    device: torch.device,
    kid_samples: int = KID_SAMPLES,
) -> Report:
    """Measure a generator against test images, with training images and noise beside it for comparison.

    Args:
        gan: Has ``noise(n, seed)``, and makes images (N, C, H, W) in [-1, 1] of it: a :class:`torchdl.GAN`.
        extractor: Trained on the same data set.
        train: The training images.
        test: The real images.
        count: N, of each kind; fewer where there are fewer images.
        seed: What the samples are made from.
        device: Where to compute.
        kid_samples: Number of them that the kernel distance and the neighbours are computed from.
    """
    since, count = time.perf_counter(), min(count, len(train), len(test))
    least = min(count, kid_samples)
    require(least >= LEAST, f"there are only {least} images of each kind to compare: {LEAST} are the least")

    def some(data: ImageDataset, count: int) -> Tensor:
        return as_fractions(data, at_equal_distances(len(data), count).to(data.device)).to(device)

    made, real = generate(gan, count, seed, device), some(test, count)
    generator = torch.Generator().manual_seed(random.key(seed))
    noise = torch.rand((min(NOISE, count), *made.shape[1:]), generator=generator)
    kinds = {"generated": made, "training images": some(train, count), "noise": noise}
    reference = make_reference(extractor, extract_features(extractor, real, device), kid_samples)
    measured = {
        name: compare(extractor, extract_features(extractor, images, device), reference, kid_samples)
        for name, images in kinds.items()
    }
    few = min(LOOKED_UP, count)
    spread = at_equal_distances(count, few).to(device)
    nearest = {
        name: nearest_training_images(images, train)
        for name, images in (("generated", made[:few]), ("held out", real[spread]))
    }
    distances = {name: found.distances for name, found in nearest.items()}
    near = distances["held out"].quantile(NEAR)
    shares = {name: row["class shares"] for name, row in measured.items() if name != "noise"}
    test_shares = dict(zip(extractor.classes, reference.shares.tolist(), strict=True))
    closest = {name: Nearest(*(p[found.distances.argsort()[:SHOWN]] for p in found)) for name, found in nearest.items()}
    results = {
        "images of each kind": count,
        "seed": seed,
        "judge": {"accuracy": extractor.accuracy, "sha256": extractor.fingerprint},
        "against held-out images": measured,
        "held-out class shares": test_shares,
        "distance to the nearest training image": {
            "images": few,
            **{name: float(far.median()) for name, far in distances.items()},
            "near": float(near),
            "generated, as near as the nearest 1 % of held out": float(
                (distances["generated"] <= near).double().mean()
            ),
        },
        "seconds": time.perf_counter() - since,
    }
    figures = {
        "classes": plot_bars({**shares, "test images": test_shares}, "share of each class among the predictions"),
        "nearest": plot_nearest(closest, distances, float(near)),
    }
    return Report(results, summarize(results), figures)


def summarize(results: Mapping[str, Any]) -> str:
    """Return the results of :func:`evaluate_generator` as a table."""
    measured = results["against held-out images"]
    columns = ["Fréchet distance", "kernel distance", "inception-style score"]
    columns += ["precision", "recall", "density", "coverage"]
    lines = [
        "feature extractor: test accuracy {accuracy:.2%}, weights {sha256:.12}".format(**results["judge"]),
        f"{results['images of each kind']:,} of each, against test images",
        f"{'':16}" + "".join(f"{name:>23}" if "distance" in name else f"{name.split('-')[0]:>11}" for name in columns),
    ]
    for name, row in measured.items():
        cells = [f"{row['Fréchet distance']:13.3f} ± {row['its deviation']:7.3f}", f"{row['kernel distance']:23.5f}"]
        lines.append(f"{name:16}" + "".join([*cells, *(f"{row[column]:11.3f}" for column in columns[2:])]))
    shares, rare = (measured["generated"][key] for key in ("class shares", "rare classes"))
    named = ", ".join(f"{name} ({shares[name]:.1%})" for name in rare)
    near = results["distance to the nearest training image"]
    share = near["generated, as near as the nearest 1 % of held out"]
    return "\n".join(
        [
            *lines,
            f"classes with less than half their share of the samples: {named or 'none'}",
            "median distance to the nearest training image: "
            f"samples {near['generated']:.4f}, test images {near['held out']:.4f}",
            f"samples as near to a training image as the nearest {NEAR:.0%} of the test images: {share:.1%}",
        ]
    )
