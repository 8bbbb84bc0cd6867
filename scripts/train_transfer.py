"""Train a new head on a network that was trained on other images (lectures 62 to 67), in one of two ways."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import _clone  # noqa: F401

from torchdl import Supervised, Trainer
from torchdl.cli.run import Run, RunOptions
from torchdl.cli.script import run_script
from torchdl.collective import rank_and_size
from torchdl.data import ImageDataset
from torchdl.errors import require
from torchdl.files import read_config
from torchdl.models import TransferModel, transfer_model
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ClassifierLearning,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    example_images,
)
from torchdl.recipes.transfer import evaluate_head, extract_parts, fine_tuning, head_training, standardize_head

# what a resumed run must have been started with
FIXED = ("approach", "backbone", "weights", "input_size", "levels", "finetune", "finetune_epochs", "finetune_lr")


@dataclass(frozen=True)
class Config:
    """Classify images by the features of a network that was trained on others, which itself is held still."""

    backbone: str = "vgg16"
    """One of torchvision's networks, efficientnet_lite0 (with its weights: the extra transfer), or pixels for none."""
    approach: Literal["augment", "features"] = "features"
    """Take augmented images through the network in every epoch, with shift 0.1 and flip 0.5 where nothing else is said;
    or compute all images' features once and keep them."""
    weights: str = "default"
    """What torchvision downloads: default, or a name such as IMAGENET1K_V1; or a file of the network's weights."""
    input_size: int | None = None
    """Pixels a side that the network is given, for small images 96, say; what its weights want if not given."""
    levels: int = 0
    """How many of the network's blocks before its last are looked at, too, by their channels' means."""
    finetune: int = 0
    """How many of the network's last blocks learn, too, in the last epochs of --approach augment."""
    finetune_epochs: int = 1
    """How many epochs at the end of --epochs those blocks learn in."""
    finetune_lr: float = 1e-5
    """Their learning rate."""
    images: ImageOptions = field(default_factory=ImageOptions)
    learning: ClassifierLearning = field(default_factory=ClassifierLearning)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Run the three steps."""
    augment = config.approach == "augment"
    defaults = replace(DEFAULTS, shift=0.1, flip=0.5) if augment else DEFAULTS
    config = replace(config, learning=config.learning.with_defaults(defaults))
    require(not config.learning.centred, "a backbone scales pixels itself: leave --centred out")
    require(augment or not config.finetune, "--finetune is of --approach augment: features that are kept cannot learn")
    check_resumed(config)
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, centred=False)
    run = Run("transfer", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = transfer_model(
        config.backbone, len(train.classes), config.weights, config.input_size, config.finetune, config.levels
    )
    # 3. Train its head, in one of the two ways, and look at what it gets wrong.
    (in_the_loop if augment else on_features)(run, model, train, test, config)
    run.close()


def in_the_loop(run: Run, model: TransferModel, train: ImageDataset, test: ImageDataset, config: Config) -> None:
    """Take every image through the backbone in every epoch, augmented; its last blocks may learn at the end."""
    build_task: Callable[..., Supervised] = Supervised
    if model.finetuned:
        build_task = fine_tuning(config.trainer.epochs, config.finetune_epochs, config.finetune_lr, config.learning)
    if config.run.resume is None:
        standardize_head(model, train, config.trainer.device)
    before, since = model.features.fingerprint(), time.perf_counter()
    training = classifier_training(model, train, test, config.images, config.learning, config.trainer.seed, build_task)
    run.fit(*training, pictures={"examples": example_images(training.train, train)})
    took, moved = time.perf_counter() - since, model.features.fingerprint() != before
    require(moved <= bool(model.finetuned), "the backbone has moved while its head was trained")
    run.say(f"training and evaluation: {took:.1f} s; the backbone {'has learnt, too' if moved else 'is as it was'}")
    if run.is_main:
        model.finetuning = False
        more = {
            "epoch chosen by": run.chosen_by,
            "seconds": {"training and evaluation": took},
            "backbone has moved": moved,
        }
        run.keep(evaluate_classifier(model, test, config.images, config.trainer.device, more=more))


def on_features(run: Run, model: TransferModel, train: ImageDataset, test: ImageDataset, config: Config) -> None:
    """Compute the features of all images once, and train a head on them alone."""
    require(rank_and_size()[1] == 1, "--approach features runs in one process: the features are computed once")
    device = config.trainer.device
    batch_size = config.learning.batch_size or 0
    parts = extract_parts(model, train, test, config.images, batch_size, device, verbose=True)
    for name, part in (("training", parts.train), ("test", parts.test)):
        run.say(f"features of {len(part.features):,} {name} images, {part.cached:,} of them kept: {part.seconds:.1f} s")
    before, since = model.features.fingerprint(), time.perf_counter()
    run.fit(*head_training(model, parts, config.learning, config.trainer.seed, device))
    took = time.perf_counter() - since
    require(model.features.fingerprint() == before, "the backbone has moved while its head was trained")
    run.say(f"head: {took:.1f} s")
    run.keep(evaluate_head(model, parts, test, config.images, took, run.chosen_by))


def check_resumed(config: Config) -> None:
    """Raise :class:`InputError` where a run is to go on with what its optimizer or its features would not follow."""
    if config.run.resume is None:
        return
    known, now = read_config(config.run.resume)["config"], asdict(config)
    for name in FIXED:
        value = str(now[name]) if isinstance(now[name], Path) else now[name]
        require(
            known.get(name) == value,
            f"{config.run.resume} cannot go on with --{name.replace('_', '-')} {value} instead of {known.get(name)}",
        )


if __name__ == "__main__":
    run_script(main, Config)
