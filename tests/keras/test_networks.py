from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import fill_
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


def bent_autoencoder(layers, flatten):
    """Return layers of an autoencoder of images with channels first."""
    first = {"data_format": "channels_first"}
    convolve = {"padding": "same", "activation": "gelu", **first}
    encoder = [layers.Conv2D(4, 3, **convolve), layers.MaxPooling2D(**first), layers.Flatten(flatten), layers.Dense(6)]
    decoder = [layers.Dense(4 * 4 * 4), layers.Reshape((4, 4, 4)), layers.Conv2D(4, 3, **convolve)]
    last = layers.Conv2D(3, 3, **{**convolve, "activation": "sigmoid"})
    return [*encoder, *decoder, layers.UpSampling2D(**first), last]


def frozen(model):
    """Freeze the first layer of a model, whose weights Keras then stores last in a ``.h5``."""
    model.layers[0].trainable = False
    return model


# forms that a file may have: the shape of an input, and layers that follow one another
UNUSUAL = {
    "channels first, flattened last": ((3, 8, 8), lambda k, s: bent_autoencoder(k.layers, "channels_last")),
    "channels first, flattened first": ((3, 8, 8), lambda k, s: bent_autoencoder(k.layers, "channels_first")),
    "four dimensions": ((2, 4, 5, 6), lambda k, s: [k.layers.Flatten(), k.layers.Dense(3)]),
    "the first of two nested layers frozen": (
        (10, 5),
        lambda k, s: [
            frozen(k.Sequential([k.Input(s), k.layers.LSTM(5, return_sequences=True), k.layers.LSTM(5)])),
            k.layers.Dense(2),
        ],
    ),
    "no sigmoid": ((6,), lambda k, s: [k.layers.Dense(5), k.layers.LeakyReLU(negative_slope=0.2), k.layers.Dense(1)]),
    "the last context": ((None, 5), lambda k, s: [k.layers.GRU(4)]),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_files_of_unusual_forms_have_keras_outputs(keras, tmp_path, name):
    shape, layers = UNUSUAL[name]
    randomize(keras.Sequential([keras.Input(shape), *layers(keras, shape)])).save(tmp_path / "model.h5")
    network = "Discriminator" if name == "no sigmoid" else None
    imported = describe_import(tmp_path / "model.h5", network=network)
    found = largest_difference(tmp_path / "model.h5", imported)
    assert found.largest < 1e-5 < found.scale


def of_a_nested_output(keras):
    first = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="relu")(first)
    inner = keras.Model(first, [hidden, keras.layers.Dense(5, activation="relu")(hidden)])
    outer = keras.Input((6,))
    return keras.Model(outer, keras.layers.Dense(2)(inner(outer)[0]))


def less_a_number(keras):
    first = keras.Input((28, 28, 3))
    return keras.Model(first, encoder(keras, 28)(first - 0.5))


def rated_twice(keras):
    model = ORIGINALS["lecture 61"].build(keras)
    return keras.Model(model.inputs, [model.output, keras.layers.Dense(1)(model.layers[-3].output)])


def stacked_last(keras):
    first, layers = keras.Input((6,)), keras.layers
    return keras.Model(first, layers.Concatenate()([layers.Reshape((5, 1))(layers.Dense(5)(first)) for _ in range(3)]))


def shifted_ratings(keras):
    layers, inputs = keras.layers, [keras.Input((1,)), keras.Input((1,))]
    vectors = [layers.Flatten()(layers.Embedding(9, 4)(each)) for each in (inputs[0] + 1, inputs[1])]
    return keras.Model(inputs, layers.Dense(1)(layers.Dense(6, activation="relu")(layers.Concatenate()(vectors))))


def cpc_of_scaled_images(keras):
    layers, shape = keras.layers, (28, 28, 3)
    inputs = [keras.Input((3, *shape)), keras.Input((2, *shape))]
    scaled = [layers.Rescaling(2.0)(inputs[0]), inputs[1]]
    codes = layers.TimeDistributed(encoder(keras, 28))(layers.Concatenate(axis=1)(scaled))
    context = layers.GRU(5)(layers.Cropping1D((0, 2))(codes))
    predicted = [layers.Reshape((1, 16))(layers.Dense(16)(context)) for _ in range(2)]
    return keras.Model(inputs, [layers.Concatenate(axis=-2)(predicted), codes])


