"""Show how optimizers descend the same loss: their paths and losses, as a figure and a table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np
import torch
from torch import Tensor, nn

from torchdl import random
from torchdl.cli.main import run_script
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.plots import plot_paths
from torchdl.tasks import make_optimizer

EXAMPLES, BATCH = 64, 16
RULES = {  # by name: the optimizer, and the number of examples per update
    "gradient descent": ("sgd", EXAMPLES),
    "stochastic": ("sgd", 1),
    "mini-batch": ("sgd", BATCH),
    "momentum": ("momentum", BATCH),
    "Nesterov": ("nesterov", BATCH),
    "Adagrad": ("adagrad", BATCH),
    "Adadelta": ("adadelta", BATCH),
    "RMSprop": ("rmsprop", BATCH),
    "Adam": ("adam", BATCH),
}
RATES = tuple(10.0 ** (k / 2) for k in range(-6, 5))  # 0.001, 0.0032, ... 100
START = (-1.5, 2.5)


@dataclass(frozen=True)
class Config:
    """Fit two weights by least squares with each optimizer, from the same start and with the best rate of a grid."""

    steps: int = 100
    """Number of updates of each optimizer."""
    steepness: float = 5.0
    """Ratio of the inputs' standard deviations; a larger one makes the valley narrower."""
    seed: int = 0
    """Seed of the examples and their order."""
    out: Path = Path("runs/optimizers")
    """The folder of the figure and the results."""


def problem(config: Config) -> tuple[Tensor, Tensor]:
    """Draw inputs (N, 2) and targets (N,): x1 + x2 + noise."""
    numbers = random.normal(config.seed, 0, torch.arange(EXAMPLES), 3).double()
    inputs = numbers[:, :2] * torch.tensor([1.0, 1 / config.steepness], dtype=torch.float64)
    return inputs, inputs.sum(1) + 0.1 * numbers[:, 2]


def loss(weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error (...,) of weights (..., 2)."""
    return (weights @ inputs.T - targets).square().mean(-1)


def descend(rule: str, batch: int, rate: float, inputs: Tensor, targets: Tensor, config: Config) -> Tensor:
    """Return the weights (steps + 1, 2): the initial ones, and those after each update."""
    weights = nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = make_optimizer(rule, [weights], rate)
    order = torch.Generator().manual_seed(config.seed)
    passes = -(-config.steps * batch // EXAMPLES)
    shuffled = torch.cat([torch.randperm(EXAMPLES, generator=order) for _ in range(passes)])
    path = [weights.detach().clone()]
    for chosen in shuffled.split(batch)[: config.steps]:
        weights.grad = None
        loss(weights, inputs[chosen], targets[chosen]).backward()
        optimizer.step()
        path.append(weights.detach().clone())
    return torch.stack(path)


def main(config: Config) -> None:
    """Descend with every optimizer and rate, keep each optimizer's best rate, print and draw."""
    require(config.steps >= 1, f"--steps must be 1 or more, not {config.steps}")
    require(config.steepness > 0, f"--steepness must be positive, not {config.steepness}")
    inputs, targets = problem(config)
    best = torch.linalg.lstsq(inputs, targets[:, None]).solution[:, 0]
    least = float(loss(best, inputs, targets))
    paths, losses, results = {}, {}, {}
    print(f"{'':18}{'examples':>9}{'rate':>9}{'loss after':>12}{'updates to 1 % of the first':>30}")
    for name, (rule, batch) in RULES.items():
        tried = {rate: descend(rule, batch, rate, inputs, targets, config) for rate in RATES}
        above = {rate: (loss(path, inputs, targets) - least).nan_to_num(torch.inf) for rate, path in tried.items()}
        rate = min(RATES, key=lambda r: float(above[r][-10:].mean()))
        reached = (above[rate] < 0.01 * above[rate][0]).nonzero()
        first = int(reached[0]) if len(reached) else None
        paths[name], losses[name] = tried[rate].numpy(), above[rate].clamp(min=1e-12).numpy()
        after = float(above[rate][-10:].mean())
        results[name] = {"batch": batch, "rate": rate, "loss above the least": after, "updates to 1 %": first}
        print(f"{name:18}{batch:9}{rate:9.3g}{after:12.2e}{'never' if first is None else first:>30}")
    x, y = np.meshgrid(np.linspace(-2, 3, 100), np.linspace(-1, 3.5, 100))
    points = torch.from_numpy(np.stack([x, y], -1))  # (100, 100, 2)
    surface = (x, y, (loss(points, inputs, targets) - least).numpy())
    plot_paths(surface, paths, losses, config.out / "optimizers.png")
    write_json(config.out / "optimizers.json", {"steps": config.steps, "seed": config.seed, "rules": results})
    print(f"figure and results: {config.out}")


if __name__ == "__main__":
    run_script(main, Config)
