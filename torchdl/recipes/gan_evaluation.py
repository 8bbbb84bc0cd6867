"""Measure how much generated images resemble real ones, in the feature space of a classifier of real images.

Shapes: N images, B images of a block, D features, K classes, (C, H, W) of an image.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor

from torchdl import artifacts, metrics, random
from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import InputError, kind_of, require
from torchdl.files import RESULTS, WEIGHTS, PathLike, read_json, read_settings
from torchdl.models import GAN, LenetLike
from torchdl.plots import plot_bars, plot_nearest
from torchdl.predict import ImageClassifier, pretrained
from torchdl.predict.pretrained_weights import read_index
from torchdl.recipes.report import Report
from torchdl.training.device import find_device

BATCH = 500
NEIGHBOUR = 5  # k: a sample's radius is the distance to its k-th nearest neighbour
LEAST = NEIGHBOUR + 1  # minimum number of images of each kind
KID_SAMPLES = 5000  # images of each kind for pairwise measures, whose cost is quadratic
NOISE = 1000  # images of noise; more would not change the result, since they are far from all others
LOOKED_UP = 1000  # images whose nearest training image is looked up
TRAINING_BLOCK = 5000  # training images searched at a time
NEAR = 0.01  # share of the test images that count as near a training image
SHOWN = 8  # nearest pairs in the figure


#: The classifiers that come with torchdl and are the default feature extractors of their data sets.
PRETRAINED = {"mnist": "lenet-mnist", "fashion_mnist": "lenet-fashion"}


class FeatureExtractor(NamedTuple):
    """A classifier whose hidden units are the features by which images are compared.

    Attributes:
        model: The classifier.
        classes: The names of the K classes.
        low: The value of black in its inputs; white is 1.
        accuracy: Its test accuracy.
        fingerprint: The SHA-256 of its weights.
    """

    model: LenetLike
    classes: tuple[str, ...]
    low: float
    accuracy: float
    fingerprint: str


Results = TypedDict("Results", {"accuracy": float, "accuracy by class": dict[str, float]})


class OfImages(TypedDict, total=False):
    """The settings of a feature extractor's images."""

    dataset: str


class OfLearning(TypedDict, total=False):
    """The settings of a feature extractor's training."""

    centred: bool | None


class Trained(TypedDict, total=False):
    """The settings of a feature extractor's run."""

    images: OfImages
    learning: OfLearning


class Features(NamedTuple):
    """The ``features`` (N, D) and class probabilities (N, K) of images."""

    features: Tensor
    probabilities: Tensor


class Reference(NamedTuple):
    """Statistics of real images with which others are compared: moments, a set of ``samples`` and class shares (K,)."""

    moments: metrics.Moments
    samples: metrics.SampleSet
    shares: Tensor


class Nearest(NamedTuple):
    """The ``images`` (N, C, H, W) in [0, 1], the nearest training image of each, and their distances (N,)."""

    images: Tensor
    training: Tensor
    distances: Tensor


def load_feature_extractor(folder: PathLike, dataset: str) -> FeatureExtractor:
    """Load a feature extractor from a finished run of a :class:`torchdl.LenetLike` on ``dataset``.

    Raises:
        InputError: The folder holds another model or data set, or an unfinished run.
    """
    folder = Path(folder)
    model = artifacts.load(folder)
    if not isinstance(model, LenetLike):
        raise InputError(f"{folder} holds {kind_of(model)}, but a feature extractor is a LenetLike")
    config = read_settings(folder, Trained)
    known = config.get("images", {}).get("dataset")
    require(known == dataset, f"the feature extractor {folder} was trained on {known}, not on {dataset}")
    try:
        results = read_json(folder / RESULTS, Results)
    except InputError as error:
        raise InputError(f"{folder} is not a finished run ({error}): resume it until it ends") from error
    classes, accuracy = tuple(results["accuracy by class"]), results["accuracy"]
    low = -1.0 if config.get("learning", {}).get("centred") else 0.0
    fingerprint = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return FeatureExtractor(model.eval(), classes, low, accuracy, fingerprint)


def pretrained_extractor(name: str, dataset: str) -> FeatureExtractor:
    """Return the classifier ``name`` that comes with torchdl as a feature extractor for ``dataset``.

    Raises:
        InputError: There is no such classifier, or it was trained on another data set.
    """
    classifier = pretrained(name, "cpu")
    entry = read_index()[name]
    if not (isinstance(classifier, ImageClassifier) and isinstance(classifier.model, LenetLike)):
        raise InputError(f"{name} is no LenetLike, but a feature extractor is one")
    known = entry["dataset"]
    require(known == dataset, f"the feature extractor {name} was trained on {known}, not on {dataset}")
    accuracy, fingerprint = entry["figures"]["test accuracy, %"] / 100, entry["files"][WEIGHTS]
    settings = classifier.settings
    return FeatureExtractor(classifier.model, settings.classes, settings.images.low, accuracy, fingerprint)


