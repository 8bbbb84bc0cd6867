"""Data-parallel training: several processes with equal parameters, each with its share of every batch.

Losses and gradients equal those of one process with the whole batch. ``torchrun`` starts the processes; with one
process the functions here change nothing.

PyTorch's own engines do the rest: process groups exchange tensors, and FSDP2 shares large models out
(:mod:`torchdl.training.sharding`). What they cannot do is here:

- :func:`sum_gradients` instead of ``DistributedDataParallel``, which waits for ever for a process that skips an update,
  gives the generator's loss gradients to the discriminator, and keeps to the parameters that needed gradients at first.
- Shares of a batch as weights (:func:`torchdl.collective.counting`) instead of ``Join``, which counts a process's mean
  of one example as much as another's of eight, and knows no exchange within the forward pass, as batch norm and InfoNCE
  need it.
- :func:`synchronize_batch_norm` instead of ``SyncBatchNorm``, which works on GPUs only, replaces the modules, and has
  no weight for the rows of a process that has none.
"""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm

from torchdl.collective import have_joined, rank_and_size, rows_count, sum_over_processes
from torchdl.errors import InputError, require

T = TypeVar("T")

BACKENDS = {"cpu": "gloo", "mps": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
LARGE = 2**18  # numbers of a gradient that is a message of its own
ONE_VALUE = "more than 1 value per channel"  # in PyTorch's message, too
_is_ours = False  # whether this module has started the process group


def start(device: torch.device) -> None:
    """Join the other processes if ``torchrun`` started this one; use gloo on CPUs and nccl on GPUs.

    A process group that somebody else has started is used as it is.

    Raises:
        InputError: The processes cannot join, or the group cannot exchange tensors on ``device``.
    """
    global _is_ours
    size, backend = rank_and_size()[1], BACKENDS[device.type]
    if size > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        try:
            store, rank, size = next(rendezvous("env://"))
            # torchrun may keep the store of processes that it restarts, with the addresses of those that are gone
            store = dist.PrefixStore(f"restart {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        except (ValueError, RuntimeError) as error:
            reason, advice = " ".join(str(error).split()), "start all by torchrun, or unset WORLD_SIZE to train in one"
            raise InputError(f"the {size} processes cannot join ({reason}): {advice}") from error
        _is_ours = True
        atexit.register(stop)  # else a thread of gloo may abort the process as it ends
    elif have_joined():
        config = str(dist.get_backend_config())
        require(
            f"{device.type}:" in config,
            f"the process group exchanges no tensors on {device.type}, with its backend {config}: start it with "
            f"the backend {backend!r}, or leave that to the trainer",
        )


def stop() -> None:
    """Leave the other processes, if :func:`start` has joined them."""
    global _is_ours
    if _is_ours and dist.is_initialized():
        dist.destroy_process_group()
    _is_ours = False


def unite(module: nn.Module) -> None:
    """Copy process 0's parameters and buffers to all processes, and synchronize the batch norms."""
    if have_joined():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
        synchronize_batch_norm(module)


def sum_gradients(parameters: Sequence[nn.Parameter], some_missing: bool = True) -> None:
    """Sum the gradients over all processes; each is weighted by its share of the global batch.

    Small ones travel in one message, large ones from where they lie. With gloo and two processes, forward and backward
    passes take 0.99 to 1.09 times as long with ``DistributedDataParallel`` (MLPs, LenetLike, ResNet-18; medians of 11
    turns, two cores of an AMD EPYC, torch 2.14).

    Args:
        parameters: The same on every process.
        some_missing: Whether a process may have no gradient of a parameter. A parameter without a gradient on any
            process keeps none, as in a single process.
    """
    if not have_joined():
        return
    if some_missing:  # all processes must send the same tensors
        present = total([float(p.grad is not None) for p in parameters])
        parameters = [p for p, count in zip(parameters, present, strict=True) if count]
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    gradients = [cast(Tensor, p.grad) for p in parameters]
    small = [gradient for gradient in gradients if gradient.numel() < LARGE]
    sent = [dist.all_reduce(gradient, async_op=True) for gradient in gradients if gradient.numel() >= LARGE]
    if small:
        flat = torch.cat([gradient.flatten() for gradient in small])
        dist.all_reduce(flat)
        for gradient, summed in zip(small, flat.split([gradient.numel() for gradient in small]), strict=True):
            gradient.copy_(summed.view_as(gradient))
    for message in sent:
        message.wait()


def total(values: list[float]) -> list[float]:
    """Return the sum of each value over all processes, in float64."""
    if not have_joined():
        return values
    device = "cpu" if "cpu:" in str(dist.get_backend_config()) else "cuda"
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()


def any_process(condition: bool) -> bool:
    """Return, on every process, whether the condition holds on any of them."""
    return total([float(condition)])[0] > 0


def of_first(value: T) -> T:
    """Return process 0's value, on every process; what it decides is then the same on all."""
    if have_joined():
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]
    return value


def of_all(value: T) -> list[T]:
    """Return the values of all processes, in their order, on every process."""
    if not have_joined():
        return [value]
    values: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def union(names: Iterable[str]) -> list[str]:
    """Return the names that any process has, in the same order on every process."""
    return list(dict.fromkeys(name for of_one in of_all(list(names)) for name in of_one))


@contextmanager
def sharing_errors() -> Iterator[None]:
    """Raise an error of one process on all of them, so that none waits for it forever.

    Every process must enter the block, and none may wait for another inside. It is enough that process 0 reports the
    error; see :func:`is_reported_elsewhere`.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if any_process(error is not None):
        # another kind of error may not survive the way to the other processes
        sent = error if error is None or isinstance(error, (InputError, OSError)) else InputError(repr(error))
        first = next(filter(None, of_all(sent)))
        error = error or first
        error.shared = have_joined()  # type: ignore[attr-defined]
        raise error


def is_reported_elsewhere(error: Exception) -> bool:
    """Return whether process 0 has the same error, by :func:`sharing_errors`, and this is another process."""
    return getattr(error, "shared", False) and rank_and_size()[0] > 0


def is_lost_peer(error: Exception) -> bool:
    """Return whether a collective operation failed because another process has ended."""
    return have_joined() and (isinstance(error, dist.DistError) or "by peer" in str(error))


ADVICE = {  # by what is in PyTorch's message
    ONE_VALUE: "batch norm cannot train on a batch with a single value for each channel: choose a larger batch_size, "
    "or drop_last=True if only the last batch is that small"
}
ADVICE_IF_SHARED = {
    "setStorage": "PyTorch's FSDP2 knows no derivatives of gradients, which the loss uses, as wgan_gp does: train "
    "without shard"
}


@contextmanager
def explaining_errors(shared_out: bool) -> Iterator[None]:
    """Turn PyTorch's errors about what it cannot train into an :class:`InputError`.

    Args:
        shared_out: Whether the model is shared out over the processes.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        known = {**ADVICE, **(ADVICE_IF_SHARED if shared_out else {})}
        advice = next((advice for words, advice in known.items() if words in str(error)), "")
        if not advice or isinstance(error, InputError):
            raise
        raise InputError(advice) from error


def _global_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Apply ``norm`` to ``x`` (B, C, ...) with the statistics of the batch over all processes."""
    if not norm.training and norm.running_mean is not None:
        return type(norm).forward(norm, x)
    dtype = x.dtype
    x = x.to(torch.promote_types(dtype, torch.float32))  # half precision is too coarse for sums over a batch
    axes = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    weight = float(rows_count())
    mine = x.numel() // x.shape[1]  # values per channel
    count = x.new_tensor([weight * mine])
    sums = sum_over_processes(torch.cat([count, weight * x.sum(axes)]))  # (1 + C,)
    n, mean = sums[0].detach(), sums[1:] / sums[0].detach()
    if mine * weight <= 1 and n <= 1:
        raise ValueError(f"Expected {ONE_VALUE} when training, got input size {x.size()}")
    centred = x - mean.view(shape)
    variance = sum_over_processes(weight * centred.square().sum(axes)) / n  # (C,)
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        momentum = norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
        norm.running_mean.lerp_(mean.detach(), momentum or 0.0)
        norm.running_var.lerp_(variance.detach() * n / (n - 1), momentum or 0.0)
    y = centred * torch.rsqrt(variance + norm.eps).view(shape)
    return (y if norm.weight is None else y * norm.weight.view(shape) + norm.bias.view(shape)).to(dtype)


def synchronize_batch_norm(module: nn.Module) -> None:
    """Make every batch norm in ``module`` use the statistics of the global batch, on any device.

    ``torch.nn.SyncBatchNorm`` works on GPUs only. This replaces only ``forward``: the modules, their classes and their
    names in the ``state_dict`` stay.
    """
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.forward = functools.partial(_global_batch_norm, child)  # type: ignore[method-assign]
