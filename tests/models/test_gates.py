"""Recurrent layers with other gates: against PyTorch's, against their equations in NumPy, and against Keras.

Shapes: N sequences, T terms, D numbers a term, M hidden units.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import fill_, gaussian
from torch import nn

from torchdl import ContextNetwork, InputError, RowReader, SequenceModel, load, save
from torchdl.models.gates import GATES, GatedGRU, GatedLSTM, gated

N, T, D, M = 4, 6, 3, 5
FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "relu6": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


def sequences(seed: int = 1) -> torch.Tensor:
    return 2 * gaussian(N, T, D, seed=seed, dtype=torch.float64)  # wide enough for both ends of a hard sigmoid


def filled(layer: nn.Module) -> nn.Module:
    layer = fill_(layer, 3).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2)
    return layer


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("kind", "ours", "theirs"), [("gru", GatedGRU, nn.GRU), ("lstm", GatedLSTM, nn.LSTM)])
def test_with_sigmoids_the_layers_are_those_of_pytorch(kind, ours, theirs, layers, bidirectional):
    own = filled(ours(D, M, layers, bidirectional=bidirectional))
    given = theirs(D, M, layers, batch_first=True, bidirectional=bidirectional).double()
    given.load_state_dict(own.state_dict())
    (states, last), (expected, expected_last) = own(sequences()), given(sequences())
    torch.testing.assert_close(states, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last, expected_last, rtol=1e-12, atol=1e-12)
    assert type(gated(kind, D, M)) is theirs  # which is faster


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_is_its_equations(gate, reset_after):
    layer, x, gate_of = filled(GatedGRU(D, M, reset_after=reset_after, gate=gate)), sequences(), FUNCTIONS[gate]
    split = {name: np.split(p.detach().numpy(), 3) for name, p in layer.named_parameters()}
    assert ("bias_hh_l0" in split) == reset_after
    (wr, wz, wn), (ur, uz, un), (br, bz, bn) = (split[f"{n}_l0"] for n in ("weight_ih", "weight_hh", "bias_ih"))
    cr, cz, cn = split.get("bias_hh_l0", [np.zeros(M)] * 3)
    for sequence, states in zip(x.numpy(), layer(x)[0].detach().numpy(), strict=True):
        h = np.zeros(M)
        for term, state in zip(sequence, states, strict=True):
            r, z = gate_of(wr @ term + br + ur @ h + cr), gate_of(wz @ term + bz + uz @ h + cz)
            product = r * (un @ h + cn) if reset_after else un @ (r * h)
            h = (1 - z) * np.tanh(wn @ term + bn + product) + z * h
            np.testing.assert_allclose(state, h, rtol=1e-10, atol=1e-12)


def test_a_hard_sigmoid_ends_where_that_of_its_version_of_keras_does():
    x = torch.tensor([-3.0, -2.5, -1.0, 0.0, 1.0, 2.5, 3.0], dtype=torch.float64)
    expected = {"hard_sigmoid": [0, 0, 0.3, 0.5, 0.7, 1, 1], "relu6": [0, 1 / 12, 1 / 3, 0.5, 2 / 3, 11 / 12, 1]}
    for name, values in expected.items():
        torch.testing.assert_close(GATES[name](x), torch.tensor(values, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_gru_with_a_hard_sigmoid_is_that_of_keras(keras, reset_after):
    theirs = keras.layers.GRU(
        M,
        recurrent_activation="hard_sigmoid",
        reset_after=reset_after,
        return_sequences=True,
        bias_initializer="normal",
    )
    x = sequences().float()
    expected = theirs(x.numpy()).detach().numpy()
    kernel, recurrent, bias = (w.value.detach().cpu() for w in theirs.weights)
    ours = GatedGRU(D, M, reset_after=reset_after, gate="relu6")
    order = torch.cat([torch.arange(M, 2 * M), torch.arange(M), torch.arange(2 * M, 3 * M)])  # z r h -> r z h
    state = {"weight_ih_l0": kernel.T[order], "weight_hh_l0": recurrent.T[order]}
    biases = bias if reset_after else bias[None]
    names = ("bias_ih_l0", "bias_hh_l0")
    ours.load_state_dict(state | {name: b[order] for name, b in zip(names, biases, strict=False)})
    np.testing.assert_allclose(ours(x)[0].detach().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        lambda: SequenceModel("gru", D, 2, gate="hard_sigmoid", reset_after=False, layers=2, bidirectional=True),
        lambda: SequenceModel("lstm", D, 2, gate="relu6", pooling="max"),
        lambda: RowReader((1, 28, 28), 10, "gru", gate="hard_sigmoid", reset_after=False),
        lambda: ContextNetwork(D, M, gate="hard_sigmoid", reset_after=False),
    ],
)
def test_a_model_keeps_its_gates(model, tmp_path):
    made = model().eval()
    x = gaussian(2, 1, 28, 28) if isinstance(made, RowReader) else sequences().float()
    save(made, tmp_path)
    assert torch.equal(load(tmp_path)(x), made(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gru", "gate": "step"}, "'step'.*sigmoid, hard_sigmoid, relu6"),
        ({"kind": "rnn", "gate": "relu6"}, "rnn has no gates"),
        ({"kind": "lstm", "reset_after": False}, "lstm has no reset"),
        ({"kind": "linear", "length": 2, "reset_after": False}, "linear has no reset"),
    ],
)
def test_gates_that_a_layer_does_not_have_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SequenceModel(**options)
