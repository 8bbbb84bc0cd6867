"""Learning-rate schedules, and when they step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from torchdl.errors import require

ScheduleName = Literal["constant", "cosine", "linear", "one_cycle"]


@dataclass
class Schedule:
    """A learning-rate scheduler and when it steps.

    Args:
        scheduler: Any of ``torch.optim.lr_scheduler``.
        every: ``step`` (of the optimizer) or ``epoch``.
        monitor: The metric, such as ``val/loss``, that a ``ReduceLROnPlateau`` follows, an epoch at a time.
        settings: What it was made for, in words, which a resumed run must have, too: a checkpoint would silently bring
            back what was, and a schedule that has an end cannot go on beyond it.
    """

    scheduler: LRScheduler | ReduceLROnPlateau
    every: str = "epoch"
    monitor: str | None = None
    settings: str = ""


def plateau(optimizer: Optimizer, monitor: str = "val/loss") -> Schedule:
    """Reduce the learning rate where a loss stays, in Keras' convention and with the CPC original's settings.

    A third of it after two epochs in which the loss is not lower by 1e-4, and 1e-4 at least.
    """
    # PyTorch waits for more than `patience` bad epochs, Keras for as many
    settings = {"factor": 1 / 3, "patience": 1, "min_lr": 1e-4, "threshold": 1e-4, "threshold_mode": "abs"}
    return Schedule(ReduceLROnPlateau(optimizer, **settings), monitor=monitor)  # type: ignore[arg-type]


def constant(optimizer: Optimizer, steps: int) -> None:
    """Leave the learning rate as it is."""


def cosine(optimizer: Optimizer, steps: int) -> Schedule:
    """Let the learning rate fall to 0 over ``steps`` along half a cosine (Loshchilov and Hutter 2017)."""
    return Schedule(CosineAnnealingLR(optimizer, max(steps, 1)), "step", settings=f"over {steps} steps")


def linear(optimizer: Optimizer, steps: int) -> Schedule:
    """Let the learning rate fall to 0 over ``steps`` along a line."""
    return Schedule(PolynomialLR(optimizer, max(steps, 1), power=1.0), "step", settings=f"over {steps} steps")


def one_cycle(optimizer: Optimizer, steps: int) -> Schedule:
    """Let the learning rate rise over a quarter of ``steps`` to what it is set to, and fall to 0 (Smith 2018)."""
    highest = [group["lr"] for group in optimizer.param_groups]
    total = steps + 1  # the scheduler counts where it starts, too
    rise = 0.25 if total != 4 else 0.5  # a quarter of 4 would be a rise in no step, which it divides by
    return Schedule(
        OneCycleLR(optimizer, highest, total, pct_start=rise, cycle_momentum=False),
        "step",
        settings=f"over {steps} steps",
    )


def milestones(optimizer: Optimizer, steps: int, at: Sequence[int], factor: float) -> Schedule:
    """Multiply the learning rate by ``factor`` after each of these numbers of steps."""
    return Schedule(MultiStepLR(optimizer, list(at), factor), "step", settings=f"by {factor:g} after {[*at]}")


def build_schedules(
    schedule: Callable[[Optimizer, int], Schedule | None] | None, optimizers: dict[str, Optimizer], steps: int
) -> dict[str, Schedule]:
    """Build the schedule of each optimizer, by its name, if there is to be one."""
    built = {} if schedule is None else {name: schedule(optimizer, steps) for name, optimizer in optimizers.items()}
    return {name: made for name, made in built.items() if made is not None}


SCHEDULES: dict[str, Callable[[Optimizer, int], Schedule | None]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "one_cycle": one_cycle,
}


def find_schedule(name: str) -> Callable[[Optimizer, int], Schedule | None]:
    """Return the one of :data:`SCHEDULES` of that name; :class:`InputError` where there is none."""
    require(name in SCHEDULES, f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