def text_with_channels_first(keras):
    first, layers = keras.Input((20,)), keras.layers
    x = layers.Conv1D(8, 3, activation="relu", data_format="channels_first")(layers.Embedding(51, 20)(first))
    return keras.Model(first, layers.Dense(1)(layers.GlobalMaxPooling1D(data_format="channels_first")(x)))


def of_layers(shape, *kinds):
    def build(keras):
        layers = [getattr(keras.layers, kind)(**settings) for kind, settings in kinds]
        return keras.Sequential([keras.Input(shape), *layers])

    return build


def subclassed(keras):
    class My(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = My()
    model(np.ones((1, 4)))
    return model


def called_in_training(keras):
    first = keras.Input((4,))
    return keras.Model(first, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(first, training=True)))


FIRST = {"data_format": "channels_first"}
STRIDED = ("Conv2D", {"filters": 4, "kernel_size": 3, "strides": 2})
DILATED = ("Conv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2})
REFUSED = {
    of_a_nested_output: "2 outputs",
    less_a_number: "something else than the means",
    rated_twice: "2 outputs",
    stacked_last: "one after the other",
    shifted_ratings: "changes the inputs",
    cpc_of_scaled_images: "changes the inputs",
    text_with_channels_first: "before its terms",
    subclassed: "My.*Sequential or Functional",
    called_in_training: "^(?!.* no model).*training=True",
    of_layers((9, 9, 1), STRIDED, STRIDED, ("Flatten", {}), ("Dense", {"units": 3})): "Conv2D .4., Flatten, Dense",
    of_layers((9, 9, 1), DILATED, ("Flatten", {}), ("Dense", {"units": 3})): "'conv2d.*dilation_rate.*read_model",
    of_layers((9,), ("Dense", {"units": 4, "activation": "selu"}), ("Dense", {"units": 3})): "'selu'.*read_model",
    of_layers((10, 2), ("Flatten", FIRST), ("Dense", {"units": 3})): "reorders",
    of_layers((5, 3), ("LSTM", {"units": 5, "return_sequences": True}), ("GlobalMaxPooling1D", FIRST)): "before its",
}


@pytest.mark.parametrize(("build", "words"), REFUSED.items())
def test_what_a_network_would_compute_otherwise_is_refused(keras, tmp_path, build, words):
    randomize(build(keras)).save(tmp_path / "model.keras")
    with pytest.raises(InputError, match=words):
        describe_import(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"stateful": True}, "stateful"), ({"dropout": 0.3}, "dropouts"), ({"dtype": "mixed_float16"}, "mixed_float16")],
)
def test_settings_of_recurrent_layers_that_are_left_out_are_said(keras, tmp_path, settings, words):
    layers = [keras.Input((10, 2), batch_size=8), keras.layers.LSTM(5, **settings), keras.layers.Dense(1)]
    randomize(keras.Sequential(layers)).save(tmp_path / "model.keras")
    assert any(words in note for note in describe_import(tmp_path / "model.keras").notes)


def test_training_settings_that_are_left_out_are_said(keras, tmp_path):
    for kind, settings in (
        ("regularizers", {"bias_regularizer": "l2"}),
        ("constraints", {"kernel_constraint": "non_neg"}),
        ("frozen", {"trainable": False}),
    ):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)])
        model.save(tmp_path / "plain.keras")
        assert kind not in str(describe_import(tmp_path / "plain.keras").notes)
        layers = [keras.layers.Dense(3, activation="relu", **settings), keras.layers.Dense(2)]
        randomize(keras.Sequential([keras.Input((4,)), *layers])).save(tmp_path / "model.keras")
        assert any(kind in note for note in describe_import(tmp_path / "model.keras").notes)


