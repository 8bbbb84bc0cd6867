"""Activation functions by name: the course's (lecture 20) and other common ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from torchdl.errors import require


class BionodalRootUnit(nn.Module):
    """The bionodal root unit, fitted to the firing rates of neurons (Bhumbra 2018, arXiv 1804.11237).

    It is ``(r^2 z + 1)^(1/r) - 1/r`` for z >= 0 and ``exp(r z) - 1/r`` for z < 0. It is above -1/r. Its derivative is
    continuous, and is r at 0. With r = 1 it is ELU; with r = 2 it grows like a square root.

    Args:
        r: At least 1.

    Raises:
        InputError: ``r`` is less than 1.

    Example:
        >>> torchdl.BionodalRootUnit()(torch.tensor([-100.0, 0.0, 2.0, 6.0]))
        tensor([-0.5000,  0.5000,  2.5000,  4.5000])
        >>> z = torch.linspace(-3, 3, 7)
        >>> torchdl.BionodalRootUnit(r=1)(z).allclose(torch.nn.functional.elu(z))
        True
    """

    def __init__(self, r: float = 2.0) -> None:
        super().__init__()
        require(1 <= r < math.inf, f"BionodalRootUnit: r must be 1 or more, not {r}")
        self.r = r

    def forward(self, z: Tensor) -> Tensor:
        """Return f(z), of the shape of ``z``."""
        r, positive = self.r, z >= 0
        # each branch gets only its own inputs: for others its gradient may be infinite, which would make the sum NaN
        root = (r * r * torch.where(positive, z, 0) + 1).pow(1 / r)
        return torch.where(positive, root, torch.exp(r * torch.where(positive, 0, z))) - 1 / r


class Sine(nn.Module):
    """sin z. It is periodic, so networks of sines can extrapolate beyond their data (Sitzmann et al. 2020)."""

    def forward(self, z: Tensor) -> Tensor:
        """Return sin z, of the shape of ``z``."""
        return z.sin()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "bru": BionodalRootUnit,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sine": Sine,
}
