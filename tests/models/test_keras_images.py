from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from torchdl import MLP, Autoencoder, LenetLike, StridedCNN, VGGLike

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
BATCH = 8
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]  # Keras' own


# the networks as the course writes them


def dense_listing(keras):
    layers = keras.layers
    stack = [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2)]
    return keras.Sequential([keras.Input((28, 28)), *stack, layers.Dense(10, activation="softmax")])


def strided_listing(keras, shape, hidden: int, dropout: float):
    layers = keras.layers
    i = keras.Input(shape)
    x = layers.Conv2D(32, (3, 3), strides=2, activation="relu")(i)
    x = layers.Conv2D(64, (3, 3), strides=2, activation="relu")(x)
    x = layers.Conv2D(128, (3, 3), strides=2, activation="relu")(x)
    x = layers.Dropout(dropout)(layers.Flatten()(x))
    x = layers.Dropout(0.2)(layers.Dense(hidden, activation="relu")(x))
    return keras.Model(i, layers.Dense(10, activation="softmax")(x))


def vgg_listing(keras):
    layers = keras.layers
    i = x = keras.Input((32, 32, 3))
    for filters in (32, 64, 128):
        for _ in range(2):
            x = layers.Conv2D(filters, (3, 3), activation="relu", padding="same")(x)
            x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    x = layers.Dropout(0.2)(layers.Dense(1024, activation="relu")(x))
    return keras.Model(i, layers.Dense(10, activation="softmax")(x))


def lenet_listing(keras, shape, classes: int, width: int, depth: int, hidden: int = 512):
    layers = keras.layers
    stack = [keras.Input(shape)]
    for stage in range(depth):
        stack += [layers.Conv2D(width * 2**stage, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dense(hidden, activation="relu"), layers.Dense(classes, activation="softmax")]
    return keras.Sequential(stack)


def autoencoder_listing(keras, width: int, depth: int, code_size: int):
    layers, side = keras.layers, 32 // 2**depth
    encoder = [keras.Input((32, 32, 3))]
    decoder = [keras.Input((code_size,)), layers.Dense(side * side * width), layers.Reshape((side, side, width))]
    for _ in range(depth):
        encoder += [layers.Conv2D(width, 3, padding="same", activation="gelu"), layers.MaxPooling2D()]
        decoder += [layers.Conv2D(width, 3, padding="same", activation="gelu"), layers.UpSampling2D()]
    encoder += [layers.Flatten(), layers.Dense(code_size)]
    decoder += [layers.Conv2D(3, 3, padding="same", activation="sigmoid")]
    return keras.Sequential(encoder), keras.Sequential(decoder)


CLASSIFIERS = {
    "lecture 24, MNIST": (dense_listing, MLP, 101_770),
    "lecture 32, Fashion-MNIST": (lambda k: strided_listing(k, (28, 28, 1), 512, 0.2), StridedCNN, 360_458),
    "lecture 33, CIFAR-10": (
        lambda k: strided_listing(k, (32, 32, 3), 1024, 0.5),
        lambda: StridedCNN((3, 32, 32), hidden=1024, dropout=(0.5, 0.2)),
        1_284_170,
    ),
    "lecture 36, CIFAR-10": (vgg_listing, VGGLike, 2_396_330),
    "LeNet, MNIST": (lambda k: lenet_listing(k, (28, 28, 1), 10, 32, 2), lambda: LenetLike((1, 28, 28), 10), 1_630_090),
    "LeNet, MNIST, depth 3": (
        lambda k: lenet_listing(k, (28, 28, 1), 10, 16, 3),
        lambda: LenetLike((1, 28, 28), 10, width=16, depth=3),
        # 7 pixels a side are pooled to 3
        160 + 4640 + 18_496 + (64 * 9 + 1) * 512 + 5130,
    ),
    "LeNet, CIFAR-10": (
        lambda k: lenet_listing(k, (32, 32, 3), 10, 32, 2),
        lambda: LenetLike((3, 32, 32), 10),
        2_122_186,
    ),
    "LeNet, CIFAR-10, depth 4": (
        lambda k: lenet_listing(k, (32, 32, 3), 10, 8, 4),
        lambda: LenetLike((3, 32, 32), 10, width=8, depth=4),
        224 + 1168 + 4640 + 18_496 + (64 * 4 + 1) * 512 + 5130,
    ),
    "LeNet, odd sides": (
        lambda k: lenet_listing(k, (13, 29, 2), 3, 4, 2, hidden=20),
        lambda: LenetLike((2, 13, 29), 3, width=4, depth=2, hidden=20),
        76 + 296 + (8 * 3 * 7 + 1) * 20 + 63,
    ),
}


# the same weights


def draw(shape, seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def randomize(model) -> None:
    """Return a Keras model random weights, also where it starts from zeros and ones."""
    for number, weight in enumerate(model.weights):
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(0.5 + np.abs(draw(weight.shape, number, 0.5)))
        elif name == "kernel":
            weight.assign(draw(weight.shape, number, 1.3 / np.sqrt(np.prod(weight.shape[:-1]))))
        else:
            weight.assign(draw(weight.shape, number, 0.2))


def numbers(variable) -> np.ndarray:
    return variable.value.detach().cpu().numpy()


def put(tensor: torch.Tensor, array: np.ndarray) -> None:
    assert tensor.shape == array.shape
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(array)))


