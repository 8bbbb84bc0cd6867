"""Data-parallel training: several processes with equal parameters, each with its share of every batch.

Losses and gradients equal those of one process with the whole batch. ``torchrun`` starts the processes; with one
process the functions here change nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from torchdl.collective import have_joined, rank_and_size, sum_over_processes


def start(device: torch.device) -> None:
    """Join the other processes if ``torchrun`` started this one; use gloo on CPUs and nccl on GPUs."""
    if rank_and_size()[1] > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def unite(module: nn.Module) -> None:
    """Copy process 0's parameters and buffers to all processes, and synchronize the batch norms."""
    if have_joined():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), 0)
        synchronize_batch_norm(module)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Sum the gradients over all processes, in one message; each is weighted by its share of the global batch."""
    if have_joined():
        with_gradient = [p for p in parameters if p.requires_grad]
        for p in with_gradient:
            if p.grad is None:  # all processes must send the same tensors
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in with_gradient])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for p, total in zip(with_gradient, flat.split([p.numel() for p in with_gradient]), strict=True):
            p.grad.copy_(total.view_as(p))  # type: ignore[union-attr]


def total(values: list[float]) -> list[float]:
    """Return the sum of each value over all processes, in float64."""
    if not have_joined():
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return tensor.tolist()


def any_process(condition: bool) -> bool:
    """Return, on every process, whether the condition holds on any of them."""
    return total([float(condition)])[0] > 0


def _global_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Apply ``norm`` to ``x`` (B, C, ...) with the statistics of the batch over all processes."""
    if not norm.training:
        return type(norm).forward(norm, x)
    dtype = x.dtype
    x = x.to(torch.promote_types(dtype, torch.float32))  # half precision is too coarse for sums over a batch
    axes = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    count = x.new_tensor([x.numel() / x.shape[1]])
    sums = sum_over_processes(torch.cat([count, x.sum(axes)]))  # (1 + C,)
    n, mean = sums[0].detach(), sums[1:] / sums[0].detach()
    centred = x - mean.view(shape)
    variance = sum_over_processes(centred.square().sum(axes)) / n  # (C,)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.detach(), weight)
        norm.running_var.lerp_(variance.detach() * n / (n - 1), weight)
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
