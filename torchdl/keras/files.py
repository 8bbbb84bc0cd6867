"""Keras' files, read without Keras and without running anything: ``.h5``, ``.keras`` and ``.weights.h5``.

A file is a stranger's: what it holds is data. The code of a ``Lambda`` layer is thrown away.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchdl.errors import InputError, require
from torchdl.files import PathLike, read_json

MODELS = ("Model", "Functional", "Sequential")
MAX_LAYERS = 10_000
MAX_TEXT = 2**26  # bytes of a description
MAX_WEIGHTS = 2**33  # bytes


class Layer(NamedTuple):
    """A layer of a Keras model.

    Attributes:
        name: Its name in the model.
        kind: Keras' name of its class, such as ``Conv2D``, ``GRU``, ``Functional``, or that of a class of the user's.
        config: Keras' own configuration of the layer. A lambda layer's code is left out.
        weights: Its arrays by the variables' names, such as ``kernel``, ``bias``, ``moving_mean``.
        inputs: The names of the layers that feed it; a model's inputs are layers, too, of kind ``InputLayer``.
        layers: The layers of a nested model in order, or what ``TimeDistributed`` or ``Bidirectional`` wraps.
    """

    name: str
    kind: str
    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    inputs: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()


class KerasFile(NamedTuple):
    """What a file of Keras holds.

    Attributes:
        model: The outermost model, of kind ``Sequential``, ``Functional`` or ``Model``.
        outputs: The names of the layers whose outputs are the model's.
        version: The version of Keras that wrote the file; empty if unknown.
    """

    model: Layer
    outputs: tuple[str, ...]
    version: str


def read_model(path: PathLike, architecture: PathLike | None = None) -> KerasFile:
    """Read a model and its weights from a file of Keras.

    Args:
        path: A file ``.keras`` (Keras 3), ``.h5`` (any version), or of weights only.
        architecture: The JSON file with the layers (``model.to_json()``), for a file that holds weights only.

    Raises:
        InputError: The file is missing, damaged, too large, or no file of Keras.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/mlp.keras"
        >>> torchdl.keras.to_keras(torchdl.MLP(4, 3, hidden=(8,)), path)
        >>> [(layer.kind, *layer.weights) for layer in torchdl.keras.read_model(path).model.layers][1]
        ('Dense', 'kernel', 'bias')
    """
    from torchdl.keras.weights import Weights  # which imports this module

    path = Path(path)
    try:
        described = None if architecture is None else read_json(architecture, dict[str, Any], MAX_TEXT)
        if zipfile.is_zipfile(path):
            require(described is None, "it holds its own architecture: leave the other out")
            with zipfile.ZipFile(path) as archive:
                described = parsed(member(archive, "config.json", MAX_TEXT))
                version = str(parsed(member(archive, "metadata.json", MAX_TEXT)).get("keras_version", "3"))
                weights = io.BytesIO(member(archive, "model.weights.h5", MAX_WEIGHTS))
            with Weights(weights) as file:
                return as_file(file.fill(model_of(described)), version)
        with Weights(path) as file:
            if (config := file.attribute("model_config")) is not None:
                require(described is None, "it holds its own architecture: leave the other out")
                return as_file(file.fill(model_of(parsed(config))), file.attribute("keras_version") or "")
            require(described is not None, "it holds weights only: name the JSON file with its architecture, too")
            version = str((described or {}).get("keras_version") or file.attribute("keras_version") or "")
            version = version or ("" if file.has_names else "3")  # only Keras 3 numbers its weights
            return as_file(file.fill(model_of(described or {})), version)
    except InputError as error:
        reason = str(error)
        raise InputError(reason if str(path) in reason else f"{path} is no model of Keras: {reason}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} cannot be read: there is no such file") from error
    except Exception as error:  # of zipfile, h5py and json, for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path} is no model of Keras, or damaged: {reason}") from error


def member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member of an archive, unless it is larger than a limit."""
    require(name in archive.namelist(), f"there is no {name} in it")
    require(archive.getinfo(name).file_size <= limit, f"{name} is larger than {limit:,} bytes")
    with archive.open(name) as file:
        return file.read(limit)


