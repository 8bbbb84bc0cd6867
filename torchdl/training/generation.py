"""Judge a finished generator: how much its images resemble held-out ones, by the features of a classifier.

Shapes: N images, D features, K classes, (C, H, W) of an image.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdl import artifacts, plots, random
from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import InputError, require
from torchdl.files import write_json
from torchdl.metrics import (
    Moments,
    class_shares,
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbour_scores,
    resampled_deviation,
)
from torchdl.training import process
from torchdl.training.command import read_record, say
from torchdl.training.logger import Logger

BATCH = 500
LOOKED_UP = 1000  # images whose nearest training image is looked for
SHOWN = 10  # of them in the picture
RESAMPLES = 10
RARE = 0.05  # a class with a smaller share of the samples is named


class Judge(NamedTuple):
    """A classifier by whose hidden layer images are compared, and what it is known by."""

    model: Any
    classes: tuple[str, ...]
    low: float
    accuracy: float
    fingerprint: str


class Judged(NamedTuple):
    """Features (N, D) and probabilities of the classes (N, K) of images."""

    features: Tensor
    probabilities: Tensor


def recipe(dataset: str) -> str:
    """Give the command that makes the usual judge of a data set."""
    return f"python scripts/train_lenet.py --dataset {dataset} --seed 0 --name judge-{dataset}"


def load_judge(folder: Path, dataset: str) -> Judge:
    """Load a finished run of ``train_lenet.py`` on the data set; :class:`InputError` with the command if it is none."""
    require(folder.is_dir(), f"there is no judge {folder}: make it with `{recipe(dataset)}`, or name one with --judge")
    model: Any = artifacts.load(folder)
    require(hasattr(model, "hidden_units"), f"{folder} holds a {type(model).__name__}: a judge is a LenetLike")
    config = read_record(folder)["config"]
    known = config.get("images", {}).get("dataset")
    require(known == dataset, f"the judge {folder} knows {known}, but the images are to resemble {dataset}")
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        classes, accuracy = tuple(found["accuracy by class"]), float(found["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no finished run: make it anew with `{recipe(dataset)}`") from error
    low = -1.0 if config.get("learning", {}).get("centred") else 0.0
    return Judge(
        model.eval(), classes, low, accuracy, hashlib.sha256((folder / artifacts.WEIGHTS).read_bytes()).hexdigest()
    )


@torch.no_grad()
def judge_images(judge: Judge, images: Tensor, device: torch.device) -> Judged:
    """Give the features and probabilities of images (N, C, H, W) in [0, 1], on the device."""
    judge.model.to(device)
    units, logits = [], []
    for batch in images.split(BATCH):
        found = judge.model.hidden_units(judge.low + (1 - judge.low) * batch.to(device))
        units.append(found)
        logits.append(judge.model.logits_of(found))
    return Judged(torch.cat(units), torch.cat(logits).double().softmax(1))


def compare(judge: Judge, found: Judged, reference: Judged) -> dict[str, Any]:
    """Measure images against a reference of as many others, all by the judge."""
    known = Moments([reference.features])

    def distance(features: Tensor) -> float:
        return frechet_distance(Moments([features]), known)

    shares = class_shares(found.probabilities.argmax(1), len(judge.classes))
    return {
        "Fréchet distance": distance(found.features),
        "its deviation": resampled_deviation(distance, found.features, RESAMPLES),
        "kernel distance": kernel_distance(found.features, reference.features),
        "inception-style score": inception_score(found.probabilities),
        **neighbour_scores(reference.features, found.features)._asdict(),
        "class shares": dict(zip(judge.classes, shares.tolist(), strict=True)),
    }


def nearest_training_images(images: Tensor, train: ImageDataset) -> tuple[Tensor, Tensor]:
    """Find the training image that is nearest to each image (N, C, H, W) in [0, 1], by the root mean squared pixel.

    Returns:
        The distances (N,) in [0, 1] and the training images' numbers (N,).
    """
    x = images.flatten(1)  # (N, C * H * W)
    least = torch.full((len(x),), torch.inf, device=x.device)
    number = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(train), 5000):
        rows = torch.arange(start, min(start + 5000, len(train)), device=train.device)
        others = (train.pixels(rows).float() / 255).flatten(1).to(x.device)
        far, place = torch.cdist(x, others).min(1)
        closer = far < least
        least, number = torch.where(closer, far, least), torch.where(closer, place + start, number)
    return least / x.shape[1] ** 0.5, number


@torch.no_grad()
def evaluate_generator(
    gan: Any, judge: Judge, train: ImageDataset, test: ImageDataset, count: int, seed: int, device: torch.device
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Measure a generator against held-out images, beside training images and noise as a scale.

    Args:
        gan: Has ``generate_samples``: (N, C, H, W) in [-1, 1].
        judge: Of the same data set.
        train: The training images.
        test: The held-out images.
        count: N, of each kind; fewer where there are fewer images.
        seed: What the samples are made from.
        device: Where to compute.

    Returns:
        The results, and of the samples that are most like a training image the samples and those, in [0, 1].
    """
    count = min(count, len(train), len(test))
    require(count > 5, f"there are only {count} images to compare: 6 are the least")

    def some(data: ImageDataset) -> Tensor:
        return data.pixels(at_equal_distances(len(data), count).to(data.device)).float() / 255

    gan.to(device)
    parts = [(gan(z) + 1) / 2 for z in gan.eval().noise(count, seed).split(BATCH)]
    made = torch.cat(parts).clamp(0, 1)
    held_out = some(test)
    generator = torch.Generator().manual_seed(random.key(seed))
    kinds = {"generated": made, "training images": some(train), "noise": torch.rand(made.shape, generator=generator)}
    reference = judge_images(judge, held_out, device)
    measured = {name: compare(judge, judge_images(judge, images, device), reference) for name, images in kinds.items()}
    few = min(LOOKED_UP, count)
    distance, number = nearest_training_images(made[:few], train)
    usual, _ = nearest_training_images(held_out[at_equal_distances(count, few)].to(device), train)
    closest = distance.argsort()[:SHOWN]
    results = {
        "images of each kind": count,
        "judge": {"accuracy": judge.accuracy, "sha256": judge.fingerprint},
        "against held-out images": measured,
        "distance to the nearest training image": {
            "generated": float(distance.median()),
            "held out": float(usual.median()),
            "generated, nearer than 99 % of held out": float((distance < usual.quantile(0.01)).double().mean()),
        },
    }
    pixels = train.pixels(number[closest].to(train.device)).float() / 255
    return results, made[closest].cpu(), pixels.cpu()


