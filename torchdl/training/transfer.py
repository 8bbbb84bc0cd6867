"""Transfer learning in its two ways (lecture 65): the backbone in the loop, or its features computed once and kept.

Shapes: N images, B in a batch, D features, K classes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from torchdl.data import ArrayDataset, BatchLoader, ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.data.sources import cache_folder
from torchdl.errors import require
from torchdl.files import replacing
from torchdl.tasks import Supervised, Update, make_optimizer
from torchdl.training import process
from torchdl.training.classification import USUAL, ClassifierLearning, ImageOptions, make_task, report, train_classifier
from torchdl.training.command import Run, processes, read_record, say
from torchdl.training.probing import linear_score

CHUNK = 512  # images whose features are one file
MEASURED = 512  # training images whose features the head's standardisation is taken from
FIXED = ("approach", "backbone", "weights", "input_size", "levels", "finetune", "finetune_epochs", "finetune_lr")


class Extraction(NamedTuple):
    """The features (N, D) of a data set, how many of them were on the disk already, and the seconds it took."""

    features: Tensor
    cached: int
    seconds: float


def extract_features(
    model: Any,
    images: ImageDataset,
    options: ImageOptions,
    batch_size: int = 64,
    device: str = "auto",
    cache: Path | None = None,
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
    """
    since, found_device = time.perf_counter(), process.find_device(device)
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
        with (
            torch.inference_mode(),
            tqdm(desc="features", total=len(images), initial=cached, unit="image", disable=None) as bar,
        ):
            for batch, _ in loader.batches(0):
                rows += model.encode(process.move(batch, found_device)).cpu().unbind()
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
        self.model.finetuning = self.clock.epoch >= self.first_epoch  # type: ignore[assignment]
        yield from super().losses(batch)


def check_resumed(resume: Path | None, config: Any) -> None:
    """Raise :class:`InputError` where a run is to go on with what its optimizer or its features would not follow."""
    if resume is None:
        return
    known, now = read_record(resume)["config"], asdict(config)
    for name in FIXED:
        value = str(now[name]) if isinstance(now[name], Path) else now[name]
        require(
            known.get(name) == value,
            f"{resume} cannot go on with --{name.replace('_', '-')} {value} instead of {known.get(name)}",
        )


def fit_augmented(
    run: Run,
    model: Any,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    learning: ClassifierLearning,
    finetune_epochs: int = 0,
    finetune_lr: float = 1e-4,
) -> None:
    """Way one: every image goes through the backbone in every epoch, augmented; then perhaps its last blocks learn."""
    build_task: Any = Supervised
    if model.finetuned:
        epochs = run.trainer.epochs
        require(
            1 <= finetune_epochs < epochs,
            f"--finetune-epochs must be 1 or more, and fewer than the {epochs} --epochs, not {finetune_epochs}",
        )
        chosen = learning.over(USUAL)
        build_task = partial(
            FineTuning, epochs - finetune_epochs, finetune_lr, chosen.optimizer or "", chosen.weight_decay or 0.0
        )
    device = process.find_device(run.trainer.device)
    if run.options.resume is None:
        few, _ = train.spread(min(MEASURED, len(train)))
        with torch.no_grad():
            model.eval().to(device).head.standardize_(torch.cat([model.encode(b.to(device)) for b in few.split(64)]))
    before, since = model.features.fingerprint(), time.perf_counter()
    train_classifier(run, model, train, test, images, learning, build_task)
    took = time.perf_counter() - since
    moved = model.features.fingerprint() != before
    require(moved <= bool(model.finetuned), "the backbone has moved while its head was trained")
    say(f"training and evaluation: {took:.1f} s; the backbone {'has learnt, too' if moved else 'is as it was'}")
    if run.is_main:
        model.finetuning = False
        more = {"seconds": {"training and evaluation": took}, "backbone has moved": moved}
        report(run, model, test, images, more=more)


def fit_on_features(
    run: Run,
    model: Any,
    train: ImageDataset,
    test: ImageDataset,
    images: ImageOptions,
    learning: ClassifierLearning,
    cache: Path | None = None,
) -> None:
    """Way two: the features of all images are computed once, and a head is trained on them alone."""
    require(processes() == 1, "--approach features runs in one process: the features are computed once")
    chosen = learning.over(USUAL)
    require(
        not chosen.shift and not chosen.flip,
        "--approach features sees every image once, as it is: leave --shift and --flip out, or use --approach augment",
    )
    size, device = chosen.batch_size or 0, run.trainer.device
    parts = [extract_features(model, part, images, size, device, cache) for part in (train, test)]
    for name, part in zip(("training", "held-out"), parts, strict=True):
        say(f"features of {len(part.features):,} {name} images, {part.cached:,} of them kept: {part.seconds:.1f} s")
    x, z = parts[0].features, parts[1].features
    y, w = (data.labels.cpu() for data in (train, test) if data.labels is not None)
    model.head.standardize_(x[at_equal_distances(len(x), min(MEASURED, len(x)))].to(process.find_device(device)))
    before, since = model.features.fingerprint(), time.perf_counter()
    batches = BatchLoader(ArrayDataset(x, y), size, shuffle=True, seed=run.trainer.seed)
    run.fit(make_task(model.head, learning), model, batches, BatchLoader(ArrayDataset(z, w), 500))
    took = time.perf_counter() - since
    require(model.features.fingerprint() == before, "the backbone has moved while its head was trained")
    with torch.no_grad():
        logits = model.head.eval().cpu()(z)
    since = time.perf_counter()
    other = linear_score(x.numpy(), y.numpy(), z.numpy(), w.numpy())
    seconds = {
        "features, training images": parts[0].seconds,
        "features, held-out images": parts[1].seconds,
        "training and evaluation of the head": took,
        "scikit-learn's logistic regression": time.perf_counter() - since,
    }
    report(
        run,
        model,
        test,
        images,
        logits=logits,
        more={
            "accuracy of scikit-learn's logistic regression": other,
            "images whose features were kept": sum(part.cached for part in parts),
            "seconds": seconds,
        },
    )
    say(f"head: {took:.1f} s; scikit-learn's logistic regression: {other:.2%} right")
