from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import torchdl
from torchdl import Augmentation, ImageDataset, InputError, Trainer
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.data import draw_per_class
from torchdl.models import TransferModel
from torchdl.recipes import transfer
from torchdl.recipes.image_classification import (
    ClassifierLearning,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    image_classifier,
)
from torchdl.recipes.transfer import (
    FineTuning,
    evaluate_head,
    extract_features,
    extract_parts,
    fine_tuning,
    head_training,
    standardize_head,
)
from torchdl.tasks import Supervised, make_optimizer

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
    """Return a random backbone with the statistics of images, without which deep random features hardly differ."""
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
    """Return a list that gets the sizes of the batches that backbones encode from now on."""
    seen: list[int] = []
    encode = TransferModel.encode
    monkeypatch.setattr(TransferModel, "encode", lambda self, x: (seen.append(len(x)), encode(self, x))[1])
    return seen


def open_run(tmp_path: Path, data, test, name: str, trainer: Trainer | None, resume: bool = False) -> Run:
    folder = tmp_path / "transfer" / name if resume else None
    options = RunOptions(out=tmp_path, name=name, keep_memory=False, resume=folder)
    return Run("transfer", {}, options, trainer or Trainer(epochs=3, device="cpu"), data, test)


def in_the_loop(
    tmp_path: Path, model, data, test, learning=LEARNING, name="x", trainer=None, resume=False, finetune_epochs=0
) -> dict[str, Any]:
    """Train in a run with the backbone in the loop, as the script does; return the results."""
    run, build_task = open_run(tmp_path, data, test, name, trainer, resume), Supervised
    if model.finetuned:
        build_task = fine_tuning(run.trainer.epochs, finetune_epochs, 1e-3, learning)
    if not resume:
        standardize_head(model, data, "cpu")
    run.fit(*classifier_training(model, data, test, OPTIONS, learning, build_task=build_task))
    model.finetuning = False
    return evaluate_classifier(image_classifier(model, data, OPTIONS, "cpu"), test).results


def on_features(
    tmp_path: Path, model, data, test, learning=LEARNING, name="x", trainer=None, cache=None
) -> dict[str, Any]:
    """Train in a run on features that are computed once, as the script does; return the results."""
    run, since = open_run(tmp_path, data, test, name, trainer), time.perf_counter()
    parts = extract_parts(model, data, test, OPTIONS, learning.batch_size, "cpu", cache)
    run.fit(*head_training(model, parts, learning, device="cpu"))
    classifier = image_classifier(model, data, OPTIONS, "cpu")
    report = evaluate_head(classifier, parts, test, time.perf_counter() - since, run.chosen_by)
    assert f"{report.results['accuracy']:.2%}" in report.summary
    assert "scikit-learn" in report.summary
    return report.results


# cached features


def test_features_are_the_backbones_outputs_and_are_cached(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "CHUNK", 8)
    model, data = tiny(), labelled(20)
    expected = torch.cat([model.encode(x) for x in data[:][0].split(6)])
    seen = count_images(monkeypatch)
    first = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    assert torch.equal(first.features, expected)
    assert (first.cached, sum(seen)) == (0, 20)
    assert not first.features.is_inference()
    assert capsys.readouterr() == ("", "")
    again = extract_features(model, data, OPTIONS, 5, "cpu", tmp_path)
    assert torch.equal(first.features, again.features)
    assert (again.cached, sum(seen)) == (20, 20)


@pytest.mark.parametrize("change", ["pixel", "weight", "statistic", "size", "mean"])
def test_any_change_leads_to_new_features(tmp_path, change):
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


def test_features_do_not_depend_on_the_head(tmp_path):
    model, data = tiny(), labelled(6)
    extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    nn.init.zeros_(model.head.linear.weight)
    assert extract_features(model, data, OPTIONS, 6, "cpu", str(tmp_path)).cached == 6


def test_an_interrupted_extraction_continues(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "CHUNK", 8)
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


