from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import gaussian
from torch import nn

import torchdl
from torchdl import CPC, ArrayDataset, CPCFeatures, Digits, InputError, SignalWindows

B, T, C, W, D, H = 7, 3, 2, 16, 6, 5


def network() -> CPC:
    torch.manual_seed(0)
    encoder = torchdl.SignalEncoder(C, D, (8, 4), (4, 2))
    return CPC(encoder, torchdl.ContextNetwork(D, H), torchdl.Predictors(H, D, 2))


def test_embeddings_are_the_encoders_in_any_form_and_batch_size():
    model, windows = network(), gaussian(B, C, W)
    with torch.no_grad():
        expected = model.encoder(windows)
    datasets = (ArrayDataset(windows, torch.arange(B)), list(windows), torch.utils.data.Subset(list(windows), range(B)))
    for inputs in (windows, windows.numpy(), windows.double(), *datasets):
        for batch_size in (1, 3, 100):
            found = CPCFeatures(model, batch_size, "cpu").encode(inputs)
            assert not found.requires_grad
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(CPCFeatures(model.encoder, device="cpu").encode(windows), expected)


def test_contexts_are_the_models_for_a_tensor_and_a_data_set():
    model, sequences = network(), gaussian(B, T, C, W)
    found = CPCFeatures(model, 2, "cpu").contexts(sequences)
    with torch.no_grad():
        torch.testing.assert_close(found, model.context(model.encode(sequences)))
    assert found.shape == (B, T, H)
    data = SignalWindows(gaussian(C, 900), W, W, T, 2)
    for epoch in (0, 1):
        of_data = CPCFeatures(model, 4, "cpu").contexts(data, epoch)
        data.set_epoch(epoch)
        torch.testing.assert_close(of_data, CPCFeatures(model, device="cpu").contexts(data[:][0]))


def test_a_runs_folder_is_a_model(tmp_path):
    model, windows = network(), gaussian(B, C, W)
    torchdl.save(model, tmp_path)
    expected = CPCFeatures(model, device="cpu").encode(windows)
    for folder in (tmp_path, str(tmp_path)):
        assert torch.equal(CPCFeatures(folder, device="cpu").encode(windows), expected)


def test_the_model_is_left_as_it_was_also_after_an_error():
    encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(C * W), nn.Dropout(0.5), nn.Linear(C * W, D)).train()
    encoder[2].eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features, windows = CPCFeatures(encoder, device="cpu"), gaussian(B, C, W)
    assert torch.equal(features.encode(windows), features.encode(windows))
    with pytest.raises(RuntimeError):
        features.encode(windows[:, :1])
    assert [module.training for module in encoder] == [True, True, False, True]
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_digits_have_the_colours_of_the_epoch():
    images = torch.randint(256, (20, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = Digits(images, torch.arange(20) % 10, 8)
    features = CPCFeatures(nn.Flatten(), 6, "cpu")
    for epoch in (2, 0):
        found = features.encode(data, epoch)
        data.set_epoch(epoch)
        assert torch.equal(found, data[:][0].flatten(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_the_same_and_model_and_data_go_back():
    model, images = network(), ArrayDataset(gaussian(B, C, W), torch.zeros(B))
    expected = CPCFeatures(model, device="cpu").encode(images)
    found = CPCFeatures(model, 3, "cuda").encode(images)
    assert (found.device.type, images.device.type, next(model.parameters()).device.type) == ("cpu",) * 3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "call", "sentence"),
    [
        (3, None, "model or the folder of a run, not an int"),
        ("nowhere", None, "nowhere holds no"),
        (network(), lambda f: f.encode(np.zeros((3, C, W), np.int16)), "decimals, not torch.int64: scale"),
        (network(), lambda f: f.encode(["text"]), "decimals, not str"),
        (network(), lambda f: f.encode(torch.zeros(0, C, W)), "no inputs"),
        (network(), lambda f: f.encode([]), "no inputs"),
        (network(), lambda f: f.encode(torch.zeros(3, C, 4)), r"\(B, 2, 8 or more\), not \(3, 2, 4\)"),
        (network(), lambda f: f.encode(torch.zeros(3)), "SignalEncoder takes windows"),
        (network().encoder, lambda f: f.contexts(torch.zeros(3, T, C, W)), "whole CPC model.* not a SignalEncoder"),
    ],
)
def test_a_mistake_is_one_sentence(model, call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(CPCFeatures(model, device="cpu"))
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        CPCFeatures(network(), 0)
