"""Generate images with a GAN from train_gan.py, or search for the noise that reproduces test images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torch import Tensor

import torchdl
from torchdl import GAN
from torchdl.cli.finished_runs import data_root_of, dataset_of, load_gan
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.errors import require
from torchdl.files import require_suffix
from torchdl.latent import invert
from torchdl.pictures import image_grid, pairs_grid, save_png, side_by_side
from torchdl.predict import ImageGenerator

COLUMNS = 8  # of interpolations and reconstructions


@dataclass(frozen=True)
class Config:
    """Generate images with the GAN of a run that has finished, or has saved a checkpoint."""

    run: Positional[Path]
    """The folder of the run, such as runs/gan/first."""
    n: int = 64
    """Number of images."""
    out: Path = Path("digits.png")
    """The PNG to write."""
    seed: int = 0
    """Seed of the noise."""
    interpolate: Literal["linear", "spherical"] | None = None
    """Make each row of eight lead from one image to another: along a line, or along a sphere, near which noise lies."""
    invert: bool = False
    """Search for the noise that best reproduces test images of the run's dataset; draw each result below its image."""
    steps: int = 500
    """With --invert: steps of gradient descent."""
    restarts: int = 8
    """With --invert: number of starting points per image."""
    data_root: Path | None = None
    """With --invert: the folder of the datasets."""


def rebuild(config: Config, gan: GAN) -> Tensor:
    """Reconstruct test images; return a picture with rows of them, each above the row of its reconstructions."""
    root = config.data_root or data_root_of(config.run)
    data = torchdl.load_images(dataset_of(config.run), "test", root, low=-1, high=1).without_labels()
    require(config.n <= len(data), f"there are only {len(data):,} test images: --n must not be more")
    images = data.spread(config.n)
    found = invert(gan.generator, images, config.steps, config.restarts, config.seed)
    errors = found.errors.sqrt() / 2  # [-1, 1] is twice as wide as [0, 1]
    for number, error in enumerate(errors.tolist(), 1):
        print(f"image {number:3}: {error:.4f}")
    print(f"root mean squared error of a pixel in [0, 1]: {errors.mean():.4f} on average, {errors.max():.4f} at most")
    return side_by_side({"real, above generated": pairs_grid((images + 1) / 2, (found.images + 1) / 2, COLUMNS)})


def main(config: Config) -> None:
    """Load the GAN, generate images, save the picture; without --invert, as predict.py does."""
    require(config.n >= 1, f"--n must be at least 1, not {config.n}")
    require(not (config.invert and config.interpolate), "--invert and --interpolate exclude each other: choose one")
    require_suffix(config.out, ".png")
    gan = load_gan(config.run)
    generator = ImageGenerator.of(gan, "cpu")
    if config.invert:
        picture = rebuild(config, gan)
    elif config.interpolate:
        images = generator.interpolate(config.n, config.seed, config.interpolate, COLUMNS)
        picture = side_by_side({"generated, row by row": image_grid(images, COLUMNS)})
    else:
        picture = side_by_side({"generated": image_grid(generator.predict(config.n, config.seed))})
    save_png(picture, config.out)
    print(config.out)


if __name__ == "__main__":
    run_script(main, Config)
