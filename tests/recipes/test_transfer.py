from __future__ import annotations

import json
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import torchdl
from torchdl import ImageDataset, InputError, Trainer
from torchdl.cli.run import Run, RunOptions
from torchdl.data import draw_per_class
from torchdl.models import TransferModel
from torchdl.recipes.image_classification import ClassifierLearning, ImageOptions
from torchdl.recipes.transfer import FineTuning, extract_features, fit_augmented, fit_on_features
from torchdl.tasks import make_optimizer
from torchdl.training import transfer as module

pytestmark = pytest.mark.usefixtures("quick", "undrawn")
TINY = "mobilenet_v3_small"
CLASSES = ("ant", "bee", "cow")
OPTIONS, LEARNING = ImageOptions(), ClassifierLearning(batch_size=10, lr=1e-2)


def labelled(count: int, seed: int = 0) -> ImageDataset:
    """Make 32x32 images of three classes, each brighter in its own channel."""
    pixels = 90 + 50 * gaussian(count, 3, 32, 32, seed=seed)
    labels = torch.arange(count) % 3
    for label in range(3):
        pixels[label::3, label] += 60
    return ImageDataset(pixels.clamp(0, 255).to(torch.uint8), labels, classes=CLASSES)


@lru_cache
def fitting() -> dict[str, Tensor]:
    """Give a random backbone the statistics of images, without which deep random features hardly differ."""
    torch.manual_seed(0)
    model = TransferModel(TINY, 3, 32, 32)
    network = model.features.backbone
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(model.preprocess(labelled(48, seed=2)[:][0]))
    return network.state_dict()


def tiny(**options) -> TransferModel:
    torch.manual_seed(0)
    model = TransferModel(TINY, 3, 32, 32, **options)
    model.features.backbone.load_state_dict(fitting())
    return model


def count_images(monkeypatch) -> list[int]:
    """Note how many images go through backbones."""
    seen: list[int] = []
    encode = TransferModel.encode
    monkeypatch.setattr(TransferModel, "encode", lambda self, x: (seen.append(len(x)), encode(self, x))[1])
    return seen


def train(fit, tmp_path, model, data, test, learning=LEARNING, name="x", trainer=None, resume=False, **options):
    trainer = trainer or Trainer(epochs=3, device="cpu")
    folder = tmp_path / "transfer" / name
    run_options = RunOptions(out=tmp_path, name=name, keep_memory=False, resume=folder if resume else None)
    run = Run("transfer", {}, run_options, trainer, data, test)
    fit(run, model, data, test, OPTIONS, learning, **options)
    return json.loads((folder / "results.json").read_text())


# features that are kept


def test_features_are_what_the_backbone_gives_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    model, data = tiny(), labelled(20)
    expected = torch.cat([model.encode(x) for x in data[:][0].split(6)])
    seen = count_images(monkeypatch)
    first = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    assert torch.equal(first.features, expected)
    assert (first.cached, sum(seen)) == (0, 20)
    assert not first.features.is_inference()
    again = extract_features(model, data, OPTIONS, 5, "cpu", tmp_path)
    assert torch.equal(first.features, again.features)
    assert (again.cached, sum(seen)) == (20, 20)


@pytest.mark.parametrize("change", ["pixel", "weight", "statistic", "size", "mean"])
def test_whatever_changes_is_computed_anew(tmp_path, change):
    model, data = tiny(), labelled(6)
    first = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    if change == "pixel":
        data.images[0, 0, 0, 0] ^= 1
    elif change in ("weight", "statistic"):
        layer = model.features.backbone.features[0][1]
        with torch.no_grad():
            (layer.weight if change == "weight" else layer.running_mean)[0] += 0.5
    elif change == "size":
        model.input_size = model.resize_size = 40
    else:
        model.mean = (0.1, 0.2, 0.3)
    second = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    assert second.cached == 0
    assert not torch.equal(first.features, second.features)


def test_the_head_does_not_decide_what_is_kept(tmp_path):
    model, data = tiny(), labelled(6)
    extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    nn.init.zeros_(model.head.linear.weight)
    assert extract_features(model, data, OPTIONS, 6, "cpu", tmp_path).cached == 6


