"""The means of a task's metrics over validation data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from torchdl.collective import counting
from torchdl.data.loader import BatchLoader
from torchdl.errors import require
from torchdl.tasks import StepInfo, Task
from torchdl.training.device import move, seed_generators
from torchdl.training.state import Sums


@torch.no_grad()
def evaluate(
    task: Task,
    loader: BatchLoader,
    device: torch.device,
    region: Callable[[], AbstractContextManager[Any]],
    step_info: StepInfo = StepInfo(),  # noqa: B008  # immutable
    batches: int | None = None,
) -> dict[str, float]:
    """Return the means of the task's metrics, by name (``val/loss``), and its :meth:`Task.summarize`.

    The means are exact over all examples and processes.

    Args:
        task: The task, on ``device``; it stays in evaluation mode.
        loader: The validation batches.
        device: The device to evaluate on.
        region: Opens a context for a forward pass.
        step_info: The position in training, for the task's random draws.
        batches: The maximum number of batches; all if None.
    """
    task.eval()
    seed_generators(device, step_info.seed, step_info.step, loader.rank)
    totals: dict[str, tuple[Tensor, Tensor]] = {}  # of values and weights
    for batch, batch_range in islice(loader.batches(0), batches):
        task.step_info = step_info._replace(start=batch_range.start)
        with region(), counting(batch_range.size):
            values = task.evaluate(move(batch, device))
        for name, value in values.items():  # one per example, so that a smaller last batch has its correct weight
            value, weight = value if isinstance(value, tuple) else (value, torch.ones_like(value))
            require(
                value.dim() == 1 and len(value) == max(batch_range.size, 1) and value.shape == weight.shape,
                f"{type(task).__name__}.evaluate must return one value per example: {name!r} is {tuple(value.shape)}",
            )
            wide = torch.float32 if device.type == "mps" else torch.float64
            value, weight = (tensor[: batch_range.size].to(wide) for tensor in (value, weight))
            total, weights = totals.get(name, (0, 0))
            totals[name] = (total + (value * weight).sum(), weights + weight.sum())
    means = Sums({f"val/{name}": [float(total), float(weight)] for name, (total, weight) in totals.items()}).means()
    summary = {name if "/" in name else f"val/{name}": value for name, value in task.summarize().items()}
    twice = ", ".join(means.keys() & summary.keys())
    require(not twice, f"{type(task).__name__}.summarize returns {twice}, as evaluate does: give it another name")
    return means | summary
