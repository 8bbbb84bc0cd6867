"""Train a classifier of images, and measure what it gets wrong.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import BatchLoader, ImageDataset, ShiftedImages, draw_per_class, load_images
from torchdl.data.folder import DecodedLate
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.pictures import image_grid
from torchdl.plots import plot_confusion, plot_predicted_images
from torchdl.recipes.learning import Overrides, Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, accuracy, find_schedule, make_optimizer
from torchdl.training.device import find_device, move

SHOWN = 36  # misclassified images in the figure


@dataclass(frozen=True)
class ImageOptions:
    """Which labelled images."""

    dataset: str = "mnist"
    """mnist, fashion_mnist, cifar10, cifar100, mnist_5k, or a folder with train/<class>/ and test/<class>/, or flat, as
    Food-5K."""
    image_size: int | None = None
    """Pixels a side that a folder's images are resized to; needed where they are of several sizes."""
    skip_corrupt: bool = False
    """Leave out a folder's files that cannot be read, and say which."""
    workers: int = 2
    """Processes that decode a folder's images where they do not fit in memory."""
    per_class: int | None = None
    """Number of training images of every class, drawn by the draw seed; all of them if not given."""
    validation_per_class: int | None = None
    """Number of other training images of every class to measure on instead of the test images, to choose settings."""
    draw_seed: int = 0
    """Seed of the draw."""

    def load(self, root: PathLike | None = None, centred: bool | None = False) -> tuple[ImageDataset, ImageDataset]:
        """Load the training and the test images, with pixels in [0, 1], or in [-1, 1] if they are ``centred``."""
        low = -1.0 if centred else 0.0

        def part(split: str) -> ImageDataset:
            return load_images(
                self.dataset, split, root, low, image_size=self.image_size, skip_corrupt=self.skip_corrupt
            )

        train = part("train")
        needed = self.per_class is not None or self.validation_per_class is None
        require(needed, "validation_per_class needs per_class, the number of images to train on")
        counts = [count for count in (self.per_class, self.validation_per_class) if count is not None]
        train, *validation = draw_per_class(train, counts, self.draw_seed) if counts else [train]
        test = validation[0] if validation else part("test")
        require(
            train.image_shape == test.image_shape,
            f"the training images are of (channels, height, width) {train.image_shape}, and the test images of "
            f"{test.image_shape}: choose an image size for both",
        )
        return train, test

    def loader(self, images: ImageDataset, data: Any = None, **settings: Any) -> BatchLoader:
        """Make batches of ``data``, or of the images themselves; by worker processes where they are decoded late."""
        late = isinstance(images.images, DecodedLate)
        return BatchLoader(images if data is None else data, workers=self.workers if late else 0, **settings)


@dataclass(frozen=True)
class ClassifierLearning(Overrides):
    """How a classifier learns; what is None is as its network has it."""

    batch_size: int | None = None
    """Images a step, on each process; usually 64, in the course 32."""
    lr: float | None = None
    """The learning rate, the highest one with a schedule; usually 1e-3."""
    schedule: ScheduleName | None = None
    """The learning rate's course: constant; cosine or linear, falling to 0; one_cycle, rising for a quarter first."""
    weight_decay: float | None = None
    """How much kernels shrink: with adamw times the learning rate, else in the gradient; usually not at all."""
    optimizer: OptimizerName | None = None
    """The rule of updates; usually adamw."""
    label_smoothing: float | None = None
    """Share of the target given to all classes alike, in the loss on both parts; usually nothing."""
    shift: float | None = None
    """Shift each training image by up to this share of its sides; usually not, in the course by 0.1."""
    flip: float | None = None
    """Probability of mirroring a training image; usually 0, in the course 0.5 (for what has no left and right)."""
    centred: bool | None = None
    """Pixels in [-1, 1] rather than in [0, 1]; usually not."""


DEFAULTS = ClassifierLearning(
    64, 1e-3, "constant", 0.0, "adamw", label_smoothing=0.0, shift=0.0, flip=0.0, centred=False
)


def make_task(
    model: nn.Module, learning: ClassifierLearning, build_task: Callable[..., Supervised] = Supervised
) -> Supervised:
    """Build the task of a classifier that learns as ``learning`` says."""
    chosen = asdict(learning.with_defaults(DEFAULTS))
    smoothing = chosen["label_smoothing"]
    require(0 <= smoothing < 1, f"label_smoothing must be in [0, 1), not {smoothing}")
    return build_task(
        model,
        partial(F.cross_entropy, label_smoothing=smoothing),
        {"accuracy": accuracy},
        partial(make_optimizer, chosen["optimizer"], lr=chosen["lr"], weight_decay=chosen["weight_decay"]),
        find_schedule(chosen["schedule"]),
    )


