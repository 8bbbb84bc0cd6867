"""Train an image classifier and evaluate its predictions.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchdl.data import Augmentation, AugmentedImages, BatchLoader, ImageDataset, draw_per_class, load_images
from torchdl.data.duplicates import duplicates_note, in_training
from torchdl.data.folder import DecodedLate
from torchdl.data.sources import names
from torchdl.errors import require
from torchdl.field_docs import with_field_docs
from torchdl.files import PathLike
from torchdl.overrides import Overrides
from torchdl.pictures import MAX_PIXELS, image_grid, side_by_side
from torchdl.plots import plot_confusion, plot_predicted_images
from torchdl.predict import ImageClassifier, ImageInput
from torchdl.predict.images import DIGITS, Preparation
from torchdl.recipes.learning import Training
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, accuracy, find_schedule, make_optimizer

SHOWN = 36  # misclassified images in the figure


@with_field_docs
@dataclass(frozen=True)
class ImageOptions:
    """Which labelled images to use."""

    dataset: str = "mnist"
    """mnist, fashion_mnist, cifar10, cifar100, mnist_5k, or a folder: train/<class>/ and test/<class>/, or flat like
    Food-5K."""
    image_size: int | None = None
    """Side in pixels to which a folder's images are resized; required if their sizes differ."""
    skip_corrupt: bool = False
    """Skip a folder's unreadable files and list them."""
    white_value: float | None = None
    """The value of white in a folder's greys of more than 8 bits, such as 4095; if not given, what the files say."""
    max_pixels: int = MAX_PIXELS
    """Maximum width times height of a folder's images; larger ones are unreadable."""
    workers: int = 2
    """Number of processes that decode a folder's images if these do not fit in memory."""
    per_class: int | None = None
    """Number of training images per class, drawn at random; all if not given."""
    validation_per_class: int | None = None
    """Number of further training images per class that replace the test images while you choose settings."""
    draw_seed: int = 0
    """Seed of these random draws."""

    def load(self, root: PathLike | None = None, centred: bool | None = False) -> tuple[ImageDataset, ImageDataset]:
        """Load the training and the test images, with pixels in [0, 1], or in [-1, 1] if ``centred``.

        ``root`` is the data folder; see :mod:`torchdl.data.sources` for the other places.

        Raises:
            InputError: The images of both parts differ in size, or a number of images is missing.
        """
        low = -1.0 if centred else 0.0
        part = partial(
            load_images,
            self.dataset,
            root=root,
            low=low,
            image_size=self.image_size,
            skip_corrupt=self.skip_corrupt,
            white_value=self.white_value,
            max_pixels=self.max_pixels,
        )
        train = part("train")
        needed = self.per_class is not None or self.validation_per_class is None
        require(needed, "validation_per_class needs per_class, the number of images to train on")
        counts = [count for count in (self.per_class, self.validation_per_class) if count is not None]
        train, *validation = draw_per_class(train, counts, self.draw_seed) if counts else [train]
        test = validation[0] if validation else part("test")
        require(
            train.image_shape == test.image_shape,
            f"training images of (channels, height, width) {train.image_shape}, but test images of {test.image_shape}: "
            "set image_size for both",
        )
        if note := duplicates_note(in_training(train.hashes(), test.hashes()), "images"):
            test.origin += f"; {note}"
        return train, test

    def input(self, data: ImageDataset) -> ImageInput:
        """Describe the images that a network learns from, and how other pictures become such images."""
        named = self.dataset in names()
        prepare: Preparation = "digit" if self.dataset in DIGITS else "crop" if named else "squash"
        return ImageInput.of(data, prepare, None if named else self.white_value)

    def loader(self, images: ImageDataset, data: Dataset | None = None, **settings: Any) -> BatchLoader:
        """Return a loader of ``data``, by default of ``images``; workers decode images that do not fit in memory.

        ``settings`` are further arguments of :class:`torchdl.BatchLoader`.
        """
        late = isinstance(images.images, DecodedLate)
        return BatchLoader(images if data is None else data, workers=self.workers if late else 0, **settings)


@with_field_docs
@dataclass(frozen=True)
class ClassifierLearning(Overrides):
    """How a classifier learns; None means the network's default."""

    batch_size: int | None = None
    """Images per step and process; 64 by default, 32 in the course."""
    lr: float | None = None
    """The learning rate; with a schedule, its maximum; 1e-3 by default."""
    schedule: ScheduleName | None = None
    """The learning rate over time: constant; cosine or linear to 0; one_cycle, which rises during the first quarter."""
    weight_decay: float | None = None
    """Weight decay of kernels: decoupled (scaled by the learning rate) with adamw, an L2 penalty with all others; 0 by
    default."""
    optimizer: OptimizerName | None = None
    """The name of the optimizer; adamw by default."""
    label_smoothing: float | None = None
    """Share of the target spread evenly over all classes, in the training and the validation loss; 0 by default."""
    centred: bool | None = None
    """Whether pixels are in [-1, 1] instead of [0, 1]; False by default."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training images are changed at random; not at all by default."""


