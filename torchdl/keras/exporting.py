"""Keras models with the weights of torchdl's networks."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from torchdl import models
from torchdl.errors import InputError, require
from torchdl.files import PathLike, require_suffix
from torchdl.keras.layers import Piece, assign, function, keras_layer, numpy, pieces, recurrent, weights_of
from torchdl.keras.networks import CLASSIFIES, NETWORKS, Network


def import_keras() -> Any:
    """Import Keras 3, with PyTorch as its backend unless the user has chosen another."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise InputError("Keras is needed for this: pip install 'torchdl[keras]'") from error
    require(keras.__version__.startswith("3"), f"Keras 3 is needed for this, not {keras.__version__}")
    return keras


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Keras' warnings of masks that end at a pooling, of settings of older versions, and of ``.h5`` files."""
    logger = logging.getLogger("absl")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def to_keras(model: nn.Module, path: PathLike, ending: str = "") -> tuple[str, ...]:
    """Write a network as a model of Keras 3 with the same weights; it needs the extra ``keras``.

    The model is made of Keras' own layers, without a ``Lambda``, and has the network's outputs: a classifier's are
    logits, so train and evaluate it with ``from_logits=True``, or choose an ``ending``. Images are channels last there.
    A recurrent layer of Keras, other than a GRU, has one bias, the sum of PyTorch's two.

    These differ, because Keras lacks something:

    - :class:`TextCNN` and :class:`TextLSTM` ignore padding, unless they have ``read_padding``. The Keras model of the
      first reads it, and that of the second ignores it only behind the words.
    - A :class:`RatingModel` there has no index 0: index i here is i - 1 there.
    - An :class:`MLP`, a :class:`Discriminator` and a :class:`Generator` have flat images there, in the order (channel,
      height, width), as here.
    - A :class:`CPC` with ``batch_statistics`` normalises by running statistics there, so its outputs differ.
    - Keras 2's hard sigmoid becomes that of Keras 3, with weights of the gates 1.2 times as large: the same function.

    Args:
        model: One of the networks that :func:`from_keras` returns.
        path: A file ``.keras`` or ``.h5`` to write, or ``.weights.h5`` for the weights, beside which a file ``.json``
            with the layers is written.
        ending: ``softmax`` or ``sigmoid`` to end a classifier with it, as :attr:`Imported.ending` says of a file;
            "" for logits.

    Returns:
        Sentences on inputs and outputs that differ from those here, or from those of other Keras models.

    Raises:
        InputError: Keras is not installed, or has nothing for a part of the network, or the network is no classifier
            and has an ``ending``.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/mlp.keras"
        >>> mlp = torchdl.MLP(4, 3, hidden=(8,))
        >>> torchdl.keras.to_keras(mlp, path, ending="softmax")
        ('inputs: (N, 4), where images are flat in the order (channel, height, width)',)
        >>> torchdl.keras.from_keras(path).layers[0].weight.equal(mlp.layers[0].weight)
        True
    """
    path = Path(path)
    require_suffix(path, ".h5", ".keras")
    with quiet():
        other = build_keras(model, ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        _, *beside = files_written(path)
        if not beside:
            other.save(path)
        else:
            other.save_weights(path)
            beside[0].write_text(other.to_json(), encoding="utf-8")
    return tuple(notes_on(model, ending))


def notes_on(model: nn.Module, ending: str) -> list[str]:
    """Say how the inputs and outputs of a network's Keras model differ from those here."""
    network, notes = network_of(model), []
    shape = network.shape(model) if network else ()
    sizes = f"(N, {', '.join(map(str, shape))})"
    if len(shape) == 3 or isinstance(model, models.CPC):
        notes.append(f"images: {sizes if network else '(N, T, H, W, C)'}, channels last")
    elif isinstance(model, models.RowReader):
        notes.append(f"images: {sizes}, without a channel")
    elif isinstance(model, (models.MLP, models.Discriminator)):
        notes.append(f"inputs: {sizes}, where images are flat in the order (channel, height, width)")
    elif isinstance(model, models.RatingModel):
        notes.append("inputs: indices from 0, so that index i here is i - 1 there")
    elif isinstance(model, (models.TextCNN, models.TextLSTM)) and not model.read_padding:
        where = "is read like a word" if isinstance(model, models.TextCNN) else "before the words is read like a word"
        notes.append(f"padding: index 0 {where} there, so outputs depend on how texts are padded")
    if network and network.endings == CLASSIFIES and not ending:
        notes.append(
            "outputs: logits, if this is a classifier: train and evaluate it with from_logits=True, or write it with "
            'to_keras(..., ending="softmax") for probabilities'
        )
    if getattr(model, "batch_statistics", False):
        notes.append(
            "batch norm: running statistics, not those of a batch as here, so outputs differ: measure the model again"
        )
    return notes


def network_of(model: nn.Module) -> Network | None:
    """Return the entry of a network whose operations follow one another; None for others."""
    return next((network for network in NETWORKS if network.model is type(model)), None)


def files_written(path: Path) -> list[Path]:
    """List the files that :func:`to_keras` writes: the one at a path, and the JSON file beside one of weights only."""
    name = path.name.removesuffix(".weights.h5")
    return [path] if name == path.name else [path, path.with_name(f"{name}.json")]


def build_keras(model: nn.Module, ending: str = "") -> Any:
    """Build the Keras model of a network, with its weights; see :func:`to_keras`."""
    keras, network = import_keras(), network_of(model)
    endings = network.endings if network and not network.applies else ()
    known = f"choose among {', '.join(endings)}" if endings else "leave it out"
    require(ending in ("", *endings), f"{type(model).__name__} has no ending {ending!r} in Keras: {known}")
    if isinstance(model, models.CPC):
        return build_cpc(keras, model)
    if isinstance(model, models.Predictors):
        return build_predictors(keras, model)
    if isinstance(model, models.RatingModel):
        return build_ratings(keras, model)
    if network is None:
        known = ", ".join(["CPC", "Predictors", "RatingModel", *(network.model.__name__ for network in NETWORKS)])
        raise InputError(f"{type(model).__name__} has no Keras original; these have: {known}")
    shape = network.shape(model)
    last = ending or network.applies
    operations = [*network.describe(model, shape), *([function(last)] if last else [])]
    return chained(keras, shape, operations, type(model).__name__)


def chained(keras: Any, shape: Sequence[int | None], operations: Sequence[Piece], name: str) -> Any:
    """Build a Keras model of operations that follow one another."""
    text = operations[0].kind == "Embedding"
    first = x = keras.Input(tuple(shape), dtype="int32" if text else "float32")
    layers = []
    for operation in operations:
        layers.append(keras_layer(operation, keras.layers))
        x = layers[-1](x)
    for layer, operation in zip(layers, operations, strict=True):
        if operation.module is not None:
            assign(layer, weights_of(operation))
    return keras.Model(first, x, name=name.lower())


def build_cpc(keras: Any, model: models.CPC) -> Any:
    """Build CPC, of inputs context and future (N, T, H, W, C) and outputs predictions and embeddings."""
    encoder, context, predictors = model.encoder, model.context, model.predictors
    if not (
        isinstance(encoder, models.ImageEncoder)
        and isinstance(context, models.ContextNetwork)
        and isinstance(predictors, models.Predictors)
    ):
        parts = ", ".join(type(part).__name__ for part in (encoder, context, predictors))
        raise InputError(
            f"Keras' original has an ImageEncoder, a ContextNetwork and Predictors, unlike this CPC: {parts}"
        )
    layers, inner = keras.layers, build_keras(encoder)
    inner.name = "encoder"
    shape = (None, encoder.image_size, encoder.image_size, encoder.channels)
    inputs = [keras.Input(shape, name=name) for name in ("context", "future")]
    # one wrapper around the encoder: Keras loads no file in which two share it, as in the original
    embeddings = layers.TimeDistributed(inner)(layers.Concatenate(axis=1)(inputs))  # (N, T + K, D)
    codes = layers.Cropping1D((0, predictors.steps))(embeddings)  # (N, T, D)
    (piece,) = recurrent(context.core, pooling=model.every_term)
    cell = keras_layer(piece, layers)
    summary = cell(codes)  # (N, T, H), or (N, H)
    assign(cell, weights_of(piece))
    predicted = stack(keras, summary, predictors, (-1,))  # (N, T or 1, K, D)
    return keras.Model(inputs, [predicted, embeddings], name="cpc")


def stack(keras: Any, contexts: Any, predictors: models.Predictors, terms: tuple[int, ...]) -> Any:
    """Return the predictions of all steps, side by side on the axis before the last."""
    reshape = keras.layers.Reshape
    predicted = []
    for linear in predictors.linear:
        (piece,) = pieces(linear)
        dense = keras_layer(piece, keras.layers)
        predicted.append(reshape((*terms, 1, predictors.code_size))(dense(contexts)))
        assign(dense, weights_of(piece))
    return keras.layers.Concatenate(axis=-2)(predicted) if len(predicted) > 1 else predicted[0]


def build_predictors(keras: Any, model: models.Predictors) -> Any:
    """Build predictors, of contexts (N, H), with outputs (N, K, D)."""
    first = keras.Input((model.context_size,))
    return keras.Model(first, stack(keras, first, model, ()), name="predictors")


def build_ratings(keras: Any, model: models.RatingModel) -> Any:
    """Build the network of ratings, of the indices of users (N, 1) and items (N, 1), from 0, with outputs (N, 1)."""
    require(not model.factors, "Keras' original has no factors: build the RatingModel with factors=0")
    layers = keras.layers
    inputs = [keras.Input((1,), dtype="int32", name=name) for name in ("user", "item")]
    flat = []
    for table, indices in zip((model.user_vectors, model.item_vectors), inputs, strict=True):
        embedding = layers.Embedding(table.num_embeddings - 1, table.embedding_dim)  # without index 0, the unknown
        flat.append(layers.Flatten()(embedding(indices)))
        assign(embedding, {"embeddings": numpy(table.weight[1:])})
    x = layers.Concatenate()(flat)
    for operation in pieces(model.layers):
        layer = keras_layer(operation, layers)
        x = layer(x)
        assign(layer, weights_of(operation))
    if model.mean:
        x = layers.Rescaling(1.0, model.mean)(x)
    return keras.Model(inputs, x, name="ratings")
