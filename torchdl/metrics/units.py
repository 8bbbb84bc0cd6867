"""Metrics of a network's units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchdl.errors import require


@torch.no_grad()
def silent_units(model: nn.Module, inputs: Tensor, activations: tuple[type[nn.Module], ...]) -> float:
    """Return the share of units whose activation gets no positive number for any of the inputs.

    For all of them, a ReLU then returns 0 and has the derivative 0. The unit is dead: training on such inputs cannot
    revive it. A LeakyReLU's derivative is not 0, so the unit can recover.

    Args:
        model: The network.
        inputs: (N, ...), the more the better.
        activations: The classes of activations to examine; their inputs are (N, units).

    Raises:
        InputError: The network has none of the activations.
    """
    active: list[Tensor] = []  # one entry per call of an activation

    def record(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        active.append((arguments[0] > 0).any(0).flatten())  # (N, units) -> (units,)

    hooks = [m.register_forward_pre_hook(record) for m in model.modules() if isinstance(m, activations)]
    names = ", ".join(activation.__name__ for activation in activations)
    require(len(hooks) > 0, f"the network has none of these activations: {names}")
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return 1 - float(torch.cat(active).float().mean())