def copy_weights(model, ours: nn.Module) -> None:
    """Copy a Keras model's weights, layer by layer."""
    layers = [m for m in ours.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.BatchNorm2d))]
    theirs = [layer for layer in model.layers if layer.weights]
    flattened = [tuple(layer.input.shape[1:]) for layer in model.layers if type(layer).__name__ == "Flatten"]
    reshaped = [tuple(layer.output.shape[1:]) for layer in model.layers if type(layer).__name__ == "Reshape"]
    for layer, other in zip(layers, theirs, strict=True):
        arrays = [numbers(weight) for weight in other.weights]
        if isinstance(layer, nn.BatchNorm2d):
            targets = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            for target, array in zip(targets, arrays, strict=True):
                put(target, array)
            continue
        kernel, bias = arrays
        if isinstance(layer, nn.Conv2d):
            put(layer.weight, kernel.transpose(3, 2, 0, 1))
            put(layer.bias, bias)
            continue
        shape = flattened.pop() if flattened else ()  # what the first dense layer's inputs were
        if len(shape) == 3:  # Keras flattens (height, width, channel), PyTorch (channel, height, width)
            kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
        if reshaped:  # and the other way round
            shape = reshaped.pop()
            kernel = kernel.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(kernel.shape)
            bias = bias.reshape(shape).transpose(2, 0, 1).reshape(-1)
        put(layer.weight, kernel.T)
        put(layer.bias, bias)


def kinds(model) -> list[tuple]:
    """List a Keras model's layers as PyTorch would call them."""
    names = {"Dense": "Linear", "Conv2D": "Conv2d", "BatchNormalization": "BatchNorm2d"}
    names |= {"MaxPooling2D": "MaxPool2d", "UpSampling2D": "Upsample"}
    found: list[tuple] = []
    for layer in model.layers:
        name = type(layer).__name__
        if name == "Dropout":
            found.append(("Dropout", layer.rate))
        elif name not in ("InputLayer", "Flatten", "Reshape"):
            found.append((names[name],))
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if activation in ("relu", "gelu", "sigmoid"):
            found.append(({"relu": "ReLU", "gelu": "GELU", "sigmoid": "Sigmoid"}[activation],))
    return found


