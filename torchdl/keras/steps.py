"""What a layer of a Keras model does, whatever version wrote it: one operation, or two if it has an activation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from torchdl.keras.files import Layer
from torchdl.keras.layers import CELLS, CENTRING

DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout")
Shape = tuple[int | None, ...]


class MisfitError(Exception):
    """A layer does not fit.

    Args:
        layer: The layer; None where the model is too short.
        reason: What a sentence says after its name.
        progress: The number of layers before it that fit.
    """

    def __init__(self, layer: Layer | None, reason: str, progress: int = 0) -> None:
        super().__init__(reason)
        self.layer, self.reason, self.progress = layer, reason, progress

    def __str__(self) -> str:
        return f"layer {self.layer.name!r} ({self.layer.kind}) {self.reason}" if self.layer else self.reason


class Step(NamedTuple):
    """One operation of a Keras model, in the words of :class:`torchdl.keras.layers.Piece`."""

    kind: str
    settings: Mapping[str, Any]
    layer: Layer
    weights: Mapping[str, np.ndarray] = {}


def numbers(layer: Layer, key: str, dimensions: int, default: Any) -> tuple[int, ...]:
    """Return a setting of one number, or of one for each dimension."""
    value = layer.config.get(key)
    value = default if value is None else value
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * dimensions
    if len(values) != dimensions or not all(type(each) is int and each > 0 for each in values):
        raise MisfitError(layer, f"has {key} {value!r}, which is not {dimensions} positive numbers")
    return values


def weight(layer: Layer, name: str, dimensions: int) -> np.ndarray:
    """Return a weight; raise :class:`MisfitError` if it is missing or has other dimensions."""
    array = layer.weights.get(name)
    if array is None or array.ndim != dimensions:
        raise MisfitError(layer, f"has no weight {name!r} of {dimensions} dimensions")
    return array


def named_function(layer: Layer, value: Any) -> dict[str, Any]:
    """Return the settings of an activation: its name or its description, in Keras 2 or 3."""
    value = "linear" if value is None else value
    kind: Any = value
    config: Any = {}
    if isinstance(value, dict):
        kind, config = value.get("class_name"), value.get("config")
        if kind == "function":
            kind, config = config, {}
        elif kind == "Activation" and isinstance(config, dict):
            kind, config = config.get("activation"), {}
        if value.get("module") not in (None, "builtins", "keras.layers", "keras.activations"):
            kind = None
    name, config = str(kind), config if isinstance(config, dict) else {}
    if name in ("LeakyReLU", "leaky_relu"):
        slope = config.get("negative_slope", config.get("alpha", 0.3 if name == "LeakyReLU" else 0.2))
        if isinstance(slope, dict):  # an array of one number, in some versions of Keras 2
            slope = slope.get("value")
        if not isinstance(slope, (int, float)) or not math.isfinite(slope):
            raise MisfitError(layer, f"has the slope {slope!r}, which is not a number")
        return {"function": "leaky_relu", "slope": round(float(slope), 6)}  # Keras 2 writes 0.30000001192092896
    if name == "ReLU":
        limits = (config.get("max_value"), config.get("threshold") or 0, config.get("negative_slope") or 0)
        if limits == (None, 0, limits[2]) and isinstance(limits[2], (int, float)):
            slope = float(limits[2])
            return {"function": "leaky_relu", "slope": round(slope, 6)} if slope else {"function": "relu"}
        raise MisfitError(layer, f"is a ReLU with max_value {limits[0]}, threshold {limits[1]}")
    if name == "ELU" and config.get("alpha", 1) != 1:
        raise MisfitError(layer, f"is an ELU with alpha {config['alpha']}")
    if name == "gelu" and config.get("approximate"):
        raise MisfitError(layer, "has GELU's approximation by tanh; torchdl has the exact one")
    if name == "Softmax" and config.get("axis", -1) not in (-1, [-1]):
        raise MisfitError(layer, f"is a softmax over axis {config['axis']}")
    same = {"swish": "silu", "ELU": "elu", "Softmax": "softmax"}
    return {"function": same.get(name, name)}


def unknown(layer: Layer) -> str:
    """Say what a layer is that no network has in a chain."""
    return "holds code, which is never run" if layer.kind == "Lambda" else "is unknown here"


class Reader:
    """Describes the layers of a model one after the other, and follows the shape of what they compute."""

    def __init__(self, shape: Shape, channels_first: bool, keras_2: bool) -> None:
        self.shape, self.first, self.keras_2 = shape, channels_first, keras_2
        self.flat_last = not channels_first
        self.kinds: dict[str, Callable[[Layer], Step | None]] = {
            "Dense": self._dense,
            "Conv1D": self._convolution,
            "Conv2D": self._convolution,
            "MaxPooling1D": self._pooling,
            "MaxPooling2D": self._pooling,
            "UpSampling2D": self._upsampling,
            "BatchNormalization": self._norm,
            "BatchNormalizationV1": self._norm,
            "GroupNormalization": self._group_norm,
            "Embedding": self._embedding,
            "Flatten": self._flatten,
            "Reshape": self._reshape,
            "GlobalMaxPooling1D": self._maximum,
            "Rescaling": self._rescaling,
            "Bidirectional": self._bidirectional,
            CENTRING: self._centring,
            **dict.fromkeys(CELLS.values(), self._cell),
            **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "Softmax", "Activation"), self._activation),
            **dict.fromkeys(DROPOUTS, self._dropout),
        }

    def steps(self, layer: Layer) -> list[Step]:
        """Describe a layer: one operation, two if it has an activation, or none if it changes nothing."""
        read = self.kinds.get(layer.kind)
        if read is None:
            return [Step(layer.kind, {"is": unknown(layer)}, layer)]
        step = read(layer)
        found = [step] if step else []
        if layer.kind in ("Dense", "Conv1D", "Conv2D"):
            settings = named_function(layer, layer.config.get("activation"))
            found += [Step("Activation", settings, layer)] if settings["function"] != "linear" else []
        return found

    def _dense(self, layer: Layer) -> Step:
        kernel = weight(layer, "kernel", 2)
        axes = len(self.shape)
        self.shape = (*self.shape[:-1], kernel.shape[1])
        return Step("Dense", {"units": kernel.shape[1], "axes": axes}, layer, layer.weights)

    def _convolution(self, layer: Layer) -> Step:
        n = int(layer.kind[4])
        kernel = weight(layer, "kernel", n + 2)
        settings = {
            "filters": kernel.shape[-1],
            "kernel_size": kernel.shape[:n],
            "strides": numbers(layer, "strides", n, 1),
            "padding": layer.config.get("padding", "valid"),
            "dilation_rate": numbers(layer, "dilation_rate", n, 1),
            "groups": layer.config.get("groups", 1),
        }
        reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:n], settings["dilation_rate"], strict=True)]
        self._slide(layer, n, reach, settings["strides"], settings["padding"], kernel.shape[-1])
        return Step(layer.kind, settings, layer, layer.weights)

    def _pooling(self, layer: Layer) -> Step:
        n = int(layer.kind[10])
        size = numbers(layer, "pool_size", n, 2)
        strides = numbers(layer, "strides", n, size)
        padding = layer.config.get("padding", "valid")
        sides = self._sides(layer, n)
        whole = all(side is not None and side % step == 0 for side, step in zip(sides, strides, strict=True))
        if padding == "same" and whole and size == strides:
            padding = "valid"  # where nothing is padded, both are the same
        self._slide(layer, n, size, strides, padding, None)
        return Step(layer.kind, {"pool_size": size, "strides": strides, "padding": padding}, layer)

    def _sides(self, layer: Layer, n: int) -> Shape:
        """Return the sizes of the n dimensions besides the channels."""
        if len(self.shape) != n + 1:
            raise MisfitError(layer, f"reads {len(self.shape)} dimensions, not {n + 1}")
        if self.first and n == 1:
            raise MisfitError(layer, "takes the channels of a sequence before its terms")
        return self.shape[1:] if self.first else self.shape[:-1]

    def _set_sides(self, sides: Shape, channels: int | None) -> None:
        channels = channels or self.shape[0 if self.first else -1]
        self.shape = (channels, *sides) if self.first else (*sides, channels)

    def _slide(self, layer: Layer, n: int, size: Any, strides: Any, padding: Any, channels: int | None) -> None:
        """Follow the shape through windows that slide over the n dimensions besides the channels."""
        sides: list[int | None] = []
        for side, reach, step in zip(self._sides(layer, n), size, strides, strict=True):
            if side is None:
                sides.append(None)
            elif padding == "same":
                sides.append(-(-side // step))
            elif side >= reach:
                sides.append((side - reach) // step + 1)
            else:
                raise MisfitError(layer, f"reads {side} positions, fewer than its {reach}")
        self._set_sides(tuple(sides), channels)

    def _upsampling(self, layer: Layer) -> Step:
        size = numbers(layer, "size", 2, 2)
        sides = [None if side is None else side * by for side, by in zip(self._sides(layer, 2), size, strict=True)]
        self._set_sides(tuple(sides), None)
        return Step(layer.kind, {"size": size, "interpolation": layer.config.get("interpolation", "nearest")}, layer)

    def _norm(self, layer: Layer) -> Step:
        axis = layer.config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        channels = 1 if self.first and len(self.shape) == 3 else len(self.shape)
        if axis != channels and not (axis == -1 and channels == len(self.shape)):
            raise MisfitError(layer, f"normalises axis {axis}, which is not the channels'")
        weight(layer, "moving_mean", 1), weight(layer, "moving_variance", 1)
        epsilon = layer.config.get("epsilon", 1e-3)
        return Step("BatchNormalization", {"epsilon": epsilon}, layer, layer.weights)

    def _group_norm(self, layer: Layer) -> Step:
        channels = self.shape[0] if self.first and len(self.shape) == 3 else self.shape[-1]
        groups, axis = layer.config.get("groups", 32), layer.config.get("axis", -1)
        if axis != (1 if self.first else -1) and axis != len(self.shape) * (not self.first):
            raise MisfitError(layer, f"normalises axis {axis}, which is not the channels'")
        settings = {"epsilon": layer.config.get("epsilon", 1e-3), "groups": -1 if groups == channels else groups}
        return Step("GroupNormalization", settings, layer, layer.weights)

    def _embedding(self, layer: Layer) -> Step:
        table = weight(layer, "embeddings", 2)
        self.shape = (*self.shape, table.shape[1])
        masks = bool(layer.config.get("mask_zero"))
        settings = {"input_dim": table.shape[0], "output_dim": table.shape[1], "mask_zero": masks}
        return Step("Embedding", settings, layer, layer.weights)

    def _flatten(self, layer: Layer) -> Step | None:
        flat, reorders = len(self.shape) == 1, layer.config.get("data_format") == "channels_first"
        image = len(self.shape) == 3
        if reorders and not flat and not (image and self.first):
            raise MisfitError(layer, "reorders the axes of inputs whose channels are last (data_format channels_first)")
        if image:
            self.flat_last = not self.first or reorders
        self.shape = (None if None in self.shape else math.prod(int(size or 0) for size in self.shape),)
        return None if flat else Step("Flatten", {}, layer)

    def _reshape(self, layer: Layer) -> Step | None:
        shape = layer.config.get("target_shape")
        total = None if None in self.shape else math.prod(int(size or 0) for size in self.shape)
        if not isinstance(shape, (list, tuple)) or not all(type(size) is int for size in shape):
            raise MisfitError(layer, f"has the target_shape {shape!r}")
        known = math.prod(size for size in shape if size != -1)
        if total is not None and known > 0:
            shape = [total // known if size == -1 else size for size in shape]
        before, self.shape = self.shape, tuple(None if size == -1 else size for size in shape)
        if len(shape) == 1:
            if len(before) == 3:
                self.flat_last = not self.first
            return Step("Flatten", {}, layer) if len(before) > 1 else None
        if self.first and len(shape) == 3:
            shape = (*shape[1:], shape[0])
        return Step("Reshape", {"target_shape": tuple(shape)}, layer)

    def _maximum(self, layer: Layer) -> Step:
        self._sides(layer, 1)
        if layer.config.get("keepdims"):
            raise MisfitError(layer, "does not return one number for each channel")
        self.shape = self.shape[-1:]
        return Step(layer.kind, {}, layer)

    def _centring(self, layer: Layer) -> Step:
        if self.first or len(layer.inputs) != 2:  # two have been found to be an image and its means
            raise MisfitError(layer, "subtracts something else than the means of images with channels last")
        return Step(layer.kind, {}, layer)

    def _rescaling(self, layer: Layer) -> Step:
        return Step(layer.kind, {key: layer.config.get(key) for key in ("scale", "offset")}, layer)

    def _dropout(self, layer: Layer) -> Step:
        known = layer.kind in ("Dropout", "SpatialDropout1D")
        return Step("Dropout", {"rate": layer.config.get("rate") if known else layer.kind}, layer)

    def _activation(self, layer: Layer) -> Step | None:
        described = layer.config.get("activation") if layer.kind == "Activation" else None
        described = described or {"class_name": layer.kind, "config": layer.config}
        settings = named_function(layer, described)
        return Step("Activation", settings, layer) if settings["function"] != "linear" else None

    def _cell(self, layer: Layer) -> Step:
        settings, weights = self._cell_settings(layer), self._cell_weights(layer, layer)
        self._read_terms(settings["return_sequences"], settings["units"])
        return Step(layer.kind, {**settings, "bidirectional": False}, layer, weights)

    def _cell_settings(self, layer: Layer, backwards: bool = False) -> dict[str, Any]:
        config = layer.config
        if len(self.shape) != 2:
            raise MisfitError(layer, f"reads inputs of shape {self.shape}, not sequences")
        if bool(config.get("go_backwards")) != backwards:
            raise MisfitError(layer, "reads its sequence in the other direction")
        if config.get("time_major"):
            raise MisfitError(layer, "takes the terms before the sequences (time_major)")
        if config.get("return_state"):
            raise MisfitError(layer, "returns its last state beside its outputs")
        settings: dict[str, Any] = {
            "units": weight(layer, "recurrent_kernel", 2).shape[0],
            "activation": named_function(layer, config.get("activation", "tanh"))["function"],
            "return_sequences": bool(config.get("return_sequences")),
        }
        if layer.kind != "SimpleRNN":
            gate = named_function(layer, config.get("recurrent_activation", "hard_sigmoid"))["function"]
            settings["gate"] = "relu6" if gate == "hard_sigmoid" and not self.keras_2 else gate
        if layer.kind == "GRU":
            settings["reset_after"] = bool(config.get("reset_after"))  # older files do not have it
        return settings

    def _cell_weights(self, layer: Layer, cell: Layer) -> dict[str, np.ndarray]:
        weight(cell, "kernel", 2)
        if "bias" in cell.weights:
            weight(cell, "bias", 2 if cell.kind == "GRU" and cell.config.get("reset_after") else 1)
        return dict(cell.weights)

    def _read_terms(self, sequences: bool, units: int) -> None:
        self.shape = (self.shape[0], units) if sequences else (units,)

    def _bidirectional(self, layer: Layer) -> Step:
        cells = layer.layers
        if len(cells) != 2 or cells[0].kind != cells[1].kind or cells[0].kind not in CELLS.values():
            kinds = " and ".join(cell.kind for cell in cells)
            return Step(layer.kind, {"is": f"of {kinds}"}, layer)
        if layer.config.get("merge_mode", "concat") != "concat":
            raise MisfitError(layer, f"merges its directions by {layer.config['merge_mode']}, not by concat")
        forward, backward = self._cell_settings(cells[0]), self._cell_settings(cells[1], backwards=True)
        if forward != backward:
            raise MisfitError(layer, "has two directions with different settings")
        weights = self._cell_weights(layer, cells[0])
        weights |= {f"backward_{name}": array for name, array in self._cell_weights(layer, cells[1]).items()}
        self._read_terms(forward["return_sequences"], 2 * forward["units"])
        return Step(cells[0].kind, {**forward, "bidirectional": True}, layer, weights)
