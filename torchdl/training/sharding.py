"""Training of models that do not fit: PyTorch's FSDP2 shares parameters, gradients and optimizers' states out.

Each process keeps its part of every tensor. A layer's parameters are whole only while the layer computes. Gradients are
summed as in :mod:`torchdl.training.distributed`, so the training is the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from torchdl.collective import is_main_process, rank_and_size
from torchdl.errors import require

LISTS = nn.ModuleList, nn.ModuleDict  # which do not compute themselves


def share_out(task: nn.Module, optimizers: Collection[Optimizer], device: torch.device) -> None:
    """Leave each process its part of the networks of ``task``, on ``device``, and of what their optimizers hold.

    A unit's parameters are whole at the same time: those of a layer, or what is left of a network.
    """
    mesh = init_device_mesh(device.type, (rank_and_size()[1],))
    names = {parameter: name for name, parameter in task.named_parameters()}
    tied = sum(1 for _ in task.named_parameters(remove_duplicate=False)) > len(names)
    require(not tied, "PyTorch's FSDP2 shares out no weights that two layers have in common: train without shard")
    given = {parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]}
    require(given <= names.keys(), "an optimizer has parameters that are not the task's: shard shares out a task alone")
    own = ", ".join(name for name, _ in task.named_parameters(recurse=False))
    require(not own, f"shard shares out networks, and {own} is the task's own: give it to a module that uses it")
    for network in task.children():
        network.to(device) if is_empty(network) else share_network(network, mesh)
    for name, buffer in task.named_buffers(recurse=False):
        setattr(task, name, buffer.to(device))
    shared = dict(task.named_parameters())
    for optimizer in optimizers:
        whole, optimizer.state = optimizer.state, type(optimizer.state)(optimizer.state.default_factory)
        for group in optimizer.param_groups:
            for number, parameter in enumerate(group["params"]):
                group["params"][number] = shared[names[parameter]]
                if parameter in whole:
                    values = {key: part_of(value, parameter, mesh) for key, value in whole[parameter].items()}
                    optimizer.state[shared[names[parameter]]] = values


def units_of(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a network: its children, and those of its containers instead of these."""
    for child in network.children():
        yield from units_of(child) if isinstance(child, (nn.Sequential, *LISTS)) else (child,)


def is_empty(module: nn.Module) -> bool:
    """Return whether a module has no parameters."""
    return next(module.parameters(), None) is None


def share_network(network: nn.Module, mesh: DeviceMesh) -> None:
    """Share out the parameters of a network, layer by layer, and what is left of it."""
    kind = type(network)
    methods = [name for name in dir(kind) if not (hasattr(nn.Module, name) or name.startswith("_"))]
    for unit in (*units_of(network), network):
        if not (is_empty(unit) or isinstance(unit, LISTS)):
            fully_shard(unit, mesh=mesh)
            assert isinstance(unit, FSDPModule)
            unit.set_gradient_divide_factor(1.0)  # the sum: each process's loss has its weight already
            unit.set_force_sum_reduction_for_comms(True)  # as gloo knows no other
    for name in methods:
        if callable(getattr(kind, name)):
            register_fsdp_forward_method(network, name)  # a task may call others than forward


def part_of(value: Any, parameter: Tensor, mesh: DeviceMesh) -> Any:
    """Return this process's part of what an optimizer holds of a parameter, if it has the parameter's shape."""
    alike = isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0
    return distribute_tensor(value.to(mesh.device_type), mesh, [Shard(0)]) if alike else value


def gathered(state: Any, everywhere: bool) -> Any:
    """Return a state with whole tensors, on the CPU of process 0 or of all; all processes must call this."""
    keeps = everywhere or is_main_process()

    def whole(part: Tensor) -> Tensor | None:
        tensor = part.full_tensor()  # type: ignore[attr-defined]
        return tensor.cpu() if keeps else None

    return tree_map_only(DTensor, whole, state)


def parts_of(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with this process's part of each whole tensor of which it keeps a part in its ``own`` state."""
    found = dict(state)
    for name, mine in own.items():
        if isinstance(mine, DTensor) and name in found and not isinstance(found[name], DTensor):
            mesh = mine.device_mesh
            found[name] = distribute_tensor(found[name].to(mesh.device_type), mesh, mine.placements)
    return found
