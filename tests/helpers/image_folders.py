"""Images of three classes, in memory and as a folder."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from helpers import gaussian
from torchdl import ImageDataset

CLASSES = ("ant", "bee", "cow")


def patterns(count: int, seed: int = 0, spread: float = 50, size: tuple[int, int, int] = (1, 12, 12)) -> Tensor:
    """Make images (3 * count, C, H, W) uint8 of three alternating classes, each with another bright third of rows."""
    pixels = 90 + spread * gaussian(3 * count, *size, seed=seed)
    third = size[1] // 3
    for label in range(3):
        pixels[label::3, :, label * third : (label + 1) * third] += 90
    return pixels.clamp(0, 255).to(torch.uint8)


def labelled(count: int, seed: int = 0, low: float = 0.0, **options) -> ImageDataset:
    labels = torch.arange(3 * count) % 3
    return ImageDataset(patterns(count, seed, **options), labels, low, 1.0, CLASSES, "memory")


def write_folder(root: Path, train: int = 12, test: int = 5, **options) -> Path:
    """Write train/<class>/*.png and test/<class>/*.png of three classes."""
    for split, count in (("train", train), ("test", test)):
        images = patterns(count, seed=len(split), **options)
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number, image in enumerate(images[label::3]):
                array = image.permute(1, 2, 0).numpy()
                Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(
                    root / split / name / f"{number:03}.png"
                )
    return root
