"""Train a new head on a network that was trained on other images (lectures 62 to 67), in one of two ways."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import _clone  # noqa: F401

from torchdl import Trainer
from torchdl.errors import require
from torchdl.models import transfer_model
from torchdl.training.classification import USUAL, ClassifierLearning, ImageOptions
from torchdl.training.command import Run, RunOptions, run_script
from torchdl.training.transfer import check_resumed, fit_augmented, fit_on_features


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
    as_wont = replace(USUAL, shift=0.1, flip=0.5) if augment else USUAL
    config = replace(config, learning=config.learning.over(as_wont))
    require(not config.learning.centred, "a backbone scales pixels itself: leave --centred out")
    require(augment or not config.finetune, "--finetune is of --approach augment: features that are kept cannot learn")
    check_resumed(config.run.resume, config)
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, centred=False)
    run = Run("transfer", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = transfer_model(
        config.backbone, len(train.classes), config.weights, config.input_size, config.finetune, config.levels
    )
    # 3. Train its head, and see what it gets wrong.
    data = (train, test, config.images, config.learning)
    if augment:
        fit_augmented(run, model, *data, config.finetune_epochs, config.finetune_lr)
    else:
        fit_on_features(run, model, *data)
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