NOTES = {
    "images": (lambda: torchdl.LenetLike((3, 8, 9), 4, width=2, hidden=3), ("(N, 8, 9, 3), channels last", "logits")),
    "flat images": (lambda: torchdl.MLP(12, 3), ("(N, 12), where images are flat", "logits")),
    "rows": (lambda: torchdl.RowReader((1, 9, 7), 4, hidden=5), ("(N, 9, 7), without a channel", "logits")),
    "texts": (lambda: torchdl.TextLSTM(9, 1), ("index 0 before the words", "logits")),
    "all words": (lambda: torchdl.TextCNN(9, 1, read_padding=True), ("logits",)),
    "terms": (lambda: torchdl.SequenceModel("gru"), ("logits, if",)),
    "ratings": (lambda: torchdl.RatingModel(3, 4), ("i - 1",)),
    "discriminator": (lambda: torchdl.Discriminator(12), ("flat",)),
    "generator": (lambda: torchdl.Generator(3, 12), ()),
    "autoencoder": (lambda: torchdl.Autoencoder((1, 8, 8), width=2, depth=1), ("(N, 8, 8, 1), channels last",)),
}


@pytest.mark.parametrize(("build", "words"), NOTES.values(), ids=NOTES)
def test_what_differs_in_keras_is_said(keras, tmp_path, build, words):
    notes = to_keras(build().eval(), tmp_path / "model.keras")
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True))


@pytest.mark.parametrize("name", ["lecture 32", "lecture 59"])
def test_a_classifier_goes_back_with_its_ending(keras, tmp_path, name):
    original = ORIGINALS[name]
    theirs = randomize(original.build(keras))
    theirs.save(tmp_path / "model.keras")
    imported = describe_import(tmp_path / "model.keras")
    assert imported.ending
    notes = to_keras(imported.model, tmp_path / "back.keras", ending=imported.ending)
    assert "logits" not in str(notes)
    back = keras.saving.load_model(tmp_path / "back.keras")
    inputs = original.inputs()
    expected = numbers(keras, theirs(inputs, training=False))
    np.testing.assert_allclose(numbers(keras, back(inputs, training=False)), expected, **TOLERANCE)
    assert describe_import(tmp_path / "back.keras").ending == imported.ending


def test_only_a_classifier_has_an_ending(keras, tmp_path):
    for model, ending in ((torchdl.Autoencoder((1, 8, 8), width=2, depth=1), "softmax"), (torchdl.MLP(4), "relu")):
        with pytest.raises(InputError, match=f"{type(model).__name__} has no ending '{ending}'"):
            to_keras(model, tmp_path / "model.keras", ending=ending)


def test_sequences_with_a_softmax_may_be_rows_and_a_note_names_the_other_network(keras, tmp_path):
    layers = [keras.layers.LSTM(8), keras.layers.Dense(3, activation="softmax")]
    randomize(keras.Sequential([keras.Input((10, 2)), *layers])).save(tmp_path / "model.keras")
    assert "SequenceModel" in describe_import(tmp_path / "model.keras").notes[0]
    assert from_keras(tmp_path / "model.keras", network="SequenceModel")(torch.zeros(4, 10, 2)).shape == (4, 3)


def test_the_indices_of_ratings_are_in_the_order_of_the_vectors(keras, tmp_path):
    model = randomize(ORIGINALS["lecture 61"].build(keras))
    keras.Model(model.inputs[::-1], model.output).save(tmp_path / "model.keras")
    imported = describe_import(tmp_path / "model.keras")
    assert largest_difference(tmp_path / "model.keras", imported).largest < 1e-5
    assert all(repr(tensor._keras_history.operation.name) in imported.notes[0] for tensor in model.inputs)


def test_a_network_that_is_less_likely_is_read_by_its_name(keras, tmp_path):
    for ours in (
        torchdl.RowReader((1, 9, 7), 4, "gru", hidden=5),
        torchdl.SequenceModel("mlp", length=6, in_features=6, out_features=2, hidden=5),
    ):
        to_keras(ours.eval(), tmp_path / "model.keras")
        assert type(from_keras(tmp_path / "model.keras")) is not type(ours)
        imported = describe_import(tmp_path / "model.keras", network=type(ours).__name__)
        assert largest_difference(tmp_path / "model.keras", imported).largest < 1e-5


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


