"""Train a LeNet-like classifier on labelled images: get the data, build the model, train, look at the errors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import LenetLike, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ClassifierLearning,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    example_images,
    image_classifier,
)


@dataclass(frozen=True)
class Config:
    """Train a LeNet-like classifier: convolutions that halve the sides, a hidden layer, an output per class."""

    width: int = 32
    """Number of filters of the first convolution; each further one has twice as many."""
    depth: int = 2
    """Number of convolutions; each halves both sides."""
    hidden: int = 512
    """Number of units of the hidden layer."""
    images: ImageOptions = field(default_factory=ImageOptions)
    learning: ClassifierLearning = field(default_factory=ClassifierLearning)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    config = replace(config, learning=config.learning.with_defaults(DEFAULTS))
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, config.learning.centred)
    run = Run("lenet", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = LenetLike(train.image_shape, len(train.classes), config.width, config.depth, config.hidden)
    # 3. Train it.
    training = classifier_training(model, train, test, config.images, config.learning, config.trainer.seed)
    classifier = image_classifier(model, train, config.images, config.trainer.device)
    run.fit(*training, pictures={"examples": example_images(training.train, train)}, predictor=classifier)
    # 4. Look at its errors.
    if run.is_main:
        more, mirror = {"epoch chosen by": run.chosen_by}, bool(config.learning.augmentation.horizontal_flip)
        run.keep(evaluate_classifier(classifier, test, mirror, more=more, train=train))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