@torch.no_grad()
def extract_features(extractor: FeatureExtractor, images: Tensor, device: torch.device) -> Features:
    """Return an extractor's outputs for images (N, C, H, W) in [0, 1], on ``device``, or on the CPU if that is MPS."""
    extractor.model.to(device)
    target = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    features, logits = [], []
    for batch in images.split(BATCH):
        units = extractor.model.hidden_units(extractor.low + (1 - extractor.low) * batch.to(device))
        features.append(units.to(target))
        logits.append(extractor.model.logits_of(units).to(target))
    return Features(torch.cat(features), torch.cat(logits).double().softmax(1))


def shares_of(extractor: FeatureExtractor, found: Features) -> Tensor:
    """Return the share (K,) of each class among the predictions that an ``extractor`` has ``found``."""
    return metrics.class_shares(found.probabilities.argmax(1), len(extractor.classes))


def sample_set(found: Features, kid_samples: int, centre: Tensor | None = None) -> metrics.SampleSet:
    """Return at most ``kid_samples`` evenly spaced rows of ``found``, for pairwise measures, about a centre (D,)."""
    features = found.features
    chosen = at_equal_distances(len(features), min(kid_samples, len(features)))
    return metrics.SampleSet(features[chosen.to(features.device)], NEIGHBOUR, centre)


def make_reference(extractor: FeatureExtractor, real: Features, kid_samples: int = KID_SAMPLES) -> Reference:
    """Compute the statistics of real images with which others are compared.

    Args:
        extractor: What has found their features.
        real: Their features.
        kid_samples: The maximum number of images for pairwise measures.
    """
    return Reference(metrics.Moments([real.features]), sample_set(real, kid_samples), shares_of(extractor, real))


def compare(
    extractor: FeatureExtractor, found: Features, reference: Reference, kid_samples: int = KID_SAMPLES
) -> dict[str, Any]:
    """Compare images with real ones by their features, as an ``extractor`` has ``found`` them.

    The kernel distance, precision, recall, density and coverage use at most ``kid_samples`` images of each kind. A
    class is rare if its share is less than half its share of the real images, whose statistics ``reference`` has.
    """
    samples = sample_set(found, kid_samples, reference.samples.centre)
    kernel, neighbours = metrics.compare_sets(reference.samples, samples)
    shares = shares_of(extractor, found)
    rare = (shares < reference.shares / 2).tolist()
    return {
        "images": len(found.features),
        "of them in pairs": len(samples),
        "Fréchet distance": metrics.frechet_distance(metrics.Moments([found.features]), reference.moments),
        "its deviation": metrics.frechet_deviation(found.features, reference.moments),
        "kernel distance": kernel,
        "inception-style score": metrics.inception_score(found.probabilities),
        **neighbours._asdict(),
        "class shares": dict(zip(extractor.classes, shares.tolist(), strict=True)),
        "rarest share": float(shares.min()),
        "rare classes": [name for name, is_rare in zip(extractor.classes, rare, strict=True) if is_rare],
    }


def nearest_training_images(images: Tensor, train: ImageDataset) -> Nearest:
    """Find the image of ``train`` nearest to each of ``images`` (N, C, H, W) in [0, 1] by root mean squared error."""
    centre = images.flatten(1).mean(0)  # without it, bright images would cost the distances their digits
    x = images.flatten(1) - centre  # (N, C * H * W)
    smallest = torch.full((len(x),), torch.inf, device=x.device)
    nearest = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(train), TRAINING_BLOCK):
        rows = torch.arange(start, min(start + TRAINING_BLOCK, len(train)), device=train.device)
        others = as_fractions(train, rows).flatten(1).to(x.device) - centre  # (B, C * H * W)
        # half the squared distance without |x|² / 2, which is the same for all training images
        values, indices = (others.square().sum(1) / 2).sub(x @ others.T).min(1)
        closer = values < smallest
        smallest, nearest = torch.where(closer, values, smallest), torch.where(closer, indices + start, nearest)
    training = as_fractions(train, nearest.to(train.device)).to(x.device)
    # recomputed from each pair, so that a copy has distance 0 in spite of rounding
    return Nearest(images, training, (images - training).square().flatten(1).mean(1).sqrt())


def as_fractions(data: ImageDataset, rows: Tensor) -> Tensor:
    """Return the images with the indices ``rows`` as float32 in [0, 1], whatever range the data set scales them to."""
    return data.pixels(rows).float() / 255