@pytest.mark.parametrize("options", [{"center_images": True}, {"first_norm": "instance"}])
def test_an_encoder_without_the_colour_of_images_goes_to_keras_and_back(keras, tmp_path, options):
    model = fill_(torchdl.ImageEncoder(15, 3, 4, depth=2, filters=3, hidden=5, **options)).eval()
    assert to_keras(model, tmp_path / "encoder.keras") == ("images: (N, 15, 15, 3), channels last",)
    imported = describe_import(tmp_path / "encoder.keras")
    assert torchdl.artifacts.describe(imported.model) == torchdl.artifacts.describe(model)
    images = draw((2, 15, 15, 3), 0)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).movedim(-1, 1)).numpy()
    np.testing.assert_allclose(numbers(keras, build_keras(model)(images, training=False)), expected, **TOLERANCE)
    assert largest_difference(tmp_path / "encoder.keras", imported).largest < 1e-5


@pytest.mark.parametrize(("kind", "options"), [("lstm", {}), ("gru", {"reset_after": True}), ("gru", {})])
def test_the_hard_sigmoid_of_keras_2_is_the_same_function_in_keras_3(keras, tmp_path, kind, options):
    model = fill_(torchdl.SequenceModel(kind, gate="hard_sigmoid", hidden=5, **options)).eval()
    to_keras(model, tmp_path / "model.keras")
    terms = torch.from_numpy(draw((40, 6, 1), 0))
    with torch.no_grad():
        ours, theirs = model(terms), from_keras(tmp_path / "model.keras")(terms)
    assert ours.std() > 1e-2
    np.testing.assert_allclose(theirs.numpy(), ours.numpy(), **TOLERANCE)


def test_batch_statistics_become_running_ones_and_that_is_said(keras, tmp_path):
    options = {"gate": "hard_sigmoid", "reset_after": False, "separate_passes": True}  # as the source has it
    model = torchdl.image_cpc(15, code_size=4, context_size=5, predict_terms=2, batch_statistics=True, **options)
    order, note = to_keras(fill_(model).eval(), tmp_path / "cpc.keras")
    assert "running statistics" in note
    assert "channels last" in order
    model.batch_statistics = False
    context, future = torch.rand(2, 3, 3, 15, 15), torch.rand(2, 2, 3, 15, 15)
    with torch.no_grad():
        for theirs, ours in zip(
            from_keras(tmp_path / "cpc.keras")(context, future), model(context, future), strict=True
        ):
            np.testing.assert_allclose(theirs.numpy(), ours.numpy(), **TOLERANCE)


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


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_weights_of_other_widths_go_to_keras_as_float32(keras, tmp_path, kind):
    model = torchdl.ImageEncoder(15, 3, 4, depth=2).to(kind)
    to_keras(model, tmp_path / "new" / "encoder.keras")
    back = from_keras(tmp_path / "new" / "encoder.keras").state_dict()
    assert all(value.float().equal(back[name].float()) for name, value in model.state_dict().items())


def test_what_keras_lacks_is_said(keras, tmp_path):
    for model, word in (
        (torchdl.MLP(3, 2, activation="sine"), "no layer .*[sS]ine"),
        (torchdl.Discriminator(spectral_norm=True), "spectral norm"),
        (torchdl.RatingModel(3, 3, factors=2), "factors"),
        (torchdl.AirbenchLike(), "AirbenchLike"),
        (torchdl.Autoencoder((2, 9, 15)), "9x15"),
        (
            torchdl.CPC(torchdl.SignalEncoder(code_size=4), torchdl.ContextNetwork(4, 4), torchdl.Predictors(4, 4)),
            "Signal",
        ),
    ):
        with pytest.raises(InputError, match=word):
            to_keras(model, tmp_path / "model.keras")
    assert list(tmp_path.iterdir()) == []
