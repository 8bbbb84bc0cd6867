"""Train a network of the course on labelled images: get the data, build the model, train, look at the errors."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torch import nn

from torchdl import MLP, AirbenchLike, Augmentation, RowReader, StridedCNN, Trainer, VGGLike
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.errors import require
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
    """Train a network on labelled images: mlp, cnn, cnn_wide and lstm as in the course, or better vgg and airbench."""

    model: Literal["mlp", "cnn", "cnn_wide", "lstm", "vgg", "airbench"] = "cnn"
    """The network of lecture 24 (mlp), 32 (cnn), 33 (cnn_wide), 50 (lstm) or 36 (vgg), or one that trains fast. The
    last two are trained with one_cycle on centred pixels: vgg with batch size 128, lr 4e-3, weight decay 0.05, label
    smoothing 0.1 and shift 0.1; airbench with 256, 5e-3, 0.1, 0.2 and 0.0625."""
    width: int | None = None
    """Number of filters of the first block; if not given, 32 (vgg, as in the course) or 64 (airbench)."""
    dropout: float | None = None
    """Dropout probability before and after vgg's hidden layer; 0.2 if not given, as in the course."""
    images: ImageOptions = field(default_factory=ImageOptions)
    learning: ClassifierLearning = field(default_factory=ClassifierLearning)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=15))


class Network(NamedTuple):
    """How to build a network from (shape, classes), and the defaults of its training."""

    build: Callable[..., nn.Module]
    learning: ClassifierLearning


KERAS = ClassifierLearning(batch_size=32)  # as Keras does by default
NETWORKS = {
    "mlp": Network(lambda shape, classes: MLP(math.prod(shape), classes), KERAS),
    "cnn": Network(StridedCNN, KERAS),
    "cnn_wide": Network(lambda shape, classes: StridedCNN(shape, classes, 1024, (0.5, 0.2)), KERAS),
    "lstm": Network(RowReader, KERAS),
    "vgg": Network(
        VGGLike,
        ClassifierLearning(
            128, 4e-3, "one_cycle", 0.05, label_smoothing=0.1, centred=True, augmentation=Augmentation(shift=0.1)
        ),
    ),
    "airbench": Network(
        lambda shape, classes, width=64: AirbenchLike(shape, classes, (width, 2 * width, 4 * width)),
        ClassifierLearning(
            256, 5e-3, "one_cycle", 0.1, label_smoothing=0.2, centred=True, augmentation=Augmentation(shift=0.0625)
        ),
    ),
}


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    network = NETWORKS[config.model]
    config = replace(config, learning=config.learning.with_defaults(network.learning.with_defaults(DEFAULTS)))
    given = {"width": config.width, "dropout": config.dropout}
    given = {key: value for key, value in given.items() if value is not None}
    require(
        "width" not in given or config.model in ("vgg", "airbench"),
        "--width is for --model vgg and airbench: leave it out",
    )
    require("dropout" not in given or config.model == "vgg", "--dropout is for --model vgg: leave it out")
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root, config.learning.centred)
    run = Run("cnn", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = network.build(train.image_shape, len(train.classes), **given)
    if isinstance(model, AirbenchLike):
        model.whiten_(train.spread(min(5000, len(train)))[0])
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
