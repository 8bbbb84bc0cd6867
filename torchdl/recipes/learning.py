"""How a network learns: the settings of tasks with one model, one loss and one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from torchdl.data.loader import BatchLoader
from torchdl.errors import require
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, Task, find_schedule, make_optimizer
from torchdl.tasks.supervised import Loss

OverridesT = TypeVar("OverridesT", bound="Overrides")


@dataclass(frozen=True)
class Overrides:
    """Settings in which None stands for a network's default."""

    def with_defaults(self: OverridesT, defaults: OverridesT) -> OverridesT:
        """Return these settings, with those that are None taken from ``defaults``."""
        return replace(defaults, **{key: value for key, value in asdict(self).items() if value is not None})


class Training(NamedTuple):
    """A task with its batches, as :meth:`torchdl.Trainer.fit` takes them."""

    task: Task
    train: BatchLoader
    validation: BatchLoader


@dataclass(frozen=True)
class Learning:
    """How a network learns."""

    batch_size: int = 32
    """Examples a step, on each process."""
    lr: float = 1e-3
    """The learning rate, the highest one with a schedule."""
    schedule: ScheduleName = "constant"
    """The learning rate's course: constant; cosine or linear, falling to 0; one_cycle, rising for a quarter first."""
    optimizer: OptimizerName = "adam"
    """The rule of updates."""
    weight_decay: float = 0.0
    """How much kernels shrink: with adamw times the learning rate, else in the gradient."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}")
        find_schedule(self.schedule)

    def task(
        self, model: nn.Module, loss: Loss, metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None
    ) -> Supervised:
        """Build the task of training ``model`` so."""
        optimizer = partial(make_optimizer, self.optimizer, lr=self.lr, weight_decay=self.weight_decay)
        return Supervised(model, loss, metrics, optimizer, find_schedule(self.schedule))
