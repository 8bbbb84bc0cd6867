from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.keras_originals import ORIGINALS, cpc, draw, encoder, numbers, randomize

import torchdl
from torchdl import InputError
from torchdl.keras import describe_import, from_keras, largest_difference, to_keras
from torchdl.keras.exporting import build_keras
from torchdl.keras.importing import READERS

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore:.*mask")]


def ended(output: torch.Tensor, ending: str) -> torch.Tensor:
    """Apply the activation at the end of the Keras model, which the network leaves to the loss."""
    return {"softmax": lambda x: x.softmax(1), "sigmoid": torch.sigmoid, "": lambda x: x}[ending](output)


def here(model, inputs) -> torch.Tensor:
    with torch.no_grad():
        output = model(*inputs)
    if isinstance(model, torchdl.RatingModel):
        return output[:, None]
    return output.permute(0, 2, 3, 1) if output.dim() == 4 else output  # channels last, as in Keras


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_network_has_keras_outputs_can_be_saved_and_goes_back_bit_for_bit(keras, tmp_path, name):
    original = ORIGINALS[name]
    theirs = randomize(original.build(keras))
    theirs.save(tmp_path / "model.keras")
    imported = describe_import(tmp_path / "model.keras")
    model = imported.model
    assert (type(model).__name__, model.training) == (original.name, False)
    inputs = original.inputs()
    expected = numbers(keras, theirs(inputs, training=False))
    ours = here(model, original.here(inputs))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ended(ours, imported.ending).numpy(), expected, **TOLERANCE)

    torchdl.save(model, tmp_path / "run")
    assert here(torchdl.load(tmp_path / "run"), original.here(inputs)).equal(ours)

    to_keras(model, tmp_path / "back.keras")
    back = describe_import(tmp_path / "back.keras", network=original.name)
    assert torchdl.artifacts.describe(back.model) == torchdl.artifacts.describe(model)
    state = model.state_dict()
    assert all(value.equal(state[key]) for key, value in back.model.state_dict().items())
    assert largest_difference(tmp_path / "back.keras", back).largest < 1e-5


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("reset_after", [True, False])
def test_the_whole_cpc_of_the_source_has_its_own_outputs(keras, tmp_path, steps, reset_after):
    theirs = randomize(cpc(keras, steps=steps, reset_after=reset_after))
    theirs.save(tmp_path / "cpc.keras")
    model = from_keras(tmp_path / "cpc.keras")
    assert (type(model).__name__, model.context.reset_after, model.predictors.steps) == ("CPC", reset_after, steps)
    context, future = (draw((5, terms, 28, 28, 3), terms) for terms in (3, steps))
    expected = numbers(keras, theirs([context, future], training=False))
    with torch.no_grad():
        predicted, embeddings = model(*(torch.from_numpy(x).movedim(-1, 2) for x in (context, future)))
    logits = (predicted[:, 0] * embeddings[:, 3:]).mean((1, 2))
    np.testing.assert_allclose(logits.sigmoid()[:, None].numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".keras", {"every_term": True}), (".h5", {"center_images": True}), (".weights.h5", {"gate": "relu6"})],
)
def test_cpc_goes_to_keras_and_back(keras, tmp_path, suffix, options):
    model = torchdl.image_cpc(28, code_size=8, context_size=6, predict_terms=2, **options).eval()
    path = tmp_path / f"cpc{suffix}"
    to_keras(model, path)
    architecture = tmp_path / "cpc.json" if suffix == ".weights.h5" else None
    state, back = model.state_dict(), from_keras(path, architecture)
    assert torchdl.artifacts.describe(back) == torchdl.artifacts.describe(model)
    assert all(value.equal(state[key]) for key, value in back.state_dict().items())
    context, future = (draw((5, terms, 28, 28, 3), terms) for terms in (3, 2))
    outputs = [numbers(keras, output) for output in build_keras(model)([context, future], training=False)]
    with torch.no_grad():
        expected = model(*(torch.from_numpy(x).movedim(-1, 2) for x in (context, future)))
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, value.numpy(), **TOLERANCE)


