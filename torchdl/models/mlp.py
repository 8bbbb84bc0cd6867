"""Multilayer perceptrons.

Shapes: B inputs, D numbers per input, K numbers per output.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.activations import ACTIVATIONS
from torchdl.models.arguments import plain_arguments, require_tensor
from torchdl.models.init import keras_init_


@plain_arguments
class MLP(nn.Module):
    """Map flattened inputs to outputs through hidden layers, each with an activation and dropout.

    The defaults are the course's classifier for MNIST (lecture 24), with 101,770 parameters.

    Args:
        in_features: D, numbers per input.
        out_features: K, numbers per output.
        hidden: Widths of the hidden layers.
        dropout: The probability of dropping a hidden unit while training.
        activation: One of :data:`torchdl.models.ACTIVATIONS`.

    Raises:
        InputError: A width is not positive, the activation is unknown, or the dropout is not in [0, 1).

    Example:
        >>> model = torchdl.MLP()
        >>> model(torch.zeros(5, 1, 28, 28)).shape, sum(p.numel() for p in model.parameters())
        (torch.Size([5, 10]), 101770)
        >>> torchdl.MLP(2, 1, hidden=(16, 16), activation="sine")(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        in_features: int = 784,
        out_features: int = 10,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.2,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        require(min(in_features, out_features, *hidden, 1) >= 1, "MLP: every width must be positive")
        require(0 <= dropout < 1, f"MLP: dropout must be in [0, 1), not {dropout}")
        names = ", ".join(ACTIVATIONS)
        require(activation in ACTIVATIONS, f"MLP: unknown activation {activation!r}: choose one of {names}")
        self.in_features, self.out_features, self.hidden = in_features, out_features, tuple(hidden)
        self.dropout, self.activation = dropout, activation
        layers: list[nn.Module] = []
        width = in_features
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), ACTIVATIONS[activation](), nn.Dropout(dropout)]
            width = next_width
        self.layers = keras_init_(nn.Sequential(*layers, nn.Linear(width, out_features)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, K) of inputs (B, ...) of D numbers each."""
        return self.layers(self.flat(x))

    def hidden_units(self, x: Tensor) -> Tensor:
        """Return the activations (B, H) of the last hidden layer, by which to compare inputs (B, ...).

        Raises:
            InputError: There is no hidden layer.
        """
        require(len(self.hidden) > 0, "this MLP has no hidden layer")
        return self.layers[:-1](self.flat(x))

    def flat(self, x: Tensor) -> Tensor:
        """Return inputs (B, ...) of D numbers each as (B, D).

        Raises:
            InputError: The inputs have another size.
        """
        require_tensor(x)
        require(
            x.dim() > 1 and x[0].numel() == self.in_features,
            f"this MLP takes a batch of inputs of {self.in_features} numbers each, not {tuple(x.shape)}",
        )
        return x.flatten(1)