def our_kinds(model: nn.Module) -> list[tuple]:
    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, (nn.Flatten, nn.Unflatten))]
    # a dropout of nothing is no layer in the listings
    leaves = [m for m in leaves if not (isinstance(m, nn.Dropout) and m.p == 0)]
    found = [("Dropout", m.p) if isinstance(m, nn.Dropout) else (type(m).__name__,) for m in leaves]
    for i, pair in enumerate(pairwise(found)):
        if pair == (("MaxPool2d",), ("ReLU",)):  # LenetLike's order, which is faster and gives the same
            found[i : i + 2] = reversed(pair)
    return found


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def outputs(model, images: np.ndarray) -> np.ndarray:
    return model(images, training=False).detach().cpu().numpy()


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images if images.ndim == 3 else images.transpose(0, 3, 1, 2).copy())


@pytest.fixture(scope="module")
def built(keras):
    """Build each network once, in Keras and here, with the same random weights."""
    pairs = {}

    def build(name: str):
        if name not in pairs:
            listing, ours, _ = CLASSIFIERS[name]
            model, other = listing(keras), ours()
            randomize(model)
            copy_weights(model, other)
            pairs[name] = model, other.eval()
        return pairs[name]

    return build


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_has_the_listings_layers_in_their_order_and_as_many_parameters(built, name):
    model, ours = built(name)
    assert our_kinds(ours) == kinds(model)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert parameters(ours) == trainable == CLASSIFIERS[name][2]
    statistics = sum(b.numel() for key, b in ours.named_buffers() if "num_batches" not in key)
    assert parameters(ours) + statistics == model.count_params()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_with_the_listings_weights_gives_its_probabilities(built, name):
    model, ours = built(name)
    images = np.random.default_rng(7).random((BATCH, *model.input_shape[1:]), dtype=np.float32)
    expected = outputs(model, images)
    with torch.no_grad():
        probabilities = ours(tensor(images)).softmax(1).numpy()
    # probabilities that agree because they are all the same, or all 0 or 1, would prove nothing
    assert expected.std(0).mean() > 1e-3
    assert np.median(expected.max(1)) < 0.95
    np.testing.assert_allclose(probabilities, expected, **TOLERANCE)


@pytest.mark.parametrize(("width", "depth", "code_size", "number"), [(32, 2, 32, 162_659), (16, 3, 8, None)])
def test_an_autoencoder_with_the_listings_weights_gives_its_codes_and_images(keras, width, depth, code_size, number):
    encoder, decoder = autoencoder_listing(keras, width, depth, code_size)
    ours = Autoencoder((3, 32, 32), width, depth, code_size).eval()
    for model, part in ((encoder, ours.encoder), (decoder, ours.decoder)):
        randomize(model)
        copy_weights(model, part)
        assert our_kinds(part) == kinds(model)
        assert parameters(part) == model.count_params()
    assert number in (None, parameters(ours))
    images = np.random.default_rng(7).random((BATCH, 32, 32, 3), dtype=np.float32)
    codes = outputs(encoder, images)
    decoded = outputs(decoder, codes)
    assert min(codes.std(0).mean(), decoded.std(0).mean()) > 1e-3
    assert codes.min() < 0
    with torch.no_grad():
        got = ours.encode(tensor(images))
        reconstructed = ours(tensor(images))
    np.testing.assert_allclose(got.numpy(), codes, **TOLERANCE)
    np.testing.assert_allclose(reconstructed.permute(0, 2, 3, 1).numpy(), decoded, **TOLERANCE)


def test_the_first_weights_of_a_layer_are_drawn_as_keras_draws_them(keras):
    model, ours = lenet_listing(keras, (28, 28, 1), 10, 32, 2), LenetLike((1, 28, 28), 10)
    theirs = [numbers(weight) for weight in model.trainable_weights]
    for parameter, array in zip(ours.parameters(), theirs, strict=True):
        assert np.abs(array).max() == pytest.approx(parameter.abs().max().item(), rel=0.05, abs=1e-12)
        assert array.std() == pytest.approx(parameter.std().item(), rel=0.2, abs=1e-12)
