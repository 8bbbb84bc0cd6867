"""Fit Moore's law, a line through the logarithms of transistor counts, by training and in closed form (lecture 12)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch.nn.functional as F

from torchdl import MLP, BatchLoader, Supervised, Trainer
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data.tabular import Columns, load_transistors
from torchdl.errors import require
from torchdl.plots import plot_line_fit
from torchdl.predict import TabularPredictor
from torchdl.recipes.report import Report
from torchdl.tasks import OptimizerName, make_optimizer, milestones
from torchdl.tasks.optimizers import check_optimizer


@dataclass(frozen=True)
class Config:
    """Fit a line to the logarithms of transistor counts by gradient descent; as in the lecture, the rate falls once.

    The lecture's batches and epochs (--batch-size 32 --epochs 200 --later-epoch 50) leave an error of some 2 %.
    """

    optimizer: OptimizerName = "momentum"
    """The optimizer; the lecture's is gradient descent with a momentum of 0.9."""
    lr: float = 1e-3
    """The learning rate."""
    later_lr: float = 1e-4
    """The learning rate from --later-epoch on."""
    later_epoch: int = 500
    """The first epoch, counted from 0, with the lower learning rate."""
    batch_size: int = 0
    """Number of counts per step; 0 for all."""
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=600, evaluate_every=100))


def main(config: Config) -> None:
    """Get the data, build the model, train, look."""
    require(config.batch_size >= 0, f"--batch-size must be 0, for all, or more, not {config.batch_size}")
    require(config.later_epoch >= 0, f"--later-epoch must be 0 or more, not {config.later_epoch}")
    check_optimizer(config.optimizer, config.lr)
    check_optimizer(config.optimizer, config.later_lr)
    # 1. Get the data: centred years, and logarithms of transistor counts.
    years, logarithms, data = load_transistors(config.run.data_root)
    run = Run("moore", config, config.run, config.trainer, data)
    # 2. Build the model, a line.
    model = MLP(1, 1, hidden=(), dropout=0.0)
    # 3. Train it.
    loader = BatchLoader(data, config.batch_size or len(data), shuffle=True, seed=config.trainer.seed)
    task = Supervised(
        model,
        F.mse_loss,
        optimizer=partial(make_optimizer, config.optimizer, lr=config.lr),
        schedule=partial(milestones, at=[config.later_epoch * len(loader)], factor=config.later_lr / config.lr),
    )
    columns = Columns({"year": (float(years.mean()), 1.0)}, {}, "transistors", logarithm=True)
    predictor = TabularPredictor(model, columns, config.trainer.device)
    run.fit(task, loader, predictor=predictor)
    # 4. Look at it beside least squares.
    if run.is_main:
        weight = next(model.parameters()).item()
        x, y = years - years.mean(), logarithms
        slope = float((x * (y - y.mean())).sum() / x.square().sum())
        residual = y - y.mean() - slope * x
        error = float((residual.square().sum() / (len(x) - 2) / x.square().sum()).sqrt())
        doubling = math.log(2) / slope
        doubling_error = doubling * error / slope  # to first order
        results = {
            "slope by training": weight,
            "slope by least squares": slope,
            "standard error of the slope": error,
            "years to double, by training": doubling * slope / weight,
            "years to double, by least squares": doubling,
            "standard error of the years": doubling_error,
            "R2": 1 - float(residual.square().sum() / (y - y.mean()).square().sum()),
            "processors": len(x),
        }
        lines = {"trained": predictor.answers(data.inputs).log(), "least squares": y.mean() + slope * x}
        summary = (
            f"slope: {weight:.5f} by training, {slope:.5f} by least squares (standard error {error:.5f}) a year\n"
            f"transistors double every {results['years to double, by training']:.3f} years, ± {doubling_error:.3f}"
        )
        run.keep(Report(results, summary, {"moore": plot_line_fit(years, y, lines, "year", "transistors")}))
    run.close()


if __name__ == "__main__":
    run_script(main, Config)
