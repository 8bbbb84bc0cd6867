"""Learning-rate schedules and when they step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
)

from torchdl.callbacks.best import direction
from torchdl.errors import kind_of, require

ScheduleName = Literal["constant", "cosine", "linear", "one_cycle"]


@dataclass
class Schedule:
    """A learning-rate scheduler and when it steps.

    Args:
        scheduler: A scheduler of ``torch.optim.lr_scheduler``.
        every: When it steps: after every ``step`` or after every ``epoch``.
        monitor: The metric that a ``ReduceLROnPlateau`` follows after each epoch; ``val/loss`` by default.
        settings: The settings in words. A resumed run must have the same ones, because a checkpoint would silently
            restore the old ones, and a schedule cannot continue past its end.

    Raises:
        InputError: It steps at another time, or a ``ReduceLROnPlateau`` takes the metric's better values for worse.
    """

    scheduler: LRScheduler | ReduceLROnPlateau
    every: str = "epoch"
    monitor: str | None = None
    settings: str = ""

    def __post_init__(self) -> None:
        require(self.every in ("step", "epoch"), f"a schedule steps every step or epoch, not every {self.every!r}")
        if isinstance(self.scheduler, ReduceLROnPlateau):
            mode = self.scheduler.mode
            named = self.monitor is not None or mode == "min"
            advice = 'name it: torchdl.tasks.Schedule(scheduler, monitor="val/accuracy")'
            require(named, f"a ReduceLROnPlateau of mode max would follow val/loss, of which less is better: {advice}")
            self.monitor = self.monitor or "val/loss"
            fits = mode == "max" or direction(self.monitor) == "min"  # min is PyTorch's default, and no choice
            require(fits, f'more is better of {self.monitor}: give its ReduceLROnPlateau mode="max"')


AnySchedule = Schedule | LRScheduler | ReduceLROnPlateau | None


def plateau(optimizer: Optimizer, *, monitor: str = "val/loss") -> Schedule:
    """Reduce the learning rate when a metric gets no better, as in Keras and with the settings of the CPC original.

    ``optimizer`` is the one whose rate it is, and ``monitor`` the metric, by whose name less or more is better, as in
    :func:`torchdl.callbacks.best.direction`.

    The rate is divided by 3 after two epochs without an improvement of 1e-4, but never below 1e-4.
    """
    # PyTorch reduces after more than `patience` bad epochs, Keras after `patience`
    settings = {"factor": 1 / 3, "patience": 1, "min_lr": 1e-4, "threshold": 1e-4, "threshold_mode": "abs"}
    scheduler = ReduceLROnPlateau(optimizer, direction(monitor), **settings)  # type: ignore[arg-type]
    return Schedule(scheduler, monitor=monitor)


def constant(optimizer: Optimizer, steps: int) -> None:
    """Keep the learning rate as it is."""


def cosine(optimizer: Optimizer, steps: int) -> Schedule:
    """Reduce the learning rate to 0 over ``steps`` along half a cosine (Loshchilov and Hutter 2017)."""
    return Schedule(CosineAnnealingLR(optimizer, max(steps, 1)), "step", settings=f"over {steps} steps")


def linear(optimizer: Optimizer, steps: int) -> Schedule:
    """Reduce the learning rate linearly to 0 over ``steps``."""
    return Schedule(PolynomialLR(optimizer, max(steps, 1), power=1.0), "step", settings=f"over {steps} steps")


def one_cycle(optimizer: Optimizer, steps: int) -> Schedule:
    """Raise the learning rate to its set value over a quarter of ``steps``, then reduce it to 0 (Smith 2018)."""
    highest = [group["lr"] for group in optimizer.param_groups]
    total = steps + 1  # the scheduler counts its initial rate as a step
    rise = 0.25 if total != 4 else 0.5  # a quarter of 4 leaves 0 rising steps, by which it divides
    return Schedule(
        OneCycleLR(optimizer, highest, total, pct_start=rise, cycle_momentum=False),
        "step",
        settings=f"over {steps} steps",
    )


def milestones(optimizer: Optimizer, steps: int, at: Sequence[int], factor: float) -> Schedule:
    """Multiply the learning rate of ``optimizer`` by ``factor`` after each number of steps in ``at``.

    ``steps``, the number of all steps, does not matter.
    """
    return Schedule(MultiStepLR(optimizer, list(at), factor), "step", settings=f"by {factor:g} after {[*at]}")


def build_schedules(
    schedule: Callable[..., AnySchedule] | None, optimizers: dict[str, Optimizer], steps: int
) -> dict[str, AnySchedule]:
    """Build a schedule for each optimizer, by its name; none if ``schedule`` is or returns None.

    Args:
        schedule: A function of the optimizer and the number of steps, or of the optimizer alone. PyTorch's schedulers
            step after each step if the function takes the number of steps, or else as in :func:`as_schedules`.
        optimizers: The optimizers, by name.
        steps: The number of steps in total.
    """
    if schedule is None:
        return {}
    try:
        inspect.signature(schedule).bind(None, steps)
        further: tuple[int, ...] = (steps,)
    except TypeError:  # such as partial(StepLR, step_size=5)
        further = ()
    built = {name: schedule(optimizer, *further) for name, optimizer in optimizers.items()}
    if further:  # what is made for a number of steps counts steps
        built = {name: by_step(made) for name, made in built.items()}
    return {name: made for name, made in built.items() if made is not None}


def by_step(made: AnySchedule) -> AnySchedule:
    """Let a scheduler of PyTorch's step after each step, unless it follows a metric."""
    follows = isinstance(made, (Schedule, ReduceLROnPlateau))
    return made if made is None or follows else Schedule(made, "step")  # type: ignore[arg-type]