def test_every_network_that_is_known_has_an_original_here():
    assert {original.name for original in ORIGINALS.values()} == set(READERS) - {"CPC", "Predictors", "GAN"}


def test_an_encoder_that_centres_its_images_goes_to_keras_and_back(keras, tmp_path):
    model = torchdl.ImageEncoder(15, 3, 4, center_images=True, depth=2).eval()
    to_keras(model, tmp_path / "encoder.keras")
    imported = describe_import(tmp_path / "encoder.keras")
    assert imported.model.center_images
    assert largest_difference(tmp_path / "encoder.keras", imported).largest < 1e-5


def test_dense_layers_side_by_side_are_predictors(keras, tmp_path):
    first = keras.Input((6,))
    dense = [keras.layers.Dense(5, name=f"z_t_{i}") for i in range(3)]
    theirs = randomize(keras.Model(first, [layer(first) for layer in dense]))
    theirs.save(tmp_path / "predictors.keras")
    model, contexts = from_keras(tmp_path / "predictors.keras"), draw((4, 6), 1)
    expected = np.stack([numbers(keras, output) for output in theirs(contexts)], 1)
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(contexts)).numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("steps", [1, 3])
def test_predictors_go_to_keras_and_back(keras, tmp_path, steps):
    model, contexts = torchdl.Predictors(6, 5, steps), draw((4, 6), 1)
    to_keras(model, tmp_path / "predictors.keras")
    back = from_keras(tmp_path / "predictors.keras")
    with torch.no_grad():
        expected = back(torch.from_numpy(contexts)).numpy()
    np.testing.assert_allclose(numbers(keras, build_keras(model)(contexts)), expected, **TOLERANCE)


def test_a_generator_and_its_discriminator_in_one_model_are_a_gan(keras, tmp_path):
    pair = [randomize(ORIGINALS[f"notes' {part}"].build(keras)) for part in ("generator", "discriminator")]
    first = keras.Input((64,))
    keras.Model(first, pair[1](pair[0](first))).save(tmp_path / "gan.keras")
    gan = from_keras(tmp_path / "gan.keras")
    noise = draw((3, 64), 2)
    with torch.no_grad():
        pictures = gan(torch.from_numpy(noise))
        scores = gan.discriminator(pictures)
    generated = numbers(keras, pair[0](noise))
    np.testing.assert_allclose(pictures.flatten(1).numpy(), generated, **TOLERANCE)
    np.testing.assert_allclose(scores.numpy(), numbers(keras, pair[1](generated)), **TOLERANCE)
    to_keras(gan, tmp_path / "back.keras")
    assert type(from_keras(tmp_path / "back.keras")) is torchdl.GAN


def test_weights_with_an_architecture_beside_them_are_read(keras, tmp_path):
    theirs = randomize(encoder(keras, 28))
    theirs.save_weights(tmp_path / "encoder.weights.h5")
    (tmp_path / "architecture.json").write_text(theirs.to_json())
    model = from_keras(tmp_path / "encoder.weights.h5", tmp_path / "architecture.json")
    x = draw((3, 28, 28, 3), 1)
    with torch.no_grad():
        ours = model(torch.from_numpy(x).movedim(-1, 1)).numpy()
    np.testing.assert_allclose(ours, numbers(keras, theirs(x, training=False)), **TOLERANCE)


def test_what_keras_lacks_is_said(keras, tmp_path):
    for model, word in (
        (torchdl.MLP(3, 2, activation="sine"), "sine|Sine"),
        (torchdl.Discriminator(spectral_norm=True), "spectral norm"),
        (torchdl.RatingModel(3, 3, factors=2), "factors"),
        (torchdl.SequenceModel("lstm", gate="hard_sigmoid"), "hard sigmoid"),
        (torchdl.AirbenchLike(), "AirbenchLike"),
        (torchdl.image_cpc(28, batch_statistics=True), "batch_statistics"),
        (
            torchdl.CPC(torchdl.SignalEncoder(code_size=4), torchdl.ContextNetwork(4, 4), torchdl.Predictors(4, 4)),
            "Signal",
        ),
    ):
        with pytest.raises(InputError, match=word):
            to_keras(model, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
