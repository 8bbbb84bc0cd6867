from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torchdl import CPC, CPCTask, image_cpc

TERMS, STEPS, BATCH, CODE, CONTEXT = 3, 4, 6, 128, 256
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]  # Keras' own


def draw(shape, seed: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


class Original:
    """The original network, written in Keras."""

    def __init__(self, keras, size: int, reset_after: bool = True) -> None:
        layers, self.keras = keras.layers, keras
        depth, filters, hidden = {64: (4, 64, 256), 28: (3, 32, 128)}[size]
        stack = [keras.Input((size, size, 3))]
        for _ in range(depth):
            stack += [layers.Conv2D(filters, 3, strides=2), layers.BatchNormalization(), layers.LeakyReLU()]
        stack += [layers.Flatten(), layers.Dense(hidden), layers.BatchNormalization(), layers.LeakyReLU()]
        self.encoder = keras.Sequential([*stack, layers.Dense(CODE)])
        self.gru = layers.GRU(CONTEXT, reset_after=reset_after)
        self.dense = [layers.Dense(CODE) for _ in range(STEPS)]
        x, y = keras.Input((TERMS, size, size, 3)), keras.Input((STEPS, size, size, 3))
        encode = layers.TimeDistributed(self.encoder)
        x_codes, y_codes = encode(x), encode(y)
        context = self.gru(x_codes)
        predicted = layers.Lambda(lambda z: keras.ops.stack(z, axis=1))([dense(context) for dense in self.dense])
        dot = layers.Lambda(lambda z: keras.ops.mean(keras.ops.mean(z[0] * z[1], axis=-1), axis=-1, keepdims=True))
        probability = layers.Activation("sigmoid")(dot([y_codes, predicted]))
        self.model = keras.Model([x, y], [x_codes, y_codes, context, predicted, probability])
        for number, weight in enumerate(self.model.weights):  # biases and statistics, too, which start trivial
            name = weight.path.rpartition("/")[2]
            if name in ("gamma", "moving_variance"):
                weight.assign(0.5 + np.abs(draw(weight.shape, number, 0.5)))
            else:
                kernel = "kernel" in name
                weight.assign(draw(weight.shape, number, 1.5 / np.sqrt(np.prod(weight.shape[:-1])) if kernel else 0.3))

    def __call__(self, context: np.ndarray, future: np.ndarray) -> list[np.ndarray]:
        """Return codes of context and future, the context, predictions and the probability of the real future."""
        outputs = self.model([context, future], training=False)
        return [self.keras.ops.convert_to_numpy(output) for output in outputs]

    def cross_entropy(self, label: np.ndarray, probability: np.ndarray) -> float:
        ops, loss = self.keras.ops, self.keras.losses.BinaryCrossentropy()
        return float(ops.convert_to_numpy(loss(label[:, None].astype("float32"), probability)))


def numbers(variable) -> np.ndarray:
    return variable.value.detach().cpu().numpy()


def channels_first(kernel: np.ndarray, side: int) -> np.ndarray:
    """Reorder what a dense layer takes from (height, width, channel) to (channel, height, width)."""
    outputs = kernel.shape[1]
    return kernel.reshape(side, side, -1, outputs).transpose(2, 0, 1, 3).reshape(-1, outputs)


def gates(weight: np.ndarray) -> np.ndarray:
    """Reorder Keras' z, r, h along the last axis to PyTorch's r, z, n."""
    z, r, h = np.split(weight, 3, axis=-1)
    return np.concatenate([r, z, h], axis=-1)


def put(tensor: torch.Tensor, array: np.ndarray) -> None:
    assert tensor.shape == array.shape
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(array)))