def parsed(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    value = json.loads(text)
    require(isinstance(value, dict), "its description is no JSON object")
    return value


def as_file(model: Layer, version: str) -> KerasFile:
    """Return a model with the names of its outputs."""
    outputs = model.config.get("output_layers")
    names = tuple(dict.fromkeys(sources(outputs))) or tuple(layer.name for layer in model.layers[-1:])
    return KerasFile(model, names, version)


# Descriptions


def model_of(description: dict[str, Any]) -> Layer:
    """Return the layers that Keras' description of a model lists, without weights."""
    model = layer_of(description)
    require(model.kind in MODELS, f"it describes a {model.kind}, not a model")
    count = sum(1 for _ in layers_in(model))
    require(count <= MAX_LAYERS, f"it has {count:,} layers, more than {MAX_LAYERS:,}")
    return model


def layers_in(layer: Layer) -> Iterator[Layer]:
    """Yield all layers in a layer, at any depth."""
    for inner in layer.layers:
        yield inner
        yield from layers_in(inner)


def layer_of(description: Any) -> Layer:
    """Return a layer that Keras describes as ``{"class_name": ..., "config": ...}``, in any version."""
    require(isinstance(description, dict) and "class_name" in description, "a layer of it has no class_name")
    kind, config = str(description["class_name"]).rpartition(">")[2], description.get("config") or {}
    inner: tuple[Layer, ...] = ()
    if kind in MODELS:
        config = {"layers": config} if isinstance(config, list) else config  # Sequential before Keras 2.2.3
        listed = config.get("layers") or ()
        require(isinstance(listed, list), f"its {kind} lists no layers")
        inner = tuple(layer_of(each) for each in listed)
        if kind == "Sequential":
            inner = in_sequence(inner, config.get("build_input_shape"))
        config = {key: value for key, value in config.items() if key != "layers"}
    elif kind == "TimeDistributed":
        inner = (layer_of(config.get("layer")),)
    elif kind == "Bidirectional":
        forward, backward = layer_of(config.get("layer")), config.get("backward_layer")
        reverse = {**forward.config, "go_backwards": not forward.config.get("go_backwards")}
        inner = (forward, layer_of(backward) if backward else forward._replace(config=reverse))
    require(isinstance(config, dict), f"the settings of a {kind} are no JSON object")
    name = str(config.get("name") or description.get("name") or kind)
    config = {} if kind == "Lambda" else config
    return Layer(name, kind, config, {}, tuple(sources(description.get("inbound_nodes"))), inner)


def in_sequence(layers: tuple[Layer, ...], shape: Any) -> tuple[Layer, ...]:
    """Return layers that feed one another, with an input before them, which old versions of Keras leave out."""
    if layers and layers[0].kind != "InputLayer":
        given = layers[0].config.get("batch_input_shape") or layers[0].config.get("batch_shape")
        nested = layers[0].layers[0].config.get("batch_input_shape") if layers[0].layers else None
        if layers[0].kind not in MODELS:
            layers = (Layer("input", "InputLayer", {"batch_shape": given or nested or shape}, {}), *layers)
    names = [layer.name for layer in layers]
    feeds = [(), *((name,) for name in names[:-1])]
    return tuple(layer._replace(inputs=feed) for layer, feed in zip(layers, feeds, strict=True))


def sources(value: Any) -> Iterator[str]:
    """Yield the names of the layers that a description of inputs or outputs names, in any version of Keras."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield str(value["config"]["keras_history"][0])
        else:
            for inner in value.values():
                yield from sources(inner)
    elif isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and type(value[1]) is type(value[2]) is int:
            yield value[0]  # [name, node, tensor, ...]
            value = value[3:]
        for inner in value:
            yield from sources(inner)
