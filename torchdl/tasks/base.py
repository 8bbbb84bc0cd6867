"""The interface between the trainer and what it trains: a model, its losses and its optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torchdl.callbacks import Callback
from torchdl.errors import InputError, kind_of
from torchdl.fast.graphs import compiled
from torchdl.tasks.schedules import AnySchedule


def describe_batch(batch: Any) -> str:
    """Return in words what a batch is, for a message."""
    if isinstance(batch, Mapping):
        return f"a dictionary of {', '.join(map(str, batch))}"
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)}"
    if isinstance(batch, (tuple, list)):
        return f"{len(batch)} parts"
    return kind_of(batch)


def unsuitable(batch: Any, needs: str, advice: str) -> InputError:
    """Return the error that a batch is not what a task ``needs``, with an ``advice``; a loader gets one of its own."""
    if hasattr(batch, "batch_size"):
        advice = "measure all of a loader's batches by torchdl.Trainer().evaluate(task, loader)"
    return InputError(f"{needs}, not {describe_batch(batch)}: {advice}")


def missing(task: Task, method: str, advice: str) -> InputError:
    """Return the error that a task lacks a method."""
    return InputError(f"{type(task).__name__} does not define {method}: {advice}")


def as_numbers(name: str, value: Any, device: torch.device | str | None = None) -> Tensor:
    """Return a metric's value as a tensor, on the device where it is if None is given; ``name`` is for messages."""
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the metric {name!r} must be made of numbers, not {kind_of(value)}") from error


def inputs_of(task: nn.Module, batch: Any) -> Tensor:
    """Return a batch's inputs (B, ...), which are floats: the batch itself, or the first part of a tuple."""
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    name = type(task).__name__
    if not isinstance(inputs, Tensor):  # this runs at every step, so sentences are made only for errors
        needs = f"{name} needs batches that are tensors, or tuples that begin with one"
        raise unsuitable(batch, needs, "let the data set return these")
    if not inputs.is_floating_point():
        raise InputError(f"{name} needs images of decimals, not {inputs.dtype}: scale them, as an ImageDataset does")
    return inputs


@dataclass
class Update:
    """One optimizer's loss on one batch, yielded by :meth:`Task.losses`.

    Args:
        optimizer: The optimizer's name in :meth:`Task.configure_optimizers`.
        loss: A 0-d tensor, the mean over the batch's examples.
        metrics: Other values to log, 0-d tensors without a gradient.

    Example:
        >>> task = torchdl.Supervised(torch.nn.Identity(), torch.nn.functional.mse_loss)
        >>> next(task.losses((torch.zeros(4, 1), torch.ones(4, 1))))
        Update(optimizer='model', loss=tensor(1.), metrics={})
    """

    optimizer: str
    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Tensor) or self.loss.numel() != 1:
            given = describe_batch(self.loss)
            raise InputError(f"the loss of the optimizer {self.optimizer!r} must be one number, not {given}")


def updates_of(task: Task, batch: Any) -> Iterator[Update]:
    """Yield a batch's updates; raise :class:`InputError` if the task yields or returns something else."""
    updates: Any = task.losses(batch)
    if isinstance(updates, Tensor) or not isinstance(updates, Iterable):
        raise InputError(f"losses must yield Update(optimizer, loss), not return {describe_batch(updates)}")
    for update in updates:
        if not isinstance(update, Update):
            raise InputError(f"losses must yield Update(optimizer, loss), not {describe_batch(update)}")
        yield update


class StepInfo(NamedTuple):
    """The position in training; a task derives its random draws from it, so a resumed run draws the same numbers.

    Attributes:
        seed: The trainer's seed.
        epoch: The epoch, counted from 0.
        step: The number of steps done so far.
        start: The position of the batch's first example in the epoch's order, over all processes.
    """

    seed: int = 0
    epoch: int = 0
    step: int = 0
    start: int = 0


