"""Networks that read a sequence: linear, MLP, simple RNN, GRU and LSTM, interchangeable (lectures 38 to 50).

Shapes, with the course's letters: N sequences, T terms, D numbers a term, M hidden units, K outputs, H terms to come;
of images, B in a batch, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.init import keras_init_
from torchdl.models.lenet import check_classifier
from torchdl.models.mlp import MLP

RECURRENT: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
Kind = Literal["linear", "mlp", "rnn", "gru", "lstm"]
KINDS = ("linear", "mlp", *RECURRENT)
POOLINGS = ("last", "max")
CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # PyTorch's names of a layer's parameters


class SequenceModel(nn.Module):
    """Map sequences to outputs, (N, T, D) to (N, K), or to ``horizon`` terms to come, (N, H, K).

    ``linear`` and ``mlp`` see all T * D numbers at once and so want sequences of ``length`` terms; a linear one that
    predicts the next term is an autoregressive model, AR(T). The others read term by term, and their last state, or
    the greatest value of each unit over all terms, goes through a linear layer. Weights start as Keras' do.

    From h_0 = 0 and c_0 = 0, with s the sigmoid and * the product by elements (lectures 41, 45 and 46):

    - ``rnn``: h_t = tanh(W_x x_t + W_h h_t-1 + b).
    - ``gru``: gates r_t and z_t, each s(W_x x_t + W_h h_t-1 + b) of its own;
      h_t = (1 - z_t) * tanh(W_x x_t + b + r_t * (W_h h_t-1 + b')) + z_t * h_t-1.
    - ``lstm``: gates i_t, f_t and o_t, each s(W_x x_t + W_h h_t-1 + b) of its own;
      c_t = f_t * c_t-1 + i_t * tanh(W_x x_t + W_h h_t-1 + b), h_t = o_t * tanh(c_t).

    The course writes a GRU otherwise: its z is 1 - z here, and its r multiplies h_t-1 before W_h does, here after it
    (Keras' ``reset_after=True``), so that one product serves all three gates. PyTorch keeps every b as the sum of two
    vectors, which makes M numbers more than Keras has for an ``rnn`` and 4 M more for an ``lstm``; for a ``gru`` Keras
    keeps two as well.

    Args:
        kind: ``linear``, ``mlp``, ``rnn``, ``gru`` or ``lstm``.
        in_features: D.
        out_features: K.
        length: T, which ``linear`` and ``mlp`` need; the others take any number of terms, whatever it is.
        hidden: M, units of each layer but the linear ones.
        layers: Recurrent layers, each reading the states of the one before it; hidden layers of ``mlp``.
        bidirectional: Whether each recurrent layer has another one beside it that reads from the end; 2 M states then.
        pooling: ``last`` or ``max``, what is made of the states of all terms.
        activation: Of ``rnn`` (``tanh``, ``relu``, or ``none``, which leaves a linear recurrence) and of ``mlp``
            (``relu`` in the course, or ``tanh``); ``tanh`` and ``relu`` respectively if None.
        horizon: H, to give that many terms in one go; None for one output.

    Example:
        >>> x = torch.zeros(8, 20, 3)
        >>> torchdl.SequenceModel("gru", in_features=3, out_features=2)(x).shape
        torch.Size([8, 2])
        >>> torchdl.SequenceModel("linear", in_features=3, length=20, horizon=5)(x).shape
        torch.Size([8, 5, 1])
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
        offered = f"choose one of {', '.join(map(str, fitting))}" if usual else "leave it out"
        require(chosen in fitting, f"SequenceModel: {kind} does not take the activation {activation!r}: {offered}")
        require(
            kind in RECURRENT or (pooling == "last" and not bidirectional),
            f"SequenceModel: {kind} has no states to pool and no direction: leave pooling and bidirectional out",
        )
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
            x.dim() == 3 and x.shape[2] == self.in_features and 0 < x.shape[1] == (length or x.shape[1]),
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
        inward, recurrent, *biases = (getattr(self.core, f"{name}_l0") for name in CELL)
        driven = x @ inward.T + sum(biases)  # (N, T, M)
        states = [driven[:, 0]]  # of the first term, before which the state is 0
        for term in driven.unbind(1)[1:]:
            states.append(torch.addmm(term, states[-1], recurrent.T))
        return torch.stack(states, 1)


class RowReader(nn.Module):
    """Classify images by reading them row by row, from the top, as a sequence (lectures 49 and 50).

    An image of H rows is a sequence of T = H terms, D = C * W numbers each. The defaults are the course's for MNIST,
    an LSTM of 128 units and a linear layer.

    Args:
        in_shape: (C, H, W).
        num_classes: K.
        kind: ``rnn``, ``gru`` or ``lstm``.
        hidden: M.
        layers: Recurrent layers.
        bidirectional: Whether the rows are read from the bottom, too.
        pooling: ``last`` or ``max``, what is made of the states.

    Example:
        >>> torchdl.RowReader((1, 28, 28), num_classes=10)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> torchdl.RowReader((3, 32, 32), 10, kind="gru", hidden=16, pooling="max").reader.in_features
        96
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        kind: Literal["rnn", "gru", "lstm"] = "lstm",
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = False,
        pooling: Literal["last", "max"] = "last",
    ) -> None:
        super().__init__()
        channels, _, width = check_classifier(self, in_shape, num_classes)
        require(kind in RECURRENT, f"RowReader: unknown kind {kind!r}: choose one of {', '.join(RECURRENT)}")
        self.in_shape, self.num_classes, self.kind = tuple(in_shape), num_classes, kind
        self.hidden, self.layers, self.bidirectional, self.pooling = hidden, layers, bidirectional, pooling
        self.reader = SequenceModel(
            kind, channels * width, num_classes, None, hidden, layers, bidirectional, pooling=pooling
        )

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (B, K) of images (B, C, H, W)."""
        require(
            tuple(images.shape[1:]) == self.in_shape,
            f"this network takes images of (channels, height, width) {self.in_shape}, not {tuple(images.shape[1:])}",
        )
        return self.reader(images.transpose(1, 2).flatten(2))  # (B, C, H, W) -> (B, H, C, W) -> (B, H, C * W)
