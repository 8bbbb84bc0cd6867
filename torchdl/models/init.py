"""Initial weights as in other libraries."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def keras_init_(module: ModuleT) -> ModuleT:
    """Draw the weights of a module's linear, convolutional and recurrent layers as Keras does, in place.

    Kernels are Glorot-uniform, recurrent kernels are orthogonal, and biases are 0 (1 in an LSTM's forget gate).
    PyTorch's default is Kaiming-uniform with slope sqrt(5) for kernels, and uniform for biases and recurrent layers.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.RNNBase):
            for name, weight in layer.named_parameters():
                if name.startswith("weight_ih"):
                    nn.init.xavier_uniform_(weight)  # for all gates at once, as in Keras
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(weight)
                else:
                    nn.init.zeros_(weight)
                    if layer.mode == "LSTM" and name.startswith("bias_ih"):
                        with torch.no_grad():
                            weight[layer.hidden_size : 2 * layer.hidden_size] = 1  # gates: input, forget, cell, output
    return module


@torch.no_grad()
def spread_(embedding: nn.Embedding, spread: float) -> nn.Embedding:
    """Draw the vectors of an embedding uniformly from [-spread, spread], in place; vector 0 becomes zero."""
    embedding.weight.uniform_(-spread, spread)
    embedding.weight[0] = 0
    return embedding
