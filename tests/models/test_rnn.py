"""Sequence models against their equations, written out in NumPy, and against Keras.

Shapes, with the course's letters: N sequences, T terms, D numbers a term, M hidden units, K outputs, H terms to come.
"""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from hypothesis import given, settings, strategies as st
from torch import nn

import torchdl
from torchdl import InputError, RowReader, SequenceModel

N, T, D, M, K, H = 4, 10, 3, 5, 2, 6
KINDS = ("linear", "mlp", "rnn", "gru", "lstm")
CELLS = KINDS[2:]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own


def build(kind: str = "lstm", seed: int = 0, **settings) -> SequenceModel:
    """Build a model in double precision with weights, biases too, that are all different from 0."""
    usual = {"in_features": D, "out_features": K, "length": T, "hidden": M}
    model = fill_(SequenceModel(kind, **{**usual, **settings}), seed).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # or of three layers' gates little would be left in the output
    return model


def sequences(n: int = N, t: int = T, d: int = D, seed: int = 1) -> torch.Tensor:
    return gaussian(n, t, d, seed=seed, dtype=torch.float64)


def outputs(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(x).numpy()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# the equations, a sequence and a term at a time


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def gates(core: nn.RNNBase, suffix: str, count: int) -> list[list[np.ndarray]]:
    """Return for each gate W_x (D, M), W_h (M, M) and the two biases (M,), as the course multiplies by them."""
    found = [getattr(core, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return [[a.T for a in gate] for gate in zip(*(np.split(p.detach().numpy(), count) for p in found), strict=True)]


def rnn_states(x: np.ndarray, core: nn.RNNBase, suffix: str = "l0", activation=np.tanh) -> np.ndarray:
    """Lectures 41 and 43: (T, D) to (T, M)."""
    ((wx, wh, bx, bh),) = gates(core, suffix, 1)
    h_last, states = np.zeros(M), []
    for t in range(len(x)):
        h_last = activation(x[t].dot(wx) + h_last.dot(wh) + bx + bh)
        states.append(h_last)
    return np.array(states)


def gru_states(x: np.ndarray, core: nn.RNNBase, suffix: str = "l0") -> np.ndarray:
    """Lecture 45, with the course's z, but the reset gate after the recurrent product: (T, D) to (T, M)."""
    (wxr, whr, bxr, bhr), (wxz, whz, bxz, bhz), (wxh, whh, bxh, bhh) = gates(core, suffix, 3)
    h, states = np.zeros(M), []
    for t in range(len(x)):
        keep = sigmoid(x[t].dot(wxz) + h.dot(whz) + bxz + bhz)
        z = 1 - keep  # the course's update gate, 1 where the new value is taken
        r = sigmoid(x[t].dot(wxr) + h.dot(whr) + bxr + bhr)
        h = (1 - z) * h + z * np.tanh(x[t].dot(wxh) + bxh + r * (h.dot(whh) + bhh))
        states.append(h)
    return np.array(states)


def lstm_states(x: np.ndarray, core: nn.RNNBase, suffix: str = "l0") -> np.ndarray:
    """Lecture 46: (T, D) to (T, M)."""
    (wxi, whi, bxi, bhi), (wxf, whf, bxf, bhf), (wxc, whc, bxc, bhc), (wxo, who, bxo, bho) = gates(core, suffix, 4)
    h, c, states = np.zeros(M), np.zeros(M), []
    for t in range(len(x)):
        f = sigmoid(x[t].dot(wxf) + h.dot(whf) + bxf + bhf)
        i = sigmoid(x[t].dot(wxi) + h.dot(whi) + bxi + bhi)
        o = sigmoid(x[t].dot(wxo) + h.dot(who) + bxo + bho)
        c = f * c + i * np.tanh(x[t].dot(wxc) + h.dot(whc) + bxc + bhc)
        h = o * np.tanh(c)
        states.append(h)
    return np.array(states)


STATES = {"rnn": rnn_states, "gru": gru_states, "lstm": lstm_states}


def by_hand(model: SequenceModel, x: np.ndarray, **settings) -> np.ndarray:
    """Compute the output (K,) of one sequence (T, D): layers, directions, pooling and the last layer."""
    every = x
    for layer in range(model.layers):
        states = STATES[model.kind](every, model.core, f"l{layer}", **settings)
        last = states[-1]
        if model.bidirectional:
            back = STATES[model.kind](every[::-1], model.core, f"l{layer}_reverse", **settings)
            last = np.concatenate([last, back[-1]])  # what each has read last
            states = np.concatenate([states, back[::-1]], 1)  # (T, 2 M), term by term
        every = states
    pooled = every.max(0) if model.pooling == "max" else last
    return pooled.dot(model.head.weight.detach().numpy().T) + model.head.bias.detach().numpy()


def assert_as_by_hand(model: SequenceModel, x: torch.Tensor, **settings) -> None:
    got = outputs(model, x)
    expected = np.array([by_hand(model, sequence.numpy(), **settings) for sequence in x])
    assert got.shape == (len(x), model.out_features)
    assert got.std(0).min() > 1e-2  # they depend on the sequences
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", CELLS)
def test_an_output_is_what_the_lectures_compute_from_the_weights(kind):
    model = build(kind)
    shapes = {name: tuple(p.shape) for name, p in model.core.named_parameters()}
    g = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
    sizes = {"weight_ih": (g * M, D), "weight_hh": (g * M, M), "bias_ih": (g * M,), "bias_hh": (g * M,)}
    assert shapes == {f"{name}_l0": size for name, size in sizes.items()}
    assert_as_by_hand(model, sequences())


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(
    ("layers", "bidirectional", "pooling"), [*itertools.product((1, 2, 3), (False, True), ("last", "max"))][1:]
)
def test_layers_directions_and_pooling_are_what_they_say(kind, layers, bidirectional, pooling):
    model = build(kind, layers=layers, bidirectional=bidirectional, pooling=pooling)
    assert_as_by_hand(model, sequences())


@pytest.mark.slow
def test_the_script_of_shapes_computes_the_networks_output_by_hand(run, tmp_path):
    done = run("show_shapes.py --features 4 --hidden 6 --outputs 3", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "Wx = core.weight_ih_l0, input to hidden: (M, D) = (6, 4)" in done.out
    assert "Wo = head.weight, hidden to output: (K, M) = (3, 6)" in done.out
    *_, ours, by_hand, difference = done.out.splitlines()
    assert ours.split(":")[1].split() == by_hand.split(":")[1].split()
    assert float(difference.split(": ")[1]) < 1e-12
    assert run("show_shapes.py --hidden 0", tmp_path).err == "show_shapes.py: --hidden must be 1 or more, not 0\n"


def test_a_simple_network_can_have_relu():
    assert_as_by_hand(build("rnn", activation="relu"), sequences(), activation=lambda a: np.maximum(a, 0))
    two = build("rnn", activation="relu", layers=2, bidirectional=True)
    assert_as_by_hand(two, sequences(), activation=lambda a: np.maximum(a, 0))


@pytest.mark.parametrize("pooling", ["last", "max"])
def test_a_simple_network_can_do_without_an_activation(pooling):
    assert_as_by_hand(build("rnn", activation="none", pooling=pooling), sequences(), activation=lambda a: a)


@settings(max_examples=20, deadline=None)
@given(a=st.floats(-5, 5), b=st.floats(-5, 5), terms=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_recurrence_without_activation_is_a_linear_function_of_the_sequence(a, b, terms, seed):
    model = build("rnn", activation="none", seed=seed)
    x, y = sequences(t=terms, seed=seed), sequences(t=terms, seed=seed + 1)
    zero, of_x, of_y, of_both = (outputs(model, z) for z in (0 * x, x, y, a * x + b * y))
    np.testing.assert_allclose(of_both - zero, a * (of_x - zero) + b * (of_y - zero), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_one_with_an_activation_is_not(activation):
    model = build("rnn", activation=activation)
    zero, once, twice = (outputs(model, factor * sequences()) for factor in (0, 1, 2))
    assert np.abs((twice - zero) - 2 * (once - zero)).max() > 0.01


def test_a_linear_model_is_a_product_with_all_numbers_at_once():
    model, x = build("linear"), sequences()
    (kernel, bias) = (p.detach().numpy() for p in model.parameters())
    assert kernel.shape == (K, T * D)
    np.testing.assert_allclose(outputs(model, x), x.numpy().reshape(N, T * D) @ kernel.T + bias, rtol=1e-12)


@pytest.mark.parametrize(("activation", "function"), [(None, lambda a: np.maximum(a, 0)), ("tanh", np.tanh)])
def test_an_mlp_has_hidden_layers_of_all_numbers_at_once(activation, function):
    model, x = build("mlp", activation=activation, layers=2), sequences()
    a, b, c, d, e, f = (p.detach().numpy() for p in model.parameters())
    assert [p.shape for p in (a, c, e)] == [(M, T * D), (M, M), (K, M)]
    hidden = function(function(x.numpy().reshape(N, T * D) @ a.T + b) @ c.T + d)
    np.testing.assert_allclose(outputs(model, x), hidden @ e.T + f, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_several_terms_to_come_are_one_output_in_rows(kind):
    flat, model = build(kind, out_features=H * K), build(kind, horizon=H)
    assert [p.shape for p in flat.parameters()] == [p.shape for p in model.parameters()]
    model.load_state_dict(flat.state_dict())
    x = sequences()
    assert outputs(model, x).shape == (N, H, K)
    np.testing.assert_array_equal(outputs(model, x), outputs(flat, x).reshape(N, H, K))
    assert outputs(build(kind, horizon=1), x).shape == (N, 1, K)


def test_two_directions_see_the_same_in_a_palindrome_with_shared_weights():
    model = build("gru", bidirectional=True)
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(model.core, f"{name}_l0_reverse").copy_(getattr(model.core, f"{name}_l0"))
    half = sequences(t=5)
    with torch.no_grad():
        states = model.states(torch.cat([half, half.flip(1)], 1))
    torch.testing.assert_close(states[:, :M], states[:, M:], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("kind", "pooling"), [*itertools.product(CELLS, ("last", "max"))])
def test_any_number_of_terms_can_be_read_and_a_sequence_alone_is_as_in_a_batch(kind, pooling):
    model = build(kind, length=None, pooling=pooling)
    for terms in (1, 2, 33):
        x = sequences(t=terms)
        np.testing.assert_allclose(outputs(model, x)[1:2], outputs(model, x[1:2]), rtol=1e-10)


# as Keras has them


def listing(keras, name: str):
    """Build one of the course's networks as its listings do."""
    layers = keras.layers
    i = keras.Input((T, D))
    if name.endswith("max pooling"):
        x = layers.GlobalMaxPooling1D()(getattr(layers, name.split()[0])(M, return_sequences=True)(i))
    elif name == "two LSTM":
        x = layers.LSTM(M)(layers.LSTM(M, return_sequences=True)(i))
    elif name.startswith("Bidirectional"):
        x = layers.Bidirectional(getattr(layers, name.split()[1])(M))(i)
    elif name == "SimpleRNN relu":
        x = layers.SimpleRNN(M, activation="relu")(i)
    elif name == "SimpleRNN none":
        x = layers.SimpleRNN(M, activation=None)(i)
    else:
        x = layers.Flatten()(i) if name == "Dense" else getattr(layers, name)(M)(i)
    return keras.Model(i, layers.Dense(K)(x))


# by listing: ours, and what a second bias adds to Keras' number of parameters
LISTINGS = {
    "Dense": ({"kind": "linear"}, 0),
    "SimpleRNN": ({"kind": "rnn"}, M),
    "SimpleRNN relu": ({"kind": "rnn", "activation": "relu"}, M),
    "SimpleRNN none": ({"kind": "rnn", "activation": "none"}, M),
    "GRU": ({"kind": "gru"}, 0),  # Keras has a second one, too
    "LSTM": ({"kind": "lstm"}, 4 * M),
    "two LSTM": ({"kind": "lstm", "layers": 2}, 8 * M),
    "Bidirectional LSTM": ({"kind": "lstm", "bidirectional": True}, 8 * M),
    "Bidirectional GRU": ({"kind": "gru", "bidirectional": True}, 0),
    "LSTM max pooling": ({"kind": "lstm", "pooling": "max"}, 4 * M),
    "GRU max pooling": ({"kind": "gru", "pooling": "max"}, 0),
    "SimpleRNN max pooling": ({"kind": "rnn", "pooling": "max"}, M),
}


def from_keras(array: np.ndarray, kind: str) -> np.ndarray:
    """Put a GRU's gates, which Keras has as z, r and h, into PyTorch's order r, z, h; (..., gates * M)."""
    if kind != "gru":
        return array
    z, r, h = np.split(array, 3, -1)
    return np.concatenate([r, z, h], -1)


def copy_weights(model, ours: SequenceModel) -> None:
    """Copy a Keras model's weights, given in the order of its layers and their directions."""
    arrays = [weight.numpy() for weight in model.weights]
    state = {"kernel": arrays[-2].T, "bias": arrays[-1]}
    target = ours.head.layers[-1] if ours.kind == "linear" else ours.head
    copied = [(target.weight, state["kernel"]), (target.bias, state["bias"])]
    suffixes = [f"l{n}{end}" for n in range(ours.layers) for end in ("", "_reverse")[: 1 + ours.bidirectional]]
    for number, suffix in enumerate(suffixes if ours.kind in CELLS else []):
        inward, recurrent, bias = (from_keras(array, ours.kind) for array in arrays[3 * number : 3 * number + 3])
        both = bias if bias.ndim == 2 else np.stack([bias, 0 * bias])
        for name, array in zip(
            ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), (inward.T, recurrent.T, *both), strict=True
        ):
            copied.append((getattr(ours.core, f"{name}_{suffix}"), array))
    assert len(copied) == len(list(ours.parameters()))
    for parameter, array in copied:
        assert parameter.shape == array.shape
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(array)))


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTINGS)
def test_a_network_with_the_listings_weights_gives_its_outputs(keras, name):
    model, (arguments, more) = listing(keras, name), LISTINGS[name]
    for number, weight in enumerate(model.weights):
        weight.assign(gaussian(*weight.shape, seed=number).numpy() * 0.4)
    ours = SequenceModel(in_features=D, out_features=K, length=T, hidden=M, **arguments).eval()
    assert parameters(ours) == model.count_params() + more
    copy_weights(model, ours)
    x = gaussian(N, T, D, seed=99)
    expected = model(x.numpy(), training=False).detach().cpu().numpy()
    assert expected.std(0).min() > 1e-2
    np.testing.assert_allclose(outputs(ours, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
def test_the_first_weights_are_drawn_as_keras_draws_them(keras, name):
    units = 40
    layer = getattr(keras.layers, name)(units)
    layer.build((None, T, D))
    kernel, recurrent, bias = (weight.numpy() for weight in layer.weights)
    kind = LISTINGS[name][0]["kind"]
    core = SequenceModel(kind, D, hidden=units).core
    assert core.weight_ih_l0.abs().max().item() == pytest.approx(np.abs(kernel).max(), rel=0.05)  # of uniform numbers
    assert core.weight_ih_l0.std().item() == pytest.approx(kernel.std(), rel=0.2)
    for matrix in (core.weight_hh_l0.detach().numpy(), recurrent.T):  # (gates * M, M), orthogonal columns
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(units), atol=1e-5)
    both = (core.bias_ih_l0 + core.bias_hh_l0).detach().numpy()
    np.testing.assert_array_equal(both, bias.sum(0) if bias.ndim == 2 else bias)  # 1 for the LSTM's forget gate


# what every model does


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_saved_and_loaded(tmp_path, kind):
    recurrent = {"layers": 2, "bidirectional": True, "pooling": "max"} if kind in CELLS else {}
    activation = {"rnn": "relu", "mlp": "tanh"}.get(kind)
    model = SequenceModel(kind, D, K, T, M, activation=activation, horizon=H, **recurrent).eval()
    torchdl.save(model, tmp_path / "model")
    loaded = torchdl.load(tmp_path / "model")
    x = gaussian(N, T, D)
    assert torch.equal(loaded(x), model(x))
    for name in ("kind", "in_features", "out_features", "length", "hidden", "layers", "activation", "horizon"):
        assert getattr(loaded, name) == getattr(model, name)
    assert (loaded.bidirectional, loaded.pooling) == (kind in CELLS, "max" if kind in CELLS else "last")


@pytest.mark.parametrize(
    "arguments",
    [*({"kind": kind} for kind in KINDS), {"kind": "rnn", "activation": "none"}, {"layers": 2, "pooling": "max"}],
)
def test_every_parameter_gets_a_gradient_and_evaluation_is_deterministic(arguments):
    model = SequenceModel(in_features=D, out_features=K, length=T, hidden=M, **arguments)
    x = gaussian(N, T, D)
    model(x).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    model.eval()
    assert torch.equal(model(x), model(x))
    model.train()
    assert torch.equal(model(x), model(x))  # nor does training draw anything


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"kind": "mlp"}, *({"kind": k, "pooling": p} for k in CELLS for p in ("last", "max"))]
)
def test_one_batch_can_be_learnt_by_heart(arguments):
    torch.manual_seed(0)
    model = SequenceModel(in_features=2, out_features=1, length=5, hidden=16, **arguments)
    x, y = gaussian(12, 5, 2), gaussian(12, 1, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * y.var()


SIZES = ("in_features", "out_features", "length", "hidden", "layers", "horizon")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        *(({name: 0}, f"{name}.*0") for name in SIZES),
        ({"kind": "transformer"}, "'transformer'.*linear, mlp, rnn, gru, lstm"),
        ({"pooling": "mean"}, "'mean'.*last, max"),
        ({"kind": "lstm", "activation": "relu"}, "lstm.*activation 'relu'"),
        ({"kind": "gru", "activation": "tanh"}, "gru.*activation 'tanh'"),
        ({"kind": "linear", "activation": "none"}, "linear.*activation 'none'"),
        ({"kind": "rnn", "activation": "gelu"}, "'gelu'.*tanh, relu, none"),
        ({"kind": "mlp", "activation": "none"}, "'none'.*relu, tanh"),
        ({"kind": "rnn", "activation": "none", "layers": 2}, "'none'.*layer"),
        ({"kind": "rnn", "activation": "none", "bidirectional": True}, "'none'.*direction"),
        ({"kind": "linear", "length": None}, "linear.*length"),
        ({"kind": "mlp", "length": None}, "mlp.*length"),
        ({"kind": "linear", "pooling": "max"}, "linear.*pooling"),
        ({"kind": "mlp", "bidirectional": True}, "mlp.*bidirectional"),
    ],
)
def test_a_bad_argument_is_explained_in_a_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence) as raised:
        SequenceModel(**{"length": T, **arguments})
    assert str(raised.value).startswith("SequenceModel: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "shape", "wanted"),
    [
        ("lstm", (N, T), "(N, T, 3)"),
        ("lstm", (N, T, D + 1), "(N, T, 3)"),
        ("rnn", (N, 0, D), "(N, T, 3)"),
        ("linear", (N, T - 1, D), "(N, 10, 3)"),
        ("mlp", (N, D, T), "(N, 10, 3)"),
        ("linear", (N, T * D), "(N, 10, 3)"),
    ],
)
def test_sequences_of_another_shape_are_refused(kind, shape, wanted):
    model = SequenceModel(kind, D, K, T, M)
    with pytest.raises(InputError, match=rf"{kind}.*{re.escape(wanted)}.*{re.escape(str(shape))}"):
        model(torch.zeros(shape))


