"""Networks that read a sequence: linear, MLP, simple RNN, GRU and LSTM, interchangeable (lectures 38 to 50).

Shapes, with the course's letters: N sequences, T terms, D numbers a term, M hidden units, K outputs, H terms to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.init import keras_init_
from torchdl.models.mlp import MLP

RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
Kind = Literal["linear", "mlp", "rnn", "gru", "lstm"]
KINDS = ("linear", "mlp", *RECURRENT)
POOLINGS = ("last", "max")


class SequenceModel(nn.Module):
    """Map sequences to outputs, (N, T, D) to (N, K), or to ``horizon`` terms to come, (N, H, K).

    ``linear`` and ``mlp`` see all T * D numbers at once and so want sequences of ``length`` terms; a linear one that
    predicts the next term is an autoregressive model, AR(T). The others read term by term, and their last state, or
    the greatest value of each unit over all terms, goes through a linear layer. Weights start as Keras' do.

    Args:
        kind: ``linear``, ``mlp`` (one hidden layer), ``rnn``, ``gru`` or ``lstm``.
        in_features: D.
        out_features: K.
        length: T, for ``linear`` and ``mlp``; None for any number of terms with the others.
        hidden: M.
        layers: Recurrent layers, each reading the states of the one before it.
        bidirectional: Whether another one reads from the end; 2 M states then.
        pooling: ``last`` or ``max``, what is made of the states.
        activation: Of ``rnn`` (``tanh``, ``relu``, or ``none``, which leaves a linear recurrence) and of ``mlp``
            (``relu`` in the course, or ``tanh``); ``tanh`` and ``relu`` respectively if None.
        horizon: H, to give that many terms in one go; None for one output.
    """

    def __init__(
        self,
        kind: Kind = "lstm",
        in_features: int = 1,
        out_features: int = 1,
        length: int | None = None,
        hidden: int = 10,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: Literal["last", "max"] = "last",
        activation: Literal["tanh", "relu", "none"] | None = None,
        horizon: int | None = None,
    ) -> None:
        super().__init__()
        require(kind in KINDS, f"SequenceModel: unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
        require(pooling in POOLINGS, f"SequenceModel: unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        sizes = {"in_features": in_features, "out_features": out_features, "hidden": hidden, "layers": layers}
        for name, size in {**sizes, "length": length, "horizon": horizon}.items():
            require(size is None or size >= 1, f"SequenceModel: {name} must be 1 or more, not {size}")
        usual = {"rnn": "tanh", "mlp": "relu"}.get(kind)
        chosen = usual if activation is None else activation
        fitting = {"rnn": ("tanh", "relu", "none"), "mlp": ("relu", "tanh")}.get(kind, (None,))
        require(chosen in fitting, f"SequenceModel: {kind} with activation {activation!r} is not there")
        require(
            chosen != "none" or (layers == 1 and not bidirectional),
            "SequenceModel: activation 'none' is for a single layer in one direction",
        )
        self.kind, self.in_features, self.out_features, self.length = kind, in_features, out_features, length
        self.hidden, self.layers, self.bidirectional, self.pooling = hidden, layers, bidirectional, pooling
        self.activation, self.horizon = activation, horizon
        outputs = out_features * (horizon or 1)
        if kind in RECURRENT:
            nonlinearity = {"nonlinearity": "relu" if chosen == "relu" else "tanh"} if kind == "rnn" else {}
            self.core: nn.Module = RECURRENT[kind](
                in_features, hidden, layers, batch_first=True, bidirectional=bidirectional, **nonlinearity
            )
            keras_init_(self.core)
            self.head: nn.Module = keras_init_(nn.Linear(hidden * (2 if bidirectional else 1), outputs))
        else:
            require(length is not None, f"SequenceModel: {kind} sees all terms at once: say how many, as length")
            widths = (hidden,) * layers if kind == "mlp" else ()
            self.core = nn.Flatten()
            self.head = MLP((length or 1) * in_features, outputs, widths, dropout=0.0, activation=chosen or "relu")

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (N, K), or (N, H, K) with a horizon, of sequences (N, T, D)."""
        length = self.length if self.kind not in RECURRENT else None
        require(
            x.dim() == 3 and x.shape[2] == self.in_features and x.shape[1] == (length or x.shape[1]) > 0,
            f"this {self.kind} model takes sequences of ({'N, T' if length is None else f'N, {length}'}, "
            f"{self.in_features}), not {tuple(x.shape)}",
        )
        output = self.head(self.states(x))
        return output if self.horizon is None else output.unflatten(1, (self.horizon, self.out_features))  # (N, H, K)

    def states(self, x: Tensor) -> Tensor:
        """Give what the output is made from, (N, M), (N, 2 M) or (N, T * D)."""
        if self.kind not in RECURRENT:
            return self.core(x)  # (N, T, D) -> (N, T * D)
        if self.activation == "none":
            every = self._linear_states(x)
            last = every[:, -1]
        else:
            every, final = self.core(x)  # (N, T, M), and the last states (layers * directions, N, M)
            final = final[0] if self.kind == "lstm" else final
            last = torch.cat([*final[-2:]], 1) if self.bidirectional else final[-1]  # each direction's own last
        return every.amax(1) if self.pooling == "max" else last

    def _linear_states(self, x: Tensor) -> Tensor:
        """Give the states (N, T, M) of the recurrence without its activation, which PyTorch's RNN does not offer."""
        inward, recurrent, first_bias, second_bias = self.core.parameters()
        driven = x @ inward.T + (first_bias + second_bias)  # (N, T, M)
        states = [driven[:, 0]]
        for term in driven.unbind(1)[1:]:
            states.append(torch.addmm(term, states[-1], recurrent.T))
        return torch.stack(states, 1)