def check_schedule(schedule: object) -> None:
    """Raise :class:`InputError` unless a task's argument ``schedule`` is a function or None."""
    example = 'torchdl.tasks.find_schedule("cosine")'
    builds = "schedule must be a function of the optimizer and the number of steps"
    require(schedule is None or callable(schedule), f"{builds}, such as {example}, not {schedule!r}")


def as_schedules(given: Any, optimizers: Mapping[str, Optimizer]) -> dict[str, Schedule]:
    """Return the schedules, by optimizer, that a task's ``configure_schedules`` has returned.

    A scheduler of ``torch.optim.lr_scheduler`` steps after each epoch, but ``OneCycleLR`` and ``CyclicLR`` step after
    each step. A task with a single optimizer may return its schedule without the name.

    Raises:
        InputError: It is no schedule, or one of another optimizer.
    """
    if not isinstance(given, Mapping):
        given = dict.fromkeys(optimizers, given) if len(optimizers) == 1 or given is None else {"": given}
    made = {}
    for name, schedule in given.items():
        if isinstance(schedule, LRScheduler):
            schedule = Schedule(schedule, "step" if isinstance(schedule, (OneCycleLR, CyclicLR)) else "epoch")
        if schedule is None:
            continue
        known = ", ".join(optimizers)
        require(name in optimizers, f"schedules are for optimizers by name, for {known}: there is no {name!r}")
        message = f"a schedule is a Schedule or a PyTorch scheduler, not {kind_of(schedule)}"
        require(isinstance(schedule, Schedule), message)
        optimizer = getattr(schedule.scheduler, "optimizer", optimizers[name])
        require(optimizer is optimizers[name], f"the schedule of {name!r} changes another optimizer's learning rate")
        made[name] = schedule
    return made


def horizon(scheduler: Any) -> int:
    """Return the steps after which a scheduler of PyTorch's has had its last change or half a period; 0 if unknown."""
    parts = [horizon(part) for part in getattr(scheduler, "_schedulers", ())]
    milestones = [*(getattr(scheduler, "milestones", ()) or getattr(scheduler, "_milestones", ()))]
    if parts and milestones:  # one after the other
        parts = [milestones[-1] + parts[-1]]
    names = ("T_max", "T_0", "total_iters", "total_steps", "total_size", "step_size")
    counts = [value for value in (getattr(scheduler, name, 0) for name in names) if isinstance(value, (int, float))]
    return int(max([0, *milestones, *parts, *counts]))


def cut_schedules(schedules: Mapping[str, Schedule], epochs: int) -> str:
    """Return a sentence on schedules that step once per epoch, but count further than ``epochs``; "" if none does."""
    counts = {name: horizon(s.scheduler) for name, s in schedules.items() if s.every == "epoch" and s.monitor is None}
    found = [f"the schedule of {name!r} counts to {count:,}" for name, count in counts.items() if count > epochs]
    advice = 'if it counts steps, return torchdl.tasks.Schedule(scheduler, "step")'
    return f"{' and '.join(found)}, but it steps once per epoch, and there are {epochs:,}: {advice}" if found else ""


SCHEDULES: dict[str, Callable[[Optimizer, int], AnySchedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "one_cycle": one_cycle,
}


def find_schedule(name: str) -> Callable[[Optimizer, int], AnySchedule]:
    """Return a schedule of :data:`SCHEDULES`; raise :class:`InputError` if the name is unknown."""
    require(name in SCHEDULES, f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
