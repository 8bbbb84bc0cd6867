"""Judge a finished generator: how much its images resemble held-out ones, by the features of a classifier.

Shapes: N images, M training images, D features, K classes, (C, H, W) of an image.
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
    SampleSet,
    class_shares,
    compare_sets,
    frechet_deviation,
    frechet_distance,
    inception_score,
)
from torchdl.training import process
from torchdl.training.command import read_record, say
from torchdl.training.logger import Logger

EVALUATION = "evaluation.json"  # in the folder of a run
BATCH = 500
NEIGHBOUR = 5  # how far a sample reaches: as far as this neighbour of its
LEAST = NEIGHBOUR + 1  # images of each kind that can be compared
PAIRED = 5000  # images of each kind whose pairs are compared, which takes the square of it
NOISE = 1000  # images of noise, which are so far from all others that more would say the same
LOOKED_UP = 1000  # images whose nearest training image is looked for
TRAINING_BLOCK = 5000  # training images among which it is looked for at a time
NEAR = 0.01  # share of the held-out images that are called near a training image
SHOWN = 8  # of the nearest in the picture


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


def recipe(dataset: str) -> str:
    """Give the command that makes the usual judge of a data set."""
    return f"python scripts/train_lenet.py --dataset {dataset} --seed 0 --name {usual_judge(Path(), dataset).name}"


def usual_judge(runs: Path, dataset: str) -> Path:
    """Give the folder that :func:`recipe` leaves the judge of a data set in, among all runs."""
    return runs / "lenet" / f"judge-{Path(dataset).name}"


def load_gan(folder: Path) -> Any:
    """Load the GAN of a run; :class:`InputError` where another model is there."""
    model: Any = artifacts.load(folder)
    is_gan = hasattr(model, "generate_samples")
    require(is_gan, f"{folder} holds a {type(model).__name__}, not a GAN: name a run of train_gan.py")
    return model


def dataset_of(folder: Path) -> str:
    """Read which images the GAN of a run imitates."""
    return str(read_record(folder).get("config", {}).get("dataset"))


def load_judge(folder: Path, dataset: str) -> Judge:
    """Load a finished run of ``train_lenet.py`` on the data set; :class:`InputError` with the command if it is none."""
    require(folder.is_dir(), f"there is no judge {folder}: make it with `{recipe(dataset)}`, or name one with --judge")
    model: Any = artifacts.load(folder)
    require(
        hasattr(model, "hidden_units"),
        f"{folder} holds a {type(model).__name__}: a judge is a LenetLike, made with `{recipe(dataset)}`",
    )
    config = read_record(folder).get("config", {})
    known = config.get("images", {}).get("dataset")
    require(known == dataset, f"the judge {folder} knows {known}, but the images are to resemble {dataset}")
    try:
        found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        classes, accuracy = tuple(found["accuracy by class"]), float(found["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no finished run: finish it, or make one with `{recipe(dataset)}`") from error
    low = -1.0 if config.get("learning", {}).get("centred") else 0.0
    fingerprint = hashlib.sha256((folder / artifacts.WEIGHTS).read_bytes()).hexdigest()
    return Judge(model.eval(), classes, low, accuracy, fingerprint)


@torch.no_grad()
def judge_images(judge: Judge, images: Tensor, device: torch.device) -> Judged:
    """Give the features and probabilities of images (N, C, H, W) in [0, 1], on the device if it has float64."""
    judge.model.to(device)
    kept = torch.device("cpu") if device.type == "mps" else device
    units, logits = [], []
    for batch in images.split(BATCH):
        found = judge.model.hidden_units(judge.low + (1 - judge.low) * batch.to(device))
        units.append(found.to(kept))
        logits.append(judge.model.logits_of(found).to(kept))
    return Judged(torch.cat(units), torch.cat(logits).double().softmax(1))


def shares_of(judge: Judge, found: Judged) -> Tensor:
    """Give the share (K,) of each class among judged images."""
    return class_shares(found.probabilities.argmax(1), len(judge.classes))


def sample_set(found: Judged, paired: int) -> SampleSet:
    """Take so many of the judged images, at equal distances, to be compared pair by pair."""
    features = found.features
    chosen = at_equal_distances(len(features), min(paired, len(features)))
    return SampleSet(features[chosen.to(features.device)], NEIGHBOUR)


def make_reference(judge: Judge, held_out: Judged, paired: int = PAIRED) -> Reference:
    """Measure of held-out images what is measured of them alone."""
    return Reference(Moments([held_out.features]), sample_set(held_out, paired), shares_of(judge, held_out))


def compare(judge: Judge, found: Judged, reference: Reference, paired: int = PAIRED) -> dict[str, Any]:
    """Measure images against held-out ones, all by the judge.

    The kernel distance and the neighbours are those of ``paired`` images of each kind at most. A class is rare if less
    than half as large a share of the images is taken for it as of the held-out ones.
    """
    samples = sample_set(found, paired)
    kernel, neighbours = compare_sets(reference.samples, samples)
    shares = shares_of(judge, found)
    rare = (shares < reference.shares / 2).tolist()
    return {
        "images": len(found.features),
        "of them in pairs": len(samples),
        "Fréchet distance": frechet_distance(Moments([found.features]), reference.moments),
        "its deviation": frechet_deviation(found.features, reference.moments),
        "kernel distance": kernel,
        "inception-style score": inception_score(found.probabilities),
        **neighbours._asdict(),
        "class shares": dict(zip(judge.classes, shares.tolist(), strict=True)),
        "rarest share": float(shares.min()),
        "rare classes": [name for name, is_rare in zip(judge.classes, rare, strict=True) if is_rare],
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
def generate(gan: Any, count: int, seed: int, device: torch.device) -> Tensor:
    """Generate images (N, C, H, W) in [0, 1], a batch at a time, with the batch norms' running statistics."""
    gan.to(device).eval()
    return torch.cat([((gan(z) + 1) / 2).clamp(0, 1) for z in gan.noise(count, seed).split(BATCH)])


