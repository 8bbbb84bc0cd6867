"""Train an autoencoder on images: get the data, build the model, train, see what the latent codes are good for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import Autoencoder, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.recipes.autoencoder import (
    Coding,
    autoencoder_training,
    denoising_error,
    evaluate_autoencoder,
    image_reconstructor,
)
from torchdl.recipes.image_classification import ImageOptions


@dataclass(frozen=True)
class Config:
    """Train a convolutional autoencoder, which maps images to small latent codes and back."""

    width: int = 32
    """Number of filters of the convolutions."""
    depth: int = 2
    """Number of times that the encoder halves both sides, and the decoder doubles them."""
    code_size: int = 32
    """Length of a latent code."""
    images: ImageOptions = field(default_factory=ImageOptions)
    coding: Coding = field(default_factory=Coding)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root)
    run = Run("autoencoder", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = Autoencoder(train.image_shape, config.width, config.depth, config.code_size)
    # 3. Train it.
    seed, device = config.trainer.seed, config.trainer.device
    training = autoencoder_training(model, train, test, config.images, config.coding, seed)
    reconstructor = image_reconstructor(model, train, config.images, device)
    run.fit(*training, predictor=reconstructor)
    # 4. Look at what the latent codes are good for.
    error = denoising_error(training, device, seed) if config.coding.noise else None
    if run.is_main:
        run.keep(evaluate_autoencoder(reconstructor, training.task, train, test, error))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