# images as sequences of rows


def test_a_row_of_an_image_is_a_term_with_all_its_channels():
    model = fill_(RowReader((3, 7, 4), 5, hidden=M)).eval()
    images = gaussian(N, 3, 7, 4)
    rows = torch.stack([torch.stack([image[:, y].reshape(-1) for y in range(7)]) for image in images])
    assert rows.shape == (N, 7, 12)
    torch.testing.assert_close(model(images), model.reader(rows), rtol=0, atol=0)
    shuffled = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(shuffled), model(images))
    moved = images.clone()
    moved[:, :, 0] += 1  # the first row is not forgotten
    assert (model(moved) - model(images)).abs().max() > 1e-4


@pytest.mark.slow
def test_the_courses_reader_of_mnist_has_as_many_parameters_as_keras_but_for_the_second_bias(keras):
    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28)), layers.LSTM(128), layers.Dense(10, activation="softmax")])
    ours = RowReader((1, 28, 28), 10).eval()
    assert model.count_params() == 4 * 128 * (28 + 128 + 1) + 129 * 10 == 81_674
    assert parameters(ours) == 81_674 + 4 * 128
    copy_weights(model, ours.reader)
    images = torch.from_numpy(np.random.default_rng(0).random((N, 1, 28, 28), dtype=np.float32))
    expected = model(images[:, 0].numpy(), training=False).detach().cpu().numpy()
    assert expected.std(0).mean() > 1e-3
    np.testing.assert_allclose(
        outputs(ours, images), np.log(expected) + outputs_shift(ours, images, expected), atol=1e-5
    )


