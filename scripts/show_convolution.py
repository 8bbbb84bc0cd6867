"""Show what convolution does to a photograph, and that all ways to compute it agree (lectures 26 to 29)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from torchdl import convolution
from torchdl.cli.main import run_script
from torchdl.convolution import MODES, SOBEL_X, SOBEL_Y, as_matrix, correlate, correlate_by_loops, correlate_color
from torchdl.data.digits import load_photographs
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.plots import plot_images


@dataclass(frozen=True)
class Config:
    """Blur a photograph, find its edges, and print how much the ways to compute a convolution differ."""

    out: Path = Path("runs/convolution")
    """The folder of the figure and the differences."""
    picture: Path | None = None
    """A PNG or JPEG instead of scikit-learn's photograph."""
    size: int = 9
    """Side of the blurring kernel, in pixels."""


def differences(image: torch.Tensor, kernel: torch.Tensor) -> dict[str, float]:
    """Convolve (H, W) with (h, w) in every way; return the largest difference of each result from PyTorch's."""
    found = {}
    for mode in MODES:
        ours = correlate(image, kernel, mode)
        (top, below), (left, right) = (convolution.padding(side, mode) for side in kernel.shape)
        around = F.pad(image, (left, right, top, below))
        theirs = F.conv2d(around[None, None], kernel[None, None])[0, 0]
        by_matrix = as_matrix(kernel, len(image), image.shape[1], mode) @ image.flatten()  # (H' * W',)
        found[f"windows, {mode}"] = ours - theirs
        found[f"matrix, {mode}"] = by_matrix.view_as(theirs) - theirs  # (H' * W',) -> (H', W')
        true = torch.from_numpy(convolve2d(image.numpy(), kernel.numpy(), mode))
        found[f"true convolution, {mode}, from SciPy's"] = convolution.convolve(image, kernel, mode) - true
        print(f"{mode:6} {tuple(image.shape)} and a kernel {tuple(kernel.shape)} give {tuple(ours.shape)}")
    found["loops, valid"] = correlate_by_loops(image, kernel) - correlate(image, kernel)
    return {name: float(difference.abs().max()) for name, difference in found.items()}


def main(config: Config) -> None:
    """Compare the ways, filter the photograph, draw."""
    require(1 <= config.size <= 31, f"--size must be from 1 to 31, not {config.size}")
    generator = torch.Generator().manual_seed(0)
    image, kernel = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((12, 10), (3, 4)))
    found = differences(image, kernel)
    for name, largest in found.items():
        print(f"{name:40} differs by {largest:.1e}")
    photograph = load_photographs(config.picture, config.size)[0]  # (3, H, W)
    grey = photograph.mean(0)
    blur = convolution.gaussian(config.size, config.size / 5)
    edges = torch.sqrt(correlate(grey, SOBEL_X, "same") ** 2 + correlate(grey, SOBEL_Y, "same") ** 2)
    deep = torch.zeros(3, 3, *blur.shape)  # (O, C, h, w): each colour is blurred by itself
    deep[range(3), range(3)] = blur
    orange = torch.tensor([1.0, 0.3, -1.0])[None, :, None, None] * blur  # (1, C, h, w)
    pictures = {
        "photograph": photograph,
        f"blurred, {config.size}x{config.size}, mode same": correlate_color(photograph, deep, mode="same"),
        "vertical edges": correlate(grey, SOBEL_X),
        "horizontal edges": correlate(grey, SOBEL_Y),
        "edges of all directions": edges,
        "how orange: one deep kernel": correlate_color(photograph, orange, mode="same"),
    }
    path = config.out / "convolution.png"
    plot_images(pictures, path)
    write_json(config.out / "convolution.json", {"largest": max(found.values()), "differences": found})
    print(f"figure: {path}")


if __name__ == "__main__":
    run_script(main, Config)