def one_bit(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize("damage", ["cut", "other", "one bit"])
def test_a_damaged_file_is_replaced(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(transfer, "CHUNK", 8)
    model, data = tiny(), labelled(20)
    whole = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path).features
    paths = sorted(tmp_path.rglob("*.safetensors"))
    whole_file, other = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes({"cut": whole_file[:-5], "other": other, "one bit": one_bit(whole_file)}[damage])
    found = extract_features(model, data, OPTIONS, 6, "cpu", tmp_path)
    assert found.cached == 12
    assert torch.allclose(found.features, whole, atol=1e-3)


# the two ways


@pytest.mark.slow
def test_both_ways_agree_without_augmentation(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    one, other = tiny(), tiny()
    before = one.features.fingerprint()
    results = in_the_loop(tmp_path, one, data, test, name="one")
    kept = on_features(tmp_path, other, data, test, name="other", cache=tmp_path / "cache")
    assert one.features.fingerprint() == other.features.fingerprint() == before
    assert kept["epoch chosen by"] == "nothing: it is the last"
    assert kept["images whose features were kept"] == 0
    assert not torch.equal(one.head.linear.weight, tiny().head.linear.weight)
    for key, tensor in one.head.state_dict().items():
        assert torch.allclose(tensor, other.head.state_dict()[key], rtol=1e-3, atol=1e-3), key
    assert results["accuracy"] == kept["accuracy"]
    assert results["loss"] == pytest.approx(kept["loss"], rel=1e-3)
    with torch.no_grad():
        x, z = (other.encode(part[:][0]).numpy() for part in (data, test))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(x, data.labels)
    assert kept["accuracy of scikit-learn's logistic regression"] == pytest.approx(probe.score(z, test.labels))


@pytest.mark.parametrize("way", [in_the_loop, on_features])
def test_a_head_learns_from_informative_features(tmp_path, way):
    data, test = labelled(90), labelled(60, seed=1)
    cache = {"cache": tmp_path / "cache"} if way is on_features else {}
    model = TransferModel("pixels", 3, 32, 32)  # the brightness of the channels tells the class
    results = way(tmp_path, model, data, test, trainer=Trainer(epochs=5, device="cpu"), **cache)
    assert results["accuracy"] > 0.95


@pytest.mark.slow
def test_augmented_images_differ_from_epoch_to_epoch_and_the_backbone_does_not(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    one, other = tiny(), tiny()
    in_the_loop(tmp_path, one, data, test, name="one")
    in_the_loop(
        tmp_path,
        other,
        data,
        test,
        ClassifierLearning(10, 1e-2, augmentation=Augmentation(shift=0.2, horizontal_flip=0.5)),
        name="other",
    )
    assert one.features.fingerprint() == other.features.fingerprint() == tiny().features.fingerprint()
    assert not torch.allclose(one.head.linear.weight, other.head.linear.weight, atol=1e-2)


@pytest.mark.slow
def test_the_saved_model_predicts_from_images(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    results = on_features(tmp_path, tiny(), data, test, cache=tmp_path / "cache")
    loaded = torchdl.load(tmp_path / "transfer" / "x")
    x, labels = test[:]
    with torch.no_grad():
        logits = loaded(x)
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(results["accuracy"])
    assert F.cross_entropy(logits, labels).item() == pytest.approx(results["loss"], rel=1e-3)


# fine-tuning


@pytest.mark.slow
def test_the_last_blocks_learn_only_in_the_last_epochs_at_their_own_rate(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    model, untouched = tiny(finetuned=2), tiny()
    trainer = Trainer(epochs=2, device="cpu")
    task = FineTuning(1, 1e-4, "sgd", 0.0, model, F.cross_entropy, {}, lambda p: make_optimizer("sgd", p, lr=1e-2))
    groups = task.configure_optimizers()["model"].param_groups
    assert [group["lr"] for group in groups] == [1e-2, 1e-4]
    # the first epoch changes only the head
    stopped = tiny(finetuned=2)
    only_head = FineTuning(1, 1e-4, "sgd", 0.0, stopped, F.cross_entropy)
    Trainer(epochs=1, device="cpu").fit(only_head, OPTIONS.loader(data, batch_size=11))
    assert stopped.features.fingerprint() == untouched.features.fingerprint()
    in_the_loop(tmp_path, model, data, test, trainer=trainer, finetune_epochs=1)
    assert model.features.fingerprint() != untouched.features.fingerprint()
    before, after = untouched.features.state_dict(), model.features.state_dict()
    moved = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert moved
    assert all(key.startswith(("backbone.features.11.", "backbone.features.12.")) for key in moved)
    assert not any("running" in key or "num_batches" in key for key in moved)


@pytest.mark.slow
def test_a_resumed_fine_tuning_equals_an_uninterrupted_one(tmp_path):
    data, test = labelled(33), labelled(12, seed=1)
    whole, cut, resumed = (tiny(finetuned=1) for _ in range(3))
    three = Trainer(epochs=3, device="cpu")
    in_the_loop(tmp_path, whole, data, test, name="whole", trainer=three, finetune_epochs=2)
    short = Trainer(epochs=3, max_steps=6, device="cpu")
    in_the_loop(tmp_path, cut, data, test, name="cut", trainer=short, finetune_epochs=2)
    in_the_loop(tmp_path, resumed, data, test, name="cut", trainer=three, resume=True, finetune_epochs=2)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert not torch.equal(cut.head.linear.weight, whole.head.linear.weight)


@pytest.mark.parametrize("epochs", [0, 3, 4])
def test_the_head_must_be_trained_first(epochs):
    with pytest.raises(InputError, match=f"finetune_epochs.* 3 .*not {epochs}"):
        fine_tuning(3, epochs, 1e-3, LEARNING)


def test_features_take_no_augmentation(tmp_path):
    data, model = labelled(12), TransferModel("pixels", 3, 32, 32)
    parts = extract_parts(model, data, data, OPTIONS, 10, "cpu", tmp_path)
    with pytest.raises(InputError, match=r"augmentation \(horizontal_flip\)"):
        head_training(model, parts, ClassifierLearning(10, augmentation=Augmentation(horizontal_flip=0.5)))


# drawn images


def test_parts_are_drawn_by_a_seed_with_equal_numbers_of_images_per_class():
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
    with pytest.raises(InputError, match=r"ant .*20 .*21"):
        draw_per_class(data, [20, 1])
    with pytest.raises(InputError, match="not 0"):
        draw_per_class(data, [0])