def outputs_shift(model: nn.Module, images: torch.Tensor, probabilities: np.ndarray) -> np.ndarray:
    """Return what a softmax cannot see of the logits: a number for each image, (N, 1)."""
    return (outputs(model, images) - np.log(probabilities)).mean(1, keepdims=True)


@pytest.mark.parametrize("kind", CELLS)
def test_a_reader_of_rows_is_saved_and_loaded_and_its_parameters_get_gradients(tmp_path, kind):
    model = RowReader((2, 6, 5), 3, kind, hidden=M, layers=2, bidirectional=True, pooling="max")
    images = gaussian(N, 2, 6, 5)
    F.cross_entropy(model(images), torch.arange(N) % 3).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    torchdl.save(model, tmp_path / "model")
    loaded = torchdl.load(tmp_path / "model")
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert (loaded.kind, loaded.layers, loaded.bidirectional, loaded.pooling) == (kind, 2, True, "max")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kind": "mlp"}, "RowReader.*'mlp'.*rnn, gru, lstm"),
        ({"num_classes": 1}, "RowReader.*num_classes.*1"),
        ({"in_shape": (28, 28)}, r"RowReader.*in_shape.*\(28, 28\)"),
        ({"hidden": 0}, "hidden.*0"),
        ({"pooling": "mean"}, "'mean'.*last, max"),
    ],
)
def test_a_bad_argument_of_a_reader_of_rows_is_explained(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        RowReader(**{"in_shape": (1, 8, 8), "num_classes": 3, **arguments})


def test_images_of_another_shape_are_refused():
    model = RowReader((1, 8, 8), 3, hidden=M)
    with pytest.raises(InputError, match=r"\(1, 8, 8\).*\(8, 8\)"):
        model(torch.zeros(N, 8, 8))
