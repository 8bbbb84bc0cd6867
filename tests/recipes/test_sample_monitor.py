from __future__ import annotations

import json

import pytest
import torch
from helpers import gaussian

from torchdl import BatchLoader, ImageDataset, InputError, LenetLike, Trainer, load_images, simple_gan
from torchdl.cli.finished_runs import find_sample_monitor
from torchdl.recipes.gan_evaluation import FeatureExtractor, as_fractions
from torchdl.recipes.sample_monitor import SampleMonitor
from torchdl.tasks import GANTask

CLASSES = 4


def squares(n: int, classes: torch.Tensor | None = None, seed: int = 0) -> ImageDataset:
    """Make dim noise 8x8, each with a bright quarter that is its class."""
    labels = torch.arange(n) * CLASSES // n if classes is None else classes
    pixels = 40 + 10 * gaussian(n, 1, 8, 8, seed=seed)
    for number, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        pixels[number, 0, row : row + 4, column : column + 4] += 150 + 20 * gaussian(1, seed=1000 * seed + number)
    return ImageDataset(pixels.clamp(0, 255).to(torch.uint8), labels, -1, 1)


class Quarters(torch.nn.Module):
    """A perfect classifier, whose features are the brightness of each quarter."""

    in_shape = (1, 8, 8)

    def hidden_units(self, images):
        return images.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5)).flatten(1)  # (N, 1, 2, 2) -> (N, 4)

    def logits_of(self, units):
        return 20 * units


EXTRACTOR = FeatureExtractor(Quarters(), ("a", "b", "c", "d"), 0.0, 1.0, "0" * 64)


@pytest.fixture(scope="module")
def monitor():
    return SampleMonitor(EXTRACTOR, squares(400), count=400)


def measure(monitor: SampleMonitor, images: ImageDataset) -> dict[str, float]:
    return monitor.measure(images[: len(images)][0])


def test_other_images_of_the_same_kind_cause_no_warning(monitor):
    measured = measure(monitor, squares(400, seed=5))
    assert monitor.warnings(measured) == []
    assert measured["frechet_distance"] < 0.01
    assert measured["coverage"] > 0.8
    assert [measured[f"share_class_{name}"] for name in "abcd"] == [0.25] * 4


def test_the_real_images_have_distance_0(monitor):
    measured = measure(monitor, squares(400))
    assert measured["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert measured["coverage"] == 1


def test_a_missing_class_is_named(monitor):
    measured = measure(monitor, squares(400, torch.arange(400) % 3, seed=5))
    (sentence,) = monitor.warnings(measured)
    assert sentence.startswith("imbalance: 1 of 4 classes")
    assert "(d 0.0%)" in sentence


def test_samples_of_a_single_class_are_a_collapse(monitor):
    measured = measure(monitor, squares(400, torch.full((400,), 2), seed=5))
    (sentence,) = monitor.warnings(measured)
    assert sentence.startswith("collapse: 3 of 4 classes")
    assert "c has 100.0%" in sentence


def test_repeating_one_image_of_each_class_is_a_collapse_although_no_class_is_missing(monitor):
    one_each = squares(CLASSES, seed=5)
    measured = measure(monitor, one_each.subset(torch.arange(400) % CLASSES))
    (sentence,) = monitor.warnings(measured)
    assert sentence.startswith("collapse: the samples are so alike")


def test_flattened_samples_are_measured_as_images(monitor):
    images = squares(20, seed=3)[:20][0]
    assert monitor.measure(images.flatten(1)) == monitor.measure(images)


def test_no_more_samples_are_measured_than_there_are_real_images():
    assert SampleMonitor(EXTRACTOR, squares(30), count=2000).count == 30
    with pytest.raises(InputError, match=r"6 .*not 5"):
        SampleMonitor(EXTRACTOR, squares(5))


@pytest.mark.slow
def test_a_collapsed_run_warns_on_the_console_and_in_tensorboard(tmp_path, capsys, monitor):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    gan = simple_gan((1, 8, 8), z_dim=4)
    with torch.no_grad():
        for parameter in gan.generator.parameters():
            parameter.zero_()  # every sample is the same grey square, and a learning rate near 0 keeps it so
    task = GANTask(gan, lr=1e-12)
    data = squares(64).without_labels()
    trainer = Trainer(epochs=2, device="cpu", monitor="samples/frechet_distance")
    loaders = BatchLoader(data, 32), BatchLoader(data, 32)
    history = trainer.fit(task, *loaders, tmp_path, callbacks=[monitor], verbose=True)
    printed = capsys.readouterr().out
    assert printed.count("collapse: ") == 2  # classes are missing, and nothing is covered; only once in a row
    assert printed.count("; this is usual in the first epochs\n") == 2
    assert (tmp_path / "best.pt").is_file()
    assert history[-1]["samples/coverage"] < 0.1
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {f"samples/share_class_{name}" for name in "abcd"} <= set(events.Tags()["scalars"])
    assert "warnings/text_summary" in events.Tags()["tensors"]


def test_without_a_feature_extractor_the_message_has_the_command_that_trains_one(tmp_path):
    found, sentence = find_sample_monitor(None, tmp_path, "cifar10", squares(20), 10)
    assert found is None
    assert "train_lenet.py --dataset cifar10" in sentence
    with pytest.raises(InputError, match="train_lenet"):
        find_sample_monitor(tmp_path / "none", tmp_path, "mnist", squares(20), 10)


def test_digits_are_measured_by_the_classifier_that_comes_with_torchdl(tmp_path):
    digits = load_images("mnist_5k", "test")
    monitor, sentence = find_sample_monitor(None, tmp_path, "mnist", digits, 50)
    assert sentence == "feature extractor: lenet-mnist, which comes with torchdl, test accuracy 99.22 %"
    (threes,) = (digits.labels == 3).nonzero(as_tuple=True)
    assert monitor.measure(2 * as_fractions(digits, threes[:20]) - 1)["share_class_3"] >= 0.95


def test_the_default_feature_extractor_is_found_among_the_runs(tmp_path):
    from torchdl import save

    folder = tmp_path / "lenet" / "judge-squares"
    save(LenetLike((1, 8, 8), CLASSES, 4, 1, 16), folder)
    (folder / "config.json").write_text(json.dumps({"config": {"images": {"dataset": "squares"}, "learning": {}}}))
    accuracies = dict.fromkeys("abcd", 0.9)
    (folder / "results.json").write_text(json.dumps({"accuracy by class": accuracies, "accuracy": 0.9}))
    found, sentence = find_sample_monitor(None, tmp_path, "squares", squares(20), 10)
    assert found is not None
    assert found.count == 10
    assert str(folder) in sentence
    assert "90.00" in sentence