@torch.no_grad()
def evaluate_generator(
    gan: Any,
    judge: Judge,
    train: ImageDataset,
    test: ImageDataset,
    count: int,
    seed: int,
    device: torch.device,
    paired: int = PAIRED,
) -> tuple[dict[str, Any], dict[str, Nearest]]:
    """Measure a generator against held-out images, beside training images and noise as a scale.

    Args:
        gan: Has ``noise(n, seed)``, and makes images (N, C, H, W) in [-1, 1] of it: a :class:`torchdl.GAN`.
        judge: Of the same data set.
        train: The training images.
        test: The held-out images.
        count: N, of each kind; fewer where there are fewer images.
        seed: What the samples are made from.
        device: Where to compute.
        paired: Of how many of them the kernel distance and the neighbours are.

    Returns:
        The results, and of generated and of held-out images the nearest training images.
    """
    count = min(count, len(train), len(test))
    least = min(count, paired)
    require(least >= LEAST, f"there are only {least} images of each kind to compare: {LEAST} are the least")

    def some(data: ImageDataset, count: int) -> Tensor:
        return as_fractions(data, at_equal_distances(len(data), count).to(data.device)).to(device)

    made, held_out = generate(gan, count, seed, device), some(test, count)
    generator = torch.Generator().manual_seed(random.key(seed))
    noise = torch.rand((min(NOISE, count), *made.shape[1:]), generator=generator)
    kinds = {"generated": made, "training images": some(train, count), "noise": noise}
    reference = make_reference(judge, judge_images(judge, held_out, device), paired)
    measured = {
        name: compare(judge, judge_images(judge, images, device), reference, paired) for name, images in kinds.items()
    }
    few = min(LOOKED_UP, count)
    spread = at_equal_distances(count, few).to(device)
    nearest = {
        name: nearest_training_images(images, train)
        for name, images in (("generated", made[:few]), ("held out", held_out[spread]))
    }
    distances = {name: found.distances for name, found in nearest.items()}
    near = distances["held out"].quantile(NEAR)
    results = {
        "images of each kind": count,
        "seed": seed,
        "judge": {"accuracy": judge.accuracy, "sha256": judge.fingerprint},
        "against held-out images": measured,
        "held-out class shares": dict(zip(judge.classes, reference.shares.tolist(), strict=True)),
        "distance to the nearest training image": {
            "images": few,
            **{name: float(far.median()) for name, far in distances.items()},
            "near": float(near),
            "generated, as near as the nearest 1 % of held out": float(
                (distances["generated"] <= near).double().mean()
            ),
        },
    }
    return results, nearest


def report(folder: Path, results: dict[str, Any], nearest: dict[str, Nearest]) -> None:
    """Print the table, and write ``evaluation.json`` and pictures into the run's folder, which TensorBoard shows."""
    measured = results["against held-out images"]
    columns = ["Fréchet distance", "kernel distance", "inception-style score"]
    columns += ["precision", "recall", "density", "coverage"]
    say(f"{results['images of each kind']:,} of each, against held-out images")
    say(f"{'':16}" + "".join(f"{name:>23}" if "distance" in name else f"{name.split('-')[0]:>11}" for name in columns))
    for name, row in measured.items():
        cells = [f"{row['Fréchet distance']:13.3f} ± {row['its deviation']:7.3f}", f"{row['kernel distance']:23.5f}"]
        say(f"{name:16}" + "".join([*cells, *(f"{row[column]:11.3f}" for column in columns[2:])]))
    shares, rare = (measured["generated"][key] for key in ("class shares", "rare classes"))
    named = ", ".join(f"{name} ({shares[name]:.1%})" for name in rare)
    say(f"classes with less than half their share of the samples: {named or 'none'}")
    near = results["distance to the nearest training image"]
    say(f"median distance to the nearest training image: {near['generated']:.4f}, of held-out {near['held out']:.4f}")
    share = near["generated, as near as the nearest 1 % of held out"]
    say(f"as near to one as the nearest {NEAR:.0%} of the held-out images: {share:.1%} of the samples")
    write_json(folder / EVALUATION, results)
    paths = [folder / "plots" / "classes.png", folder / "plots" / "nearest.png"]
    panels = {name: row["class shares"] for name, row in measured.items() if name != "noise"}
    panels["held-out images"] = results["held-out class shares"]
    plots.plot_bars(panels, paths[0], "share of each class, as the judge sees it")
    closest = {
        name: Nearest(*(part[found.distances.argsort()[:SHOWN]] for part in found)) for name, found in nearest.items()
    }
    plots.plot_nearest(closest, {name: found.distances for name, found in nearest.items()}, near["near"], paths[1])
    with closing(Logger(folder)) as logger:
        logger.show(*paths)
    say(f"pictures and figures: {folder}")


def evaluate_run(
    folder: Path,
    gan: Any,
    judge: Judge,
    train: ImageDataset,
    test: ImageDataset,
    count: int,
    seed: int,
    device: str,
    paired: int = PAIRED,
) -> dict[str, Any]:
    """Evaluate the generator of a run, and leave in its folder what :func:`report` writes."""
    since = time.perf_counter()
    results, nearest = evaluate_generator(gan, judge, train, test, count, seed, process.find_device(device), paired)
    results["seconds"] = time.perf_counter() - since
    say(f"judge: {judge.accuracy:.2%} of the test images right, weights {judge.fingerprint[:12]}")
    report(folder, results, nearest)
    return results
