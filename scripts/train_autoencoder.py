"""Train an autoencoder on images: get the data, build the model, train, see what its codes are good for."""

from __future__ import annotations

from dataclasses import dataclass, field

import _clone  # noqa: F401

from torchdl import Autoencoder, Trainer
from torchdl.training.autoencoding import Coding, fit_autoencoder, print_shapes
from torchdl.training.classification import ImageOptions
from torchdl.training.command import Run, RunOptions, run_script


@dataclass(frozen=True)
class Config:
    """Train a convolutional autoencoder: images to small codes and back."""

    width: int = 32
    """Filters of the convolutions."""
    depth: int = 2
    """Halvings of both sides, and doublings."""
    code_size: int = 32
    """Numbers a code."""
    verbose: bool = False
    """Print the tensors' shapes through the network."""
    images: ImageOptions = field(default_factory=ImageOptions)
    coding: Coding = field(default_factory=Coding)
    run: RunOptions = field(default_factory=RunOptions)
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Run the three steps."""
    # 1. Get the data.
    train, test = config.images.load(config.run.data_root)
    run = Run("autoencoder", config, config.run, config.trainer, train, test)
    # 2. Build the model.
    model = Autoencoder(train.image_shape, config.width, config.depth, config.code_size)
    if config.verbose:
        print_shapes(model, config.coding.batch_size)
    # 3. Train it, and see what its codes are good for.
    fit_autoencoder(run, model, train, test, config.images, config.coding)
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