def report(folder: Path, results: dict[str, Any], samples: Tensor, nearest: Tensor) -> None:
    """Print the table, and write ``evaluation.json`` and pictures into the run's folder, which TensorBoard shows."""
    measured = results["against held-out images"]
    columns = ["Fréchet distance", "kernel distance", "inception-style score"]
    columns += ["precision", "recall", "density", "coverage"]
    say(f"{results['images of each kind']:,} of each, against held-out images")
    say(f"{'':16}" + "".join(f"{name:>23}" if "distance" in name else f"{name.split('-')[0]:>11}" for name in columns))
    for name, row in measured.items():
        cells = [f"{row['Fréchet distance']:13.3f} ± {row['its deviation']:7.3f}", f"{row['kernel distance']:23.5f}"]
        say(f"{name:16}" + "".join([*cells, *(f"{row[column]:11.3f}" for column in columns[2:])]))
    shares = measured["generated"]["class shares"]
    rare = ", ".join(f"{name} {share:.1%}" for name, share in shares.items() if share < RARE)
    say(f"classes with less than {RARE:.0%} of the samples: {rare or 'none'}")
    near = results["distance to the nearest training image"]
    say(f"median distance to the nearest training image: {near['generated']:.4f}, of held-out {near['held out']:.4f}")
    write_json(folder / "evaluation.json", results)
    paths = [folder / "plots" / "classes.png", folder / "plots" / "nearest.png"]
    panels = {name: row["class shares"] for name, row in measured.items() if name != "noise"}
    plots.plot_bars(panels, paths[0], "share of each class, as the judge sees it")
    plots.save_png(plots.image_grid(torch.stack([samples, nearest])), paths[1])
    with closing(Logger(folder)) as logger:
        logger.show(*paths)
    say(f"pictures and figures: {folder}")


def evaluate_run(
    folder: Path, gan: Any, judge: Judge, train: ImageDataset, test: ImageDataset, count: int, seed: int, device: str
) -> dict[str, Any]:
    """Evaluate the generator of a run, and leave in its folder what :func:`report` writes."""
    since = time.perf_counter()
    results, samples, nearest = evaluate_generator(gan, judge, train, test, count, seed, process.find_device(device))
    results["seconds"] = time.perf_counter() - since
    say(f"judge: {judge.accuracy:.2%} of the test images right, weights {judge.fingerprint[:12]}")
    report(folder, results, samples, nearest)
    return results
