"""The networks that have a Keras original, as the sources write them in Keras, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def draw(shape, seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def randomize(model) -> Any:
    """Give a Keras model random weights, also where it starts from zeros and ones: biases, scales, statistics."""
    for number, weight in enumerate(model.weights):
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(0.5 + np.abs(draw(weight.shape, number, 0.5)))
        elif name in ("kernel", "recurrent_kernel"):
            weight.assign(draw(weight.shape, number, 1.3 / np.sqrt(np.prod(weight.shape[:-1]))))
        elif name != "seed_generator_state":
            weight.assign(draw(weight.shape, number, 0.3))
    return model


def numbers(keras, value) -> np.ndarray:
    return keras.ops.convert_to_numpy(value)


# The sources' networks


def encoder(keras, side: int, channels: int = 3, code_size: int = 16):
    layers = keras.layers
    depth, filters, hidden = (4, 64, 256) if side >= 48 else (3, 32, 128)
    x = first = keras.Input((side, side, channels))
    for _ in range(depth):
        x = layers.Conv2D(filters, 3, strides=2, activation="linear")(x)
        x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Dense(hidden, activation="linear")(layers.Flatten()(x)))
    x = layers.Dense(code_size, activation="linear", name="encoder_embedding")(layers.LeakyReLU()(x))
    return keras.Model(first, x, name="encoder")


def probe(keras, before, code_size: int = 16):
    """Return the benchmark's network: an encoder, or its embeddings, and a classifier."""
    layers = keras.layers
    first = keras.Input(before.input_shape[1:] if before else (code_size,))
    x = layers.Dense(128, activation="linear")(before(first) if before else first)
    x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    return keras.Model(first, layers.Dense(10, activation="softmax")(x))


def cpc(keras, side: int = 28, terms: int = 3, steps: int = 2, code_size: int = 16, units: int = 12, **gru):
    """Return the CPC of the source, whose Lambda stacks predictions, and whose last layer is its own class."""
    layers, ops = keras.layers, keras.ops

    class CPCLayer(keras.layers.Layer):
        def call(self, inputs):
            predicted, actual = inputs
            return ops.sigmoid(ops.mean(ops.mean(actual * predicted, axis=-1), axis=-1, keepdims=True))

    network = encoder(keras, side, code_size=code_size)
    x, y = keras.Input((terms, side, side, 3)), keras.Input((steps, side, side, 3))
    context = layers.GRU(units, name="ar_context", **gru)(layers.TimeDistributed(network)(x))
    predicted = [layers.Dense(code_size, activation="linear", name=f"z_t_{i}")(context) for i in range(steps)]
    if steps == 1:
        predicted = layers.Lambda(lambda z: ops.expand_dims(z, axis=1))(predicted[0])
    else:
        predicted = layers.Lambda(lambda z: ops.stack(z, axis=1))(predicted)
    codes = layers.TimeDistributed(network)(y)
    return keras.Model([x, y], CPCLayer()([predicted, codes]))


def mlp(keras, shape=(28, 28), classes: int = 10):
    layers = keras.layers
    stack = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2)]
    return keras.Sequential([keras.Input(shape), *stack, layers.Dense(classes, activation="softmax")])


def strided(keras, shape=(28, 28, 1), hidden: int = 512, dropout: float = 0.2):
    layers = keras.layers
    i = keras.Input(shape)
    x = layers.Conv2D(32, (3, 3), strides=2, activation="relu")(i)
    x = layers.Conv2D(64, (3, 3), strides=2, activation="relu")(x)
    x = layers.Conv2D(128, (3, 3), strides=2, activation="relu")(x)
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    x = layers.Dropout(0.2)(layers.Dense(hidden, activation="relu")(x))
    return keras.Model(i, layers.Dense(10, activation="softmax")(x))


def vgg(keras, shape=(32, 32, 3), width: int = 32, hidden: int = 1024):
    layers = keras.layers
    i = x = keras.Input(shape)
    for filters in (width, 2 * width, 4 * width):
        for _ in range(2):
            x = layers.Conv2D(filters, (3, 3), activation="relu", padding="same")(x)
            x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    x = layers.Dropout(0.2)(layers.Dense(hidden, activation="relu")(x))
    return keras.Model(i, layers.Dense(10, activation="softmax")(x))