def test_what_was_interrupted_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    model, data = tiny(), labelled(30)
    whole = extract_features(model, data, OPTIONS, 5, "cpu", tmp_path / "whole").features
    encode, calls = TransferModel.encode, []

    def interrupted(self, x):
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(self, x)

    monkeypatch.setattr(TransferModel, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(model, data, OPTIONS, 5, "cpu", tmp_path / "cut")
    monkeypatch.setattr(TransferModel, "encode", encode)
    kept = sorted((tmp_path / "cut").rglob("*.safetensors"))
    assert [path.name for path in kept] == ["00000000.safetensors"]  # of 15 images
    seen = count_images(monkeypatch)
    found = extract_features(model, data, OPTIONS, 5, "cpu", tmp_path / "cut")
    assert (found.cached, sum(seen)) == (8, 22)
    assert torch.allclose(found.features, whole, atol=1e-3)


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_file_is_computed_anew(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(module, "CHUNK", 8)
    model, data = tiny(), labelled(20)
    whole = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path).features
    paths = sorted(tmp_path.rglob("*.safetensors"))
    paths[1].write_bytes(paths[1].read_bytes()[:-5] if damage == "cut" else paths[2].read_bytes())
    found = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    assert found.cached == 12
    assert torch.allclose(found.features, whole, atol=1e-3)


# the two ways


def test_both_ways_agree_on_images_as_they_are(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    one, other = tiny(), tiny()
    before = one.features.fingerprint()
    results = train(fit_augmented, tmp_path, one, data, test, name="one")
    kept = train(fit_on_features, tmp_path, other, data, test, name="other", cache=tmp_path / "cache")
    assert one.features.fingerprint() == other.features.fingerprint() == before
    assert results["backbone has moved"] is False
    assert not torch.equal(one.head.linear.weight, tiny().head.linear.weight)
    for key, tensor in one.head.state_dict().items():
        assert torch.allclose(tensor, other.head.state_dict()[key], rtol=1e-3, atol=1e-3), key
    assert results["accuracy"] == kept["accuracy"]
    assert results["loss"] == pytest.approx(kept["loss"], rel=1e-3)
    with torch.no_grad():
        x, z = (other.encode(part[:][0]).numpy() for part in (data, test))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(x, data.labels)
    assert kept["accuracy of scikit-learn's logistic regression"] == pytest.approx(probe.score(z, test.labels))


@pytest.mark.parametrize("way", [fit_augmented, fit_on_features])
def test_a_head_learns_what_its_features_show(tmp_path, way):
    data, test = labelled(90), labelled(60, seed=1)
    cache = {"cache": tmp_path / "cache"} if way is fit_on_features else {}
    model = TransferModel("pixels", 3, 32, 32)  # of which each channel's brightness tells the class
    results = train(way, tmp_path, model, data, test, trainer=Trainer(epochs=5, device="cpu"), **cache)
    assert results["accuracy"] > 0.95


def test_augmented_images_differ_from_epoch_to_epoch_and_the_backbone_does_not(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    one, other = tiny(), tiny()
    train(fit_augmented, tmp_path, one, data, test, name="one")
    train(fit_augmented, tmp_path, other, data, test, ClassifierLearning(10, 1e-2, shift=0.2, flip=0.5), name="other")
    assert one.features.fingerprint() == other.features.fingerprint() == tiny().features.fingerprint()
    assert not torch.allclose(one.head.linear.weight, other.head.linear.weight, atol=1e-2)


def test_what_is_saved_predicts_from_images(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    results = train(fit_on_features, tmp_path, tiny(), data, test, cache=tmp_path / "cache")
    loaded = torchdl.load(tmp_path / "transfer" / "x")
    x, labels = test[:]
    with torch.no_grad():
        logits = loaded(x)
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(results["accuracy"])
    assert F.cross_entropy(logits, labels).item() == pytest.approx(results["loss"], rel=1e-3)


# fine-tuning


def test_the_last_blocks_learn_in_the_last_epochs_alone_at_a_rate_of_their_own(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    model, untouched = tiny(finetuned=2), tiny()
    trainer = Trainer(epochs=2, device="cpu")
    task = FineTuning(1, 1e-4, "sgd", 0.0, model, F.cross_entropy, {}, lambda p: make_optimizer("sgd", p, lr=1e-2))
    groups = task.configure_optimizers()["model"].param_groups
    assert [group["lr"] for group in groups] == [1e-2, 1e-4]
    # the first epoch moves the head alone
    stopped = tiny(finetuned=2)
    only_head = FineTuning(1, 1e-4, "sgd", 0.0, stopped, F.cross_entropy)
    Trainer(epochs=1, device="cpu").fit(only_head, OPTIONS.loader(data, batch_size=11))
    assert stopped.features.fingerprint() == untouched.features.fingerprint()
    options = {"finetune_epochs": 1, "finetune_lr": 1e-3}
    results = train(fit_augmented, tmp_path, model, data, test, trainer=trainer, **options)
    assert results["backbone has moved"] is True
    before, after = untouched.features.state_dict(), model.features.state_dict()
    moved = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert moved
    assert all(key.startswith(("backbone.features.11.", "backbone.features.12.")) for key in moved)
    assert not any("running" in key or "num_batches" in key for key in moved)


def test_a_resumed_fine_tuning_ends_as_one_that_was_not_stopped(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    options = {"finetune_epochs": 2, "finetune_lr": 1e-3}
    whole, cut, resumed = (tiny(finetuned=1) for _ in range(3))
    three = Trainer(epochs=3, device="cpu")
    train(fit_augmented, tmp_path, whole, data, test, name="whole", trainer=three, **options)
    short = Trainer(epochs=3, max_steps=6, device="cpu")
    train(fit_augmented, tmp_path, cut, data, test, name="cut", trainer=short, **options)
    train(fit_augmented, tmp_path, resumed, data, test, name="cut", trainer=three, resume=True, **options)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert not torch.equal(cut.head.linear.weight, whole.head.linear.weight)


@pytest.mark.parametrize("epochs", [0, 3, 4])
def test_the_head_must_be_trained_first(tmp_path, epochs):
    data = labelled(12)
    with pytest.raises(InputError, match=f"must be 1 or more, and fewer than the 3 --epochs, not {epochs}"):
        train(fit_augmented, tmp_path, tiny(finetuned=1), data, data, finetune_epochs=epochs)


def test_features_take_no_augmentation(tmp_path):
    data = labelled(12)
    with pytest.raises(InputError, match="leave --shift and --flip out, or use --approach augment"):
        train(fit_on_features, tmp_path, tiny(), data, data, ClassifierLearning(10, flip=0.5))


# images that are drawn


def test_parts_are_drawn_by_a_seed_with_as_many_images_of_every_class():
    data = labelled(60)
    first, second = draw_per_class(data, [4, 3], seed=5)
    assert first.labels.bincount().tolist() == [4, 4, 4]
    assert second.labels.bincount().tolist() == [3, 3, 3]
    assert "4 of every class (drawn by the seed 5)" in first.origin
    rows = {tuple(image.flatten().tolist()) for part in (first, second) for image in part.images}
    assert len(rows) == 21  # no image is in both
    known = {tuple(image.flatten().tolist()): int(label) for image, label in zip(data.images, data.labels, strict=True)}
    for image, label in zip(first.images, first.labels, strict=True):
        assert known[tuple(image.flatten().tolist())] == label
    assert draw_per_class(data, [4, 3], seed=5)[0].fingerprint() == first.fingerprint()
    assert draw_per_class(data, [4], seed=5)[0].fingerprint() == first.fingerprint()
    assert draw_per_class(data, [4, 3], seed=6)[0].fingerprint() != first.fingerprint()
    with pytest.raises(InputError, match="the class ant has 20 images, and 21 are to be drawn"):
        draw_per_class(data, [20, 1])
    with pytest.raises(InputError, match="draw 1 or more images of every class, not 0"):
        draw_per_class(data, [0])
