"""Transfer learning (lecture 65) with the backbone in the training loop, or with its features computed once.

Shapes: N images, B of a batch, D features, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl.data import ArrayDataset, BatchLoader, ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.data.tensor_cache import read_cache, write_cache
from torchdl.errors import require
from torchdl.files import PathLike, cache_folder
from torchdl.models import TransferModel
from torchdl.predict import ImageClassifier
from torchdl.progress import progress_bar
from torchdl.recipes.cpc_probe import linear_score
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ClassifierLearning,
    ImageOptions,
    evaluate_classifier,
    make_task,
)
from torchdl.recipes.learning import Training
from torchdl.recipes.report import Report
from torchdl.tasks import Supervised, Update, make_optimizer
from torchdl.training.device import find_device, move

CHUNK = 512  # images per file of features
MEASURED = 512  # training images whose features standardise the head's inputs


class Extraction(NamedTuple):
    """The ``features`` (N, D) of a data set, the number of rows that were ``cached``, and the seconds it took."""

    features: Tensor
    cached: int
    seconds: float


def extract_features(
    model: TransferModel,
    images: ImageDataset,
    options: ImageOptions,
    batch_size: int = 64,
    device: str = "auto",
    cache: PathLike | None = None,
    verbose: bool = False,
) -> Extraction:
    """Compute the backbone's features of all images, without augmentation, or read them from a cache.

    The cache has one file per 512 images, in a folder named by the SHA-256 of the data, the backbone's weights and the
    preprocessing. So an interrupted computation continues with the first missing file, and a change to any of the
    three leads to new features. Each file has a checksum; a damaged one is computed anew.

    Args:
        model: The model; it is moved to the device if there is something to compute.
        images: N images in [0, 1].
        options: How to load the images.
        batch_size: B, the number of images per forward pass.
        device: See :class:`torchdl.Trainer`.
        cache: The folder of the cache; ``features`` in torchdl's cache folder by default.
        verbose: Whether to show a progress bar.
    """
    since, on = time.perf_counter(), find_device(device)
    key = hashlib.sha256(f"{images.fingerprint()} {model.features.fingerprint()} {model.transform()}".encode())
    folder = Path(cache or cache_folder() / "features") / key.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(images), CHUNK)
    chunks = {start: _read_chunk(folder, start, min(CHUNK, len(images) - start)) for start in starts}
    missing = [start for start in starts if chunks[start] is None]
    cached = len(images) - sum(min(CHUNK, len(images) - start) for start in missing)
    if missing:
        numbers = torch.cat([torch.arange(start, min(start + CHUNK, len(images))) for start in missing])
        part = images.subset(numbers.to(images.device)).without_labels()
        loader = options.loader(part, batch_size=batch_size)
        loader.to(on)
        model.eval().to(on)
        rows: list[Tensor] = []
        bar = progress_bar(verbose, desc="features", total=len(images), initial=cached, unit="image")
        with torch.inference_mode(), bar:
            for batch, _ in loader.batches(0):
                rows += model.encode(move(batch, on)).cpu().unbind()
                bar.update(len(batch))
                while missing and len(rows) >= (size := min(CHUNK, len(images) - missing[0])):
                    start, done, rows = missing.pop(0), torch.stack(rows[:size]), rows[size:]
                    chunks[start] = done
                    write_cache(_chunk(folder, start), {"features": done})
    features = torch.cat([chunk for chunk in chunks.values() if chunk is not None])
    # copied outside inference mode, because a head cannot be trained on inference tensors
    return Extraction(features.clone(), cached, time.perf_counter() - since)


def _chunk(folder: Path, start: int) -> Path:
    return folder / f"{start:08}.safetensors"


def _read_chunk(folder: Path, start: int, size: int) -> Tensor | None:
    """Read the cached features of the images from ``start`` on; None if the file is missing or damaged."""
    found = read_cache(_chunk(folder, start))
    features = None if found is None else found[0].get("features")
    return features if features is not None and features.dim() == 2 and len(features) == size else None


class FineTuning(Supervised):
    """Train a head and, from ``first_epoch`` on, the last blocks of the backbone at their own learning rate.

    Args:
        first_epoch: The first epoch, counted from 0, in which the blocks learn.
        lr: The blocks' learning rate.
        rule: The name of the optimizer.
        weight_decay: The blocks' weight decay; see :func:`torchdl.tasks.make_optimizer`.
        model: A :class:`torchdl.models.TransferModel`.
        others: Further arguments of :class:`torchdl.Supervised`.
    """

    def __init__(
        self, first_epoch: int, lr: float, rule: str, weight_decay: float, model: TransferModel, *others: Any
    ) -> None:
        super().__init__(model, *others)
        self.first_epoch, self.lr, self.rule, self.weight_decay = first_epoch, lr, rule, weight_decay

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer with a learning rate for the head and one for the blocks."""
        optimizer = self.optimizer(self.model.head.parameters())  # type: ignore[union-attr]
        blocks = list(self.model.finetuned_parameters())  # type: ignore[operator]
        slower = make_optimizer(self.rule, blocks, self.lr, self.weight_decay)
        for group in slower.param_groups:
            optimizer.add_param_group(group)
        return {"model": optimizer}

    def losses(self, batch: tuple[Tensor, Tensor]) -> Iterator[Update]:
        """Yield the update of a batch; from ``first_epoch`` on, the blocks get gradients too."""
        self.model.finetuning = self.step_info.epoch >= self.first_epoch  # type: ignore[assignment]
        yield from super().losses(batch)


