"""Training settings of a network with one loss and one optimizer, and the task built from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from torchdl.data.loader import BatchLoader
from torchdl.errors import require
from torchdl.field_docs import with_field_docs
from torchdl.tasks import OptimizerName, ScheduleName, Supervised, Task, find_schedule, make_optimizer
from torchdl.tasks.supervised import Loss


class Training(NamedTuple):
    """A task and its batches, ``train`` and ``validation``: the arguments of :meth:`torchdl.Trainer.fit`."""

    task: Task
    train: BatchLoader
    validation: BatchLoader


@with_field_docs
@dataclass(frozen=True)
class Learning:
    """How a network learns."""

    batch_size: int = 32
    """Examples per step and process."""
    lr: float = 1e-3
    """The learning rate; with a schedule, its maximum."""
    schedule: ScheduleName = "constant"
    """The learning rate over time: constant; cosine or linear to 0; one_cycle, which rises during the first quarter."""
    optimizer: OptimizerName = "adam"
    """The name of the optimizer."""
    weight_decay: float = 0.0
    """Weight decay of kernels: decoupled (scaled by the learning rate) with adamw, an L2 penalty with all others."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}")
        find_schedule(self.schedule)

    def task(
        self, model: nn.Module, loss: Loss, metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None
    ) -> Supervised:
        """Build the task that trains ``model`` with these settings.

        ``loss`` and ``metrics`` are as for :class:`torchdl.Supervised`.
        """
        optimizer = partial(make_optimizer, self.optimizer, lr=self.lr, weight_decay=self.weight_decay)
        return Supervised(model, loss, metrics, optimizer, find_schedule(self.schedule))