def copy_weights(original: Original, size: int) -> CPC:
    model = image_cpc(size)
    ours = [m for m in model.encoder.modules() if not isinstance(m, (nn.Sequential, nn.LeakyReLU, nn.Flatten))][1:]
    theirs = [layer for layer in original.encoder.layers if layer.weights]
    assert len(ours) == len(theirs)
    first_dense = True
    for layer, other in zip(ours, theirs, strict=True):
        arrays = [numbers(weight) for weight in other.weights]
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            targets = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            for target, array in zip(targets, arrays, strict=True):
                put(target, array)
            continue
        kernel, bias = arrays
        put(layer.bias, bias)
        if isinstance(layer, nn.Conv2d):
            put(layer.weight, kernel.transpose(3, 2, 0, 1))
        else:
            side = {64: 3, 28: 2}[size]
            put(layer.weight, (channels_first(kernel, side) if first_dense else kernel).T)
            first_dense = False
    kernel, recurrent, bias = (numbers(weight) for weight in original.gru.weights)
    bias = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])  # reset_after=False has one
    core = model.context.core
    put(core.weight_ih_l0, gates(kernel).T)
    put(core.weight_hh_l0, gates(recurrent).T)
    put(core.bias_ih_l0, gates(bias[0]))
    put(core.bias_hh_l0, gates(bias[1]))
    for linear, dense in zip(model.predictors.linear, original.dense, strict=True):
        kernel, bias = (numbers(weight) for weight in dense.weights)
        put(linear.weight, kernel.T)
        put(linear.bias, bias)
    return model.eval()


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a context and a future (B, T, S, S, C)."""
    pixels = np.tanh(draw((BATCH, TERMS + STEPS, size, size, 3), 5))
    return pixels[:, :TERMS], pixels[:, TERMS:]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 1, 4, 2, 3).copy())


@pytest.fixture(scope="module")
def originals(keras):
    return {size: Original(keras, size) for size in (28, 64)}


@pytest.mark.parametrize("size", [28, 64])
def test_the_original_with_the_same_weights_gives_the_same_codes_contexts_predictions_and_losses(originals, size):
    original, (context, future) = originals[size], images(size)
    x_codes, y_codes, summary, predictions, probability = original(context, future)
    model = copy_weights(original, size)
    label = np.array([1, 0, 0, 1, 1, 0])
    batch = tensor(context), tensor(future), torch.from_numpy(label)
    with torch.no_grad():
        predicted, codes = model(*batch[:2])
        ours = [codes[:, :TERMS], codes[:, TERMS:], model.context(codes[:, :TERMS])[:, -1], predicted[:, 0]]
        paired, infonce = CPCTask(model, "paired"), CPCTask(model, "infonce")
        paired_loss, infonce_loss = (next(task.losses(batch)).loss.item() for task in (paired, infonce))
        logits = paired.real_score(paired.encode(batch))
    for got, expected in zip(ours, (x_codes, y_codes, summary, predictions), strict=True):
        assert expected.std() > 0.05
        np.testing.assert_allclose(got.numpy(), expected, **TOLERANCE)
    np.testing.assert_allclose(logits.sigmoid().numpy(), probability[:, 0], **TOLERANCE)
    assert probability.std() > 0.01
    assert paired_loss == pytest.approx(original.cross_entropy(label, probability), abs=1e-5)

    scores = np.einsum("bkd,nkd->bkn", predictions.astype(np.float64), y_codes)
    own = np.take_along_axis(scores, np.arange(BATCH)[:, None, None], axis=2)[..., 0]
    expected = np.log(np.exp(scores - own[..., None]).sum(2))[label == 1].mean()
    assert infonce_loss == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_without_reset_after_the_gru_is_another_function(keras):
    original, (context, future) = Original(keras, 28, reset_after=False), images(28)
    codes, _, summary, _, _ = original(context, future)
    model = copy_weights(original, 28)
    with torch.no_grad():
        got = model.context(torch.from_numpy(codes))[:, -1].numpy()
    assert np.abs(got - summary).max() > 1e-2


def test_an_update_of_the_statistics_is_keras_own_but_for_the_unbiased_variance(keras):
    original = Original(keras, 28)
    model = copy_weights(original, 28).train()
    pixels = images(28)[0].reshape(-1, 28, 28, 3)
    ours = [m for m in model.encoder.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    theirs = [layer for layer in original.encoder.layers if layer.__class__.__name__ == "BatchNormalization"]
    before = [[numbers(w).copy() for w in (layer.moving_mean, layer.moving_variance)] for layer in theirs]
    expected = original.encoder(pixels, training=True).detach().cpu().numpy()
    codes = model.encoder(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(codes.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    values = [len(pixels) * side**2 for side in (13, 6, 2, 1)]
    for layer, other, (mean, variance), n in zip(ours, theirs, before, values, strict=True):
        moved = numbers(other.moving_mean)
        assert np.abs(moved - mean).max() > 1e-4
        np.testing.assert_allclose(layer.running_mean.numpy(), moved, **TOLERANCE)
        of_batch = (numbers(other.moving_variance) - 0.99 * variance) / 0.01
        unbiased = 0.99 * variance + 0.01 * of_batch * n / (n - 1)
        np.testing.assert_allclose(layer.running_var.numpy(), unbiased, **TOLERANCE)


@pytest.mark.parametrize("gradient", [1e-8, 1e-7, 1e-3])
def test_adam_is_keras_own_but_for_its_epsilon(keras, gradient):
    variable, ours = keras.Variable(np.zeros(1, np.float32)), nn.Parameter(torch.zeros(1))
    theirs = keras.optimizers.Adam(1.0)
    theirs.build([variable])
    theirs.apply_gradients([(keras.ops.convert_to_tensor(np.float32([gradient])), variable)])
    ours.grad = torch.full((1,), gradient)
    torch.optim.Adam([ours], lr=1.0).step()
    # the first mean of squares is 0.001 gradient^2, and its bias correction divides by 0.001
    before, after = gradient / (gradient + 1e-7 / 0.001**0.5), gradient / (gradient + 1e-8)
    np.testing.assert_allclose(numbers(variable), -before, rtol=1e-3)
    np.testing.assert_allclose(ours.detach().numpy(), -after, rtol=1e-3)
