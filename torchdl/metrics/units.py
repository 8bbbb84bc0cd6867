"""What the units of a network do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchdl.errors import require


@torch.no_grad()
def silent_units(model: nn.Module, inputs: Tensor, activations: tuple[type[nn.Module], ...]) -> float:
    """Return the share of units whose activation gets no positive number from any of the inputs.

    A ReLU gives 0 for all of them then, and its derivative is 0, too: the unit is dead, and no training on such
    inputs brings it back. A LeakyReLU's derivative is not 0, so it can come back.

    Args:
        model: The network.
        inputs: (N, ...), the more the better.
        activations: The classes of the activations to look at; their inputs are (N, units).
    """
    excited: list[Tensor] = []  # for each call of an activation

    def note(_module: nn.Module, before: tuple[Tensor, ...]) -> None:
        excited.append((before[0] > 0).any(0).flatten())  # (N, units) -> (units,)

    hooks = [m.register_forward_pre_hook(note) for m in model.modules() if isinstance(m, activations)]
    require(len(hooks) > 0, "the network has none of these activations")
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return 1 - float(torch.cat(excited).float().mean())
