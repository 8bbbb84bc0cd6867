"""Compares a network from a file of Keras with the model that Keras itself loads from it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchdl import models
from torchdl.errors import InputError, first_line, require
from torchdl.files import PathLike
from torchdl.keras.exporting import import_keras, quiet
from torchdl.keras.files import Layer, read_model
from torchdl.keras.graphs import rating_inputs
from torchdl.keras.importing import Imported

BATCH, TERMS = 8, 4
CUSTOM = ("Lambda", "CPCLayer")


class Difference(NamedTuple):
    """How far the outputs of two networks differ.

    Attributes:
        largest: The largest absolute difference.
        scale: The largest absolute output.
    """

    largest: float
    scale: float


def largest_difference(
    path: PathLike, imported: Imported, architecture: PathLike | None = None, seed: int = 0
) -> Difference:
    """Return the largest difference between the outputs of Keras' model and of a network, on random inputs.

    Args:
        path: The file.
        imported: The result of :func:`torchdl.keras.describe_import` on it.
        architecture: The JSON file with the layers, for a file that holds weights only.
        seed: Seed of the inputs.

    Raises:
        InputError: Keras is not installed, or cannot load the file without running code from it.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/mlp.keras"
        >>> notes = torchdl.keras.to_keras(torchdl.MLP(4, 3), path)
        >>> torchdl.keras.largest_difference(path, torchdl.keras.describe_import(path)).largest < 1e-5
        True
    """
    file = read_model(path, architecture)
    require_no_code(file.model)
    keras = import_keras()
    model, generator = imported.model, np.random.default_rng(seed)
    with quiet():
        try:
            other = load(keras, path, architecture)
        except Exception as error:  # Keras raises many kinds for files of older versions
            raise InputError(f"Keras {keras.__version__} cannot load {path}") from error
        names = [tensor._keras_history.operation.name for tensor in other.inputs]
        order = rating_inputs(file.model) if isinstance(model, models.RatingModel) else names
        drawn = [draw(generator, model, i, other.inputs[names.index(name)].shape[1:]) for i, name in enumerate(order)]
        inputs = [drawn[order.index(name)] for name in names]
        try:
            theirs = other(inputs if len(inputs) > 1 else inputs[0], training=False)
        except Exception as error:
            raise InputError(f"Keras {keras.__version__} cannot compute with {path}: {first_line(error)}") from error
    with torch.no_grad():
        ours = outputs(imported, as_here(imported, drawn))
    found = theirs if isinstance(theirs, (list, tuple)) else [theirs]
    values = [keras.ops.convert_to_numpy(value).astype(np.float32) for value in found]
    if imported.applies:
        values = [torch.from_numpy(value).sigmoid().numpy() for value in values]
    if isinstance(model, models.ContextNetwork) and values[0].ndim == 2:
        ours = [ours[0][:, -1]]
    if isinstance(model, models.Predictors) and len(values) > 1:
        ours = list(ours[0].unbind(-2))
    largest = max(
        float(np.abs(value - own.reshape(value.shape).numpy()).max()) for value, own in zip(values, ours, strict=True)
    )
    return Difference(largest, max(float(np.abs(value).max()) for value in values))


def require_no_code(layer: Layer) -> None:
    """Raise :class:`InputError` if a layer, or one in it, is not Keras' own or names what is not in Keras."""
    require(
        layer.kind not in CUSTOM, f"Keras could not load the layer {layer.name!r} ({layer.kind}) without running code"
    )
    unsafe = next(foreign(layer.config), None)
    require(unsafe is None, f"the layer {layer.name!r} names {unsafe}, which is not in Keras")
    for inner in layer.layers:
        require_no_code(inner)


def foreign(value: Any) -> Any:
    """Yield the modules beside Keras' that a description of a layer names."""
    if isinstance(value, dict):
        module = value.get("module")
        if module not in (None, "keras", "builtins") and not str(module).startswith("keras."):
            yield module
        if value.get("class_name") in ("__lambda__", "Lambda"):
            yield value["class_name"]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from foreign(inner)


def load(keras: Any, path: PathLike, architecture: PathLike | None) -> Any:
    """Load the Keras model of a file, in Keras' safe mode."""
    if architecture is None:
        return keras.saving.load_model(str(path), compile=False, safe_mode=True)
    other = keras.models.model_from_json(json.dumps(json.loads(Path(architecture).read_text("utf-8"))))
    other.load_weights(str(path))
    return other


def draw(generator: np.random.Generator, model: Any, index: int, shape: Sequence[int | None]) -> np.ndarray:
    """Draw a batch of inputs of Keras' model."""
    length = model.predictors.steps if isinstance(model, models.CPC) and index == 1 else TERMS
    if isinstance(model, models.TextCNN):
        length = model.min_words
    sizes = (BATCH, *(int(length if size is None else size) for size in shape))  # type: ignore[arg-type]
    if isinstance(model, (models.TextLSTM, models.TextCNN)):
        return generator.integers(1, model.vocabulary_size + 1, sizes)
    if isinstance(model, models.RatingModel):
        return generator.integers(0, (model.users, model.items)[index], sizes)
    return generator.standard_normal(sizes, np.float32)


def as_here(imported: Imported, inputs: list[np.ndarray]) -> list[Tensor]:
    """Return the inputs that a network takes for those of its Keras model."""
    tensors = [torch.from_numpy(array) for array in inputs]
    if isinstance(imported.model, models.RatingModel):
        return [torch.cat(tensors, 1) + 1]
    if isinstance(imported.model, models.RowReader):
        return [tensors[0][:, None]]
    images = 5 if isinstance(imported.model, models.CPC) else 4  # dimensions
    is_image = tensors[0].dim() == images and not imported.channels_first
    return [tensor.movedim(-1, -3) for tensor in tensors] if is_image else tensors


def outputs(imported: Imported, inputs: list[Tensor]) -> list[Tensor]:
    """Return the outputs of a network in the form of its Keras model."""
    model = imported.model
    output = model(*inputs)
    if isinstance(model, models.CPC):
        return list(output)
    if isinstance(model, models.GAN):
        return [model.discriminator(output)]
    if isinstance(model, models.RatingModel):
        return [output]
    if isinstance(model, models.Autoencoder) and not imported.channels_first:
        return [output.movedim(1, -1)]
    return [{"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "": lambda x: x}[imported.ending](output)]
