from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.keras_originals import cpc, draw, encoder, numbers, randomize
from torch import nn

from torchdl import CPCTask
from torchdl.keras import from_keras

TERMS, STEPS, BATCH = 3, 4, 6
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]  # Keras' own


def imported(model, folder):
    """Save a Keras model with random weights, and return it as it is here."""
    randomize(model).save(folder / "model.keras")
    return from_keras(folder / "model.keras")


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a context and a future (B, T, S, S, C)."""
    pixels = np.tanh(draw((BATCH, TERMS + STEPS, size, size, 3), 5))
    return pixels[:, :TERMS], pixels[:, TERMS:]


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 1, 4, 2, 3).copy())


@pytest.mark.parametrize("size", [28, 64])
def test_the_original_with_the_same_weights_gives_the_same_codes_contexts_predictions_and_losses(keras, tmp_path, size):
    original = cpc(keras, size, TERMS, STEPS, code_size=128, units=256)
    model, (context, future) = imported(original, tmp_path), images(size)
    (first, second), (stacked,) = (
        [layer.output for layer in original.layers if type(layer).__name__ == kind]
        for kind in ("TimeDistributed", "Lambda")
    )
    summary_of = original.get_layer("ar_context").output
    inside = keras.Model(original.inputs, [first, second, summary_of, stacked, original.output])
    outputs = [numbers(keras, output) for output in inside([context, future], training=False)]
    x_codes, y_codes, summary, predictions, probability = outputs
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
    assert probability.std() > 3e-3
    entropy = keras.losses.BinaryCrossentropy()(label[:, None].astype("float32"), probability)
    assert paired_loss == pytest.approx(float(entropy), abs=1e-5)

    scores = np.einsum("bkd,nkd->bkn", predictions.astype(np.float64), y_codes)
    own = np.take_along_axis(scores, np.arange(BATCH)[:, None, None], axis=2)[..., 0]
    expected = np.log(np.exp(scores - own[..., None]).sum(2))[label == 1].mean()
    assert infonce_loss == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_an_update_of_the_statistics_is_keras_own_but_for_the_unbiased_variance(keras, tmp_path):
    original = encoder(keras, 28)
    model = imported(original, tmp_path).train()
    pixels = images(28)[0].reshape(-1, 28, 28, 3)
    ours = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    theirs = [layer for layer in original.layers if type(layer).__name__ == "BatchNormalization"]
    before = [[numbers(keras, w).copy() for w in (layer.moving_mean, layer.moving_variance)] for layer in theirs]
    expected = numbers(keras, original(pixels, training=True))
    codes = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(codes.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    values = [len(pixels) * side**2 for side in (13, 6, 2, 1)]
    for layer, other, (mean, variance), n in zip(ours, theirs, before, values, strict=True):
        moved = numbers(keras, other.moving_mean)
        assert np.abs(moved - mean).max() > 1e-4
        np.testing.assert_allclose(layer.running_mean.numpy(), moved, **TOLERANCE)
        of_batch = (numbers(keras, other.moving_variance) - 0.99 * variance) / 0.01
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
    np.testing.assert_allclose(numbers(keras, variable), -before, rtol=1e-3)
    np.testing.assert_allclose(ours.detach().numpy(), -after, rtol=1e-3)
