"""Supervised learning: classification, regression and forecasting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl.errors import require
from torchdl.tasks.base import Task, Update
from torchdl.tasks.optimizers import make_optimizer
from torchdl.tasks.schedules import AnySchedule, build_schedules

Loss = Callable[..., Tensor]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Return 1.0 for each example whose largest logit (B, C) is that of its class (B,), else 0.0; (B,)."""
    return (output.argmax(dim=-1) == target).float()


def binary_accuracy(logit: Tensor, label: Tensor) -> Tensor:
    """Return 1.0 for each example whose logit (B, 1) is positive exactly if its label (B, 1) is 1, else 0.0; (B,)."""
    return ((logit > 0) == (label > 0.5)).float()[:, 0]


def logits_for(classes: int) -> int:
    """Return the number of outputs for a number of classes: 1 for two classes, or for regression (no classes)."""
    return classes if classes > 2 else 1


def loss_for(classes: int) -> tuple[Loss, Callable[[Tensor, Tensor], Tensor]]:
    """Return the loss function and the accuracy function for a number of classes."""
    return (F.binary_cross_entropy_with_logits, binary_accuracy) if classes == 2 else (F.cross_entropy, accuracy)


def class_probabilities(logits: Tensor) -> Tensor:
    """Return the class probabilities (B, K) of logits (B, K); of a single logit (B, 1), those of two classes (B, 2)."""
    # 1 - p would round to 0 for p near 1
    return torch.cat([(-logits).sigmoid(), logits.sigmoid()], 1) if logits.shape[1] == 1 else logits.softmax(1)


class Supervised(Task):
    """Train ``model(input)`` towards a target, on batches ``(input, target)``.

    Args:
        model: The model.
        loss: A function of (output, target) with PyTorch's ``reduction`` argument, such as ``F.cross_entropy``.
        metrics: Functions of (output, target), by name, that return one value per example, (B,).
        optimizer: Builds the optimizer from the parameters; Adam with learning rate 1e-3 by default.
        schedule: Builds the schedule from the optimizer and the number of steps, as for
            :meth:`Task.configure_schedules`; none by default.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from torchdl.tasks import accuracy
        >>> task = torchdl.Supervised(torchdl.MLP(4, 3), cross_entropy, metrics={"accuracy": accuracy})
        >>> measured = task.evaluate((torch.zeros(2, 4), torch.tensor([0, 1])))
        >>> measured["loss"].detach(), measured["accuracy"]  # all logits are 0: the loss is log 3
        (tensor([1.0986, 1.0986]), tensor([1., 0.]))
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] | None = None,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
        schedule: Callable[[Optimizer, int], AnySchedule] | None = None,
    ) -> None:
        super().__init__()
        require("loss" not in (metrics or {}), "the metric 'loss' is the loss itself: give yours another name")
        self.model, self.loss, self.metrics = model, loss, dict(metrics or {})
        self.optimizer, self.schedule = optimizer or partial(make_optimizer, "adam", lr=1e-3), schedule

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build one optimizer, named ``model``."""
        return {"model": self.optimizer(self.model.parameters())}

    def configure_schedules(self, optimizers: dict[str, Optimizer], steps: int) -> dict[str, AnySchedule]:
        """Build the optimizer's schedule, if any."""
        return build_schedules(self.schedule, optimizers, steps)

    def losses(self, batch: tuple[Tensor, Tensor]) -> Iterator[Update]:
        """Yield the update of the model, with the means of the metrics."""
        inputs, target = batch
        output = self.model(inputs)
        measured = {name: metric(output.detach(), target).mean() for name, metric in self.metrics.items()}
        yield Update("model", self.loss(output, target), measured)

    def evaluate(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return each example's loss and metrics, (B,) each."""
        inputs, target = batch
        output = self.model(inputs)
        loss = self.loss(output, target, reduction="none")
        return {
            "loss": loss.flatten(1).mean(1) if loss.dim() > 1 else loss,  # (B, ...) -> (B,)
            **{name: metric(output, target) for name, metric in self.metrics.items()},
        }
