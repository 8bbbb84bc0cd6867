"""Train one of the course's networks on labelled images: get the data, build the model, train, see what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import _clone  # noqa: F401
from torch import nn

from torchdl import MLP, AirbenchLike, RowReader, StridedCNN, Trainer, VGGLike
from torchdl.cli.run import Run, RunOptions
from torchdl.cli.script import run_script
from torchdl.errors import require
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ClassifierLearning,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    example_images,
)


@dataclass(frozen=True)
class Config:
    """Train a network: mlp, cnn, cnn_wide and lstm as the course has them, vgg and airbench as they learn best here."""

    model: Literal["mlp", "cnn", "cnn_wide", "lstm", "vgg", "airbench"] = "cnn"
    """The networks of lectures 24 (mlp), 32 (cnn), 33 (cnn_wide), 50 (lstm) and 36 (vgg), or one that learns fast. The
    last two learn by one_cycle from centred pixels: vgg with batches of 128, lr 4e-3, weight decay 0.05, label
    smoothing 0.1 and shift 0.1; airbench with 256, 5e-3, 0.1, 0.2 and 0.0625."""
    width: int | None = None
    """Filters of the first block; 32 (vgg, as in the course) or 64 (airbench) if not given."""
    dropout: float | None = None
    """Probability of dropping a unit before and after vgg's hidden layer; 0.2 if not given, as in the course."""
    images: ImageOptions = field(default_factory=ImageOptions)
    learning: ClassifierLearning = field(default_factory=ClassifierLearning)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=15))


class Network(NamedTuple):
    """How to build a network from (shape, classes), and how it learns where nothing else is asked for."""

    build: Callable[..., nn.Module]
    learning: ClassifierLearning


GIVEN = ClassifierLearning(batch_size=32)  # what Keras does when it is told nothing
NETWORKS = {
    "mlp": Network(lambda shape, classes: MLP(math.prod(shape), classes), GIVEN),
    "cnn": Network(StridedCNN, GIVEN),
    "cnn_wide": Network(lambda shape, classes: StridedCNN(shape, classes, 1024, (0.5, 0.2)), GIVEN),
    "lstm": Network(RowReader, GIVEN),
    "vgg": Network(
        VGGLike,
        ClassifierLearning(128, 4e-3, "one_cycle", weight_decay=0.05, label_smoothing=0.1, shift=0.1, centred=True),
    ),
    "airbench": Network(
        lambda shape, classes, width=64: AirbenchLike(shape, classes, (width, 2 * width, 4 * width)),
        ClassifierLearning(256, 5e-3, "one_cycle", weight_decay=0.1, label_smoothing=0.2, shift=0.0625, centred=True),
    ),
}


def main(config: Config) -> None:
    """Run the four steps."""
    network = NETWORKS[config.model]
    config = replace(config, learning=config.learning.with_defaults(network.learning.with_defaults(DEFAULTS)))
    own = {"width": config.width, "dropout": config.dropout}
    own = {key: value for key, value in own.items() if value is not None}
    require("width" not in own or config.model in ("vgg", "airbench"), "--width is of vgg and airbench: leave it out")
    require("dropout" not in own or config.model == "vgg", "--dropout is of vgg alone: leave it out")
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, config.learning.centred)
    run = Run("cnn", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = network.build(train.image_shape, len(train.classes), **own)
    if isinstance(model, AirbenchLike):
        model.whiten_(train.spread(min(5000, len(train)))[0])
    # 3. Train it.
    training = classifier_training(model, train, test, config.images, config.learning, config.trainer.seed)
    run.fit(*training, pictures={"examples": example_images(training.train, train)})
    # 4. Look at what it gets wrong.
    if run.is_main:
        more, mirror = {"epoch chosen by": run.chosen_by}, bool(config.learning.flip)
        run.keep(evaluate_classifier(model, test, config.images, config.trainer.device, mirror, more=more))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