class Task(nn.Module):
    """The base class of all tasks; models are its submodules, so that it is moved and saved as one module.

    The trainer does everything mechanical: device, precision, backward, averaging across processes, clipping, steps,
    schedules, logging and checkpoints. It sets :attr:`step_info` before every batch.

    Example:
        >>> class Mean(torchdl.Task):  # learns the mean of numbers
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.value = torch.nn.Parameter(torch.zeros(()))
        ...     def configure_optimizers(self):
        ...         return {"value": torch.optim.SGD(self.parameters(), lr=0.5)}
        ...     def losses(self, batch):
        ...         yield torchdl.Update("value", (batch - self.value).square().mean())
        >>> task = Mean()
        >>> history = torchdl.Trainer(epochs=1).fit(task, torchdl.BatchLoader([1.0, 3.0], batch_size=2))
        >>> history[0]["train/loss"]
        5.0
        >>> task.value.item()
        2.0
    """

    step_info = StepInfo()

    @property
    def trained(self) -> nn.Module:
        """The model to save and use after training; by default the attribute ``model``."""
        return self.model  # type: ignore[return-value]  # most tasks have this attribute

    def configure_optimizers(self) -> dict[str, Optimizer]:
        """Build the optimizers, by name; the trainer calls this once the task is on its device.

        A task may freeze and unfreeze parameters during training, by their ``requires_grad``. Do so in :meth:`losses`
        by :attr:`step_info`, so that a resumed run does the same. A group that is added later gets trained, too, but
        such a run cannot be resumed. A task that does not define this raises :class:`InputError`.
        """
        raise missing(self, "configure_optimizers(self)", "let it return the optimizers by name")

    def configure_schedules(
        self, optimizers: dict[str, Optimizer], steps: int
    ) -> Mapping[str, AnySchedule] | AnySchedule:
        """Build learning-rate schedules for ``optimizers``, by name, for ``steps`` steps in total; none by default.

        Each is a :class:`torchdl.tasks.Schedule` or a scheduler of ``torch.optim.lr_scheduler``. A scheduler steps
        after each epoch, but ``OneCycleLR`` and ``CyclicLR`` after each step; ``ReduceLROnPlateau`` follows
        ``val/loss``. One that counts ``steps`` needs ``Schedule(scheduler, "step")``; the trainer warns of one that
        counts further than there are epochs.
        """
        return {}

    def configure_callbacks(self) -> Sequence[Callback]:
        """Return callbacks that belong to the task; none by default."""
        return ()

    def losses(self, batch: Any) -> Iterator[Update]:
        """Yield the batch's updates; the trainer applies each before it asks for the next.

        The trainer enters its context (autocast, for example) anew for each update, so never yield inside a ``with``.
        A batch without an update is skipped: a step's gradient is the mean over the examples of its other batches. All
        batches of a step must yield the same optimizers in the same order. A task that does not define this raises
        :class:`InputError`.
        """
        raise missing(self, "losses(self, batch)", "let it yield Update(optimizer, loss)")

    def evaluate(self, batch: Any) -> Mapping[str, Tensor | tuple[Tensor, Tensor]]:
        """Return the metrics of a validation batch by name, one value per example, (B,), so that means are exact.

        If only some examples have a metric, return a pair of values and weights, (B,) each. A task that does not define
        this raises :class:`InputError` if there are validation data.
        """
        raise missing(self, "evaluate(self, batch)", "let it return metrics by name, or train without validation data")

    def summarize(self) -> Mapping[str, float]:
        """Return metrics that are not means over examples, at the end of every evaluation; none by default.

        A name without a slash gets the prefix ``val/``.
        """
        return {}

    def warnings(self, measured: Mapping[str, float]) -> list[str]:
        """Return a sentence for each problem in an epoch's metrics, such as ``val/loss``; none by default.

        The trainer logs the sentences, and prints them if it is verbose. It also asks within an epoch, whenever it logs
        training metrics: then there are no validation metrics, and a sentence that it has had is not repeated.
        """
        return []

    def preview(self) -> dict[str, Tensor]:
        """Return images by tag, made from fixed inputs so that epochs can be compared; none by default.

        They are (N, C, H, W) in [0, 1], or (R, N, C, H, W) for R rows of N images.
        """
        return {}

    def compile_modules(self) -> None:
        """Compile the task's modules with ``torch.compile``; on a GPU into CUDA graphs (:mod:`torchdl.fast.graphs`)."""
        for module in self.children():
            parameter = next(module.parameters(), None)
            device = torch.device("cpu") if parameter is None else parameter.device
            module._compiled_call_impl = compiled(module._call_impl, device)  # what module.compile() does

    def positions(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the positions (B,) of a batch's examples in the epoch; derive their random draws from these.

        ``batch_size`` is B, and ``device`` that of the result.
        """
        return torch.arange(self.step_info.start, self.step_info.start + batch_size, device=device)