def fine_tuning(
    epochs: int, finetune_epochs: int, lr: float, learning: ClassifierLearning
) -> Callable[..., FineTuning]:
    """Return a function that builds a :class:`FineTuning` whose blocks learn in the last ``finetune_epochs``.

    Args:
        epochs: Epochs of training in all.
        finetune_epochs: The last of them, in which blocks of the backbone learn.
        lr: Their learning rate.
        learning: How the head learns.

    Raises:
        InputError: ``finetune_epochs`` is not at least 1 and less than ``epochs``.
    """
    allowed = f"at least 1 and less than the {epochs} epochs of training"
    require(1 <= finetune_epochs < epochs, f"finetune_epochs must be {allowed}, not {finetune_epochs}")
    chosen = learning.with_defaults(DEFAULTS)
    return partial(FineTuning, epochs - finetune_epochs, lr, chosen.optimizer or "", chosen.weight_decay or 0.0)


def standardize_head(model: TransferModel, train: ImageDataset, device: str = "auto") -> None:
    """Set the mean and standard deviation with which the head standardises features, from some training images.

    Args:
        model: The model with the head.
        train: The training images.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    few, _ = train.spread(min(MEASURED, len(train)))
    on = find_device(device)
    with torch.no_grad():
        model.eval().to(on).head.standardize_(torch.cat([model.encode(batch.to(on)) for batch in few.split(64)]))


class HeadTraining(Supervised):
    """Train the head of a model on features, and save the whole model.

    Args:
        model: A :class:`torchdl.models.TransferModel`; its backbone is not part of the task.
        others: Further arguments of :class:`torchdl.Supervised`.
    """

    def __init__(self, model: TransferModel, *others: Any) -> None:
        super().__init__(model.head, *others)
        self._whole = (model,)  # in a tuple, so that it is not a submodule

    @property
    def trained(self) -> nn.Module:
        """The whole model."""
        return self._whole[0]


class FeatureParts(NamedTuple):
    """Features and labels (N,) of the training images (``train``, ``labels``) and the test images (``test_labels``)."""

    train: Extraction
    test: Extraction
    labels: Tensor
    test_labels: Tensor


def extract_parts(
    model: TransferModel,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    batch_size: int,
    device: str = "auto",
    cache: PathLike | None = None,
    verbose: bool = False,
) -> FeatureParts:
    """Compute or read the features of the training and the test images.

    Args:
        train, test: The images.
        model, images, batch_size, device, cache, verbose: As for :func:`extract_features`.
    """
    x, test_x = (extract_features(model, part, images, batch_size, device, cache, verbose) for part in (train, test))
    labels, test_labels = (part.labels.cpu() for part in (train, test) if part.labels is not None)
    return FeatureParts(x, test_x, labels, test_labels)


def head_training(
    model: TransferModel, parts: FeatureParts, learning: ClassifierLearning, seed: int = 0, device: str = "auto"
) -> Training:
    """Build the task and batches that train a head on features.

    Args:
        model: The model with the head.
        parts: The features.
        learning: How the head learns.
        seed: The seed of the batches' order.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: The settings change images, which features do not allow.
    """
    chosen = learning.with_defaults(DEFAULTS)
    require(
        not chosen.augmentation.chosen,
        "features are computed once from the original images: leave out their augmentation "
        f"({', '.join(chosen.augmentation.chosen)}), or train on images",
    )
    x = parts.train.features
    model.head.standardize_(x[at_equal_distances(len(x), min(MEASURED, len(x)))].to(find_device(device)))
    task = make_task(model, learning, HeadTraining)
    batches = BatchLoader(ArrayDataset(x, parts.labels), chosen.batch_size or 0, shuffle=True, seed=seed)
    return Training(task, batches, BatchLoader(ArrayDataset(parts.test.features, parts.test_labels), 500))


@torch.no_grad()
def evaluate_head(
    classifier: ImageClassifier,
    parts: FeatureParts,
    test: ImageDataset,
    seconds: float,
    chosen_by: str,
    train: ImageDataset | None = None,
) -> Report:
    """Evaluate a head on test features and compare it with scikit-learn's logistic regression on the same features.

    Args:
        classifier: The predictor of the model with the head.
        parts: The features.
        test: The test images.
        seconds: How long the head was trained.
        chosen_by: What chose the epoch, in words.
        train: The training images, to find test images that are among them; None finds none.
    """
    x, test_x = parts.train.features, parts.test.features
    logits = cast(TransferModel, classifier.model).head.eval().cpu()(test_x)
    since = time.perf_counter()
    baseline = linear_score(x.numpy(), parts.labels.numpy(), test_x.numpy(), parts.test_labels.numpy())
    more = {
        "epoch chosen by": chosen_by,
        "accuracy of scikit-learn's logistic regression": baseline,
        "images whose features were kept": parts.train.cached + parts.test.cached,
        "seconds": {
            "features, training images": parts.train.seconds,
            "features, held-out images": parts.test.seconds,
            "training and evaluation of the head": seconds,
            "scikit-learn's logistic regression": time.perf_counter() - since,
        },
    }
    report = evaluate_classifier(classifier, test, logits=logits, more=more, train=train)
    return replace(report, summary=f"{report.summary}\nscikit-learn's logistic regression: accuracy {baseline:.2%}")
