"""Functions named as in the course's Keras sources: each builds a network for a data set, or fits it, in one call.

Networks and initial weights are those of Keras, but training is PyTorch's. Two rules differ a little from Keras 3:

- Adam's epsilon is 1e-8, added to the root of the bias-corrected mean of squared gradients. Keras adds 1e-7 before the
  correction.
- The running variance of a batch norm is the mean of unbiased variances, n / (n - 1) times Keras' for n values.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data import ImageDataset, load_images
from torchdl.errors import require
from torchdl.files import PathLike
from torchdl.models import Autoencoder, LenetLike, layer_table
from torchdl.recipes.autoencoder import Coding, autoencoder_training, evaluate_autoencoder, image_reconstructor
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    example_images,
    image_classifier,
)
from torchdl.training.trainer import Trainer

CIFAR10_SHAPE = (3, 32, 32)
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "mnist_5k": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar10": (CIFAR10_SHAPE, 10),
    "cifar100": (CIFAR10_SHAPE, 100),
}
History = list[dict[str, float]]


def make_lenet_model(
    dataset: str,
    data_root: PathLike | None = None,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    **init: Any,
) -> LenetLike:
    """Build a :class:`LenetLike` for a data set.

    Args:
        dataset: ``mnist``, ``mnist_5k``, ``fashion_mnist``, ``cifar10``, ``cifar100``, or a folder of images, from
            which the image size and the classes are read.
        data_root: The folder of the data sets.
        image_size: Side in pixels to which a folder's images are resized; None if all have the same size.
        skip_corrupt: Skip a folder's unreadable files.
        init: ``width``, ``depth`` and ``hidden`` of :class:`LenetLike`.

    Raises:
        InputError: ``image_size`` is given for images that are not a folder's.

    Example:
        >>> torchdl.make_lenet_model("cifar10", width=16, depth=3)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if dataset in SHAPES:
        require(image_size is None, f"only a folder's images are resized: leave out image_size for {dataset}")
        return LenetLike(*SHAPES[dataset], **init)
    images = load_images(dataset, "test", data_root, image_size=image_size, skip_corrupt=skip_corrupt)
    return LenetLike(images.image_shape, len(images.classes), **init)


def fit_model_on(
    dataset: str,
    epochs: int = 10,
    batch_size: int = 64,
    folder: PathLike | None = None,
    data_root: PathLike | None = None,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    seed: int = 0,
    device: str = "auto",
    verbose: bool = False,
    **init: Any,
) -> tuple[LenetLike, History]:
    """Build a :class:`LenetLike` for a data set, fit it, and save the model and its training history in ``folder``.

    The folder gets ``architecture.json``, ``weights.safetensors``, ``metrics.csv`` (training and validation loss and
    accuracy by epoch), ``plots/history.png``, figures of the mistakes, ``results.json`` and TensorBoard events.

    Args:
        dataset: A data set or a folder; see :func:`make_lenet_model`.
        epochs: Passes over the training images.
        batch_size: Images per step.
        folder: A new or empty folder; ``runs/lenet/<date and time>`` by default.
        data_root: The folder of the data sets.
        image_size: Side in pixels to which a folder's images are resized; None if all have the same size.
        skip_corrupt: Skip a folder's unreadable files and list them.
        seed: Seed of all random draws.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        verbose: Whether to print progress, one line per epoch.
        init: ``width``, ``depth`` and ``hidden`` of :class:`LenetLike`.

    Returns:
        The model, in evaluation mode on the device, and the history, one row of metrics per epoch.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> root = tempfile.mkdtemp()
        >>> for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        ...     os.makedirs(f"{root}/{name}")
        ...     Image.effect_noise((32, 32), 99).convert("RGB").save(f"{root}/{name}/1.png")
        >>> model, history = torchdl.fit_model_on(root, epochs=1, folder=f"{root}/run", width=4)
        >>> model(torch.zeros(5, 3, 32, 32)).shape, "val/accuracy" in history[-1]
        (torch.Size([5, 2]), True)
        >>> sorted(os.listdir(f"{root}/run/plots"))
        ['confusion.png', 'confusion_normalized.png', 'examples.png', 'history.png', 'misclassified.png']
    """
    images, learning = ImageOptions(dataset, image_size, skip_corrupt), replace(DEFAULTS, batch_size=batch_size)
    train, test = images.load(data_root)
    trainer = Trainer(epochs=epochs, seed=seed, device=device)
    config = {"images": asdict(images), "learning": asdict(learning), "trainer": asdict(trainer), **init}
    run = open_run("lenet", config, folder, trainer, train, test, verbose=verbose)
    model = LenetLike(train.image_shape, len(train.classes), **init)
    training = classifier_training(model, train, test, images, learning, seed)
    classifier = image_classifier(model, train, images, device)
    pictures = {"examples": example_images(training.train, train)}
    history = run.fit(*training, pictures=pictures, predictor=classifier)
    more = {"epoch chosen by": run.chosen_by}
    run.keep(evaluate_classifier(classifier, test, more=more, train=train))
    return model, history


