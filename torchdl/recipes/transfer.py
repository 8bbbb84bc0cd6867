"""Transfer learning in two ways (lecture 65): the backbone in the training loop, or its features computed once.

Shapes: N images, B in a batch, D features, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from torchdl.data import ArrayDataset, BatchLoader, ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.data.sources import cache_folder
from torchdl.errors import require
from torchdl.files import replacing
from torchdl.models import TransferModel
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

CHUNK = 512  # images whose features are one file
MEASURED = 512  # training images whose features the head's standardisation is taken from


class Extraction(NamedTuple):
    """The features (N, D) of a data set, how many of them were on the disk already, and the seconds it took."""

    features: Tensor
    cached: int
    seconds: float


def extract_features(
    model: TransferModel,
    images: ImageDataset,
    options: ImageOptions,
    batch_size: int = 64,
    device: str = "auto",
    cache: Path | None = None,
    verbose: bool = False,
) -> Extraction:
    """Compute the backbone's features of every image once, un-augmented, or take them from where they are kept.

    They are kept in ``cache`` (torchdl's, if None), in files of 512 images' each, under the SHA-256 of the data, the
    backbone's weights and the preprocessing. So what was interrupted goes on with the first file that is missing, and
    whatever changes in any of the three is computed anew.

    Args:
        model: A :class:`torchdl.models.TransferModel`; it is moved to the device where there is something to compute.
        images: N images in [0, 1].
        options: How they are loaded.
        batch_size: B.
        device: See :class:`torchdl.Trainer`.
        cache: The folder.
        verbose: Whether to show a progress bar.
    """
    since, found_device = time.perf_counter(), find_device(device)
    key = hashlib.sha256(f"{images.fingerprint()} {model.features.fingerprint()} {model.transform()}".encode())
    folder = (cache or cache_folder() / "features") / key.hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(images), CHUNK)
    chunks = {start: _read_chunk(folder, start, min(CHUNK, len(images) - start)) for start in starts}
    missing = [start for start in starts if chunks[start] is None]
    cached = len(images) - sum(min(CHUNK, len(images) - start) for start in missing)
    if missing:
        numbers = torch.cat([torch.arange(start, min(start + CHUNK, len(images))) for start in missing])
        part = images.subset(numbers.to(images.device)).without_labels()
        loader = options.loader(part, batch_size=batch_size)
        loader.to(found_device)
        model.eval().to(found_device)
        rows: list[Tensor] = []
        hidden = None if verbose else True  # None: where there is no terminal
        with (
            torch.inference_mode(),
            tqdm(desc="features", total=len(images), initial=cached, unit="image", disable=hidden) as bar,
        ):
            for batch, _ in loader.batches(0):
                rows += model.encode(move(batch, found_device)).cpu().unbind()
                bar.update(len(batch))
                while missing and len(rows) >= (size := min(CHUNK, len(images) - missing[0])):
                    start, done, rows = missing.pop(0), torch.stack(rows[:size]), rows[size:]
                    chunks[start] = done
                    with replacing(folder / f"{start:08}.safetensors") as path:
                        path.write_bytes(safetensors.torch.save({"features": done}))
    features = torch.cat([chunk for chunk in chunks.values() if chunk is not None])
    # made anew outside inference mode, for a head to be trained on
    return Extraction(features.clone(), cached, time.perf_counter() - since)


def _read_chunk(folder: Path, start: int, size: int) -> Tensor | None:
    """Read what was kept of the images from number ``start`` on; None where it is not there, or not whole."""
    try:
        found = safetensors.torch.load_file(folder / f"{start:08}.safetensors")["features"]
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return found if found.dim() == 2 and len(found) == size else None


class FineTuning(Supervised):
    """Train a head alone, and from an epoch on the last blocks of its backbone as well, at a rate of their own.

    Args:
        first_epoch: The epoch, from 0 on, from which the blocks learn.
        lr: Their learning rate.
        rule: The optimizer's name.
        weight_decay: See :func:`torchdl.tasks.make_optimizer`.
        model: A :class:`torchdl.models.TransferModel`.
        others: What :class:`torchdl.Supervised` takes beside it.
    """

    def __init__(self, first_epoch: int, lr: float, rule: str, weight_decay: float, model: Any, *others: Any) -> None:
        super().__init__(model, *others)
        self.first_epoch, self.lr, self.rule, self.weight_decay = first_epoch, lr, rule, weight_decay

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer of two rates: the head's, and the blocks', whose gradients come later."""
        optimizer = self.optimizer(self.model.head.parameters())  # type: ignore[union-attr]
        blocks = list(self.model.finetuned_parameters())  # type: ignore[operator]
        slower = make_optimizer(self.rule, blocks, self.lr, self.weight_decay)
        for group in slower.param_groups:
            optimizer.add_param_group(group)
        return {"model": optimizer}

    def losses(self, batch: tuple[Tensor, Tensor]) -> Iterator[Update]:
        """Yield the one update of a batch, from the epoch on with gradients for the blocks."""
        self.model.finetuning = self.step_info.epoch >= self.first_epoch  # type: ignore[assignment]
        yield from super().losses(batch)


def fine_tuning(
    epochs: int, finetune_epochs: int, lr: float, learning: ClassifierLearning
) -> Callable[..., FineTuning]:
    """Return a function that builds a :class:`FineTuning` whose last ``finetune_epochs`` train the blocks, too."""
    require(
        1 <= finetune_epochs < epochs,
        f"finetune_epochs must be at least 1 and less than the {epochs} epochs of training, not {finetune_epochs}",
    )
    chosen = learning.with_defaults(DEFAULTS)
    return partial(FineTuning, epochs - finetune_epochs, lr, chosen.optimizer or "", chosen.weight_decay or 0.0)


def standardize_head(model: TransferModel, train: ImageDataset, device: str = "auto") -> None:
    """Let a head standardise features by those of some training images."""
    few, _ = train.spread(min(MEASURED, len(train)))
    on = find_device(device)
    with torch.no_grad():
        model.eval().to(on).head.standardize_(torch.cat([model.encode(batch.to(on)) for batch in few.split(64)]))


class HeadTraining(Supervised):
    """Train the head of a model on features, where the whole model is what training leaves.

    Args:
        model: A :class:`torchdl.models.TransferModel`; its backbone is no part of the task.
        others: What :class:`torchdl.Supervised` takes beside it.
    """

    def __init__(self, model: TransferModel, *others: Any) -> None:
        super().__init__(model.head, *others)
        self._whole = (model,)  # in a tuple, so that it is no submodule

    @property
    def trained(self) -> nn.Module:
        """The whole model."""
        return self._whole[0]


class FeatureParts(NamedTuple):
    """The features of the training and of the test images, and their labels (N,)."""

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
    cache: Path | None = None,
    verbose: bool = False,
) -> FeatureParts:
    """Compute or load the features of all images; see :func:`extract_features`."""
    x, z = (extract_features(model, part, images, batch_size, device, cache, verbose) for part in (train, test))
    y, w = (data.labels.cpu() for data in (train, test) if data.labels is not None)
    return FeatureParts(x, z, y, w)


