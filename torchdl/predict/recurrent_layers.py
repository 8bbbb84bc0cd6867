"""Recurrent layers in a form that can be traced once for sequences of every length, for an export.

PyTorch traces a recurrent layer term by term, so that the traced program takes sequences of one length alone. Inside
:func:`as_operators`, each layer is one operator of ONNX. Inside :func:`of_any_length`, each is one of PyTorch's, or a
loop where PyTorch has none.

Shapes: N sequences, T terms, D numbers per term, M hidden units; L layers in each of R = 1 or 2 directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from torchdl.models.gates import CELL, Gated, GatedLSTM, LinearRNN

#: The order of the gates in ONNX's weights, by the places that they have in PyTorch's
ORDERS = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
#: Names and numbers of ONNX's activation functions
FUNCTIONS = {
    "sigmoid": ("Sigmoid",),
    "hard_sigmoid": ("HardSigmoid", 0.2, 0.5),
    "relu6": ("HardSigmoid", 1 / 6, 0.5),
    "tanh": ("Tanh",),
    "relu": ("Relu",),
    "none": ("Affine", 1.0, 0.0),
}


def layers_of(model: nn.Module) -> list[nn.RNNBase]:
    """List a model's recurrent layers."""
    return [module for module in model.modules() if isinstance(module, nn.RNNBase)]


@contextmanager
def replacing_forwards(
    layers: Sequence[nn.RNNBase], forward: Callable[[nn.RNNBase], Callable[[Tensor], Any]]
) -> Iterator[None]:
    """Give each layer another forward inside this region."""
    for layer in layers:
        vars(layer)["forward"] = forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


# ONNX


def as_operators(model: nn.Module) -> Any:
    """Let each recurrent layer be an operator of ONNX inside this region, in which it can be traced, not computed."""
    return replacing_forwards(layers_of(model), lambda layer: partial(call_operators, layer, parameters(layer)))


def directions(layer: nn.RNNBase) -> tuple[str, ...]:
    """Return the suffixes of the names of a layer's parameters, one per direction."""
    return ("", "_reverse")[: 2 if layer.bidirectional else 1]


@torch.no_grad()
def parameters(layer: nn.RNNBase) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the weights (R, gates * M, D or M) and biases (R, 2 * gates * M) of each layer, in ONNX's order."""
    order = ORDERS[layer.mode.partition("_")[0]]

    def arranged(name: str) -> Tensor:
        tensor = getattr(layer, name)
        tensor = torch.zeros(len(order) * layer.hidden_size) if tensor is None else tensor
        parts = tensor.detach().chunk(len(order))
        return torch.cat([parts[place] for place in order])

    found = []
    for number in range(layer.num_layers):
        each = [[arranged(f"{name}_l{number}{suffix}") for name in CELL] for suffix in directions(layer)]
        stacked = [torch.stack(tensors) for tensors in zip(*each, strict=True)]
        found.append((stacked[0], stacked[1], torch.cat(stacked[2:], 1)))
    return found


