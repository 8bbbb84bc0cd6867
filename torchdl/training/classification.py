"""What every classifier of images shares: how it is trained, and the report of what it gets wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import plots
from torchdl.data import BatchLoader, ImageDataset, ShiftedImages, draw_per_class, load_images
from torchdl.data.folder import DecodedLate
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.plots import image_grid
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, accuracy, find_schedule, make_optimizer
from torchdl.training import process
from torchdl.training.command import Run, say
from torchdl.training.learning import Overrides

SHOWN = 36  # misclassified images


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
    """Train on so many images of every class, drawn by --draw-seed; on all of them if not given."""
    valid_per_class: int | None = None
    """Measure on so many other training images of every class in place of the test images, to choose settings by."""
    draw_seed: int = 0
    """What decides which images are drawn."""

    def load(
        self, root: str | os.PathLike[str] | None = None, centred: bool | None = False
    ) -> tuple[ImageDataset, ImageDataset]:
        """Load the training and the test images, with pixels in [0, 1], or in [-1, 1] if they are ``centred``."""
        low = -1.0 if centred else 0.0

        def part(split: str) -> ImageDataset:
            return load_images(
                self.dataset, split, root, low, image_size=self.image_size, skip_corrupt=self.skip_corrupt
            )

        train = part("train")
        needed = self.per_class is not None or self.valid_per_class is None
        require(needed, "--valid-per-class needs --per-class, the images to train on")
        counts = [count for count in (self.per_class, self.valid_per_class) if count is not None]
        train, *held_out = draw_per_class(train, counts, self.draw_seed) if counts else [train]
        test = held_out[0] if held_out else part("test")
        require(
            train.image_shape == test.image_shape,
            f"the training images are of (channels, height, width) {train.image_shape}, and the test images of "
            f"{test.image_shape}: choose an --image-size for both",
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


USUAL = ClassifierLearning(64, 1e-3, "constant", 0.0, "adamw", label_smoothing=0.0, shift=0.0, flip=0.0, centred=False)


def make_task(
    model: nn.Module, learning: ClassifierLearning, build_task: Callable[..., Supervised] = Supervised
) -> Supervised:
    """Build the task of a classifier that learns as ``learning`` says."""
    chosen = asdict(learning.over(USUAL))
    smoothing = chosen["label_smoothing"]
    require(0 <= smoothing < 1, f"label_smoothing must be in [0, 1), not {smoothing}")
    return build_task(
        model,
        partial(F.cross_entropy, label_smoothing=smoothing),
        {"accuracy": accuracy},
        partial(make_optimizer, chosen["optimizer"], lr=chosen["lr"], weight_decay=chosen["weight_decay"]),
        find_schedule(chosen["schedule"]),
    )


def fit_classifier(
    run: Run,
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    learning: ClassifierLearning,
) -> list[dict[str, float]]:
    """Train a classifier in ``run``, and leave in its folder what :func:`report` writes; return the history.

    The validation figures are of the test images, as in the course; nothing is chosen by them unless the trainer is
    told to monitor one.
    """
    history = train_classifier(run, model, train, test, images, learning)
    if run.is_main:
        report(run, model, test, images, mirror=bool(learning.flip))
    return history


def train_classifier(
    run: Run,
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    learning: ClassifierLearning,
    build_task: Callable[..., Supervised] = Supervised,
) -> list[dict[str, float]]:
    """Train a classifier in ``run``; ``build_task`` takes what :class:`torchdl.Supervised` takes."""
    seed, chosen = run.trainer.seed, asdict(learning.over(USUAL))
    task = make_task(model, learning, build_task)
    data = ShiftedImages(train, chosen["shift"], chosen["flip"], seed)
    batches = images.loader(train, data, batch_size=chosen["batch_size"], shuffle=True, seed=seed)
    held_out = images.loader(test, batch_size=500)
    pictures = {}
    if run.is_main and run.options.resume is None:
        first = images.loader(train, data, batch_size=min(64, len(train)), shuffle=True, seed=seed)
        pictures["examples"] = image_grid(train.unscale(next(first.batches(0))[0][0]))
    return run.fit(task, model, batches, held_out, pictures=pictures)


@torch.no_grad()
def predict(model: nn.Module, loader: BatchLoader, device: torch.device, mirror: bool = False) -> tuple[Tensor, Tensor]:
    """Give the logits (N, K) and labels (N,) of a loader's images, on the CPU; the model is left in evaluation mode.

    With ``mirror`` the logits are the mean of an image's and its mirror image's.
    """
    model.eval().to(device)
    loader.to(device)
    found, known = [], []
    for (x, labels), _ in loader.batches(0):
        x = process.move(x, device)
        logits = (model(x) + model(x.flip(3))) / 2 if mirror else model(x)
        found.append(logits.cpu())
        known.append(labels.cpu())
    return torch.cat(found), torch.cat(known)


def report(
    run: Run,
    model: nn.Module,
    test: ImageDataset,
    images: ImageOptions,
    mirror: bool = False,
    logits: Tensor | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Say what a classifier gets wrong, in ``results.json``, as PNG in ``plots/`` and in TensorBoard.

    With ``mirror`` it says, too, how often it is right when it sees each image's mirror image beside it. The
    ``logits`` (N, K) of the test images are given where they are known already; ``more`` results are written with
    these.
    """
    from sklearn.metrics import confusion_matrix  # imported late: it takes a second

    loader = images.loader(test, batch_size=500)
    loader.shard(0, 1)  # process 0 alone reports
    device = process.find_device(run.trainer.device)
    if logits is None or test.labels is None:
        logits, labels = predict(model, loader, device)
    else:
        labels = test.labels.cpu()
    answers, names = logits.argmax(1), test.classes
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    results = {
        "accuracy": float((answers == labels).double().mean()),
        "loss": float(F.cross_entropy(logits.double(), labels)),
        "images": len(labels),
        "accuracy by class": dict(zip(names, (matrix.diagonal() / np.maximum(matrix.sum(1), 1)).tolist(), strict=True)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "epoch chosen by": run.trainer.monitor or "nothing: it is the last",
    }
    results |= more or {}
    if mirror:
        both, _ = predict(model, loader, device, mirror=True)
        results["accuracy with mirror images"] = float((both.argmax(1) == labels).double().mean())
    write_json(run.folder / "results.json", results)
    folder = run.folder / "plots"
    paths = [folder / f"{name}.png" for name in ("confusion", "confusion_normalized", "misclassified")]
    plots.plot_confusion(matrix, names, paths[0])
    plots.plot_confusion(matrix, names, paths[1], normalize=True)
    wrong = (answers != labels).nonzero()[:, 0]
    surest = wrong[logits.softmax(1)[wrong].amax(1).argsort(descending=True, stable=True)][:SHOWN]
    pixels = test.unscale(test.__getitems__(surest.to(test.device))[0])
    true, taken = ([names[i] for i in which[surest].tolist()] for which in (labels, answers))
    title = f"{len(wrong):,} of {len(labels):,} images misclassified; the network was surest of these"
    plots.plot_answers(pixels, true, taken, paths[2], title=title)
    with closing(run.logger()) as logger:
        logger.show(*paths)
    also = f" ({results['accuracy with mirror images']:.2%} with their mirror images beside them)" if mirror else ""
    say(f"{results['accuracy']:.2%} of {len(labels):,} test images right{also}; pictures of the others: {folder}")
    return results
