"""What the trainer can run: a model, its losses and its optimizers, one update at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl.tasks.schedules import Schedule


@dataclass
class Update:
    """One optimizer's loss on one batch, yielded by :meth:`Task.losses`.

    Args:
        optimizer: The optimizer's name in :meth:`Task.configure_optimizers`.
        loss: A 0-d tensor, the mean over the batch's examples.
        metrics: What else to log, 0-d tensors without a gradient.

    Example:
        >>> task = torchdl.Supervised(torch.nn.Identity(), torch.nn.functional.mse_loss)
        >>> next(task.losses((torch.zeros(4, 1), torch.ones(4, 1))))
        Update(optimizer='model', loss=tensor(1.), metrics={})
    """

    optimizer: str
    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class StepInfo(NamedTuple):
    """Where training stands: a task keys its random draws with it, so that they are the same after a resume.

    ``start`` is the first example's position in the epoch's order over all processes; ``step`` counts the steps done.
    """

    seed: int = 0
    epoch: int = 0
    step: int = 0
    start: int = 0


class Task(nn.Module):
    """The base of all tasks; its modules are submodules, so that it moves and saves as one.

    The trainer owns everything mechanical: device, precision, backward, averaging across processes, clipping, steps,
    schedules, logging and checkpoints. It sets :attr:`step_info` before every batch.

    Example:
        >>> class Mean(torchdl.Task):  # learns the mean of the numbers it sees
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.value = torch.nn.Parameter(torch.zeros(()))
        ...     def configure_optimizers(self):
        ...         return {"value": torch.optim.SGD(self.parameters(), lr=0.5)}
        ...     def losses(self, batch):
        ...         yield torchdl.Update("value", (batch - self.value).square().mean())
        >>> task = Mean()
        >>> history = torchdl.Trainer(epochs=1).fit(task, torchdl.BatchLoader([1.0, 3.0], batch_size=2))
        epoch 1  step 1  loss 5
        >>> task.value.item()
        2.0
    """

    step_info = StepInfo()

    @property
    def trained(self) -> nn.Module:
        """The model that training leaves, to be saved and used: the attribute ``model`` by default."""
        return self.model  # type: ignore[return-value]  # which most tasks have

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build the optimizers by name; called once the task is on its device."""
        raise NotImplementedError(f"{type(self).__name__} does not say its optimizers")

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, Schedule]:
        """Build the schedules by name, for training of ``steps`` updates in all; none by default."""
        return {}

    def losses(self, batch: Any) -> Iterator[Update]:
        """Yield the batch's updates in turn; each is applied before the next one's loss is computed.

        The trainer runs each part in a region of its own (of autocast, say), so never yield inside a ``with``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its losses")

    def evaluate(self, batch: Any) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        """Give the metrics of a held-out batch, one value an example (B,), so that means over a set are exact.

        A metric that only some examples have is a pair of values and weights, (B,) both.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is evaluated")

    def summarize(self) -> Mapping[str, float]:
        """Return the metrics that no example has alone, once at the end of every evaluation; none by default.

        A name without a slash is one of the validation data, and gets the prefix ``val/``.
        """
        return {}

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Return a sentence for everything that looks wrong in an epoch's metrics (``val/loss``); none by default.

        The trainer logs them, and prints them where it prints.
        """
        return []

    def preview(self) -> dict[str, Tensor]:
        """Give images by tag, from fixed inputs, to look at over time; none by default.

        They are (N, C, H, W) in [0, 1], or (R, N, C, H, W) for R rows of N.
        """
        return {}

    def compile_modules(self) -> None:
        """Compile the task's modules with ``torch.compile``."""
        for module in self.children():
            module.compile()

    def positions(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the positions (B,) of a batch's examples in the epoch: what to key one draw an example by."""
        return torch.arange(self.step_info.start, self.step_info.start + batch_size, device=device)