def call_operators(layer: nn.RNNBase, weights: list[tuple[Tensor, Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Any]:
    """Return the states (N, T, R * M) of sequences (N, T, D) and the last states (L * R, N, M), by ONNX's operators."""
    kind, size, count = layer.mode.partition("_")[0], layer.hidden_size, len(directions(layer))
    gate = FUNCTIONS[getattr(layer, "gate", "sigmoid")]
    if kind == "RNN":
        own: list[tuple[Any, ...]] = [FUNCTIONS["none" if isinstance(layer, LinearRNN) else str(layer.nonlinearity)]]
    else:
        own = [gate, FUNCTIONS["tanh"], FUNCTIONS["tanh"]][: 3 if kind == "LSTM" else 2]
    functions = own * count
    attributes: dict[str, Any] = {
        "hidden_size": size,
        "direction": "bidirectional" if count == 2 else "forward",
        "activations": [name for name, *_ in functions],
    }
    if any(numbers for _, *numbers in functions):
        attributes["activation_alpha"] = [numbers[0] for _, *numbers in functions if numbers]
        attributes["activation_beta"] = [numbers[1] for _, *numbers in functions if numbers]
    if kind == "GRU":
        attributes["linear_before_reset"] = int(getattr(layer, "reset_after", True))
    terms, sequences = x.shape[1], x.shape[0]
    last = (count, sequences, size)
    shapes = [(terms, count, sequences, size), last, *([last] if kind == "LSTM" else [])]
    finals = []
    x = x.transpose(0, 1)  # (T, N, D)
    for numbers in weights:
        states, *final = torch.onnx.ops.symbolic_multi_out(
            kind, (x, *numbers), attributes, dtypes=[x.dtype] * len(shapes), shapes=shapes
        )
        x = states.transpose(1, 2).flatten(2)  # (T, R, N, M) -> (T, N, R * M)
        finals.append(final)
    stacked = tuple(torch.cat(tensors) for tensors in zip(*finals, strict=True))
    return x.transpose(0, 1), stacked if kind == "LSTM" else stacked[0]


# torch.export

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


@contextmanager
def of_any_length(model: nn.Module) -> Iterator[None]:
    """Let ``torch.export`` trace recurrent layers for sequences of any length inside this region."""
    looping = [layer for layer in layers_of(model) if isinstance(layer, (Gated, LinearRNN))]
    operators = [getattr(torch.ops.aten, name).input for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")]
    before = [operator.py_kernels[COMPOSITE] for operator in operators]
    with replacing_forwards(looping, lambda layer: partial(loop, layer)):
        try:
            for operator in operators:  # torch.export asks for its outputs' shapes alone, and keeps the operator
                operator.py_kernels[COMPOSITE] = empty_outputs
                operator._dispatch_cache.clear()
            yield
        finally:
            for operator, kernel in zip(operators, before, strict=True):
                operator.py_kernels[COMPOSITE] = kernel
                operator._dispatch_cache.clear()


def empty_outputs(
    x: Tensor, state: Any, _: Any, __: Any, ___: Any, ____: Any, _____: Any, both: bool, ______: Any
) -> Any:
    """Return tensors of the shapes of a recurrent operator's outputs, for (N, T, D); its arguments are PyTorch's."""
    lstm = not isinstance(state, Tensor)
    last = state[0] if lstm else state
    states = x.new_empty((*x.shape[:2], last.shape[-1] * (2 if both else 1)))
    return states, *(last.new_empty(last.shape) for _ in range(2 if lstm else 1))


def loop(layer: nn.RNNBase, x: Tensor) -> tuple[Tensor, Any]:
    """Compute what ``layer(x)`` does, by a loop over the terms that can be traced."""
    lstm, finals = isinstance(layer, GatedLSTM), []
    for number in range(layer.num_layers):
        outputs = []
        for suffix in directions(layer):
            inputs, recurrent, bias, recurrent_bias = (getattr(layer, f"{name}_l{number}{suffix}") for name in CELL)
            drives = F.linear(x, inputs, bias).transpose(0, 1)  # (T, N, gates * M)
            drives = (drives.flip(0) if suffix else drives).contiguous()
            states, *final = loop_over(layer, drives, recurrent, recurrent_bias, 2 if lstm else 1)
            outputs.append((states.flip(0) if suffix else states).transpose(0, 1))  # (N, T, M)
            finals.append(final)
        x = torch.cat(outputs, 2)  # (N, T, R * M)
    last = tuple(torch.stack(kind) for kind in zip(*finals, strict=True))  # (L * R, N, M) each
    return x, last if lstm else last[0]


def loop_over(layer: nn.RNNBase, drives: Tensor, weight: Tensor, bias: Tensor | None, count: int) -> tuple[Tensor, ...]:
    """Return the states (T, N, M) that follow from drives (T, N, gates * M), and the last ``count`` states (N, M)."""
    terms, sequences, _ = drives.shape
    start = tuple(drives.new_zeros((sequences, layer.hidden_size)) for _ in range(count))
    step = layer.step if isinstance(layer, Gated) else linear_step

    def goes_on(term: Tensor, states: Tensor, *state: Tensor) -> Any:
        return term < terms

    def body(term: Tensor, states: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        index = term.view(1)
        drive = drives.index_select(0, index)[0]  # (N, gates * M)
        new = step(drive, state, weight, bias)
        return term + 1, states.index_copy(0, index, new[0][None]), *(each.clone() for each in new)

    first = torch.zeros((), dtype=torch.int64, device=drives.device)
    states = drives.new_zeros((terms, sequences, layer.hidden_size))
    return while_loop(goes_on, body, (first, states, *start))[1:]


def linear_step(drive: Tensor, state: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Return the next state (N, M) of a :class:`LinearRNN`; see :class:`torchdl.models.gates.Gated`."""
    return (drive + F.linear(state[0], weight, bias),)