@torch.no_grad()
def generate(gan: GAN, count: int, seed: int, device: torch.device) -> Tensor:
    """Generate ``count`` images (N, C, H, W) in [0, 1] in evaluation mode: by ``gan``, on a ``device``, by ``seed``."""
    gan.to(device).eval()
    return torch.cat([((gan(z) + 1) / 2).clamp(0, 1) for z in gan.noise(count, seed).split(BATCH)])


@torch.no_grad()
def evaluate_generator(
    gan: GAN,
    extractor: FeatureExtractor,
    train: ImageDataset,
    test: ImageDataset,
    count: int = 10_000,
    seed: int = 0,
    device: str | torch.device = "auto",
    kid_samples: int = KID_SAMPLES,
) -> Report:
    """Compare generated images with test images; training images and noise are measured, too, for scale.

    Args:
        gan: Has ``noise(n, seed)`` and maps noise to images (N, C, H, W) in [-1, 1], as a :class:`torchdl.GAN` does.
        extractor: A feature extractor of the same data set.
        train: The training images.
        test: The real images to compare with.
        count: N, the number of images of each kind; limited to the number of training and of test images.
        seed: Seed of the generator's input noise and of the noise images.
        device: auto, cpu, cuda, cuda:N or mps.
        kid_samples: Number of images of each kind for the pairwise measures; see :func:`compare`.

    Raises:
        InputError: There are too few images.
    """
    since, count, device = time.perf_counter(), min(count, len(train), len(test)), find_device(device)
    least = min(count, kid_samples)
    require(least >= LEAST, f"only {least} images of each kind to compare: at least {LEAST} are needed")

    def pick(data: ImageDataset) -> Tensor:
        return as_fractions(data, at_equal_distances(len(data), count).to(data.device)).to(device)

    generated, real = generate(gan, count, seed, device), pick(test)
    generator = torch.Generator().manual_seed(random.key(seed, 0, 0, 0, random.Stream.NOISE_IMAGES))
    noise = torch.rand((min(NOISE, count), *generated.shape[1:]), generator=generator)
    kinds = {"generated": generated, "training images": pick(train), "noise": noise}
    reference = make_reference(extractor, extract_features(extractor, real, device), kid_samples)
    features = {name: extract_features(extractor, images, device) for name, images in kinds.items()}
    measured = {name: compare(extractor, found, reference, kid_samples) for name, found in features.items()}
    few = min(LOOKED_UP, count)
    looked_up = {"generated": generated[:few], "test images": real[at_equal_distances(count, few).to(device)]}
    nearest = {name: nearest_training_images(images, train) for name, images in looked_up.items()}
    distances = {name: found.distances for name, found in nearest.items()}
    near = distances["test images"].quantile(NEAR)
    as_near = (distances["generated"] <= near).double().mean()
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
            "generated": float(distances["generated"].median()),
            "held out": float(distances["test images"].median()),
            "near": float(near),
            "generated, as near as the nearest 1 % of held out": float(as_near),
        },
        "seconds": time.perf_counter() - since,
    }
    figures = {
        "classes": plot_bars(
            {**shares, "test images": test_shares}, "share of each class among the predictions", ("generated",)
        ),
        "nearest": plot_nearest(closest, distances, float(near)),
    }
    return Report(results, summarize(results), figures)


def summarize(results: Mapping[str, Any]) -> str:
    """Return the results of :func:`evaluate_generator` as text."""
    measured = results["against held-out images"]
    columns = ["Fréchet distance", "kernel distance", "inception-style score"]
    columns += ["precision", "recall", "density", "coverage"]
    lines = [
        "feature extractor: test accuracy {accuracy:.2%}, weights {sha256:.12}".format(**results["judge"]),
        f"{results['images of each kind']:,} images of each kind, compared with as many test images",
        f"{'':16}" + "".join(f"{name:>23}" if "distance" in name else f"{name.split('-')[0]:>11}" for name in columns),
    ]
    for name, row in measured.items():
        cells = [f"{row['Fréchet distance']:13.3f} ± {row['its deviation']:7.3f}", f"{row['kernel distance']:23.5f}"]
        lines.append(f"{name:16}" + "".join([*cells, *(f"{row[column]:11.3f}" for column in columns[2:])]))
    shares, rare = (measured["generated"][key] for key in ("class shares", "rare classes"))
    named = ", ".join(f"{name} ({shares[name]:.1%})" for name in rare)
    near = results["distance to the nearest training image"]
    share = near["generated, as near as the nearest 1 % of held out"]
    lines += [
        f"classes with less than half their share of the samples: {named or 'none'}",
        "median distance to the nearest training image: "
        f"samples {near['generated']:.4f}, test images {near['held out']:.4f}",
        f"samples as near to a training image as the nearest {NEAR:.0%} of the test images: {share:.1%}",
    ]
    return "\n".join(lines)
