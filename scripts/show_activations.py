"""Draw the activation functions with their derivatives, and measure how many ReLU units die (lecture 20)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch
import torch.nn.functional as F
from torch import nn

from torchdl import MLP, BatchLoader, ImageDataset, Supervised, Trainer, load_images
from torchdl.cli.main import run_script
from torchdl.cli.printing import describe_data
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.metrics import silent_units
from torchdl.models import ACTIVATIONS
from torchdl.plots import plot_functions, plot_lines
from torchdl.tasks import accuracy, make_optimizer
from torchdl.training.device import setup_process

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # Adam's learning rates


@dataclass(frozen=True)
class Config:
    """Draw the activation functions with their derivatives, and train networks whose ReLU units die at large steps."""

    out: Path = Path("runs/activations")
    """The folder of the figures and results."""
    steps: int = 300
    """Training steps of each network; 0 draws the functions only."""
    dataset: str = "mnist_5k"
    """The images that the networks are trained on."""
    data_root: Path | None = None
    """The folder of the datasets."""
    seed: int = 0
    """Seed of the initial weights and the order of the images."""
    threads: int = 1
    """CPU threads; 0 lets PyTorch choose."""


def curves() -> dict[str, tuple[list[float], list[float], list[float]]]:
    """Compute every activation and its derivative on [-4, 4]."""
    found = {}
    for name, build in ACTIVATIONS.items():
        x = torch.linspace(-4, 4, 401, requires_grad=True)
        y = build()(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        found[name] = (x.tolist(), y.tolist(), slope.tolist())
    return found


def demonstrate(config: Config, train: ImageDataset, test: ImageDataset) -> dict[str, dict[str, list[float]]]:
    """Train networks of two hidden layers with ReLU and LeakyReLU at several learning rates.

    Returns:
        By activation: the ``silent`` share of the units, which no training image activates, and the test ``accuracy``.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for activation, kind in (("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU)):
        found[activation] = {"silent": [], "accuracy": []}
        for rate in RATES:
            torch.manual_seed(config.seed)
            width = train[0][0].numel()
            model = MLP(width, len(train.classes), hidden=(128, 128), dropout=0.0, activation=activation)
            task = Supervised(model, F.cross_entropy, {"accuracy": accuracy}, partial(make_optimizer, "adam", lr=rate))
            loader = BatchLoader(train, 64, shuffle=True, seed=config.seed)
            trainer = Trainer(max_steps=config.steps, evaluate_every=10**6, seed=config.seed, device="cpu")
            history = trainer.fit(task, loader, BatchLoader(test, 500))
            found[activation]["silent"].append(silent_units(model.eval(), train[: 10**6][0], (kind,)))
            found[activation]["accuracy"].append(history[-1]["val/accuracy"])
    return found


def main(config: Config) -> None:
    """Draw the functions, then train networks and count their dead units."""
    require(config.steps >= 0, f"--steps must be 0 or more, not {config.steps}")
    setup_process(config.threads)
    parts = ("train", "test") if config.steps else ()
    images = [load_images(config.dataset, part, config.data_root) for part in parts]
    plot_functions(curves(), config.out / "activations.png")
    print(f"functions and derivatives: {config.out / 'activations.png'}")
    if not images:
        return
    print(describe_data(images[0]))
    found = demonstrate(config, *images)
    print(f"{'':14}" + "".join(f"{rate:>12g}" for rate in RATES) + "   learning rate")
    for name, measured in found.items():
        for key, values in measured.items():
            print(f"{name:14}" + "".join(f"{value:12.1%}" for value in values) + f"   {key}")
    silent = {name: (RATES, [100 * share for share in measured["silent"]]) for name, measured in found.items()}
    plot_lines(silent, "learning rate", "units silent for all images, %", log_x=True, path=config.out / "dying.png")
    write_json(config.out / "dying.json", {"learning rates": RATES, **found})
    print(f"figure: {config.out / 'dying.png'}")


if __name__ == "__main__":
    run_script(main, Config)
