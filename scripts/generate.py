"""Generate images with a GAN that scripts/train_gan.py has trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import _clone  # noqa: F401
import torch
import tyro

import torchdl
from torchdl.errors import require
from torchdl.models.gan import spherical_interpolation
from torchdl.plots import image_grid, save_png
from torchdl.training.command import run_script


@dataclass(frozen=True)
class Config:
    """Generate images with the GAN of a run that is finished, or that has saved a checkpoint at least."""

    run: tyro.conf.Positional[Path]
    """The run's folder, such as runs/gan/first."""
    n: int = 64
    """How many images."""
    out: Path = Path("digits.png")
    """The PNG to write."""
    seed: int = 0
    """Which noise to draw."""
    interpolate: bool = False
    """Make every row of eight a walk from one image to another, on the sphere that noise lives on."""


@torch.no_grad()
def main(config: Config) -> None:
    """Load the model, generate, save the picture."""
    require(config.n >= 1, f"--n must be at least 1, not {config.n}")
    gan = torchdl.load(config.run)
    if not isinstance(gan, torchdl.GAN):
        raise torchdl.InputError(f"{config.run} holds a {type(gan).__name__}, not a GAN: name a run of train_gan.py")
    if config.interpolate:
        ends = gan.noise(2 * -(-config.n // 8), config.seed)
        z = spherical_interpolation(ends[::2], ends[1::2], steps=8)[: config.n]
        images = gan(z)
    else:
        images = gan.generate_samples(config.n, config.seed)
    save_png(image_grid((images + 1) / 2, columns=8 if config.interpolate else None), config.out)
    print(config.out)


if __name__ == "__main__":
    run_script(main, Config)
