from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from helpers import fill_, gaussian
from scipy.io import wavfile

import torchdl
from torchdl import InputError, Recordings
from torchdl.files import PREPROCESSING
from torchdl.predict import SignalEmbedder

RECORDINGS = Recordings((gaussian(2, 50) * 7 + 3, gaussian(2, 33, seed=1) * 7 + 3))
WINDOWS = (50 - 8) // 5 + 1, (33 - 8) // 5 + 1


def embedder() -> SignalEmbedder:
    torch.manual_seed(0)
    encoder = torchdl.SignalEncoder(2, 6, (4, 2), (2, 2))
    model = fill_(torchdl.CPC(encoder, torchdl.ContextNetwork(6, 7), torchdl.Predictors(7, 6, 2)))
    return SignalEmbedder(model, SignalEmbedder.Settings.of(RECORDINGS, window=8, hop=5), "cpu")


def test_recordings_in_any_form_are_scaled_and_embedded_window_by_window(tmp_path):
    own = embedder()
    own.save(tmp_path / "run")
    loaded = torchdl.load_predictor(tmp_path / "run", "cpu")
    mean, deviation = RECORDINGS.statistics()
    scaled = RECORDINGS.scaled(mean, deviation).signals
    windows = [torch.stack([s[:, i : i + 8] for i in range(0, s.shape[1] - 7, 5)]) for s in scaled]
    with torch.no_grad():
        expected = own.model.encoder(torch.cat(windows))
    for number, signal in enumerate(RECORDINGS.signals):
        (tmp_path / "files").mkdir(exist_ok=True)
        np.save(tmp_path / "files" / f"{number}.npy", signal.numpy())
    files = sorted((tmp_path / "files").iterdir())
    for given in (RECORDINGS, list(RECORDINGS.signals), tmp_path / "files", [files[0], str(files[1])]):
        assert torch.equal(loaded.embed(given), expected)
    assert torch.equal(loaded.embed(RECORDINGS.signals[0].numpy()), expected[: WINDOWS[0]])
    starts = [5 * i for count in WINDOWS for i in range(count)]
    names = [name for name, count in zip(("0.npy", "1.npy"), WINDOWS, strict=True) for _ in range(count)]
    answers = loaded.predict(tmp_path / "files")
    assert answers.inputs == [f"{name}, sample {start}" for name, start in zip(names, starts, strict=True)]
    assert loaded.predict(files[1]).inputs[1] == f"{files[1]}, sample 5"


def test_recordings_of_the_same_name_are_told_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", gaussian(2, 8).numpy())
    answers = embedder().predict([tmp_path / "a", tmp_path / "b", gaussian(2, 8), gaussian(2, 8)])
    folders = [str(tmp_path / name / "x.npy") for name in ("a", "b")]
    assert answers.inputs == [f"{name}, sample 0" for name in (*folders, "2", "3")]


def test_contexts_are_those_of_each_recording_from_its_start():
    own = embedder()
    embeddings = own.embed(RECORDINGS)
    with torch.no_grad():
        expected = [own.model.context(part[None])[0] for part in embeddings.split(WINDOWS)]
    torch.testing.assert_close(own.contexts(RECORDINGS), torch.cat(expected))
    alone = SignalEmbedder(own.model.encoder, own.settings, "cpu")
    torch.testing.assert_close(alone.embed(RECORDINGS), embeddings)
    with pytest.raises(InputError, match="SignalEncoder has no contexts"):
        alone.contexts(RECORDINGS)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (gaussian(3, 50), "2 channels, not of 3"),
        (gaussian(2, 7), "0 has 7 samples.* 8 "),
        (torch.full((2, 20), torch.nan), "NaN"),
        ([], "no recording"),
        ("nowhere.npy", "nowhere.npy"),
        (["nowhere"], "nowhere"),
        (["nowhere.npy", gaussian(2, 20)], "nowhere.npy"),
    ],
)
def test_recordings_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        embedder().embed(given)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [1.0]},
        {"deviation": [1.0, 0.0]},
        {"mean": ["a", "b"]},
        {"window": 3},
        {"hop": 0},
        {"channels": 3, "mean": [1, 2, 3], "deviation": [1, 2, 3]},
    ],
)
def test_settings_of_another_model_or_a_strangers_are_refused(change, tmp_path):
    own = embedder()
    own.save(tmp_path)
    (tmp_path / PREPROCESSING).write_text(json.dumps({"kind": own.kind, "settings": asdict(own.settings) | change}))
    with pytest.raises(InputError, match=PREPROCESSING):
        torchdl.load_predictor(tmp_path)


def test_a_model_of_images_is_refused():
    with pytest.raises(InputError, match="does not embed signals"):
        SignalEmbedder(torchdl.ImageEncoder(28), replace(embedder().settings))


def test_sounds_of_another_sampling_rate_are_refused(tmp_path):
    for rate in (8000, 16000):
        wavfile.write(tmp_path / f"{rate}.wav", rate, (1000 * gaussian(400).numpy()).astype(np.int16))
    sounds = torchdl.read_recordings(tmp_path / "8000.wav")
    encoder = torchdl.SignalEncoder(1, code_size=4, kernels=(8, 4), strides=(4, 2))
    embedder = SignalEmbedder(encoder, SignalEmbedder.Settings.of(sounds, 40, 40), "cpu")
    embedder.save(tmp_path / "run")
    embedder = torchdl.load_predictor(tmp_path / "run", "cpu")
    assert embedder.embed(tmp_path / "8000.wav").shape == (10, 4)
    assert embedder.embed(torch.zeros(1, 400)).shape == (10, 4)  # whose rate nobody knows
    with pytest.raises(InputError, match="takes 8000 samples a second, not 16000: resample"):
        embedder.embed(tmp_path / "16000.wav")
    with pytest.raises(InputError, match=r"8000.wav has 8,000 .* and .*16000.wav has 16,000 .*: resample"):
        embedder.embed([tmp_path / "8000.wav", tmp_path / "16000.wav"])
