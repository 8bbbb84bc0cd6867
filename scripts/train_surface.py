"""Learn a surface with a network, see it fail to extrapolate, and help it with a periodic activation (lecture 25)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from torchdl import MLP, ArrayDataset, BatchLoader, Supervised, Trainer, random
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data.tabular import Columns
from torchdl.errors import require
from torchdl.plots import plot_surfaces
from torchdl.predict import TabularPredictor
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, ScheduleName, find_schedule, make_optimizer
from torchdl.tasks.optimizers import check_optimizer


@dataclass(frozen=True)
class Config:
    """Learn y = cos 2 x1 + cos 3 x2 from points in [-3, 3]^2, and test the network in [-5, 5]^2."""

    points: int = 1000
    """Number of training points."""
    activation: Literal["relu", "sine"] = "relu"
    """The lecture's activation, or a periodic one, which continues the surface beyond the points."""
    hidden: int = 128
    """Number of units of the hidden layer."""
    optimizer: OptimizerName = "adam"
    """The optimizer with relu; with sine it is always adamw."""
    lr: float = 0.01
    """The learning rate, with a schedule its maximum."""
    schedule: ScheduleName | None = None
    """The schedule of the learning rate; if not given, constant (relu, as in the lecture) or cosine (sine)."""
    batch_size: int = 32
    """Number of points per step."""
    frequency: float = 4.0
    """With sine: maximum initial frequency of the hidden units' waves in each direction."""
    weight_decay: float = 3.0
    """With sine: AdamW's weight decay of the output layer, which removes waves that are not needed."""
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=100, evaluate_every=20))


def surface(x: Tensor) -> Tensor:
    """Return cos 2 x1 + cos 3 x2, (N, 1), of points (N, 2)."""
    return (2 * x[:, :1]).cos() + (3 * x[:, 1:]).cos()


def grid(side: float) -> Tensor:
    """Return a grid of points (2500, 2) over [-side, side]^2."""
    line = torch.linspace(-side, side, 50)
    return torch.cartesian_prod(line, line)


def few_waves(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    """Build AdamW for waves, phases and outputs. Only outputs decay, which removes waves that are not needed."""
    waves, phases, *outputs = parameters
    groups: list[dict[str, Any]] = [{"params": [waves, phases], "weight_decay": 0.0}, {"params": outputs}]
    return AdamW(groups, lr, weight_decay=weight_decay)


def main(config: Config) -> None:
    """Make the points, build the model, train, look."""
    require(config.points >= 1, f"--points must be 1 or more, not {config.points}")
    require(0 < config.frequency < math.inf, f"--frequency must be a positive number, not {config.frequency}")
    check_optimizer("adamw", config.lr, weight_decay=config.weight_decay)
    # 1. Make the points.
    x = 6 * random.uniform(config.trainer.seed, 0, torch.arange(config.points), 2) - 3
    data = ArrayDataset(x, surface(x), f"{config.points:,} points of cos 2 x1 + cos 3 x2")
    run = Run("surface", config, config.run, config.trainer, data)
    # 2. Build the model.
    model = MLP(2, 1, (config.hidden,), dropout=0.0, activation=config.activation)
    # 3. Train it.
    schedule = config.schedule or ("cosine" if config.activation == "sine" else "constant")
    optimizer: Callable[..., Optimizer] = partial(make_optimizer, config.optimizer, lr=config.lr)
    if config.activation == "sine":
        require(config.optimizer in ("adam", "adamw"), "with sine the optimizer is adamw: leave --optimizer out")
        waves, phases, *_ = model.parameters()
        nn.init.uniform_(waves, -config.frequency, config.frequency)
        nn.init.uniform_(phases, -math.pi, math.pi)
        optimizer = partial(few_waves, lr=config.lr, weight_decay=config.weight_decay)
    task = Supervised(model, F.mse_loss, optimizer=optimizer, schedule=find_schedule(schedule))
    inner = grid(3)
    loader = BatchLoader(data, config.batch_size, shuffle=True, seed=config.trainer.seed)
    predictor = TabularPredictor(model, Columns({"x1": (0.0, 1.0), "x2": (0.0, 1.0)}, {}, "y"), config.trainer.device)
    run.fit(task, loader, BatchLoader(ArrayDataset(inner, surface(inner)), 2500), predictor=predictor)
    # 4. Look at how far it extrapolates.
    if run.is_main:
        wide = grid(5)
        found = predictor.answers(wide)  # (2500,)
        error = (found - surface(wide)[:, 0]).square()
        outside = wide.abs().amax(1) > 3
        results = {
            "RMSE inside": float(error[~outside].mean().sqrt()),
            "RMSE outside": float(error[outside].mean().sqrt()),
        }
        results["RMSE outside of always 0"] = float(surface(wide)[outside].square().mean().sqrt())

        def shaped(points: Tensor, values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            x1, x2, y = (part.view(50, 50).numpy() for part in (*points.T, values.flatten()))  # (S^2,) -> (S, S)
            return x1, x2, y

        learnt = {
            "learnt, with the points": shaped(inner, predictor.answers(inner)),
            "true": shaped(inner, surface(inner)),
        }
        beyond = {"learnt from [-3, 3]²": shaped(wide, found), "true": shaped(wide, surface(wide))}
        figures = {
            "surface": plot_surfaces(learnt, torch.cat([x, surface(x)], 1).numpy()),
            "extrapolation": plot_surfaces(beyond),
        }
        run.keep(Report(results, "  ".join(f"{name} {value:.4f}" for name, value in results.items()), figures))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
