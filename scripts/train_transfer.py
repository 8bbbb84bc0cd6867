"""Transfer a network that was trained on other images: train a new head in one of two ways (lectures 62 to 67)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import Augmentation, Supervised, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
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
    image_classifier,
)
from torchdl.recipes.transfer import evaluate_head, extract_parts, fine_tuning, head_training, standardize_head

# settings that a resumed run cannot change
FIXED = ("approach", "backbone", "weights", "input_size", "levels", "finetune", "finetune_epochs", "finetune_lr")


@dataclass(frozen=True)
class Config:
    """Classify images by the features of a network that was trained on other images and stays frozen."""

    backbone: str = "vgg16"
    """One of torchvision's networks, efficientnet_lite0 (with its weights: the extra transfer), or pixels for none."""
    approach: Literal["augment", "features"] = "features"
    """Run augmented images through the network in every epoch, with shift 0.1 and horizontal_flip 0.5 by default; or
    compute the features of all images once and keep them."""
    weights: str = "default"
    """What torchvision downloads (default, or a name such as IMAGENET1K_V1), or a file of the network's weights."""
    input_size: int | None = None
    """Side of the network's input in pixels, such as 96 for small images; if not given, what its weights expect."""
    levels: int = 0
    """Number of blocks before the last one whose channel means are features, too."""
    finetune: int = 0
    """With --approach augment: number of the network's last blocks that are trained, too, in the last epochs."""
    finetune_epochs: int = 1
    """Number of last epochs in which these blocks are trained."""
    finetune_lr: float = 1e-5
    """Learning rate of these blocks."""
    images: ImageOptions = field(default_factory=ImageOptions)
    learning: ClassifierLearning = field(default_factory=ClassifierLearning)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    augment = config.approach == "augment"
    defaults = replace(DEFAULTS, augmentation=Augmentation(shift=0.1, horizontal_flip=0.5)) if augment else DEFAULTS
    config = replace(config, learning=config.learning.with_defaults(defaults))
    require(not config.learning.centred, "a backbone scales pixels itself: leave --centred out")
    require(
        augment or not config.finetune,
        "--finetune needs --approach augment: features that are computed once cannot be trained",
    )
    check_resumed(config)
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, centred=False)
    run = Run("transfer", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = transfer_model(
        config.backbone, len(train.classes), config.weights, config.input_size, config.finetune, config.levels
    )
    # 3. Train its head in one of the two ways. 4. Look at its errors.
    (in_the_loop if augment else on_features)(run, model, train, test, config)
    run.close()


def in_the_loop(run: Run, model: TransferModel, train: ImageDataset, test: ImageDataset, config: Config) -> None:
    """Run augmented images through the backbone in every epoch; the last epochs may train its last blocks, too."""
    build_task: Callable[..., Supervised] = Supervised
    if model.finetuned:
        build_task = fine_tuning(config.trainer.epochs, config.finetune_epochs, config.finetune_lr, config.learning)
    if config.run.resume is None:
        standardize_head(model, train, config.trainer.device)
    before, since, device = model.features.fingerprint(), time.perf_counter(), config.trainer.device
    training = classifier_training(model, train, test, config.images, config.learning, config.trainer.seed, build_task)
    classifier = image_classifier(model, train, config.images, device)
    run.fit(*training, pictures={"examples": example_images(training.train, train)}, predictor=classifier)
    took, moved = time.perf_counter() - since, model.features.fingerprint() != before
    require(moved <= bool(model.finetuned), "the backbone has changed while its head was trained")
    run.say(f"training and evaluation: {took:.1f} s; the backbone has {'changed, too' if moved else 'not changed'}")
    if run.is_main:
        model.finetuning = False
        more = {
            "epoch chosen by": run.chosen_by,
            "seconds": {"training and evaluation": took},
            "backbone has moved": moved,
        }
        run.keep(evaluate_classifier(classifier, test, more=more, train=train))


def on_features(run: Run, model: TransferModel, train: ImageDataset, test: ImageDataset, config: Config) -> None:
    """Compute the features of all images once, and train a head on them."""
    require(rank_and_size()[1] == 1, "--approach features needs a single process")
    device = config.trainer.device
    batch_size = config.learning.batch_size or 0
    parts = extract_parts(model, train, test, config.images, batch_size, device, verbose=True)
    for name, part in (("training", parts.train), ("test", parts.test)):
        run.say(
            f"features of {len(part.features):,} {name} images, {part.cached:,} from the cache: {part.seconds:.1f} s"
        )
    before, since = model.features.fingerprint(), time.perf_counter()
    classifier = image_classifier(model, train, config.images, device)
    run.fit(*head_training(model, parts, config.learning, config.trainer.seed, device), predictor=classifier)
    took = time.perf_counter() - since
    require(model.features.fingerprint() == before, "the backbone has changed while its head was trained")
    run.say(f"head: {took:.1f} s")
    run.keep(evaluate_head(classifier, parts, test, took, run.chosen_by, train))


def check_resumed(config: Config) -> None:
    """Raise :class:`InputError` if a resumed run changes what its optimizer or its features depend on."""
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
