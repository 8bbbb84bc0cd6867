from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers import gaussian

from torchdl import InputError, SequenceModel
from torchdl.files import PREPROCESSING
from torchdl.predict import SequencePredictor, load_predictor

X = gaussian(5, 7, 2)


def predictor(kind: str = "gru", outputs: int = 1, **settings) -> SequencePredictor:
    torch.manual_seed(0)
    model = SequenceModel(kind, 2, outputs, 7, hidden=4)
    return SequencePredictor(model, SequencePredictor.Settings(2, **settings), "cpu", batch_size=2)


@pytest.mark.parametrize(("outputs", "classes"), [(1, ("even", "odd")), (3, ("a", "b", "c"))])
def test_class_probabilities_are_those_of_the_network(tmp_path, outputs, classes):
    own = predictor(outputs=outputs, classes=classes)
    own.save(tmp_path)
    found = load_predictor(tmp_path, "cpu", batch_size=2).predict(X)
    with torch.no_grad():
        logits = own.model(X).double()
    logits = torch.cat([torch.zeros_like(logits), logits], 1) if outputs == 1 else logits
    torch.testing.assert_close(found.probabilities, logits.softmax(1), rtol=1e-5, atol=1e-7)
    assert torch.equal(found.probabilities, own.predict(X).probabilities)
    assert found.labels == [classes[k] for k in logits.argmax(1)]


def test_a_number_for_each_sequence_in_any_form(tmp_path):
    own = predictor(name="sum")
    found = own.predict(X)
    with torch.no_grad():
        torch.testing.assert_close(found.numbers, own.model(X)[:, 0].double(), rtol=1e-5, atol=1e-7)
    assert (found.name, found.to_frame()["sum"].tolist()) == ("sum", found.numbers.tolist())
    np.save(tmp_path / "x.npy", X.numpy().astype("float64"))
    for same in (X.double(), X.numpy(), X.tolist(), list(X), [*X.numpy()], tmp_path / "x.npy", str(tmp_path / "x.npy")):
        assert torch.equal(own.predict(same).numbers, found.numbers)
    assert own.predict(X[0]).numbers == pytest.approx(found.numbers[:1])
    ragged = own.predict([X[0], X[1, :3], X[2].tolist()])
    assert ragged.numbers == pytest.approx([float(own.predict(x).numbers) for x in (X[0], X[1, :3], X[2])])


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (X[..., :1], r"\(N, T, 2\).* not \(5, 7, 1\)"),
        (X[0, 0], r"not \(2,\)"),
        (X[:0], r"not \(0, 7, 2\)"),
        ([], r"not \(0,\)"),
        (X.where(X < 1, torch.nan), "finite"),
        ([["a", "b"]], "must be numbers, not a list"),
        ("missing.npy", "missing.npy"),
        (None, r"not \(\)"),
    ],
)
def test_what_are_no_sequences_is_refused(inputs, said):
    with pytest.raises(InputError, match=said) as caught:
        predictor().predict(inputs)
    assert "\n" not in str(caught.value)


def test_a_linear_model_needs_its_length():
    own = predictor("linear", length=7)
    own.predict(X)
    with pytest.raises(InputError, match=r"\(N, 7, 2\).* not \(5, 6, 2\)"):
        own.predict(X[:, :6])
    for length in (None, 6):
        with pytest.raises(InputError, match="7 terms"):
            predictor("linear", length=length)


@pytest.mark.parametrize(
    ("key", "value"), [("features", 3), ("classes", ["a"]), ("classes", ["a", "b", "c"]), ("name", 1)]
)
def test_settings_of_another_model_or_a_strangers_are_refused(tmp_path, key, value):
    predictor().save(tmp_path)
    saved = json.loads((tmp_path / PREPROCESSING).read_text())
    saved["settings"][key] = value
    (tmp_path / PREPROCESSING).write_text(json.dumps(saved))
    with pytest.raises(InputError, match=PREPROCESSING):
        load_predictor(tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    np.savez(tmp_path / "several.npy", X)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("several.npy.npz", "objects.npy", "text.npy", "empty.npy"):
        with pytest.raises(InputError, match=name):
            predictor().predict(tmp_path / name)
