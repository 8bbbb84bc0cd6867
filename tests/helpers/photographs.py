"""Photographs of handwritten digits, made from images like MNIST's."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def photograph(
    digit: Tensor, seed: int = 0, size: tuple[int, int] = (1600, 1200), noise: float = 0.02, bright_ink: bool = False
) -> Tensor:
    """Make a photograph (H, W) uint8 of a digit (28, 28) uint8: dark ink on unevenly lit paper, off-centre."""
    random = np.random.default_rng(seed)
    height, width = size
    side = int(random.uniform(0.3, 0.6) * min(size))
    ink = np.asarray(Image.fromarray(digit.numpy()).resize((side, side), Image.Resampling.BICUBIC)) / 255
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    slope, vignette = random.uniform(-0.12, 0.12, 2), random.uniform(0, 0.1)
    paper = 0.75 + slope[0] * y + slope[1] * x - vignette * (x**2 + y**2)
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    share = np.zeros(size)
    share[top : top + side, left : left + side] = ink
    light = (0.25 + 0.75 * share) * paper if bright_ink else (1 - 0.75 * share) * paper
    light += noise * random.standard_normal(size)
    return torch.from_numpy(np.clip(np.rint(255 * light), 0, 255).astype(np.uint8))