DEFAULTS = ClassifierLearning(64, 1e-3, "constant", 0.0, "adamw", label_smoothing=0.0, centred=False)


def make_task(
    model: nn.Module, learning: ClassifierLearning, build_task: Callable[..., Supervised] = Supervised
) -> Supervised:
    """Build the task that trains a classifier, ``model``, with the settings ``learning``.

    ``build_task`` takes the arguments of :class:`torchdl.Supervised`.

    Raises:
        InputError: The label smoothing is not in [0, 1).
    """
    chosen = vars(learning.with_defaults(DEFAULTS))
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
    """Build a classifier's task and batches.

    As in the course, the validation data are the test images. They influence no choice unless the trainer monitors one
    of their metrics.

    Args:
        model: Maps images (B, C, H, W) to logits (B, K).
        train, test: The images.
        images: How they are loaded.
        learning: How the model learns.
        seed: The seed of the batches' order and of the augmentation.
        build_task: Takes the arguments of :class:`torchdl.Supervised`.
    """
    chosen = learning.with_defaults(DEFAULTS)
    data = AugmentedImages(train, chosen.augmentation, seed)
    batches = images.loader(train, data, batch_size=chosen.batch_size, shuffle=True, seed=seed)
    return Training(make_task(model, learning, build_task), batches, images.loader(test, batch_size=500))


def example_images(batches: BatchLoader, train: ImageDataset, count: int = 64) -> Tensor:
    """Return a captioned grid (C, H, W) uint8 of the first ``count`` images of ``train`` as ``batches`` show them."""
    data, count = batches.dataset, min(count, len(train))
    images, _ = next(iter(BatchLoader(data, count, shuffle=True, seed=batches.seed, workers=batches.workers)))
    return side_by_side({"training images": image_grid(train.unscale(images))})


def image_classifier(
    model: nn.Module, train: ImageDataset, images: ImageOptions, device: str = "auto"
) -> ImageClassifier:
    """Return the predictor of a model that learns to classify the training images ``train``.

    Args:
        model: The model.
        train: The training images.
        images: How they are loaded.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    settings = ImageClassifier.Settings(images.input(train), train.classes)
    return ImageClassifier(model, settings, device, workers=images.workers)


def evaluate_classifier(
    classifier: ImageClassifier,
    test: ImageDataset,
    mirror: bool = False,
    logits: Tensor | None = None,
    more: Mapping[str, Any] | None = None,
    train: ImageDataset | None = None,
) -> Report:
    """Evaluate a classifier on test images; the figures are its confusion matrix and its most confident mistakes.

    Args:
        classifier: The classifier.
        test: The test images, with labels.
        mirror: Whether to evaluate the mean logits of each image and its mirror image, too.
        logits: (N, K) of the test images, if they are known already.
        more: Further results to include.
        train: The training images, to measure the accuracy without test images that are among them, too.

    Raises:
        InputError: The images have no labels.
    """
    from sklearn.metrics import confusion_matrix  # imported late: it takes a second

    require(test.labels is not None, "an evaluation needs labelled images")
    labels = cast(Tensor, test.labels).cpu()
    logits = classifier.logits(test)[0] if logits is None else logits
    predicted, names = logits.argmax(1), test.classes
    matrix = confusion_matrix(labels, predicted, labels=range(len(names)))
    results = {
        "accuracy": float((predicted == labels).double().mean()),
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "images": len(labels),
        "accuracy by class": dict(zip(names, (matrix.diagonal() / np.maximum(matrix.sum(1), 1)).tolist(), strict=True)),
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
        **(more or {}),
    }
    mirrored = ""
    if mirror:
        both, _ = classifier.logits(test, mirror=True)
        results["accuracy with mirror images"] = float((both.argmax(1) == labels).double().mean())
        mirrored = f", {results['accuracy with mirror images']:.2%} with mirror images"
    new = torch.full((len(labels),), True) if train is None else ~in_training(train.hashes(), test.hashes())
    without = ""
    if 0 < new.sum() < len(new):
        accuracy = float((predicted == labels)[new].double().mean())
        results["without duplicates"] = {"images": int(new.sum()), "accuracy": accuracy}
        without = "\n" + duplicates_note(~new, "images", f"accuracy {accuracy:.2%}")
    wrong = (predicted != labels).nonzero()[:, 0]
    confident = wrong[logits.softmax(1)[wrong].amax(1).argsort(descending=True, stable=True)][:SHOWN]
    pixels = test.unscale(test.__getitems__(confident.to(test.device))[0])
    true, guessed = ([names[i] for i in numbers[confident].tolist()] for numbers in (labels, predicted))
    title = f"most confident of {len(wrong):,} mistakes on {len(labels):,} test images"
    return Report(
        results,
        f"test accuracy {results['accuracy']:.2%} on {len(labels):,} images{mirrored}{without}",
        {
            "confusion": plot_confusion(matrix, names),
            "confusion_normalized": plot_confusion(matrix, names, normalize=True),
            "misclassified": plot_predicted_images(pixels, true, guessed, title),
        },
    )
