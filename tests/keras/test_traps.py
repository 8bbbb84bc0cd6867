"""What differs between Keras and PyTorch, against references in NumPy and without Keras."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.keras2 import gru_states, hard_sigmoid, sigmoid
from helpers.keras_originals import draw

import torchdl
from torchdl.keras.files import KerasFile, Layer
from torchdl.keras.importing import recognise
from torchdl.keras.layers import pieces, weights_of
from torchdl.keras.steps import MisfitError

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def layer(kind: str, config=None, weights=None, layers=(), name=None) -> Layer:
    config = dict(config or {})
    return Layer(name or kind.lower(), kind, config, dict(weights or {}), (), tuple(layers))


def dense(inputs: int, units: int, activation="linear", bias: bool = True, seed: int = 0) -> Layer:
    weights = {"kernel": draw((inputs, units), seed, inputs**-0.5), "bias": draw(units, seed + 1)}
    return layer("Dense", {"activation": activation}, weights if bias else {"kernel": weights["kernel"]})


def sequential(shape, *layers: Layer) -> Layer:
    """Return a model of layers that feed one another, with names of their own."""
    first = layer("InputLayer", {"batch_shape": [None, *shape]})
    named = [each._replace(name=f"{each.name}_{i}") for i, each in enumerate((first, *layers))]
    fed = [each._replace(inputs=(before.name,)) for before, each in pairwise(named)]
    return layer("Sequential", layers=(named[0], *fed))


def imported(shape, *layers: Layer, version: str = "3.5.0", network=None):
    model = sequential(shape, *layers)
    return recognise(KerasFile(model, (model.layers[-1].name,), version), network)


def refused(shape, *layers: Layer, version: str = "3.5.0", network=None) -> str:
    with pytest.raises(MisfitError) as misfit:
        imported(shape, *layers, version=version, network=network)
    return str(misfit.value)


def run(model, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


GATES = {
    ("sigmoid", "2.0.6"): sigmoid,
    ("sigmoid", "3.5.0"): sigmoid,
    ("hard_sigmoid", "2.0.6"): hard_sigmoid,
    ("hard_sigmoid", "3.5.0"): lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


# recurrent layers


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False, None])
@pytest.mark.parametrize(("name", "version"), GATES)
def test_a_grus_gates_reset_and_biases_are_keras_own(name, version, reset_after, use_bias):
    gate, m = GATES[name, version], 5
    kernel, weight = draw((3, 3 * m), 1), draw((m, 3 * m), 2, 0.7)
    bias = draw((2, 3 * m) if reset_after else 3 * m, 3) if use_bias else np.zeros((2, 3 * m))
    config = {"recurrent_activation": name, "activation": "tanh", "return_sequences": True}
    config |= {} if reset_after is None else {"reset_after": reset_after}  # older files do not have it
    weights = {"kernel": kernel, "recurrent_kernel": weight} | ({"bias": bias.astype(np.float32)} if use_bias else {})
    model = imported((None, 3), layer("GRU", config, weights), version=version).model

    x = draw((2, 6, 3), 4)
    np.testing.assert_allclose(run(model, x), gru_states(x, weights | {"bias": bias}, gate, reset_after), **TOLERANCE)


def test_a_hard_sigmoid_of_an_unknown_version_is_refused():
    weights = {"kernel": draw((3, 15), 1), "recurrent_kernel": draw((5, 15), 2), "bias": draw(15, 3)}
    cell = layer("GRU", {"recurrent_activation": "hard_sigmoid", "activation": "tanh"}, weights)
    assert "versions" in refused((None, 3), cell, version="")


@pytest.mark.parametrize(("name", "version"), GATES)
def test_an_lstms_gates_are_in_keras_order(name, version):
    gate, m = GATES[name, version], 4
    kernel, weight, bias = draw((3, 4 * m), 1), draw((m, 4 * m), 2, 0.7), draw(4 * m, 3)
    config = {"recurrent_activation": name, "activation": "tanh"}
    cell = layer("LSTM", config, {"kernel": kernel, "recurrent_kernel": weight, "bias": bias})
    head = dense(m, 2)
    model = imported((None, 3), cell, head, version=version).model
    x, h, c = draw((2, 6, 3), 4), np.zeros((2, m)), np.zeros((2, m))
    for term in x.transpose(1, 0, 2):
        i, f, g, o = np.split(term @ kernel + h @ weight + bias, 4, 1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    np.testing.assert_allclose(run(model, x), h @ head.weights["kernel"] + head.weights["bias"], **TOLERANCE)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"go_backwards": True}, "other direction"),
        ({"return_state": True}, "last state"),
        ({"time_major": True}, "time_major"),
        ({"activation": "relu"}, "activation relu"),
        ({"recurrent_activation": "tanh"}, "tanh"),
    ],
)
def test_recurrent_layers_of_other_settings_are_refused(config, words):
    weights = {"kernel": draw((3, 16), 1), "recurrent_kernel": draw((4, 16), 2), "bias": draw(16, 3)}
    settings = {"activation": "tanh", "recurrent_activation": "sigmoid"} | config
    assert words in refused((None, 3), layer("LSTM", settings, weights), dense(4, 1))


def test_directions_that_are_merged_otherwise_are_refused():
    weights = {"kernel": draw((3, 4), 1), "recurrent_kernel": draw((4, 4), 2), "bias": draw(4, 3)}
    cells = [layer("SimpleRNN", {"activation": "tanh", "go_backwards": back}, weights) for back in (False, True)]
    assert "merges its directions by sum" in refused(
        (None, 3), layer("Bidirectional", {"merge_mode": "sum"}, layers=cells), dense(4, 1)
    )
    assert (
        "SequenceModel" in type(imported((None, 3), layer("Bidirectional", layers=cells), dense(8, 1)).model).__name__
    )


def test_a_dense_layer_that_reads_term_by_term_is_refused():
    assert "(Dense)" in refused((10, 1), dense(1, 1))


# batch norm


def probe(bn: dict, arrays: dict, slope=None) -> tuple[Layer, ...]:
    leaky = layer("LeakyReLU", {} if slope is None else slope)
    return (
        dense(6, 5),
        layer("BatchNormalization", {"axis": -1, "momentum": 0.99, "epsilon": 1e-3, **bn}, arrays),
        leaky,
        dense(5, 3, seed=2),
    )


def statistics(*names: str) -> dict[str, np.ndarray]:
    return {name: 0.5 + np.abs(draw(5, seed)) for seed, name in enumerate(names)}


@pytest.mark.parametrize("names", [("gamma", "beta"), ("beta",), ("gamma",), ()])
def test_batch_norm_without_scale_or_center_has_one_or_zero(names):
    arrays = statistics(*names, "moving_mean", "moving_variance")
    layers = probe({"scale": "gamma" in names, "center": "beta" in names}, arrays)
    model, notes, *_ = imported((6,), *layers)
    x = draw((4, 6), 9)
    first, last = layers[0].weights, layers[3].weights
    h = (x @ first["kernel"] + first["bias"] - arrays["moving_mean"]) / np.sqrt(arrays["moving_variance"] + 1e-3)
    h = h * arrays.get("gamma", 1) + arrays.get("beta", 0)
    h = np.where(h > 0, h, 0.3 * h)
    np.testing.assert_allclose(run(model, x), h @ last["kernel"] + last["bias"], **TOLERANCE)
    assert any("no bias or scale" in note for note in notes) == (len(names) < 2)


def test_batch_norms_epsilon_is_compared_and_its_momentum_noted():
    arrays = statistics("gamma", "beta", "moving_mean", "moving_variance")
    assert "epsilon 1e-05, where ProbeHead has 0.001" in refused((6,), *probe({"epsilon": 1e-5}, arrays))
    assert "axis 0" in refused((6,), *probe({"axis": 0}, arrays))
    assert not any("momentum" in note for note in imported((6,), *probe({}, arrays)).notes)
    assert any("momentum is 0.9 in" in note for note in imported((6,), *probe({"momentum": 0.9}, arrays)).notes)


@pytest.mark.parametrize(
    ("slope", "fits"),
    [
        ({}, True),
        ({"alpha": 0.30000001192092896}, True),
        ({"alpha": {"class_name": "__numpy__", "type": "ndarray", "value": 0.3}}, True),
        ({"negative_slope": 0.3}, True),
        ({"negative_slope": 0.2}, False),
        ({"alpha": 0.1}, False),
    ],
)
def test_the_slope_of_leaky_relu_has_two_names_and_keras_default(slope, fits):
    arrays = statistics("gamma", "beta", "moving_mean", "moving_variance")
    if fits:
        assert isinstance(imported((6,), *probe({}, arrays, slope)).model, torchdl.ProbeHead)
    else:
        assert "has slope 0." in refused((6,), *probe({}, arrays, slope))


@pytest.mark.parametrize(
    "activation",
    [
        {"class_name": "LeakyReLU", "config": {"alpha": 0.2}},
        {"module": "keras.layers", "class_name": "LeakyReLU", "config": {"negative_slope": 0.2}},
        "leaky_relu",
        {"module": "builtins", "class_name": "function", "config": "leaky_relu", "registered_name": "function"},
    ],
)
def test_an_activation_within_a_layer_is_one_after_it(activation):
    layers = (dense(6, 5, activation), dense(5, 1, "sigmoid"))
    model = imported((6,), *layers).model
    assert (type(model), model.slope) == (torchdl.Discriminator, 0.2)
    apart = imported(
        (6,),
        dense(6, 5),
        layer("LeakyReLU", {"alpha": 0.2}),
        dense(5, 1),
        layer("Activation", {"activation": "sigmoid"}),
    )
    x = draw((3, 6), 8)
    assert np.array_equal(run(model, x), run(apart.model, x))


@pytest.mark.parametrize(
    "activation",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"class_name": "__lambda__", "config": {"value": ["4wAAAAA="]}},
        {"class_name": "gelu", "config": {"approximate": True}},
        {"class_name": "ReLU", "config": {"max_value": 6}},
        "hard_sigmoid",
        ["relu"],
    ],
)
def test_other_activations_are_refused(activation):
    assert "(Dense)" in refused((6,), dense(6, 5, activation), dense(5, 2, "softmax"))


# images


def lenet_file(ours: torchdl.LenetLike, flatten=None, first: bool = False, pooling=None, relu_last: bool = False):
    """Write a LenetLike as layers of Keras, with channels last or first."""
    found = []
    for piece in pieces(ours.features, ours.classifier, channels=ours.in_shape[0]):
        weights = weights_of(piece)
        data_format = {"data_format": "channels_first" if first else "channels_last"}
        if piece.kind == "Conv2D":
            found.append(layer("Conv2D", {"padding": "same", **data_format}, weights))
        elif piece.kind == "Dense":
            if first and (flatten or {}).get("data_format") != "channels_first":
                weights["kernel"] = piece.module.weight.detach().numpy().T  # flattened as (channel, height, width)
            found.append(layer("Dense", {}, weights))
        elif piece.kind == "MaxPooling2D":
            found.append(layer("MaxPooling2D", {"pool_size": [2, 2], **data_format, **(pooling or {})}))
        elif piece.kind == "Flatten":
            found.append(layer("Flatten", flatten or {}))
        else:
            found.append(layer("ReLU"))
    if relu_last:
        for i in (1, 4):
            found[i : i + 2] = found[i + 1], found[i]
    channels, *sides = ours.in_shape
    return (channels, *sides) if first else (*sides, channels), found


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"relu_last": True},
        {"pooling": {"padding": "same"}},
        {"pooling": {"strides": [2, 2], "padding": "valid"}},
        {"first": True},
        {"first": True, "flatten": {"data_format": "channels_last"}},
        {"first": True, "flatten": {"data_format": "channels_first"}},
    ],
)
def test_images_are_flattened_in_the_order_of_the_file(form):
    ours = torchdl.LenetLike((3, 8, 12), 4, width=3, hidden=6).eval()
    shape, layers = lenet_file(ours, **form)
    found = imported(shape, *layers)
    state = found.model.state_dict()
    assert found.channels_first == form.get("first", False)
    assert all(value.equal(state[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("place", "settings", "words"),
    [
        (0, {"strides": 2}, r"strides \(2, 2\)"),
        (0, {"padding": "valid"}, "padding valid"),
        (0, {"dilation_rate": [2, 2]}, "dilation_rate"),
        (0, {"groups": 3}, "groups 3"),
        (0, {"data_format": "channels_first"}, "channels first, others last"),
        (2, {"pool_size": 3}, r"pool_size \(3, 3\)"),
        (2, {"strides": 1}, r"strides \(1, 1\)"),
        (0, {"strides": "2"}, "positive numbers"),
    ],
)
def test_convolutions_and_pooling_of_other_settings_are_refused(place, settings, words):
    shape, layers = lenet_file(torchdl.LenetLike((3, 8, 12), 4, width=3, hidden=6))
    layers[place] = layers[place]._replace(config=layers[place].config | settings)
    with pytest.raises(MisfitError, match=words):
        imported(shape, *layers, network="LenetLike")


def test_pooling_with_padding_is_refused_where_it_pads():
    shape, layers = lenet_file(torchdl.LenetLike((1, 8, 10), 4, width=3, hidden=6), pooling={"padding": "same"})
    assert "padding same" in refused(shape, *layers)  # 10, 5: the second pooling pads


def test_padding_with_stride_two_is_refused_because_keras_pads_on_one_side():
    ours = torchdl.StridedCNN((1, 16, 16), 3, hidden=5)
    layers = []
    for piece in pieces(ours.features, ours.classifier):
        config = {"strides": 2, "padding": "same"} if piece.kind == "Conv2D" else dict(piece.settings)
        config |= {"activation": config.get("function")} if piece.kind == "Activation" else {}
        layers.append(layer(piece.kind, config, weights_of(piece)))
    assert "padding same, where StridedCNN has valid" in refused((16, 16, 1), *layers)


def test_upsampling_by_interpolation_is_refused():
    ours, layers = torchdl.Autoencoder((1, 8, 8), 3, 1, 4), []
    for piece in pieces(ours.encoder, ours.decoder):
        config = dict(piece.settings) | ({"interpolation": "bilinear"} if piece.kind == "UpSampling2D" else {})
        config |= {"activation": config.get("function")} if piece.kind == "Activation" else {}
        layers.append(layer(piece.kind, config, weights_of(piece)))
    assert "interpolation bilinear, where Autoencoder has nearest" in refused((8, 8, 1), *layers)


def test_a_colour_image_is_flattened_with_channels_last_in_keras():
    layers = layer("Flatten"), dense(24, 5, "relu"), dense(5, 2, seed=4)
    x = draw((3, 2, 4, 3), 1)  # (N, H, W, C)
    hidden = np.maximum(x.reshape(3, -1) @ layers[1].weights["kernel"] + layers[1].weights["bias"], 0)
    expected = hidden @ layers[2].weights["kernel"] + layers[2].weights["bias"]
    model = imported((2, 4, 3), *layers).model
    np.testing.assert_allclose(run(model, np.moveaxis(x, -1, 1).copy()), expected, **TOLERANCE)


# texts


@pytest.mark.parametrize("mask", [False, True])
def test_index_zero_is_a_word_without_a_mask(mask):
    weights = {"kernel": draw((3, 16), 1), "recurrent_kernel": draw((4, 16), 2), "bias": draw(16, 3)}
    cell = {"activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": True}
    table = draw((8, 3), 5)
    model, notes, *_ = imported(
        (None,),
        layer("Embedding", {"mask_zero": mask}, {"embeddings": table}),
        layer("LSTM", cell, weights),
        layer("GlobalMaxPooling1D"),
        dense(4, 1, "sigmoid"),
    )
    assert (model.vocabulary_size, model.read_padding) == (7, not mask)
    kept = model.embedding.weight.detach().numpy()
    assert np.array_equal(kept[1:], table[1:])
    assert np.array_equal(kept[0], np.zeros(3) if mask else table[0])
    assert any("index 0" in note for note in notes)
    short, padded = torch.tensor([[5, 7]]), torch.tensor([[0, 5, 7, 0]])
    with torch.no_grad():
        assert model(short).allclose(model(padded)) == mask


# what is refused, and numbers of other widths


def test_a_lambda_is_refused_by_name_and_a_model_of_unknown_layers_by_its_first():
    assert "'lambda_1' (Lambda) holds code, which is never run" in refused((6,), layer("Lambda"), dense(6, 2))
    assert "'attention_1' (Attention)" in refused((6,), layer("Attention"), layer("Other"))
    assert "torchdl.keras.read_model" in refused((6,), layer("Attention"))  # what can be done


def test_a_network_is_chosen_by_name_where_layers_are_several():
    layers = layer("Flatten"), dense(6, 1)
    assert type(imported((3, 2), *layers).model) is torchdl.SequenceModel
    assert type(imported((3, 2), *layers, network="MLP").model) is torchdl.MLP
    with pytest.raises(torchdl.InputError, match=r"unknown network 'Mlp'.*MLP"):
        imported((3, 2), *layers, network="Mlp")


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_weights_of_other_widths_become_float32(kind):
    layers = [
        each._replace(weights={k: w.astype(kind) for k, w in each.weights.items()})
        for each in (dense(6, 5, "relu"), dense(5, 2))
    ]
    model, notes, *_ = imported((6,), *layers)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert np.array_equal(model.layers[0].weight.detach().numpy(), layers[0].weights["kernel"].T.astype(np.float32))
    assert any("64 bits" in note for note in notes) == (kind is np.float64)


def test_an_ending_is_left_to_the_loss_and_said():
    for name in ("softmax", "sigmoid"):
        found = imported((6,), dense(6, 5, "relu"), dense(5, 2, name))
        assert found.ending == name
        assert any(name in note and "logits" in note for note in found.notes)
    assert imported((6,), dense(6, 5, "relu"), dense(5, 2)).ending == ""


def test_dropouts_change_nothing_and_are_said_where_they_differ():
    layers = [
        dense(6, 5, "relu"),
        layer("Dropout", {"rate": 0.3}),
        dense(5, 4, "relu"),
        layer("Dropout", {"rate": 0.3}),
    ]
    found = imported((6,), *layers, dense(4, 2))
    assert found.model.dropout == 0.3
    assert not any("dropout" in note for note in found.notes)
    layers[3] = layer("Dropout", {"rate": 0.1})
    assert any("[0.3, 0.1]" in note for note in imported((6,), *layers, dense(4, 2)).notes)


def layers_of_encoder() -> list[Layer]:
    torch.manual_seed(0)
    encoder, found = torchdl.ImageEncoder(15, 1, 4, depth=1, filters=2, hidden=3), []
    for piece in pieces(encoder.layers):
        config = {"strides": 2} if piece.kind == "Conv2D" else dict(piece.settings)
        kind = "LeakyReLU" if piece.kind == "Activation" else piece.kind
        config |= {"axis": -1, "alpha": 0.3, "momentum": 0.99}
        found.append(layer(kind, config, {name: array.copy() for name, array in weights_of(piece).items()}))
    return found


@pytest.mark.parametrize("change", [None, "kernel", "moving_variance"])
def test_the_two_copies_of_cpcs_encoder_must_be_equal(change):
    def copy(changed=None) -> Layer:
        layers = layers_of_encoder()
        return sequential(
            (15, 15, 1), *(x._replace(weights={k: w + (k == changed) for k, w in x.weights.items()}) for x in layers)
        )

    def named(name: str, kind: str, inputs=(), config=None, weights=None, layers=()) -> Layer:
        return Layer(name, kind, config or {}, weights or {}, inputs, layers)

    weights = {"kernel": draw((4, 15), 1), "recurrent_kernel": draw((5, 15), 2), "bias": draw(15, 3)}
    steps = [dense(5, 4, seed=i)._replace(name=f"z_t_{i}", inputs=("gru",)) for i in range(2)]
    model = named("model", "Model", layers=(
        named("x", "InputLayer", config={"batch_shape": [None, 3, 15, 15, 1]}),
        named("first", "TimeDistributed", ("x",), layers=(copy(),)),
        named("gru", "GRU", ("first",), {"activation": "tanh", "recurrent_activation": "hard_sigmoid"}, weights),
        *steps,
        named("y", "InputLayer", config={"batch_shape": [None, 2, 15, 15, 1]}),
        named("stack", "Lambda", ("z_t_1", "z_t_0")),
        named("second", "TimeDistributed", ("y",), layers=(copy(change),)),
        named("cpc", "CPCLayer", ("stack", "second")),
    ))  # fmt: skip
    file = KerasFile(model, ("cpc",), "2.0.6")
    if change:
        with pytest.raises(MisfitError, match=r"'second'.*another encoder than 'first'"):
            recognise(file)
        return
    cpc = recognise(file).model
    assert (cpc.context.gate, cpc.context.reset_after) == ("hard_sigmoid", False)
    first = cpc.predictors.linear[0].weight.detach().numpy().T  # the order of the stack, not of the file
    assert np.array_equal(first, steps[1].weights["kernel"])
    elsewhere = model._replace(layers=(*model.layers[:7], model.layers[7]._replace(inputs=("x",)), *model.layers[8:]))
    assert recognise(KerasFile(elsewhere, ("cpc",), "2.0.6"))  # which input is which does not matter
    alone = model._replace(
        layers=tuple(each._replace(kind="Foo") if each.kind == "CPCLayer" else each for each in model.layers)
    )
    with pytest.raises(MisfitError, match="as in CPC"):
        recognise(KerasFile(alone, ("cpc",), "2.0.6"))


def test_what_an_input_must_look_like_is_said():
    shape, layers = lenet_file(torchdl.LenetLike((3, 8, 12), 4, width=3, hidden=6))
    (note, *_) = imported(shape, *layers).notes
    assert "(N, 3, 8, 12)" in note
    assert "(N, 8, 12, 3)" in note
    assert "0 to 1" in note
    (encoder, *_) = imported((15, 15, 1), *layers_of_encoder()).notes
    assert "-1 to 1 (divided by 256" in encoder


# hostile layers

JUNK = [None, -1, 0, 1.5, "x", [], {}, [1], [2, "x"], float("nan"), 10**12, True, {"class_name": []}, {"config": 3}]


def hostile_files() -> list[KerasFile]:
    cell = {"kernel": draw((3, 16), 1), "recurrent_kernel": draw((4, 16), 2), "bias": draw(16, 3)}
    words = {"activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": True}
    shape, lenet = lenet_file(torchdl.LenetLike((3, 8, 12), 4, width=3, hidden=6))
    table = layer("Embedding", {"mask_zero": False}, {"embeddings": draw((8, 3), 5)})
    backward = layer("LSTM", words | {"go_backwards": True}, cell)
    both = layer("Bidirectional", {"merge_mode": "concat"}, layers=(layer("LSTM", words, cell), backward))
    models = [
        sequential((15, 15, 1), *layers_of_encoder()),
        sequential(shape, *lenet),
        sequential((None,), table, layer("LSTM", words, cell), layer("GlobalMaxPooling1D"), dense(4, 1, "sigmoid")),
        sequential(
            (None, 3), both, layer("GlobalMaxPooling1D"), dense(8, 6), layer("Reshape", {"target_shape": [3, 2]})
        ),
        sequential((6,), dense(6, 5, {"class_name": "LeakyReLU", "config": {"alpha": 0.2}}), dense(5, 1, "sigmoid")),
    ]
    return [KerasFile(model, (model.layers[-1].name,), "3.5.0") for model in models]


def mutated(model: Layer, generator: np.random.Generator) -> Layer:
    """Return a model with something wrong in one of its layers, or none."""
    if not model.layers:
        return wrong(model, generator)
    place = int(generator.integers(len(model.layers)))
    layers = list(model.layers)
    act = generator.integers(10)
    if act == 0:
        del layers[place]
    elif act == 1:
        layers.insert(place, layers[int(generator.integers(len(layers)))])
    else:
        layers[place] = mutated(layers[place], generator) if act < 8 else wrong(layers[place], generator)
    return model._replace(layers=tuple(layers), kind="Functional" if act % 2 else model.kind)


def wrong(one: Layer, generator: np.random.Generator) -> Layer:
    junk = JUNK[generator.integers(len(JUNK))]
    settings = [
        "activation",
        "strides",
        "padding",
        "axis",
        "rate",
        "batch_shape",
        "momentum",
        "data_format",
        *one.config,
    ]
    match generator.integers(6):
        case 0 if one.weights:
            weights = dict(one.weights)
            name = list(weights)[generator.integers(len(weights))]
            shape = tuple(int(size) for size in generator.integers(0, 4, generator.integers(5)))
            weights[name] = np.zeros(shape, np.float32)
            return one._replace(weights=weights)
        case 1 if one.weights:
            return one._replace(weights=dict(list(one.weights.items())[1:]))
        case 2:
            kinds = (
                "Dense",
                "Lambda",
                "Dropout",
                "Flatten",
                "Reshape",
                "Subtract",
                "LSTM",
                "TimeDistributed",
                "CPCLayer",
            )
            return one._replace(kind=kinds[generator.integers(len(kinds))])
        case 3:
            return one._replace(inputs=((), ("nowhere",), (one.name,), (one.name, "x"))[generator.integers(4)])
        case _:
            return one._replace(config=one.config | {settings[generator.integers(len(settings))]: junk})


@pytest.mark.parametrize("circle", ["flatten", "dense", "embedding"])
def test_a_circle_of_layers_ends(circle):
    def named(name: str, kind: str, *inputs: str, weights=None) -> Layer:
        return Layer(name, kind, {}, weights or {}, (*inputs, *((name,) if name == circle else ())))

    table = {"embeddings": draw((8, 3), 1)}
    layers = (
        named("users", "InputLayer"),
        named("embedding", "Embedding", *(() if circle == "embedding" else ("users",)), weights=table),
        named("flatten", "Flatten", *(() if circle == "flatten" else ("embedding",))),
        named("both", "Concatenate", "flatten", "embedding"),
        dense(6, 6)._replace(name="dense", inputs=("dense", "both") if circle == "dense" else ("both",)),
        dense(6, 1)._replace(name="last", inputs=("dense",)),
    )
    model = Layer("model", "Functional", {}, {}, (), layers)
    with pytest.raises(MisfitError):
        recognise(KerasFile(model, ("last",), "3.5.0"), "RatingModel")


@pytest.mark.slow
def test_hostile_layers_are_refused_in_one_sentence_or_make_a_network():
    files, generator, made = hostile_files(), np.random.default_rng(0), 0
    assert all(recognise(file) for file in files)
    for number in range(300):
        file = files[number % len(files)]
        model = file.model
        for _ in range(1 + number % 2):
            model = mutated(model, generator)
        try:
            recognise(file._replace(model=model))
            made += 1
        except (MisfitError, torchdl.InputError) as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert 30 < made < 270
