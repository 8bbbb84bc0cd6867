"""Interchangeable networks that read sequences: linear, MLP, simple RNN, GRU and LSTM (lectures 38 to 50).

Shapes, with the course's letters: N sequences, T terms, D numbers per term, M hidden units, K outputs, H future terms;
for images, B in a batch, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchdl.errors import require
from torchdl.models.arguments import plain_arguments, require_tensor
from torchdl.models.gates import RECURRENT, Gate, LinearRNN, check_gates, gated
from torchdl.models.init import keras_init_
from torchdl.models.lenet import check_classifier
from torchdl.models.mlp import MLP

Kind = Literal["linear", "mlp", "rnn", "gru", "lstm"]
FIXED = ("linear", "mlp")  # read sequences of one length
KINDS = (*FIXED, *RECURRENT)
MAX_LAYERS = 1000
POOLINGS = ("last", "max")


@plain_arguments
class SequenceModel(nn.Module):
    """Map sequences (N, T, D) to outputs (N, K), or to ``horizon`` future terms (N, H, K).

    ``linear`` and ``mlp`` read all T * D numbers at once, so they need sequences of ``length`` terms. A linear model of
    the next term is an autoregressive model, AR(T). The others read term by term. A linear layer reads their last
    state, or the maximum of each unit over all terms. Initial weights are Keras'.

    From h_0 = 0 and c_0 = 0, with s the sigmoid and * the elementwise product (lectures 41, 45 and 46):

    - ``rnn``: h_t = tanh(W_x x_t + W_h h_t-1 + b).
    - ``gru``: gates r_t and z_t, each s(W_x x_t + W_h h_t-1 + b) of its own;
      h_t = (1 - z_t) * tanh(W_x x_t + b + r_t * (W_h h_t-1 + b')) + z_t * h_t-1.
    - ``lstm``: gates i_t, f_t and o_t, each s(W_x x_t + W_h h_t-1 + b) of its own;
      c_t = f_t * c_t-1 + i_t * tanh(W_x x_t + W_h h_t-1 + b), h_t = o_t * tanh(c_t).

    The course defines a GRU differently: its z is 1 - z here, and its r multiplies h_t-1 before W_h. Here r multiplies
    W_h h_t-1 (Keras' ``reset_after=True``), so one product serves all three gates. PyTorch stores every b as the sum of
    two vectors. Compared with Keras, an ``rnn`` has M more numbers and an ``lstm`` 4 M more. Keras' ``gru`` has two
    vectors, too.

    Args:
        kind: ``linear``, ``mlp``, ``rnn``, ``gru`` or ``lstm``.
        in_features: D.
        out_features: K.
        length: T, which ``linear`` and ``mlp`` need; the others take any number of terms and ignore it.
        hidden: M, units of each recurrent or hidden layer.
        layers: Number of recurrent layers (each reads the states of the one before), or of ``mlp``'s hidden layers.
        bidirectional: Whether each recurrent layer also reads from the end, which makes 2 M states per term.
        pooling: ``last`` or ``max``: how to combine the states of all terms.
        activation: For ``rnn``, ``tanh`` (if None), ``relu``, or ``none`` (a linear recurrence). For ``mlp``, ``relu``
            (if None, as in the course) or ``tanh``.
        horizon: H, the number of terms to predict at once; None for one output.
        gate, reset_after: Gates of older Keras models; see :mod:`torchdl.models.gates`.

    Raises:
        InputError: A name is unknown, a number is outside its range, or the kind does not take the other arguments.

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
        gate: Gate = "sigmoid",
        reset_after: bool = True,
    ) -> None:
        super().__init__()
        require(kind in KINDS, f"SequenceModel: unknown kind {kind!r}: choose one of {', '.join(KINDS)}")
        require(pooling in POOLINGS, f"SequenceModel: unknown pooling {pooling!r}: choose one of {', '.join(POOLINGS)}")
        sizes = {"in_features": in_features, "out_features": out_features, "hidden": hidden, "layers": layers}
        for name, size in {**sizes, "length": length, "horizon": horizon}.items():
            require(size is None or size >= 1, f"SequenceModel: {name} must be 1 or more, not {size}")
        require(layers <= MAX_LAYERS, f"SequenceModel: layers must be {MAX_LAYERS} or less, not {layers}")
        default = {"rnn": "tanh", "mlp": "relu"}.get(kind)
        chosen = default if activation is None else activation
        allowed = {"rnn": ("tanh", "relu", "none"), "mlp": ("relu", "tanh")}.get(kind, (None,))
        advice = f"choose one of {', '.join(map(str, allowed))}" if default else "leave it out"
        require(chosen in allowed, f"SequenceModel: {kind} does not take the activation {activation!r}: {advice}")
        require(
            kind in RECURRENT or (pooling == "last" and not bidirectional),
            f"SequenceModel: {kind} has no states to pool and no direction: leave pooling and bidirectional out",
        )
        single = layers == 1 and not bidirectional
        require(chosen != "none" or single, "SequenceModel: activation 'none' is for a single layer in one direction")
        self.kind, self.in_features, self.out_features, self.length = kind, in_features, out_features, length
        self.hidden, self.layers, self.bidirectional, self.pooling = hidden, layers, bidirectional, pooling
        self.activation, self.horizon, self.gate, self.reset_after = activation, horizon, gate, reset_after
        outputs = out_features * (horizon or 1)
        check_gates(kind, gate, reset_after)
        if kind in RECURRENT:
            options: dict[str, Any] = {"gate": gate, "reset_after": reset_after, "bidirectional": bidirectional}
            if kind == "rnn":
                options["nonlinearity"] = "relu" if chosen == "relu" else "tanh"
            linear = chosen == "none"
            core = LinearRNN(in_features, hidden) if linear else gated(kind, in_features, hidden, layers, **options)
            self.core: nn.Module = keras_init_(core)
            self.head: nn.Module = keras_init_(nn.Linear(hidden * (2 if bidirectional else 1), outputs))
        else:
            require(length is not None, f"SequenceModel: {kind} needs length, the number of terms")
            widths = (hidden,) * layers if kind == "mlp" else ()
            self.core = nn.Flatten()
            self.head = MLP((length or 1) * in_features, outputs, widths, dropout=0.0, activation=chosen or "relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, K), or (N, H, K) with a horizon, of sequences (N, T, D).

        Raises:
            InputError: The sequences have another shape.
        """
        length = self.length if self.kind not in RECURRENT else None
        require_tensor(x)
        require(
            x.dim() == 3 and x.shape[2] == self.in_features and 0 < x.shape[1] == (length or x.shape[1]),
            f"this {self.kind} model takes sequences of ({'N, T' if length is None else f'N, {length}'}, "
            f"{self.in_features}), not {tuple(x.shape)}",
        )
        output = self.head(self.states(x))
        return output if self.horizon is None else output.unflatten(1, (self.horizon, self.out_features))  # (N, H, K)

    def states(self, x: Tensor) -> Tensor:
        """Return the inputs (N, M), (N, 2 M) or (N, T * D) of the output layer."""
        if self.kind not in RECURRENT:
            return self.core(x)  # (N, T, D) -> (N, T * D)
        states, final = self.core(x)  # (N, T, M), and the last states (layers * directions, N, M)
        final = final[0] if self.kind == "lstm" else final
        last = torch.cat([*final[-2:]], 1) if self.bidirectional else final[-1]  # the last state of each direction
        return states.amax(1) if self.pooling == "max" else last


@plain_arguments
class RowReader(nn.Module):
    """Classify images by reading their rows as a sequence, from top to bottom (lectures 49 and 50).

    An image of H rows is a sequence of T = H terms with D = C * W numbers each. The defaults are the course's network
    for MNIST: an LSTM of 128 units and a linear layer.

    Args:
        in_shape: (C, H, W).
        num_classes: K.
        kind: ``rnn``, ``gru`` or ``lstm``.
        hidden, layers, bidirectional, pooling: See :class:`SequenceModel`; the last term is the bottom row.
        gate, reset_after: Gates of older Keras models; see :mod:`torchdl.models.gates`.

    Raises:
        InputError: The kind is unknown.

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
        gate: Gate = "sigmoid",
        reset_after: bool = True,
    ) -> None:
        super().__init__()
        channels, _, width = check_classifier(self, in_shape, num_classes)
        require(kind in RECURRENT, f"RowReader: unknown kind {kind!r}: choose one of {', '.join(RECURRENT)}")
        self.in_shape, self.num_classes, self.kind = tuple(in_shape), num_classes, kind
        self.hidden, self.layers, self.bidirectional, self.pooling = hidden, layers, bidirectional, pooling
        self.gate, self.reset_after = gate, reset_after
        reader = (kind, channels * width, num_classes, None, hidden, layers, bidirectional, pooling)
        self.reader = SequenceModel(*reader, gate=gate, reset_after=reset_after)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W).

        Raises:
            InputError: The images have another shape.
        """
        require(
            tuple(images.shape[1:]) == self.in_shape,
            f"this network takes images of (channels, height, width) {self.in_shape}, not {tuple(images.shape[1:])}",
        )
        return self.reader(images.transpose(1, 2).flatten(2))  # (B, C, H, W) -> (B, H, C, W) -> (B, H, C * W)
