"""Recurrent layers that PyTorch lacks, which go through the terms one by one: without tanh, or with older Keras' gates.

Those gates are a hard sigmoid, and a reset before the recurrent product.

Shapes: N sequences, T terms, D numbers per term, M hidden units; L layers in each of 1 or 2 directions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.fast.products import linear

CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # PyTorch's names of a layer's parameters
Gate = Literal["sigmoid", "hard_sigmoid", "relu6"]


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return 0.2 x + 0.5, clipped to [0, 1]: the hard sigmoid of Keras 1 and 2."""
    return (0.2 * x + 0.5).clamp(0, 1)


#: Functions of the gates by name; ``relu6`` is x / 6 + 0.5, clipped to [0, 1]: the hard sigmoid of Keras 3.
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "relu6": F.hardsigmoid,
}


class Gated(nn.RNNBase):
    """A recurrent layer with the parameters of PyTorch's, which computes each term's state by a method ``step``."""

    def __init__(self, mode: str, *sizes: Any, gate: Gate = "sigmoid", **options: Any) -> None:
        require(gate in GATES, f"unknown gate {gate!r}: choose one of {', '.join(GATES)}")
        options["batch_first"] = True
        super().__init__(mode, *sizes, **options)
        self.gate = gate

    def step(self, drive: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        """Return a term's states (N, M) from its products with the input weights (N, gates * M), bias included."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the states (N, T, M * directions) of sequences (N, T, D), and the last states (L * directions, N, M).

        An LSTM's last states are the pair of its outputs and its cells.
        """
        lstm, final = isinstance(self, GatedLSTM), []
        for layer in range(self.num_layers):
            outputs = []
            for direction in ("", "_reverse")[: 2 if self.bidirectional else 1]:
                inputs, recurrent, bias, recurrent_bias = (getattr(self, f"{n}_l{layer}{direction}") for n in CELL)
                drives = linear(x, inputs, bias).unbind(1)  # (N, T, gates * M) -> T of (N, gates * M)
                state = (x.new_zeros(x.shape[0], self.hidden_size),) * (2 if lstm else 1)
                states = []
                for drive in reversed(drives) if direction else drives:
                    state = self.step(drive, state, recurrent, recurrent_bias)
                    states.append(state[0])
                outputs.append(torch.stack(states[::-1] if direction else states, 1))  # (N, T, M)
                final.append(state)
            x = torch.cat(outputs, 2)  # (N, T, M * directions)
        last = tuple(torch.stack(kind) for kind in zip(*final, strict=True))  # (L * directions, N, M) each
        return x, last if lstm else last[0]


class GatedGRU(Gated):
    """A GRU whose gates or reset are not PyTorch's.

    With ``reset_after=False`` the candidate is tanh(W x + b + W_h (r * h)): the reset r multiplies the state h before
    the product (Cho et al. 2014; the default of Keras before TensorFlow 2). Then there is one bias, and ``bias_hh`` is
    None. Otherwise it is tanh(W x + b + r * (W_h h + b')), as in ``nn.GRU``.

    Args:
        sizes: ``input_size``, ``hidden_size`` and the number of layers, as for ``nn.GRU``.
        reset_after: Whether the reset multiplies after the product.
        gate: One of :data:`GATES`, for reset and update.
        options: ``bidirectional``.

    Example:
        >>> from torchdl.models.gates import GatedGRU
        >>> states, last = GatedGRU(8, 16, reset_after=False, gate="hard_sigmoid")(torch.zeros(5, 4, 8))
        >>> states.shape, last.shape
        (torch.Size([5, 4, 16]), torch.Size([1, 5, 16]))
    """

    def __init__(self, *sizes: int, reset_after: bool = True, gate: Gate = "sigmoid", **options: Any) -> None:
        super().__init__("GRU", *sizes, gate=gate, **options)
        self.reset_after = reset_after
        if not reset_after:
            for name in [name for name, _ in self.named_parameters() if name.startswith("bias_hh")]:
                self.register_parameter(name, None)

    def step(self, drive: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        """Return the next state (N, M); see :class:`Gated`."""
        (h,), gate = state, GATES[self.gate]
        if self.reset_after:
            product = linear(h, weight, bias)  # (N, 3 M)
            r, z, _ = gate(drive + product).chunk(3, 1)  # (N, M) each
            candidate = drive.chunk(3, 1)[2] + r * product.chunk(3, 1)[2]
        else:
            size = 2 * self.hidden_size
            r, z = gate(drive[:, :size] + linear(h, weight[:size])).chunk(2, 1)
            candidate = drive[:, size:] + linear(r * h, weight[size:])
        return ((1 - z) * candidate.tanh() + z * h,)


class GatedLSTM(Gated):
    """An LSTM whose gates are not PyTorch's.

    Args:
        sizes: ``input_size``, ``hidden_size`` and the number of layers, as for ``nn.LSTM``.
        gate: One of :data:`GATES`, for input, forget and output.
        options: ``bidirectional``.

    Example:
        >>> from torchdl.models.gates import GatedLSTM
        >>> states, (last, cells) = GatedLSTM(8, 16, gate="hard_sigmoid")(torch.zeros(5, 4, 8))
        >>> states.shape, last.shape
        (torch.Size([5, 4, 16]), torch.Size([1, 5, 16]))
    """

    def __init__(self, *sizes: int, gate: Gate = "sigmoid", **options: Any) -> None:
        super().__init__("LSTM", *sizes, gate=gate, **options)

    def step(self, drive: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        """Return the next output and cell (N, M); see :class:`Gated`."""
        (h, c), gate = state, GATES[self.gate]
        i, f, g, o = (drive + linear(h, weight, bias)).chunk(4, 1)  # (N, M) each
        c = gate(f) * c + gate(i) * g.tanh()
        return gate(o) * c.tanh(), c


class LinearRNN(nn.RNN):
    """A recurrent layer without an activation: h_t = W_x x_t + b + W_h h_t-1 + b', from h_0 = 0.

    Args:
        input_size: D.
        hidden_size: M.

    Example:
        >>> from torchdl.models.gates import LinearRNN
        >>> states, last = LinearRNN(8, 16)(torch.zeros(5, 4, 8))
        >>> states.shape, last.shape
        (torch.Size([5, 4, 16]), torch.Size([1, 5, 16]))
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return the states (N, T, M) of sequences (N, T, D), and the last states (1, N, M)."""
        inputs, recurrent, *biases = (getattr(self, f"{name}_l0") for name in CELL)
        drives = linear(x, inputs, sum(biases))  # (N, T, M)
        states = [drives[:, 0]]  # before the first term the state is 0
        for term in drives.unbind(1)[1:]:
            states.append(torch.addmm(term, states[-1], recurrent.T))
        return torch.stack(states, 1), states[-1][None]


RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def check_gates(kind: str, gate: str, reset_after: bool) -> None:
    """Check that a kind of layer has these gates; see :func:`gated`."""
    require(gate in GATES, f"unknown gate {gate!r}: choose one of {', '.join(GATES)}")
    require(gate == "sigmoid" or kind in ("gru", "lstm"), f"{kind} has no gates: leave gate out")
    require(reset_after or kind == "gru", f"{kind} has no reset: leave reset_after out")


def gated(kind: str, *sizes: int, gate: Gate = "sigmoid", reset_after: bool = True, **options: Any) -> nn.RNNBase:
    """Build an ``rnn``, ``gru`` or ``lstm`` that takes (N, T, D): PyTorch's, which is faster, if it has these gates.

    Args:
        kind: A name of :data:`RECURRENT`.
        sizes: ``input_size``, ``hidden_size`` and the number of layers.
        gate: One of :data:`GATES`.
        reset_after: Whether a GRU's reset multiplies after the recurrent product; see :class:`GatedGRU`.
        options: Further options of PyTorch's layer.
    """
    check_gates(kind, gate, reset_after)
    if not reset_after:
        return GatedGRU(*sizes, reset_after=False, gate=gate, **options)
    if gate != "sigmoid":
        return {"gru": GatedGRU, "lstm": GatedLSTM}[kind](*sizes, gate=gate, **options)
    return RECURRENT[kind](*sizes, batch_first=True, **options)
