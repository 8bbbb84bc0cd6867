"""Initial weights by other libraries' conventions."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def keras_init_(module: ModuleT) -> ModuleT:
    """Draw the weights of linear and convolutional layers as Keras does: Glorot-uniform kernels, zero biases, in place.

    PyTorch's own default is Kaiming-uniform with slope sqrt(5), for kernels and biases.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