def head_training(
    model: TransferModel, parts: FeatureParts, learning: ClassifierLearning, seed: int = 0, device: str = "auto"
) -> Training:
    """Build the task and the batches that train a head on features alone."""
    chosen = learning.with_defaults(DEFAULTS)
    require(
        not chosen.shift and not chosen.flip,
        "features are of every image once, as it is: leave shift and flip out, or take augmented images in the loop",
    )
    x = parts.train.features
    model.head.standardize_(x[at_equal_distances(len(x), min(MEASURED, len(x)))].to(find_device(device)))
    task = make_task(model, learning, HeadTraining)
    batches = BatchLoader(ArrayDataset(x, parts.labels), chosen.batch_size or 0, shuffle=True, seed=seed)
    return Training(task, batches, BatchLoader(ArrayDataset(parts.test.features, parts.test_labels), 500))


@torch.no_grad()
def evaluate_head(
    model: TransferModel, parts: FeatureParts, test: ImageDataset, images: ImageOptions, seconds: float, chosen_by: str
) -> Report:
    """Measure a head on test features, beside scikit-learn's logistic regression on the same features."""
    x, z = parts.train.features, parts.test.features
    logits = model.head.eval().cpu()(z)
    since = time.perf_counter()
    other = linear_score(x.numpy(), parts.labels.numpy(), z.numpy(), parts.test_labels.numpy())
    more = {
        "epoch chosen by": chosen_by,
        "accuracy of scikit-learn's logistic regression": other,
        "images whose features were kept": parts.train.cached + parts.test.cached,
        "seconds": {
            "features, training images": parts.train.seconds,
            "features, held-out images": parts.test.seconds,
            "training and evaluation of the head": seconds,
            "scikit-learn's logistic regression": time.perf_counter() - since,
        },
    }
    report = evaluate_classifier(model, test, images, logits=logits, more=more)
    return replace(report, summary=f"{report.summary}\nscikit-learn's logistic regression: accuracy {other:.2%}")
