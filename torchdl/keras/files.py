"""Keras' files, read without Keras and without running anything: ``.h5``, ``.keras`` and ``.weights.h5``.

A file is a stranger's: what it holds is data. The code of a ``Lambda`` layer is thrown away.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchdl import errors
from torchdl.errors import InputError, first_line, require
from torchdl.files import PathLike, read_json

MODELS = ("Model", "Functional", "Sequential")
CUSTOM = "CPCLayer"  # the one class outside of Keras whose meaning is known
KERAS = ("keras", "tf_keras", "tensorflow")  # whose layers are the same
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
        path: A file ``.keras`` (Keras 3), ``.h5`` (Keras 2 or 3), or of weights only; or a folder with one such file,
            and the architecture if that lacks it.
        architecture: The JSON file with the layers (``model.to_json()``), for a file that holds weights only.

    Raises:
        InputError: The file is missing, damaged, too large, or no file of Keras.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/mlp.keras"
        >>> notes = torchdl.keras.to_keras(torchdl.MLP(4, 3, hidden=(8,)), path)
        >>> [(layer.kind, *layer.weights) for layer in torchdl.keras.read_model(path).model.layers][1]
        ('Dense', 'kernel', 'bias')
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"a file of Keras is named by its path, not by {errors.kind_of(path)}: save the model first")
    path = Path(path)
    try:
        path, architecture = in_folder(path, architecture) if path.is_dir() else (path, architecture)
        described = None if architecture is None else read_json(architecture, dict[str, Any], MAX_TEXT)
        data = contents(path)
        if data.startswith(b"PK"):
            require(described is None, "it holds its own architecture: leave the other out")
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                metadata = parsed(member(archive, "metadata.json", MAX_TEXT))
                described = parsed(member(archive, "config.json", MAX_TEXT))
                weights = member(archive, "model.weights.h5", MAX_WEIGHTS)
            return with_weights(described, weights, str(metadata.get("keras_version", "3")))
        return with_weights(described, data)
    except InputError as error:
        reason = str(error)
        opening = f"{path} cannot be read as a model of Keras"
        raise InputError(reason if str(path) in reason else f"{opening}: {reason}") from error
    except Exception as error:  # of zipfile and json, and of descriptions that are not as Keras writes them
        raise InputError(f"{path} is no model of Keras, or damaged: {first_line(error)[:200]}") from error


def in_folder(folder: Path, architecture: PathLike | None) -> tuple[Path, PathLike | None]:
    """Return the only file of weights in a folder, and the only description beside it if it holds none itself."""
    from torchdl.keras.weights import Weights

    require(not (folder / "saved_model.pb").exists(), "it is a SavedModel of TensorFlow: save it as .keras or .h5")
    weights = [path for path in sorted(folder.iterdir()) if path.suffix in (".h5", ".hdf5", ".keras")]
    require(len(weights) == 1, f"the folder holds {len(weights)} files .h5 or .keras, not one: name the file")
    path = weights[0]
    if architecture is not None or path.suffix == ".keras" or Weights(contents(path)).attribute("model_config"):
        return path, architecture
    described = [other for other in sorted(folder.glob("*.json")) if other.name != "metadata.json"]
    many = f"the folder holds {len(described)} files .json, not one"
    require(len(described) == 1, f"{many}: name the JSON file with the architecture, too")
    return path, described[0]


def contents(path: Path) -> bytes:
    """Return the bytes of a file, unless it is too large."""
    require(path.exists(), "there is no such file")
    require(path.is_file(), "it is no file")
    require(path.stat().st_size <= MAX_WEIGHTS, f"it is larger than {MAX_WEIGHTS:,} bytes")
    return path.read_bytes()


def member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return a member of an archive, unless it is larger than a limit or than what such a file can be compressed to."""
    require(name in archive.namelist(), f"there is no {name} in it")
    info = archive.getinfo(name)
    require(info.file_size <= limit, f"{name} is larger than {limit:,} bytes")
    require(info.file_size <= 100 * info.compress_size + 2**20, f"{name} is compressed too far")
    with archive.open(name) as file:
        return file.read(limit)


def with_weights(described: dict[str, Any] | None, data: bytes, version: str = "") -> KerasFile:
    """Return a model with the weights that an HDF5 file holds, which may hold its description, too."""
    from torchdl.keras.weights import Weights  # which imports this module

    file = Weights(data)
    if (config := file.attribute("model_config")) is not None:
        require(described is None, "it holds its own architecture: leave the other out")
        described = parsed(config)
    require(described is not None, "it holds weights only: name the JSON file with its architecture, too")
    described = described or {}
    version = version or str(described.get("keras_version") or file.attribute("keras_version") or "")
    version = version or ("" if file.has_names else "3")  # only Keras 3 numbers its weights
    return as_file(file.fill(model_of(described)), version)


def parsed(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object."""
    value = json.loads(text)
    require(isinstance(value, dict), "its description is no JSON object")
    return value


def as_file(model: Layer, version: str) -> KerasFile:
    """Return a model with the names of its outputs."""
    return KerasFile(model, outputs_of(model), version)


def outputs_of(model: Layer) -> tuple[str, ...]:
    """Return the names of the layers whose outputs are a model's; the last layer's where it does not say."""
    named = tuple(dict.fromkeys(sources(model.config.get("output_layers"))))
    return named or tuple(layer.name for layer in model.layers[-1:])


# Descriptions


def model_of(description: dict[str, Any]) -> Layer:
    """Return the layers that Keras' description of a model lists, without weights."""
    model = layer_of(description)
    advice = "describe the same layers as a Sequential or Functional model, give it the weights, and save that"
    require(model.kind in MODELS, f"it describes a {model.kind}, whose layers only its own code knows: {advice}")
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
    kind, config = kind_of(description), description.get("config") or {}
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
    in_training = f"its layer {name!r} is called with training=True, so it computes as in training: call it without"
    require(not trains(description.get("inbound_nodes")), in_training)
    return Layer(name, kind, config, {}, tuple(sources(description.get("inbound_nodes"))), inner)


def kind_of(description: Any) -> str:
    """Return the name of a layer's class, with its package before it if that is not Keras."""
    package, _, kind = str(description["class_name"]).rpartition(">")
    registered, module = str(description.get("registered_name") or ""), str(description.get("module") or "keras")
    package = package or registered.rpartition(">")[0] or ("" if module.split(".")[0] in KERAS else module)
    return f"{package}>{kind}" if package and kind != CUSTOM else kind


def trains(calls: Any) -> bool:
    """Return whether a description of a layer's calls holds ``training=True``, in any version of Keras."""
    if isinstance(calls, dict) and calls.get("training") not in (None, False, 0):
        return True
    inner = calls.values() if isinstance(calls, dict) else calls if isinstance(calls, list) else ()
    return any(trains(each) for each in inner)


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
