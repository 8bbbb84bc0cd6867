"""The operations of a Keras model whose layers follow one another, with nested models unfolded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torchdl.keras.files import MODELS, Layer, outputs_of
from torchdl.keras.layers import CENTRING, in_order
from torchdl.keras.steps import MisfitError, Reader, Shape, Step

MAX_STEPS = 1000


class Chain(NamedTuple):
    """Operations that follow one another.

    Attributes:
        input_shape: The shape of an input, without the batch, as the file has it.
        steps: The operations.
        channels_first: Whether images are (channel, height, width), and not (height, width, channel).
        flat_last: Whether images are flattened as (height, width, channel).
    """

    input_shape: Shape
    steps: tuple[Step, ...]
    channels_first: bool
    flat_last: bool

    def of(self, *kinds: str) -> list[Step]:
        """Return the operations of these kinds."""
        return [step for step in self.steps if step.kind in kinds]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an input image; raise :class:`MisfitError` if it is none."""
        if len(self.input_shape) != 3 or None in self.input_shape:
            raise MisfitError(None, f"its inputs of shape {self.input_shape} are no images of known size")
        first, second, third = (int(size or 0) for size in self.input_shape)
        return (first, second, third) if self.channels_first else (third, first, second)


def chain_of(model: Layer, keras_2: bool) -> Chain:
    """Find the operations of a model whose layers follow one another.

    Args:
        model: The model.
        keras_2: Whether Keras 2 or older has written the file; its hard sigmoid is another function.

    Raises:
        MisfitError: A layer has several inputs, or feeds several layers.
    """
    found = unfolded(model)
    shape, layers = input_shape(found), [layer for layer in found if layer.kind != "InputLayer"]
    if len(layers) > MAX_STEPS:
        raise MisfitError(None, f"it has {len(layers):,} layers, more than {MAX_STEPS:,}")
    spatial = ("Conv", "MaxPool", "UpS", "GlobalM")
    formats = {layer.config.get("data_format") for layer in layers if layer.kind.startswith(spatial)}
    first = formats - {None} == {"channels_first"}
    if {"channels_first", "channels_last"} <= formats:
        raise MisfitError(None, "some of its layers take channels first, others last")
    reader = Reader(shape, first, keras_2)
    steps = [step for layer in layers for step in reader.steps(layer)]
    return Chain(shape, tuple(in_order(steps)), first, reader.flat_last)


def unfolded(model: Layer) -> list[Layer]:
    """List the layers of a model in their order, with the layers of nested models in their place."""
    found: list[Layer] = []
    for layer in ordered(model):
        inner = unfolded(layer) if layer.kind in MODELS else [layer]
        found += [each for each in inner if not (found and each.kind == "InputLayer")]
    return found


def ordered(model: Layer) -> list[Layer]:
    """List the layers of a model from its input to its output."""
    if model.kind == "Sequential":
        return list(model.layers)
    masks = {layer.name for layer in model.layers if layer.kind == "NotEqual"}  # Keras 3's, of an embedding
    known = {layer.name: layer for layer in model.layers if layer.name not in masks}
    means = {layer.inputs[1] for layer in known.values() if centres(layer, known)}
    after: dict[str, list[Layer]] = {}
    for layer in known.values():
        if layer.name in means:
            continue
        inputs = [name for name in layer.inputs if name not in masks]
        if len(inputs) > 1 and not centres(layer, known):
            raise MisfitError(layer, "has several inputs")
        for name in inputs[:1]:
            after.setdefault(name, []).append(layer)
    starts = [layer for layer in known.values() if not layer.inputs]
    if len(starts) != 1:
        raise MisfitError(None, f"it has {len(starts)} inputs")
    found = starts
    while following := after.get(found[-1].name):
        if len(following) > 1:
            raise MisfitError(found[-1], "feeds several layers")
        if len(found) > len(known):
            raise MisfitError(found[-1], "feeds itself")
        found.append(following[0])
    require_output(model, found[-1])
    return found


def require_output(model: Layer, layer: Layer) -> None:
    """Raise :class:`MisfitError` unless a layer's output is that of its model, and the only one."""
    outputs = outputs_of(model)
    if len(outputs) > 1:
        raise MisfitError(None, f"the model {model.name!r} has {len(outputs)} outputs ({', '.join(outputs)})")
    if outputs != (layer.name,):
        raise MisfitError(layer, f"is not the output of the model {model.name!r}, which is that of {outputs[0]!r}")


def centres(layer: Layer, known: Mapping[str, Layer]) -> bool:
    """Return whether a layer subtracts the mean of each channel from an image."""
    if layer.kind != CENTRING or len(layer.inputs) != 2 or layer.inputs[1] not in known:
        return False
    mean = known[layer.inputs[1]]
    per_image = mean.config.get("keepdims") is True and mean.config.get("data_format") != "channels_first"
    return mean.kind == "GlobalAveragePooling2D" and per_image and mean.inputs == layer.inputs[:1]


def input_shape(layers: list[Layer]) -> Shape:
    """Return the shape of an input, without the batch; raise :class:`MisfitError` if the model does not say it."""
    first = layers[0] if layers else None
    for key in ("batch_shape", "batch_input_shape"):
        shape = first.config.get(key) if first else None
        if isinstance(shape, (list, tuple)) and len(shape) > 1:
            sizes = tuple(shape[1:])
            if all(size is None or (type(size) is int and size > 0) for size in sizes):
                return sizes
    raise MisfitError(first, "does not say the shape of its inputs")