def make_autoencoder_model() -> Autoencoder:
    """Build an :class:`Autoencoder` for CIFAR-10, from 3x32x32 pixels to 32 numbers and back.

    Example:
        >>> torchdl.make_autoencoder_model().encode(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 32])
    """
    return Autoencoder(CIFAR10_SHAPE)


def fit_model_cifar10(
    n_epochs: int = 10,
    batch_size: int = 64,
    visualization_size: int = 8,
    verbose: bool = False,
    folder: PathLike | None = None,
    dataset: str = "cifar10",
    data_root: PathLike | None = None,
    seed: int = 0,
    device: str = "auto",
) -> tuple[Autoencoder, History]:
    """Build an :class:`Autoencoder`, fit it to CIFAR-10, and save the model and its training history in ``folder``.

    The folder gets ``architecture.json``, ``weights.safetensors``, ``metrics.csv``, ``plots/history.png`` (training and
    validation loss), ``plots/reconstructions.png`` and other figures, ``results.json`` and TensorBoard events.

    Args:
        n_epochs: Passes over the training images.
        batch_size: Images per step.
        visualization_size: Square root of the number of test images shown beside their reconstructions.
        verbose: Whether to print the shapes of the tensors in the network and progress, one line per epoch.
        folder: A new or empty folder; ``runs/autoencoder/<date and time>`` by default.
        dataset: Another data set or folder of 3x32x32 images.
        data_root, seed, device: As for :func:`fit_model_on`.

    Returns:
        The model, in evaluation mode on the device, and the history, one row of metrics per epoch.

    Raises:
        InputError: The images have another shape.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> root = tempfile.mkdtemp()
        >>> for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        ...     os.makedirs(f"{root}/{name}")
        ...     Image.effect_noise((32, 32), 99).convert("RGB").save(f"{root}/{name}/1.png")
        >>> model, history = torchdl.fit_model_cifar10(1, dataset=root, folder=f"{root}/run")
        >>> model.encode(torch.zeros(5, 3, 32, 32)).shape, "val/psnr" in history[-1]
        (torch.Size([5, 32]), True)
    """
    images, coding = ImageOptions(dataset), Coding(batch_size, visualization_size=visualization_size)
    train, test = images.load(data_root)
    shape = train.image_shape
    advice = "build a torchdl.Autoencoder for others"
    require(shape == CIFAR10_SHAPE, f"images must have shape {CIFAR10_SHAPE}, not {shape}: {advice}")
    trainer = Trainer(epochs=n_epochs, seed=seed, device=device)
    config = {"images": asdict(images), "coding": asdict(coding), "trainer": asdict(trainer)}
    run = open_run("autoencoder", config, folder, trainer, train, test, verbose=verbose)
    model = make_autoencoder_model()
    if verbose:
        run.say(layer_table(model, torch.zeros(1, *shape)))
    training = autoencoder_training(model, train, test, images, coding, seed)
    reconstructor = image_reconstructor(model, train, images, device)
    history = run.fit(*training, predictor=reconstructor)
    run.keep(evaluate_autoencoder(reconstructor, training.task, train, test))
    return model, history


def open_run(
    experiment: str,
    config: dict[str, Any],
    folder: PathLike | None,
    trainer: Trainer,
    train: ImageDataset,
    test: ImageDataset,
    verbose: bool,
) -> Run:
    """Open a run in ``folder``, or in the default folder of the experiment."""
    options = RunOptions()
    if folder is not None:
        path = Path(folder).absolute()  # because Path(".") has no name
        experiment, options = "", RunOptions(out=path.parent, name=path.name)
    return Run(experiment, config, options, trainer, train, test, verbose)
