"""Publishing makes a folder that answers as the run does, with a card, and refuses what is not fit to be published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

import torchdl
from experiments import publish
from torchdl import InputError, LenetLike
from torchdl.files import PREPROCESSING
from torchdl.predict import ImageClassifier, ImageInput, load_predictor
from torchdl.predict.pretrained_weights import pretrained_folder, read_index

DIGITS = tuple("0123456789")


@pytest.fixture
def finished(tmp_path) -> Path:
    """Make the folder of a finished run of a classifier of digits."""
    torch.manual_seed(0)
    folder = tmp_path / "run"
    model = LenetLike((1, 28, 28), 10, width=2, depth=1, hidden=8)
    ImageClassifier(model, ImageClassifier.Settings(ImageInput(1, 28, 28, prepare="digit"), DIGITS)).save(folder)
    config = {"images": {"dataset": "mnist_5k"}, "trainer": {"epochs": 1}}
    record = {"config": config, "command": "train_lenet.py", "data": {"fingerprint": "ab"}, "commit": "c0ffee"}
    (folder / "config.json").write_text(json.dumps({**record, "versions": {"torch": "2.10"}}))
    (folder / "metrics.csv").write_text("epoch,step,val/loss\n1,1234,0.5\n")
    (folder / "results.json").write_text('{"accuracy": 0.125}')
    return folder


def test_a_published_run_answers_as_before_and_has_a_card(finished, tmp_path, capsys):
    config = publish.Config(finished, "lenet-mnist", tmp_path / "out")
    publish.main(config)
    assert "0.0" in capsys.readouterr().out  # megabytes
    place = pretrained_folder("lenet-mnist", tmp_path / "out")
    assert (place / PREPROCESSING).read_bytes() == (finished / PREPROCESSING).read_bytes()
    images = torch.randint(256, (5, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    before, after = (load_predictor(folder, "cpu").predict(images).probabilities for folder in (finished, place))
    assert not torch.equal(before, after)  # of 16 bits
    torch.testing.assert_close(after, before, rtol=0.01, atol=0.001)
    assert read_index(tmp_path / "out")["lenet-mnist"]["figures"] == {"test accuracy, %": 12.5}
    card = (place / "card.md").read_text()
    for part in (
        "| 12.5 | 99.22 |",
        "--seed 0",
        "1 epochs, 1,234 steps",
        "c0ffee",
        "torch 2.10",
        "CC BY-SA",
        "16 bits",
    ):
        assert part in card
    publish.main(config)  # again
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name != "index.json"] == ["lenet-mnist"]


def test_what_is_not_fit_is_refused_and_leaves_nothing(finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no model 'x': it has lenet-mnist"):
        publish.main(publish.Config(finished, "x", out))
    costly = iter([{"accuracy": 0.9}, {"accuracy": 0.898}])
    monkeypatch.setitem(publish.MEASURES, ImageClassifier, lambda *_: next(costly))
    with pytest.raises(InputError, match=r"accuracy falls from 0\.9 to 0\.898"):
        publish.main(publish.Config(finished, "lenet-mnist", out))
    monkeypatch.delitem(publish.MEASURES, ImageClassifier)
    with pytest.raises(InputError, match="nothing here measures what 16 bits cost"):
        publish.main(publish.Config(finished, "lenet-mnist", out))
    (finished / "metrics.csv").unlink()
    with pytest.raises(InputError, match="not a finished run"):
        publish.main(publish.Config(finished, "lenet-mnist", out))
    assert list(out.iterdir()) == []


def test_what_is_published_is_described_and_the_other_way_round():
    models = publish.read_models()
    assert set(read_index()) <= set(models["models"])
    assert {model["data"] for model in models["models"].values()} <= set(models["data"])
    for name, model in models["models"].items():
        assert f'torchdl.pretrained("{name}")' in model["use"]


def test_weights_that_16_bits_cannot_hold_are_not_rounded(tmp_path):
    model = torchdl.MLP(2, 1, hidden=(2,))
    torch.nn.init.constant_(next(model.parameters()), 1e5)
    with pytest.raises(InputError, match=re.escape("16 bits cannot hold")):
        torchdl.save(model, tmp_path, half=True)
