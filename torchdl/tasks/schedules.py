"""Learning-rate schedules, and when they step."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau


@dataclass
class Schedule:
    """A learning-rate scheduler and when it steps.

    Args:
        scheduler: Any of ``torch.optim.lr_scheduler``.
        every: ``step`` (of the optimizer) or ``epoch``.
        monitor: The metric, such as ``val/loss``, that a ``ReduceLROnPlateau`` follows, an epoch at a time.
    """

    scheduler: LRScheduler | ReduceLROnPlateau
    every: str = "epoch"
    monitor: str | None = None


def plateau(optimizer: Optimizer, monitor: str = "val/loss") -> Schedule:
    """Reduce the learning rate where a loss stays, in Keras' convention and with the CPC original's settings.

    A third of it after two epochs in which the loss is not lower by 1e-4, and 1e-4 at least.
    """
    # PyTorch waits for more than `patience` bad epochs, Keras for as many
    settings = {"factor": 1 / 3, "patience": 1, "min_lr": 1e-4, "threshold": 1e-4, "threshold_mode": "abs"}
    return Schedule(ReduceLROnPlateau(optimizer, **settings), monitor=monitor)  # type: ignore[arg-type]


def constant(optimizer: Optimizer, steps: int) -> Schedule | None:
    """Leave the learning rate as it is."""
    return None


def cosine(optimizer: Optimizer, steps: int) -> Schedule:
    """Let the learning rate fall to 0 over ``steps`` along half a cosine (Loshchilov and Hutter 2017)."""
    return Schedule(CosineAnnealingLR(optimizer, max(steps, 1)), every="step")


def one_cycle(optimizer: Optimizer, steps: int) -> Schedule:
    """Let the learning rate rise over a quarter of ``steps`` to what it is set to, and fall to 0 (Smith 2018)."""
    highest = [group["lr"] for group in optimizer.param_groups]
    # one more than there are, for the scheduler counts where it starts, too
    cycle = OneCycleLR(optimizer, highest, steps + 1, pct_start=0.25, cycle_momentum=False)
    return Schedule(cycle, every="step")


SCHEDULES = {"constant": constant, "cosine": cosine, "one_cycle": one_cycle}
