"""The benchmark: its command line, and the Keras original that it compares CPC with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import write_pair
from PIL import Image

import torchdl
from experiments.benchmark import Config, cpc

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = np.zeros((60, 28, 28))
    images[:, 4:24, 10:18] = 255
    for split in ("train", "test"):
        write_pair(folder / "MNIST" / "raw", images, np.arange(60) % 10, split)
    return cpc.Original(Config("cpc", data_root=folder))


def test_the_originals_batch_is_half_real_and_of_the_shapes_that_its_network_takes(original):
    (context, future), label = original.batch()
    assert context.shape == future.shape == (32, 4, 64, 64, 3)
    assert context.dtype == future.dtype == np.float32
    assert label.shape == (32, 1)
    assert label.sum() == 16
    assert -1 <= context.min() < context.max() <= 1
    assert len(np.unique(context.reshape(128, -1), axis=0)) == 128


def test_the_originals_sequences_are_consecutive_and_its_false_futures_false(original, monkeypatch):
    monkeypatch.setattr(original, "image", lambda digit: np.full((64, 64, 3), digit))
    places = []
    for _ in range(3):
        (context, future), label = original.batch()
        digits = np.concatenate([context, future], 1)[..., 0, 0, 0]
        start, real = digits[:, :1], label[:, 0] == 1
        places.append(tuple(real))
        right = digits == (start + np.arange(8)) % 10
        assert right[:, :4].all()
        assert right[real].all()
        assert not right[~real, 4:].any()
    assert len(set(places)) == 3


def test_an_originals_image_is_inverted_where_the_digit_is(original, monkeypatch):
    monkeypatch.setattr(original, "photograph", Image.new("RGB", (200, 100)))  # black: inverted is above 0
    image = original.image(3)
    expected = np.zeros((28, 28), bool)
    expected[4:24, 10:18] = True
    at = np.round(np.arange(64) * 27 / 63).astype(int)
    assert ((image > 0).all(2) == expected[at][:, at]).mean() > 0.98
    assert ((image > 0).all(2) == (image > 0).any(2)).all()


def test_the_originals_network_has_the_parameters_of_ours(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", cpc.keras_backend())
    pytest.importorskip("keras")
    ours = torchdl.image_cpc()
    count = sum(p.numel() for p in ours.parameters())
    count += sum(b.numel() for name, b in ours.named_buffers() if "num_batches" not in name)  # Keras counts statistics
    assert cpc.keras_model().count_params() == count


def test_the_benchmark_gives_both_sides_and_their_ratio(run, tmp_path):
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (3200, 28, 28))
        write_pair(tmp_path / "data" / "MNIST" / "raw", images, np.arange(3200) % 10, split)
    done = run("benchmark.py gan --no-peers --repeats 1 --seconds 0.05 --data-root data --json result.json", tmp_path)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "result.json").read_text())
    assert json.loads(done.out) == result
    gan = result["gan"]
    assert gan["usual"] > 0
    assert gan["ratio"] == pytest.approx(gan["ours"] / gan["usual"], abs=0.01)
    assert gan["repeats"] == 1
