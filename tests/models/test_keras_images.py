"""How large the networks are that the course writes in Keras, and how they start; tests/keras has their outputs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.keras_originals import autoencoder, lenet, mlp, numbers, strided, vgg
from torch import nn

from torchdl import MLP, Autoencoder, LenetLike, StridedCNN, VGGLike

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]  # Keras' own

CLASSIFIERS = {
    "lecture 24, MNIST": (mlp, MLP, 101_770),
    "lecture 32, Fashion-MNIST": (lambda k: strided(k, (28, 28, 1), 512, 0.2), StridedCNN, 360_458),
    "lecture 33, CIFAR-10": (
        lambda k: strided(k, (32, 32, 3), 1024, 0.5),
        lambda: StridedCNN((3, 32, 32), hidden=1024, dropout=(0.5, 0.2)),
        1_284_170,
    ),
    "lecture 36, CIFAR-10": (vgg, VGGLike, 2_396_330),
    "LeNet, MNIST": (lambda k: lenet(k, (28, 28, 1), 10, 32, 2), lambda: LenetLike((1, 28, 28), 10), 1_630_090),
    "LeNet, MNIST, depth 3": (
        lambda k: lenet(k, (28, 28, 1), 10, 16, 3),
        lambda: LenetLike((1, 28, 28), 10, width=16, depth=3),
        # 7 pixels a side are pooled to 3
        160 + 4640 + 18_496 + (64 * 9 + 1) * 512 + 5130,
    ),
    "LeNet, CIFAR-10": (lambda k: lenet(k, (32, 32, 3), 10, 32, 2), lambda: LenetLike((3, 32, 32), 10), 2_122_186),
    "LeNet, CIFAR-10, depth 4": (
        lambda k: lenet(k, (32, 32, 3), 10, 8, 4),
        lambda: LenetLike((3, 32, 32), 10, width=8, depth=4),
        224 + 1168 + 4640 + 18_496 + (64 * 4 + 1) * 512 + 5130,
    ),
    "LeNet, odd sides": (
        lambda k: lenet(k, (13, 29, 2), 3, 4, 2, hidden=20),
        lambda: LenetLike((2, 13, 29), 3, width=4, depth=2, hidden=20),
        76 + 296 + (8 * 3 * 7 + 1) * 20 + 63,
    ),
}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_has_as_many_parameters_as_the_listing(keras, name):
    listing, build, number = CLASSIFIERS[name]
    model, ours = listing(keras), build()
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert parameters(ours) == trainable == number
    statistics = sum(b.numel() for key, b in ours.named_buffers() if "num_batches" not in key)
    assert parameters(ours) + statistics == model.count_params()


@pytest.mark.parametrize(("width", "depth", "code_size", "number"), [(32, 2, 32, 162_659), (16, 3, 8, None)])
def test_an_autoencoder_has_as_many_parameters_as_the_listing(keras, width, depth, code_size, number):
    ours = parameters(Autoencoder((3, 32, 32), width, depth, code_size))
    assert ours == autoencoder(keras, width, depth, code_size).count_params()
    assert number in (None, ours)


def test_the_first_weights_of_a_layer_are_drawn_as_keras_draws_them(keras):
    model, ours = lenet(keras, (28, 28, 1), 10, 32, 2), LenetLike((1, 28, 28), 10)
    theirs = [numbers(keras, weight) for weight in model.trainable_weights]
    for parameter, array in zip(ours.parameters(), theirs, strict=True):
        assert np.abs(array).max() == pytest.approx(parameter.abs().max().item(), rel=0.05, abs=1e-12)
        assert array.std() == pytest.approx(parameter.std().item(), rel=0.2, abs=1e-12)
