"""What the trainings with JAX have in common: the cores that they may use, and their loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch


def use_cores(count: int) -> None:
    """Keep this process on ``count`` cores, because JAX, unlike PyTorch, has no setting for its threads."""
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])
    os.environ["JAX_PLATFORMS"] = "cpu"


def training(step: Callable[..., Any], carried: Any, count: int, batch: int) -> Callable[[int], float]:
    """Return a function that trains on a number of examples, in random order, and returns the seconds.

    Args:
        step: Makes of what is ``carried``, the indices (B,) of a batch and its number what the next step carries, and
            the losses.
        carried: What the first step gets.
        count: The number of examples in the data.
        batch: B.
    """
    import jax

    def run(examples: int) -> float:
        nonlocal carried
        start = time.perf_counter()
        order = torch.randperm(count).repeat(-(-examples // count))[:examples].view(-1, batch).numpy()
        for number, index in enumerate(order):
            carried, *losses = step(carried, index, number)
            if number % 50 == 0:
                [float(loss) for loss in losses]
        jax.block_until_ready(carried)
        return time.perf_counter() - start

    return run
