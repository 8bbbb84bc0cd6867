"""The weights in Keras' HDF5 files, in the layouts of Keras 1 and 2 (by name) and of Keras 3 (by number)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

import numpy as np

from torchdl.errors import InputError, require
from torchdl.keras.files import MODELS, Layer, layers_in
from torchdl.keras.hdf5 import File, Object

VARIABLES = {  # in Keras' order
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "GroupNormalization": ("gamma", "beta"),
    "Embedding": ("embeddings",),
    **dict.fromkeys(("GRU", "LSTM", "SimpleRNN"), ("kernel", "recurrent_kernel", "bias")),
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D"), ("kernel", "bias")),
}


class Weights:
    """The weights in an HDF5 file.

    Args:
        data: The file's bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.root = File(data).root
        self.group = self.root.child("model_weights") or self.root
        self.has_names = bool(listed(self.group, "layer_names"))  # in the order of Keras 1 and 2

    def attribute(self, name: str) -> str | None:
        """Return a text that the file has as an attribute."""
        found = self.root.attribute(name)
        return found[0] if found else None

    def fill(self, model: Layer) -> Layer:
        """Return a model with its weights."""
        if self.has_names:
            return self.by_name(model, self.group)
        require("layers" in self.group.children, "its weights are in neither Keras 2's nor Keras 3's order")
        return self.by_number(model, self.group)

    def inner(self, group: Object | None, path: str) -> Object | None:
        """Return what a group holds under a path of names, or None."""
        for name in path.split("/"):
            group = None if group is None else group.child(name)
        return group

    def array(self, group: Object | None, path: str) -> np.ndarray:
        """Return the numbers of an array."""
        found = self.inner(group, path)
        require(found is not None, f"there are no weights {path!r} in it")
        assert found is not None
        try:
            numbers = found.array()
        except InputError as error:
            raise InputError(f"its weights {path!r} {error}") from error
        require(bool(np.isfinite(numbers).all()), f"its weights {path!r} hold numbers that are not finite")
        return numbers

    # Keras 3

    def by_number(self, layer: Layer, group: Object | None) -> Layer:
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
        arrays = [self.array(variables, str(number)) for number in range(len(variables.children))]
        names = variables_of(layer)
        few = len(arrays) in (0, len(names))
        require(few, f"layer {layer.name!r} ({layer.kind}) has {len(arrays)} weights in it, not {', '.join(names)}")
        return layer._replace(weights=dict(zip(names, arrays, strict=False)))

    # Keras 1 and 2

    def by_name(self, model: Layer, group: Object) -> Layer:
        """Return a model with the weights that a group lists by the names of their variables."""
        filled = []
        for layer in model.layers:
            own = self.inner(group, layer.name)
            parts: dict[str, dict[str, np.ndarray]] = {}
            for path in listed(own, "weight_names"):
                scope, _, name = path.rpartition("/")
                parts.setdefault(scope, {})[name.split(":")[0]] = self.array(own, path)
            filled.append(spread(layer, parts))
            for each in (filled[-1], *layers_in(filled[-1])):
                strange = set(each.weights) - {*VARIABLES.get(each.kind, each.weights), "seed_generator_state"}
                more = f"layer {each.name!r} ({each.kind}) has weights that change what it computes: {sorted(strange)}"
                require(not strange, more)
        return model._replace(layers=tuple(filled))


def snake_case(name: str) -> str:
    """Return the name that Keras 3 gives the weights of a class, ``conv2d`` for ``Conv2D``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def variables_of(layer: Layer) -> list[str]:
    """Return the names of a layer's variables, in Keras' order."""
    switches = {"gamma": "scale", "beta": "center", "bias": "use_bias"}
    return [name for name in VARIABLES[layer.kind] if layer.config.get(switches.get(name, ""), True)]


def listed(group: Object | None, attribute: str) -> list[str]:
    """Return the texts of an attribute; Keras 2 stores a long list in several."""
    if group is None:
        return []
    found = group.attribute(attribute) or []
    for number in itertools.count():
        if not (more := group.attribute(f"{attribute}{number}")):
            break
        found += more
    return found


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
        of_both = list(owners_in(layer))
        owners = [each for wanted in (True, False) for trained, each in of_both if trained == wanted]  # as Keras stores
        require(len(owners) == len(left) or not left, f"layer {layer.name!r} has weights for {len(left)} layers in it")
        found = {id(each): part for each, part in zip(owners, left.values(), strict=False)}
        fits = all(set(found[id(each)]) == set(variables_of(each)) for each in owners if left)
        require(fits, f"layer {layer.name!r} has weights in another order than the layers in it")
    return handed(layer, found)


def innermost(layer: Layer) -> list[Layer]:
    """List the layers in a layer that hold no others, in order."""
    return [each for inner in layer.layers for each in (innermost(inner) if inner.layers else [inner])]


def owners_in(layer: Layer, trained: bool = True) -> Iterator[tuple[bool, Layer]]:
    """Yield the innermost layers with weights in order, and before each whether some of its weights are trained."""
    trained = trained and layer.config.get("trainable") is not False
    if layer.layers:
        for inner in layer.layers:
            yield from owners_in(inner, trained)
    elif layer.kind in VARIABLES:
        yield trained and any(not name.startswith("moving") for name in variables_of(layer)), layer


def handed(layer: Layer, weights: Mapping[int, dict[str, np.ndarray]]) -> Layer:
    """Return a layer with weights for the innermost layers, by their identities."""
    if not layer.layers:
        return layer._replace(weights=weights.get(id(layer), {}))
    return layer._replace(layers=tuple(handed(inner, weights) for inner in layer.layers))
