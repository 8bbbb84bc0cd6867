"""Operations over several processes, with gradients; in a single process they return their inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; before they join, those that ``torchrun`` has set."""
    if dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this is process 0, the only one that writes and prints."""
    return rank_and_size()[0] == 0


def have_joined() -> bool:
    """Return whether several processes have joined, so that they can exchange tensors."""
    return dist.is_initialized() and dist.get_world_size() > 1


_counts = ContextVar("this process's rows count", default=True)


def rows_count() -> bool:
    """Return whether this process's rows are part of the global batch; see :func:`counting`."""
    return _counts.get()


def counting(rows: int) -> AbstractContextManager[None]:
    """Run a forward pass of ``rows`` examples of this process.

    If a batch has fewer examples than there are processes, some have none: 0 rows. They run the pass with an example
    of another process, because all must take part in each sum, but that example is left out of every sum.
    """
    return nullcontext() if rows else _uncounted()


@contextmanager
def _uncounted() -> Iterator[None]:
    token = _counts.set(False)
    try:
        yield
    finally:
        _counts.reset(token)


class _Sum(torch.autograd.Function):
    """An all-reduce whose gradient is the all-reduce of the gradients."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all processes (same shape on each); its gradient is the sum of their gradients."""
    return _Sum.apply(x) if have_joined() else x


def gather(*tensors: Tensor) -> tuple[list[Tensor], int]:
    """Concatenate the rows of all processes.

    A loss of the result sends gradients back to all processes. If every process computes the same loss of all rows,
    the *mean* of their gradients equals the gradient of a single process that has all rows.

    Args:
        tensors: This process's rows, (B, ...) each; B may differ between processes. They are left out where they do not
            count (see :func:`counting`).

    Returns:
        The rows of all processes, (N, ...) each, and the index of this process's first row.
    """
    if not have_joined():
        return list(tensors), 0
    rank, size = rank_and_size()
    tensors = tensors if rows_count() else tuple(x[:0] for x in tensors)
    counts = torch.zeros(size, dtype=torch.int64, device=tensors[0].device)
    counts[rank] = len(tensors[0])
    dist.all_reduce(counts)
    before, after = (int(part.sum()) for part in (counts[:rank], counts[rank + 1 :]))  # waits for the device
    padded = (torch.cat([x.new_zeros(before, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])]) for x in tensors)
    return [sum_over_processes(x) for x in padded], before