def classifier_training(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    learning: ClassifierLearning,
    seed: int = 0,
    build_task: Callable[..., Supervised] = Supervised,
) -> Training:
    """Build the task and the batches of a classifier's training.

    The validation data are the test images, as in the course; nothing is chosen by them unless the trainer is told to
    monitor one of their metrics. ``build_task`` takes what :class:`torchdl.Supervised` takes.
    """
    chosen = learning.with_defaults(DEFAULTS)
    data = ShiftedImages(train, chosen.shift or 0.0, chosen.flip or 0.0, seed)
    batches = images.loader(train, data, batch_size=chosen.batch_size, shuffle=True, seed=seed)
    return Training(make_task(model, learning, build_task), batches, images.loader(test, batch_size=500))


def example_images(batches: BatchLoader, train: ImageDataset, count: int = 64) -> Tensor:
    """Return the first training images as the network sees them, as a picture (C, H, W) uint8."""
    data, count = batches.dataset, min(count, len(train))
    images, _ = next(iter(BatchLoader(data, count, shuffle=True, seed=batches.seed, workers=batches.workers)))
    return image_grid(train.unscale(images))


@torch.no_grad()
def predict(model: nn.Module, loader: BatchLoader, device: torch.device, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Return the logits (N, K) and labels (N,) of a loader's images, on the CPU; the model stays in evaluation mode.

    With ``mirror`` the logits are the mean of an image's and its mirror image's.
    """
    model.eval().to(device)
    loader.to(device)
    found, known = [], []
    for (x, labels), _ in loader.batches(0):
        x = move(x, device)
        logits = (model(x) + model(x.flip(3))) / 2 if mirror else model(x)
        found.append(logits.cpu())
        known.append(labels.cpu())
    return torch.cat(found), torch.cat(known)


def evaluate_classifier(
    model: nn.Module,
    test: ImageDataset,
    images: ImageOptions,
    device: str = "auto",
    mirror: bool = False,
    logits: Tensor | None = None,
    more: Mapping[str, Any] | None = None,
) -> Report:
    """Measure a classifier on test images, and draw its confusion matrix and its most confident mistakes.

    Args:
        model: Images (N, C, H, W) to logits (N, K).
        test: The test images, with labels.
        images: How they are loaded.
        device: Where to compute.
        mirror: Whether to measure the mean of an image's and its mirror image's logits, too.
        logits: (N, K) of the test images, where they are known already.
        more: Results to add.
    """
    from sklearn.metrics import confusion_matrix  # imported late: it takes a second

    loader = images.loader(test, batch_size=500)
    loader.shard(0, 1)  # one process alone evaluates
    on = find_device(device)
    if logits is None or test.labels is None:
        logits, labels = predict(model, loader, on)
    else:
        labels = test.labels.cpu()
    predicted, names = logits.argmax(1), test.classes
    matrix = confusion_matrix(labels, predicted, labels=range(len(names)))
    results = {
        "accuracy": float((predicted == labels).double().mean()),
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "images": len(labels),
        "accuracy by class": dict(zip(names, (matrix.diagonal() / np.maximum(matrix.sum(1), 1)).tolist(), strict=True)),
        "parameters": sum(p.numel() for p in model.parameters()),
        **(more or {}),
    }
    mirrored = ""
    if mirror:
        both, _ = predict(model, loader, on, mirror=True)
        results["accuracy with mirror images"] = float((both.argmax(1) == labels).double().mean())
        mirrored = f", {results['accuracy with mirror images']:.2%} with mirror images"
    wrong = (predicted != labels).nonzero()[:, 0]
    confident = wrong[logits.softmax(1)[wrong].amax(1).argsort(descending=True, stable=True)][:SHOWN]
    pixels = test.unscale(test.__getitems__(confident.to(test.device))[0])
    true, taken = ([names[i] for i in which[confident].tolist()] for which in (labels, predicted))
    title = f"the most confident of {len(wrong):,} mistakes on {len(labels):,} images"
    return Report(
        results,
        f"test accuracy {results['accuracy']:.2%} on {len(labels):,} images{mirrored}",
        {
            "confusion": plot_confusion(matrix, names),
            "confusion_normalized": plot_confusion(matrix, names, normalize=True),
            "misclassified": plot_predicted_images(pixels, true, taken, title),
        },
    )
