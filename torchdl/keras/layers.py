"""Layers in Keras and in PyTorch: which are the same, and how the weights of one become those of the other.

Keras orders a kernel's axes (height, width, inputs, outputs), PyTorch (outputs, inputs, height, width). Keras flattens
an image as (height, width, channel), PyTorch as (channel, height, width). A GRU's gates are z, r, h in Keras, and r, z,
n in PyTorch; an LSTM's have the same order in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from torchdl.errors import require

Arrays = Mapping[str, np.ndarray]
FUNCTIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Softplus: "softplus",
}
CELLS = {"RNN_TANH": "SimpleRNN", "RNN_RELU": "SimpleRNN", "GRU": "GRU", "LSTM": "LSTM"}
CENTRING = "Subtract"  # of an image's means, which a layer before it computes
GATE_NAMES = {"sigmoid": "sigmoid", "relu6": "hard_sigmoid", "hard_sigmoid": "hard_sigmoid"}  # of Keras 3
STEEPER = 1.2  # 0.2 x + 0.5, Keras 2's hard sigmoid, is Keras 3's y / 6 + 0.5 of y = 1.2 x


class Piece(NamedTuple):
    """One operation of a network of torchdl, described in Keras' words.

    Attributes:
        kind: Keras' name of the layer.
        settings: Its settings that change an output.
        module: The module that holds the weights, if there are any.
        flat: Channels of the image that a dense layer reads flattened; 1 if it reads none.
        folded: Channels of the image that a dense layer's outputs are folded to; 1 if they are not.
        layer: The number of the layer in a recurrent module.
    """

    kind: str
    settings: Mapping[str, Any] = {}
    module: nn.Module | None = None
    flat: int = 1
    folded: int = 1
    layer: int = 0


# From PyTorch's modules to Keras' words


def pieces(*modules: nn.Module, channels: int = 1) -> list[Piece]:
    """Describe the operations of modules that follow one another; ``channels`` are those of the input image."""
    found: list[Piece] = []
    leaves = [leaf for module in modules for leaf in module.modules() if not list(leaf.children())]
    flat = 1
    for leaf, after in zip(leaves, [*leaves[1:], None], strict=True):
        if isinstance(leaf, (nn.Conv1d, nn.Conv2d)):
            channels = leaf.out_channels
        elif isinstance(leaf, nn.Flatten):
            flat = channels
        if isinstance(leaf, nn.Linear):
            folded = after.unflattened_size[0] if isinstance(after, nn.Unflatten) else 1
            found.append(Piece("Dense", {"units": leaf.out_features, "axes": 1}, leaf, flat, folded))
            flat = 1
        elif not (isinstance(leaf, (nn.Dropout, nn.Dropout1d)) and leaf.p == 0):
            found.append(piece(leaf))
    return in_order(found)


def piece(module: nn.Module) -> Piece:
    """Describe a module without submodules, other than a linear one."""
    kind = type(module)
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        same = tuple(2 * p for p in module.padding) == tuple(k - 1 for k in module.kernel_size)
        valid = not any(module.padding)
        settings = {
            "filters": module.out_channels,
            "kernel_size": module.kernel_size,
            "strides": module.stride,
            "padding": "valid" if valid else "same" if same and set(module.stride) == {1} else "other",
            "dilation_rate": module.dilation,
            "groups": module.groups,
        }
        return Piece(f"Conv{len(module.kernel_size)}D", settings, module)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return Piece("BatchNormalization", {"epsilon": module.eps}, module)
    if isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels:
        return Piece("GroupNormalization", {"epsilon": module.eps, "groups": -1}, module)
    if isinstance(module, nn.MaxPool2d):
        size = (module.kernel_size, module.kernel_size)
        return Piece("MaxPooling2D", {"pool_size": size, "strides": size, "padding": "valid"})
    if isinstance(module, nn.Upsample):
        size = (int(module.scale_factor),) * 2  # type: ignore[arg-type]
        return Piece("UpSampling2D", {"size": size, "interpolation": module.mode})
    if isinstance(module, nn.Unflatten):
        channels, *sides = module.unflattened_size
        return Piece("Reshape", {"target_shape": (*sides, channels)})
    if isinstance(module, nn.Flatten):
        return Piece("Flatten")
    if isinstance(module, (nn.Dropout, nn.Dropout1d)):
        return Piece("Dropout", {"rate": module.p})
    if isinstance(module, nn.Embedding):
        sizes = {"input_dim": module.num_embeddings, "output_dim": module.embedding_dim}
        return Piece("Embedding", sizes, module)
    return function(FUNCTIONS.get(kind, kind.__name__), getattr(module, "negative_slope", None))


def function(name: str, slope: float | None = None) -> Piece:
    """Describe an activation function; only ``leaky_relu`` has a slope."""
    return Piece("Activation", {"function": name} | ({} if slope is None else {"slope": slope}))


def recurrent(core: nn.RNNBase, pooling: bool, linear: bool = False) -> list[Piece]:
    """Describe the layers of a recurrent module.

    Args:
        core: The module.
        pooling: Whether the last layer returns its states of all terms.
        linear: Whether it has no activation function.
    """
    found = []
    for layer in range(core.num_layers):
        settings: dict[str, Any] = {
            "units": core.hidden_size,
            "activation": "relu" if core.mode == "RNN_RELU" else "linear" if linear else "tanh",
            "return_sequences": pooling or layer < core.num_layers - 1,
            "bidirectional": core.bidirectional,
        }
        if core.mode in ("GRU", "LSTM"):
            settings["gate"] = getattr(core, "gate", "sigmoid")
        if core.mode == "GRU":
            settings["reset_after"] = getattr(core, "reset_after", True)
        found.append(Piece(CELLS[core.mode], settings, core, layer=layer))
    return found


OperationT = TypeVar("OperationT", Piece, Any)


def in_order(operations: Sequence[OperationT]) -> list[OperationT]:
    """Move each ReLU before a pooling by maxima, which gives the same outputs in either order."""
    ordered = list(operations)
    for i in range(1, len(ordered)):
        is_relu = ordered[i].kind == "Activation" and ordered[i].settings["function"] == "relu"
        if is_relu and ordered[i - 1].kind == "MaxPooling2D":
            ordered[i - 1 : i + 1] = ordered[i], ordered[i - 1]
    return ordered


# Weights


def to_torch(of: Piece, arrays: Arrays, flat_last: bool = True, folded_last: bool = True) -> dict[str, Tensor]:
    """Convert the weights of a Keras layer to the tensors of a piece's module, by their names there.

    Args:
        of: The piece that the layer corresponds to.
        arrays: The weights by Keras' names; those of the backward layer of a bidirectional one start ``backward_``. A
            bias that is missing is 0, and a scale is 1.
        flat_last: Whether an image that a dense layer reads has been flattened as (height, width, channel).
        folded_last: Whether an image that a dense layer's outputs are folded to is (height, width, channel).
    """
    if of.kind in CELLS.values():
        suffixes = {"": f"_l{of.layer}"} | (
            {"backward_": f"_l{of.layer}_reverse"} if of.settings["bidirectional"] else {}
        )
        found: dict[str, Tensor] = {}
        for prefix, suffix in suffixes.items():
            own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            found |= {name + suffix: tensor for name, tensor in cell_to_torch(of, own).items()}
        return found
    if isinstance(of.module, nn.Embedding):
        table = tensor(arrays["embeddings"])
        if of.module.padding_idx is not None:
            table[of.module.padding_idx] = 0  # masked in Keras
        return {"weight": table}
    if of.kind == "BatchNormalization":
        mean, variance = arrays["moving_mean"], arrays["moving_variance"]
        return {
            "weight": tensor(arrays.get("gamma", np.ones_like(mean))),
            "bias": tensor(arrays.get("beta", np.zeros_like(mean))),
            "running_mean": tensor(mean),
            "running_var": tensor(variance),
            "num_batches_tracked": torch.tensor(0),
        }
    if isinstance(of.module, nn.GroupNorm):
        ones = np.ones(of.module.num_channels, np.float32)
        return {"weight": tensor(arrays.get("gamma", ones)), "bias": tensor(arrays.get("beta", 0 * ones))}
    kernel = arrays["kernel"]
    bias = arrays.get("bias", np.zeros(kernel.shape[-1], kernel.dtype))
    if flat_last and of.flat > 1:
        kernel = swapped(kernel, 0, -1, of.flat)
    if folded_last and of.folded > 1:
        kernel, bias = swapped(kernel, 1, -1, of.folded), swapped(bias, 0, -1, of.folded)
    return {"weight": tensor(kernel.transpose(-1, -2, *range(kernel.ndim - 2))), "bias": tensor(bias)}


def swapped(array: np.ndarray, axis: int, pixels: int, channels: int) -> np.ndarray:
    """Reorder an axis of (pixels, channels) to (channels, pixels); one of the two numbers may be -1."""
    shape = array.shape
    wide = array.reshape(*shape[:axis], pixels, channels, *shape[axis + 1 :])
    return wide.swapaxes(axis, axis + 1).reshape(shape)


def cell_to_torch(of: Piece, arrays: Arrays) -> dict[str, Tensor]:
    """Convert the weights of one direction of a recurrent layer."""
    kernel, weight = arrays["kernel"], arrays["recurrent_kernel"]
    two = of.kind == "GRU" and of.settings["reset_after"]  # one bias inside the reset and one outside
    width = kernel.shape[-1]
    bias = arrays.get("bias", np.zeros((2, width) if two else width, kernel.dtype))
    if of.kind == "GRU":
        kernel, weight, bias = (first_two_gates_swapped(array) for array in (kernel, weight, bias))
    found = {"weight_ih": kernel.T, "weight_hh": weight.T, "bias_ih": bias[0] if two else bias}
    if two or of.kind != "GRU":
        found["bias_hh"] = bias[1] if two else np.zeros_like(bias)
    return {name: tensor(array) for name, array in found.items()}


def with_steeper_gates(array: np.ndarray, parts: int) -> np.ndarray:
    """Multiply what the gates of a cell read by 1.2, along the last axis; the third part is no gate, but the state."""
    factors = [1.0 if part == 2 else STEEPER for part in range(parts)]
    return array * np.repeat(np.array(factors, array.dtype), array.shape[-1] // parts)


def first_two_gates_swapped(array: np.ndarray) -> np.ndarray:
    """Swap a GRU's first two gates, along the last axis of three."""
    first, second, third = np.split(array, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def tensor(array: np.ndarray) -> Tensor:
    """Copy an array to a tensor of float32, contiguous."""
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def numpy(value: Tensor) -> np.ndarray:
    """Return a tensor's numbers as an array of float32."""
    return value.detach().float().cpu().numpy()


def weights_of(of: Piece) -> dict[str, np.ndarray]:
    """Convert the weights of a piece's module to those of the Keras layer, by Keras' names; see :func:`to_torch`."""
    module = of.module
    if module is None:
        return {}
    if isinstance(module, nn.RNNBase):
        found = cell_to_keras(of, f"_l{of.layer}")
        if module.bidirectional:
            backward = cell_to_keras(of, f"_l{of.layer}_reverse")
            found |= {f"backward_{name}": array for name, array in backward.items()}
        return found
    own = {name: numpy(value) for name, value in module.state_dict().items()}
    if of.kind == "Embedding":
        return {"embeddings": own["weight"]}
    if of.kind == "BatchNormalization":
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
        return {name: own[ours] for name, ours in names.items()}
    if of.kind == "GroupNormalization":
        return {"gamma": own["weight"], "beta": own["bias"]}
    kernel, bias = own["weight"], own["bias"]
    kernel = kernel.transpose(*range(2, kernel.ndim), 1, 0)
    if of.flat > 1:
        kernel = swapped(kernel, 0, of.flat, -1)
    if of.folded > 1:
        kernel, bias = swapped(kernel, 1, of.folded, -1), swapped(bias, 0, of.folded, -1)
    return {"kernel": kernel, "bias": bias}


def cell_to_keras(of: Piece, suffix: str) -> dict[str, np.ndarray]:
    """Convert the weights of one direction of a recurrent layer; where Keras has one bias, it gets the sum of two."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    values = [getattr(of.module, name + suffix) for name in names]
    kernel, weight, bias, *inner = (numpy(value) for value in values if value is not None)
    if inner:
        bias = np.stack([bias, *inner]) if of.kind == "GRU" else bias + inner[0]
    arrays = {"kernel": kernel.T, "recurrent_kernel": weight.T, "bias": bias}
    if of.settings.get("gate") == "hard_sigmoid":
        arrays = {name: with_steeper_gates(array, 4 if of.kind == "LSTM" else 3) for name, array in arrays.items()}
    if of.kind == "GRU":
        return {name: first_two_gates_swapped(array) for name, array in arrays.items()}
    return arrays


# From Keras' words to Keras' layers


def keras_layer(of: Piece, layers: Any) -> Any:
    """Build the layer of ``keras.layers`` that a piece describes, without its weights, or a function of layers.

    Raises:
        InputError: Keras has no such layer.
    """
    settings = dict(of.settings)
    if of.kind == "Activation":
        if "slope" in settings:
            return layers.LeakyReLU(negative_slope=settings["slope"])
        known = settings["function"] in (*FUNCTIONS.values(), "softmax")
        require(known, f"Keras has no layer {settings['function']}: only torchdl can use this network")
        return layers.Activation(settings["function"])
    if of.kind == CENTRING:
        return lambda x: layers.Subtract()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    if of.kind in CELLS.values():
        gate, both = settings.pop("gate", None), settings.pop("bidirectional")
        if gate is not None:
            settings["recurrent_activation"] = GATE_NAMES[gate]
        cell = getattr(layers, of.kind)(**settings)
        return layers.Bidirectional(cell) if both else cell
    settings.pop("axes", None)
    if isinstance(of.module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        settings["momentum"] = 1 - (0.1 if of.module.momentum is None else of.module.momentum)
    return getattr(layers, of.kind)(**settings)


def assign(layer: Any, arrays: Arrays) -> None:
    """Set the weights of a built Keras layer."""
    if hasattr(layer, "backward_layer"):
        assign(layer.forward_layer, {k: v for k, v in arrays.items() if not k.startswith("backward_")})
        backward = {k.removeprefix("backward_"): v for k, v in arrays.items() if k.startswith("backward_")}
        assign(layer.backward_layer, backward)
        return
    for variable in layer.weights:
        if variable.name != "seed_generator_state":
            variable.assign(arrays[variable.name])
