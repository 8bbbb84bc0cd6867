"""The weights in Keras' HDF5 files, in the layouts of Keras 1 and 2 (by name) and of Keras 3 (by number)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import h5py
import numpy as np

from torchdl.errors import require
from torchdl.keras.files import MAX_TEXT, MAX_WEIGHTS, MODELS, Layer

VARIABLES = {  # in Keras' order
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "Embedding": ("embeddings",),
    **dict.fromkeys(("GRU", "LSTM", "SimpleRNN"), ("kernel", "recurrent_kernel", "bias")),
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D"), ("kernel", "bias")),
}


class Weights:
    """An HDF5 file of weights. Links to elsewhere and data that the file itself does not hold are refused.

    Args:
        file: The file, or its path.
    """

    def __init__(self, file: Path | IO[bytes]) -> None:
        self.file = h5py.File(file, "r")
        self.left = MAX_WEIGHTS

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.file.close()

    def attribute(self, name: str) -> str | None:
        """Return a text that the file has as an attribute."""
        if name not in self.file.attrs:
            return None
        size = self.file.attrs.get_id(name).get_storage_size()
        require(size <= MAX_TEXT, f"its {name} is larger than {MAX_TEXT:,} bytes")
        return text(self.file.attrs[name])

    def fill(self, model: Layer) -> Layer:
        """Return a model with its weights."""
        root = self.inner(self.file, "model_weights") or self.file
        return self.by_name(model, root) if self.has_names else self.by_number(model, root)

    @property
    def has_names(self) -> bool:
        """Whether weights are stored by the names of their variables."""
        return "layer_names" in (self.inner(self.file, "model_weights") or self.file).attrs

    def inner(self, group: h5py.Group | None, name: str) -> Any:
        """Return what a group holds under a name, or None."""
        if group is None or not isinstance(group, h5py.Group) or name not in group:
            return None
        require(isinstance(group.get(name, getlink=True), h5py.HardLink), f"{name!r} in it is a link to elsewhere")
        return group[name]

    def array(self, group: h5py.Group, path: str) -> np.ndarray:
        """Return the numbers of a data set."""
        found: Any = group
        for part in path.split("/"):
            found = self.inner(found, part)
        require(isinstance(found, h5py.Dataset), f"there are no weights {path!r} in it")
        require(found.dtype.kind == "f", f"its weights {path!r} are no real numbers")
        plain = not found.external and not found.is_virtual and found.shape is not None
        whole = plain and found.id.get_storage_size() == found.nbytes  # as Keras writes them: not compressed
        require(whole, f"its weights {path!r} are compressed or stored elsewhere")
        self.left -= found.nbytes
        require(self.left >= 0, f"it has more than {MAX_WEIGHTS:,} bytes of weights")
        return np.asarray(found[()])

    # Keras 3

    def by_number(self, layer: Layer, group: h5py.Group | None) -> Layer:
        """Return a layer with the weights that Keras 3 stores as numbered variables."""
        if layer.kind in MODELS:
            inside, used, filled = self.inner(group, "layers"), dict[str, int](), []
            for each in layer.layers:
                name = snake_case(each.kind)
                used[name] = used.get(name, -1) + 1
                filled.append(self.by_number(each, self.inner(inside, f"{name}_{used[name]}" if used[name] else name)))
            return layer._replace(layers=tuple(filled))
        if layer.layers:
            places = ("layer",) if len(layer.layers) == 1 else ("forward_layer", "backward_layer")
            parts = zip(layer.layers, places, strict=True)
            return layer._replace(layers=tuple(self.by_number(each, self.inner(group, name)) for each, name in parts))
        holder = self.inner(group, "cell") or group
        variables = self.inner(holder, "vars")
        if variables is None or layer.kind not in VARIABLES:
            return layer
        arrays = [self.array(variables, str(number)) for number in range(len(variables))]
        names = variables_of(layer)
        few = len(arrays) in (0, len(names))
        require(few, f"layer {layer.name!r} ({layer.kind}) has {len(arrays)} weights in it, not {', '.join(names)}")
        return layer._replace(weights=dict(zip(names, arrays, strict=False)))

    # Keras 1 and 2

    def by_name(self, model: Layer, group: h5py.Group) -> Layer:
        """Return a model with the weights that a group lists by the names of their variables."""
        filled = []
        for layer in model.layers:
            own = self.inner(group, layer.name)
            parts: dict[str, dict[str, np.ndarray]] = {}
            for path in names_in(own):
                scope, _, name = path.rpartition("/")
                parts.setdefault(scope, {})[name.split(":")[0]] = self.array(own, path)
            filled.append(spread(layer, parts))
        return model._replace(layers=tuple(filled))


def text(value: Any) -> str:
    """Return an attribute that is a text, of either of HDF5's kinds."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def snake_case(name: str) -> str:
    """Return the name that Keras 3 gives the weights of a class, ``conv2d`` for ``Conv2D``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def variables_of(layer: Layer) -> list[str]:
    """Return the names of a layer's variables, in Keras' order."""
    switches = {"gamma": "scale", "beta": "center", "bias": "use_bias"}
    return [name for name in VARIABLES[layer.kind] if layer.config.get(switches.get(name, ""), True)]


def names_in(group: h5py.Group | None) -> list[str]:
    """Return the names of a layer's weights; a long list is stored in several attributes."""
    if group is None:
        return []
    if "weight_names" in group.attrs:
        return [text(name) for name in group.attrs["weight_names"]]
    chunks: list[Any] = []
    while (key := f"weight_names{len(chunks)}") in group.attrs:
        chunks.append(group.attrs[key])
    return [text(name) for chunk in chunks for name in chunk]


def spread(layer: Layer, parts: Mapping[str, dict[str, np.ndarray]]) -> Layer:
    """Return a layer with weights; a model or a wrapper hands them to the layers in it, by their names or in order."""
    if not layer.layers:
        return layer._replace(weights={name: array for part in parts.values() for name, array in part.items()})
    left = dict(parts)
    inside = innermost(layer)
    found: dict[int, dict[str, np.ndarray]] = {}
    known = {scope.rpartition("/")[2]: scope for scope in left}
    if len(known) == len(left) and set(known) <= {each.name for each in inside}:
        found = {id(each): left[known[each.name]] for each in inside if each.name in known}
    else:
        owners = [each for each in inside if each.kind in VARIABLES]
        require(len(owners) == len(left) or not left, f"layer {layer.name!r} has weights for {len(left)} layers in it")
        found = {id(each): part for each, part in zip(owners, left.values(), strict=False)}
    return handed(layer, found)


def innermost(layer: Layer) -> list[Layer]:
    """List the layers in a layer that hold no others, in order."""
    return [each for inner in layer.layers for each in (innermost(inner) if inner.layers else [inner])]


def handed(layer: Layer, weights: Mapping[int, dict[str, np.ndarray]]) -> Layer:
    """Return a layer with weights for the innermost layers, by their identities."""
    if not layer.layers:
        return layer._replace(weights=weights.get(id(layer), {}))
    return layer._replace(layers=tuple(handed(inner, weights) for inner in layer.layers))
