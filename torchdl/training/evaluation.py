"""The means of a task's metrics over validation data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from torchdl import random
from torchdl.collective import counting
from torchdl.data.loader import BatchLoader
from torchdl.errors import InputError, require
from torchdl.tasks import StepInfo, Task
from torchdl.tasks.base import as_numbers, describe_batch
from torchdl.training.device import move
from torchdl.training.pytorch_loader import PyTorchLoader
from torchdl.training.state import Sums


@torch.no_grad()
def evaluate(
    task: Task,
    loader: BatchLoader | PyTorchLoader,
    device: torch.device,
    region: Callable[[], AbstractContextManager[Any]],
    step_info: StepInfo = StepInfo(),  # noqa: B008  # immutable
    batches: int | None = None,
    missing: float | None = None,
) -> dict[str, float]:
    """Return the means of the task's metrics, by name (``val/loss``), and its :meth:`Task.summarize`.

    The means are exact over all examples and processes. PyTorch's global generators are seeded for the evaluation and
    restored after it.

    Args:
        task: The task, on ``device``; it stays in evaluation mode.
        loader: The validation batches.
        device: The device to evaluate on.
        region: Opens a context for a forward pass.
        step_info: The position in training, for the task's random draws.
        batches: The maximum number of batches; all if None.
        missing: The value of a metric that no example has; None to leave it out.

    Raises:
        InputError: ``summarize`` returns a metric that is measured already.
    """
    task.eval()
    totals = Sums()
    with random.seeded(device, step_info.seed, step_info.step, loader.rank):
        sums: dict[str, tuple[Tensor, Tensor]] = {}  # of values and weights, on their device
        for batch, batch_range in islice(loader.batches(0, stream=random.Stream.EVALUATION_DATA), batches):
            task.step_info = step_info._replace(start=batch_range.start)
            with region(), counting(batch_range.size):
                values = task.evaluate(move(batch, device))
            if not isinstance(values, Mapping):
                given = describe_batch(values)
                raise InputError(f"{type(task).__name__}.evaluate must return metrics by name, not {given}")
            for name, value in values.items():  # one per example, so that a smaller last batch has its correct weight
                value, weight = one_per_example(name, value, max(batch_range.size, 1), device)
                total, weights = sums.get(name, (0, 0))
                value, weight = value[: batch_range.size], weight[: batch_range.size]
                sums[name] = (total + (value * weight).sum(), weights + weight.sum())
        for name, (total, weights) in sums.items():
            totals[f"val/{name}"] = [float(total), float(weights)]
        summary = {name if "/" in name else f"val/{name}": float(value) for name, value in task.summarize().items()}
    means = totals.means()
    twice = ", ".join(means.keys() & summary.keys())
    require(not twice, f"{type(task).__name__}.summarize returns {twice}, as evaluate does: give it another name")
    absent = {} if missing is None else {name: missing for name in totals if name not in means}
    return means | absent | summary


def one_per_example(name: str, measured: Any, examples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a metric's values and weights (B,) as floats."""
    wide = torch.float32 if device.type == "mps" else torch.float64
    value, weight = measured if isinstance(measured, tuple) else (measured, torch.ones(examples, device=device))
    value, weight = (as_numbers(name, each, device).to(wide) for each in (value, weight))
    for found, numbers in (("metric", value), ("weights of the metric", weight)):
        single = f"must be one number per example, ({examples},), whose mean the trainer takes"
        require(numbers.shape == (examples,), f"the {found} {name!r} {single}: not {tuple(numbers.shape)}")
    return value, weight