def lenet(keras, shape, classes: int = 10, width: int = 32, depth: int = 2, hidden: int = 512):
    layers = keras.layers
    stack = [keras.Input(shape)]
    for stage in range(depth):
        stack += [layers.Conv2D(width * 2**stage, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(hidden, activation="relu"), layers.Dense(classes, activation="softmax")]
    return keras.Sequential(stack)


def autoencoder(keras, width: int = 32, depth: int = 2, code_size: int = 32):
    layers, side = keras.layers, 32 // 2**depth
    encoder = [keras.Input((32, 32, 3))]
    decoder = [keras.Input((code_size,)), layers.Dense(side * side * width), layers.Reshape((side, side, width))]
    for _ in range(depth):
        encoder += [layers.Conv2D(width, 3, padding="same", activation="gelu"), layers.MaxPooling2D()]
        decoder += [layers.Conv2D(width, 3, padding="same", activation="gelu"), layers.UpSampling2D()]
    encoder += [layers.Flatten(), layers.Dense(code_size)]
    decoder += [layers.Conv2D(3, 3, padding="same", activation="sigmoid")]
    return keras.Sequential([keras.Sequential(encoder), keras.Sequential(decoder)])


def sequence(keras, *cells, shape=(10, 2), outputs: int = 1, pooling: bool = False, activation=None):
    layers = keras.layers
    i = x = keras.Input(shape)
    for cell in cells:
        x = cell(x)
    x = layers.GlobalMaxPooling1D()(x) if pooling else x
    return keras.Model(i, layers.Dense(outputs, activation=activation)(x))


def text_lstm(keras, mask: bool = False):
    layers = keras.layers
    i = keras.Input((None,))
    x = layers.LSTM(15, return_sequences=True)(layers.Embedding(50 + 1, 20, mask_zero=mask)(i))
    return keras.Model(i, layers.Dense(1, activation="sigmoid")(layers.GlobalMaxPooling1D()(x)))


def text_cnn(keras):
    layers = keras.layers
    i = keras.Input((40,))
    x = layers.Conv1D(32, 3, activation="relu")(layers.Embedding(50 + 1, 20)(i))
    x = layers.Conv1D(64, 3, activation="relu")(layers.MaxPooling1D(3)(x))
    x = layers.Conv1D(128, 3, activation="relu")(layers.MaxPooling1D(3)(x))
    return keras.Model(i, layers.Dense(1, activation="sigmoid")(layers.GlobalMaxPooling1D()(x)))


def ratings(keras, users: int = 30, items: int = 20):
    layers = keras.layers
    u, m = keras.Input((1,)), keras.Input((1,))
    x = [layers.Flatten()(layers.Embedding(number, 10)(i)) for number, i in ((users, u), (items, m))]
    x = layers.Dense(1024, activation="relu")(layers.Concatenate()(x))
    return keras.Model([u, m], layers.Dense(1)(x))


def generator(keras, z_dim: int = 64, hidden=(256,), size: int = 784, slope: float = 0.1, norm: bool = False):
    layers = keras.layers
    i = x = keras.Input((z_dim,))
    for units in hidden:
        x = layers.Dense(units, activation=layers.LeakyReLU(negative_slope=slope))(x)
        x = layers.BatchNormalization(momentum=0.8)(x) if norm else x
    return keras.Model(i, layers.Dense(size, activation="tanh")(x))


def discriminator(keras, hidden=(128,), size: int = 784, slope: float = 0.1):
    layers = keras.layers
    i = x = keras.Input((size,))
    for units in hidden:
        x = layers.LeakyReLU(negative_slope=slope)(layers.Dense(units)(x))
    return keras.Model(i, layers.Dense(1, activation="sigmoid")(x))


# Every listed network, with its inputs


class Original(NamedTuple):
    """A Keras original, and the class that it is here.

    Attributes:
        name: The class's name.
        build: Builds the model.
        inputs: Draws inputs for Keras.
        here: Turns them into inputs here.
    """

    name: str
    build: Callable[[Any], Any]
    inputs: Callable[[], Any]
    here: Callable[[Any], tuple[Tensor, ...]]


def reals(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: draw(shape, 7)


def images(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: np.random.default_rng(7).random(shape, dtype=np.float32)


def words(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: np.random.default_rng(7).integers(0, 51, shape)


def as_is(x: np.ndarray) -> tuple[Tensor, ...]:
    return (torch.from_numpy(x),)


def channels_first(x: np.ndarray) -> tuple[Tensor, ...]:
    return (torch.from_numpy(np.moveaxis(x, -1, -3).copy()),)


def pairs(x: list[np.ndarray]) -> tuple[Tensor, ...]:
    return (torch.from_numpy(np.concatenate(x, 1) + 1),)


ORIGINALS = {
    "encoder, 28 pixels": Original("ImageEncoder", lambda k: encoder(k, 28), reals(4, 28, 28, 3), channels_first),
    "encoder, 64 grey": Original("ImageEncoder", lambda k: encoder(k, 64, 1), reals(4, 64, 64, 1), channels_first),
    "probe": Original("ProbeHead", lambda k: probe(k, None), reals(4, 16), as_is),
    "benchmark": Original("ProbedEncoder", lambda k: probe(k, encoder(k, 28)), reals(4, 28, 28, 3), channels_first),
    "context": Original(
        "ContextNetwork",
        lambda k: k.Sequential([k.Input((None, 16)), k.layers.GRU(12, return_sequences=True)]),
        reals(4, 5, 16),
        as_is,
    ),
    "lecture 24": Original("MLP", mlp, images(4, 28, 28), as_is),
    "lecture 24, in colour": Original("MLP", lambda k: mlp(k, (8, 8, 3)), images(4, 8, 8, 3), channels_first),
    "lecture 32": Original("StridedCNN", lambda k: strided(k, hidden=30), images(4, 28, 28, 1), channels_first),
    "lecture 33": Original(
        "StridedCNN", lambda k: strided(k, (32, 32, 3), 40, 0.5), images(4, 32, 32, 3), channels_first
    ),
    "lecture 36": Original("VGGLike", lambda k: vgg(k, width=6, hidden=20), images(4, 32, 32, 3), channels_first),
    "LeNet": Original(
        "LenetLike", lambda k: lenet(k, (28, 28, 1), width=6, hidden=30), images(4, 28, 28, 1), channels_first
    ),
    "LeNet, odd sides": Original(
        "LenetLike", lambda k: lenet(k, (13, 29, 2), 3, 4, 2, 20), images(4, 13, 29, 2), channels_first
    ),
    "LeNet, in colour": Original(
        "LenetLike", lambda k: lenet(k, (32, 32, 3), 10, 8, 4), images(4, 32, 32, 3), channels_first
    ),
    "autoencoder, depth 3": Original(
        "Autoencoder", lambda k: autoencoder(k, 16, 3, 8), images(4, 32, 32, 3), channels_first
    ),
    "autoencoder": Original("Autoencoder", lambda k: autoencoder(k, 8), images(4, 32, 32, 3), channels_first),
    "lecture 38": Original("SequenceModel", lambda k: sequence(k, k.layers.Flatten()), reals(4, 10, 2), as_is),
    "lecture 38, MLP": Original(
        "SequenceModel",
        lambda k: sequence(k, k.layers.Flatten(), k.layers.Dense(9, activation="relu")),
        reals(4, 10, 2),
        as_is,
    ),
    "lecture 41": Original(
        "SequenceModel", lambda k: sequence(k, k.layers.SimpleRNN(5, activation="relu")), reals(4, 10, 2), as_is
    ),
    "lecture 41, linear": Original(
        "SequenceModel", lambda k: sequence(k, k.layers.SimpleRNN(5, activation=None)), reals(4, 10, 2), as_is
    ),
    "lecture 45": Original("SequenceModel", lambda k: sequence(k, k.layers.GRU(5)), reals(4, 10, 2), as_is),
    "lecture 46": Original(
        "SequenceModel", lambda k: sequence(k, k.layers.LSTM(5), activation="sigmoid"), reals(4, 10, 2), as_is
    ),
    "lecture 48": Original(
        "SequenceModel",
        lambda k: sequence(k, k.layers.LSTM(5, return_sequences=True), pooling=True),
        reals(4, 10, 2),
        as_is,
    ),
    "stacked, both directions": Original(
        "SequenceModel",
        lambda k: sequence(
            k,
            k.layers.Bidirectional(k.layers.GRU(5, return_sequences=True)),
            k.layers.Bidirectional(k.layers.GRU(5)),
            outputs=3,
        ),
        reals(4, 10, 2),
        as_is,
    ),
    "lecture 50": Original(
        "RowReader",
        lambda k: sequence(k, k.layers.LSTM(128), shape=(28, 28), outputs=10, activation="softmax"),
        images(4, 28, 28),
        lambda x: (torch.from_numpy(x[:, None]),),
    ),
    "lecture 57": Original("TextLSTM", text_lstm, words(4, 12), as_is),
    "lecture 59": Original("TextCNN", text_cnn, words(4, 40), as_is),
    "lecture 61": Original(
        "RatingModel", ratings, lambda: [words(6, 1)() % 30, words(6, 1)()[::-1].copy() % 20], pairs
    ),
    "notes' generator": Original("Generator", generator, reals(4, 64), as_is),
    "notes' discriminator": Original("Discriminator", discriminator, reals(4, 784), as_is),
    "lecture 69's generator": Original(
        "Generator", lambda k: generator(k, 100, (256, 512, 1024), slope=0.2, norm=True), reals(4, 100), as_is
    ),
    "lecture 69's discriminator": Original(
        "Discriminator", lambda k: discriminator(k, (512, 256), slope=0.2), reals(4, 784), as_is
    ),
}
