"""Generators of known quality are evaluated from end to end."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.extractors import finished
from PIL import Image
from torch import Tensor, nn

import torchdl
from torchdl import ImageDataset, InputError, LenetLike, load_images
from torchdl.cli.finished_runs import default_extractor, describe_extractor, find_extractor
from torchdl.cli.run import keep_report
from torchdl.files import EVALUATION
from torchdl.plots import plot_nearest
from torchdl.predict.pretrained_weights import pretrained_folder
from torchdl.recipes import gan_evaluation
from torchdl.recipes.gan_evaluation import (
    FeatureExtractor,
    Features,
    Nearest,
    compare,
    evaluate_generator,
    extract_features,
    load_feature_extractor,
    make_reference,
    nearest_training_images,
)
from torchdl.recipes.report import Report

CPU = torch.device("cpu")


class Replayed(nn.Module):
    """A generator that repeats given images (N, C, H, W) in [0, 1]."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def noise(self, n: int, seed: int = 0) -> Tensor:
        return (torch.arange(n) + seed) % len(self.images)

    def forward(self, z: Tensor) -> Tensor:
        return 2 * self.images[z] - 1


@pytest.fixture(scope="module")
def digits() -> tuple[ImageDataset, ImageDataset]:
    """Return 500 training images and 400 test images of all ten classes."""
    everything = load_images("mnist_5k", "train")
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    return everything.subset(order[:500]), everything.subset(order[500:900])


@pytest.fixture(scope="module")
def extractor(digits) -> FeatureExtractor:
    """Return a small classifier trained for twelve epochs."""
    train, _ = digits
    model = LenetLike((1, 28, 28), 10, width=4, depth=2, hidden=24)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            bound = 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.0
            parameter.uniform_(-bound, bound, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    images, labels = train[: len(train)]
    for step in range(120):
        rows = torch.arange(50) + 50 * (step % 10)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return FeatureExtractor(model.eval(), train.classes, 0.0, 0.9, "0" * 64)


def fractions(data: ImageDataset, rows: Tensor | None = None) -> Tensor:
    return data.pixels(torch.arange(len(data)) if rows is None else rows).float() / 255


def evaluate(images: Tensor, extractor: FeatureExtractor, digits, count: int = 400, seed: int = 0, **options) -> Report:
    return evaluate_generator(Replayed(images), extractor, *digits, count, seed, CPU, **options)


def measured(*arguments, **options) -> dict:
    return evaluate(*arguments, **options).results["against held-out images"]["generated"]


def test_the_feature_extractor_of_these_tests_recognises_digits(extractor, digits):
    images, labels = digits[1][:400]
    assert (extractor.model(images).argmax(1) == labels).double().mean() > 0.8


# generators of known quality


def test_a_generator_of_the_test_images_is_perfect(extractor, digits):
    results = evaluate(fractions(digits[1]), extractor, digits).results
    found = results["against held-out images"]["generated"]
    assert found["Fréchet distance"] < 1e-6
    assert found["kernel distance"] <= 0  # within equal sets the diagonal is left out, between them it is not
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["rare classes"] == []
    assert found["class shares"] == results["held-out class shares"]
    assert (
        results["distance to the nearest training image"]["generated, as near as the nearest 1 % of held out"] == 0.01
    )


def test_a_generator_of_training_images_is_detected(extractor, digits, monkeypatch):
    plot, drawn = gan_evaluation.plot_nearest, []
    monkeypatch.setattr(gan_evaluation, "plot_nearest", lambda *a: (drawn.append(a), plot(*a))[1])
    results = evaluate(fractions(digits[0]), extractor, digits).results
    scale, found = (results["against held-out images"][kind] for kind in ("training images", "generated"))
    assert found["Fréchet distance"] < 2 * scale["Fréchet distance"]  # by its features it is as good as real images
    assert found["precision"] > 0.8
    near = results["distance to the nearest training image"]
    assert near["generated, as near as the nearest 1 % of held out"] == 1
    assert near["images"] == 400
    assert near["generated"] < 1e-6  # the generator's [-1, 1] rounds a little
    assert near["held out"] > near["near"] > 0.01
    ((closest, distances, _),) = drawn
    torch.testing.assert_close(closest["generated"].images, closest["generated"].training)
    assert {name: len(values) for name, values in distances.items()} == {"generated": 400, "test images": 400}


def test_the_classes_that_a_generator_misses_are_named(extractor, digits):
    predictions = extract_features(extractor, fractions(digits[0]), CPU).probabilities.argmax(1)
    few = fractions(digits[0], (predictions < 3).nonzero()[:, 0])
    found = measured(few, extractor, digits)
    assert found["rare classes"] == list("3456789")
    assert [found["class shares"][name] for name in "3456789"] == [0] * 7
    assert sum(found["class shares"].values()) == pytest.approx(1)
    assert found["precision"] > 0.8
    assert found["recall"] < 0.6
    assert found["coverage"] < 0.5
    assert found["inception-style score"] < 4  # three classes are predicted, but others have some probability


def test_a_generator_of_one_image_covers_almost_nothing(extractor, digits):
    found = measured(fractions(digits[1], torch.tensor([7])), extractor, digits)
    assert found["precision"] == 1  # it is a test image
    assert found["coverage"] < 0.1
    assert found["recall"] <= 1 / 400
    assert len(found["rare classes"]) == 9
    assert found["inception-style score"] == pytest.approx(1)
    assert found["its deviation"] == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_worse_images_are_further_away_and_noise_is_the_furthest(extractor, digits):
    images = fractions(digits[0])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    found = [measured(((1 - share) * images + share * noise), extractor, digits) for share in (0.0, 0.3, 0.6)]
    scale = evaluate(images, extractor, digits).results["against held-out images"]["noise"]
    for key in ("Fréchet distance", "kernel distance"):
        values = [row[key] for row in [*found, scale]]
        assert values == sorted(values)
        assert values[-1] > 5 * values[0]


# what must not matter


@pytest.mark.slow
def test_order_and_batches_do_not_matter(extractor, digits, monkeypatch):
    images = fractions(digits[0])[:400]
    expected = evaluate(images, extractor, digits).results
    monkeypatch.setattr(gan_evaluation, "BATCH", 37)
    monkeypatch.setattr(gan_evaluation, "TRAINING_BLOCK", 61)
    monkeypatch.setattr("torchdl.metrics.samples.BLOCK", 90)
    results = evaluate(images, extractor, digits, seed=123).results  # Replayed starts at image 123
    one, other = (r["against held-out images"]["generated"] for r in (results, expected))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (
            value == pytest.approx(other[key], rel=1e-3, abs=1e-3) if isinstance(value, float) else value == other[key]
        )
    distances = [r["distance to the nearest training image"] for r in (results, expected)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results(extractor, digits):
    gan = torchdl.simple_gan()
    found = [evaluate_generator(gan, extractor, *digits, 50, seed, CPU).results for seed in (0, 0, 1)]
    for results in found:
        assert results.pop("seconds") > 0
    assert found[0] == found[1]
    rows = [results["against held-out images"] for results in found]
    assert rows[0]["generated"] != rows[2]["generated"]
    assert rows[0]["noise"] != rows[2]["noise"]
    assert rows[0]["training images"] == rows[2]["training images"]


@pytest.mark.slow
def test_more_samples_lower_the_bias(extractor, digits):
    training = fractions(digits[0])
    distances = [measured(training, extractor, digits, count)["Fréchet distance"] for count in (30, 100, 400)]
    assert distances[0] > 1.5 * distances[1] > 2 * distances[2]


@pytest.mark.slow
def test_fewer_pairs_change_only_the_kernel_distance_and_the_neighbours(extractor, digits):
    images = fractions(digits[0])
    whole, part = (measured(images, extractor, digits, kid_samples=kid_samples) for kid_samples in (5000, 100))
    assert (whole["of them in pairs"], part["of them in pairs"]) == (400, 100)
    differing = {key for key in whole if whole[key] != part[key]} - {"of them in pairs"}
    assert differing == {"kernel distance", "precision", "recall", "density", "coverage"}


def test_a_feature_extractor_trained_on_centred_pixels_gets_centred_pixels(extractor, digits):
    images = fractions(digits[1])[:20]
    found = extract_features(extractor._replace(low=-1.0), images, CPU)
    torch.testing.assert_close(found.features, extractor.model.hidden_units(2 * images - 1).detach())
    expected = extractor.model(2 * images - 1).detach().double().softmax(1)
    torch.testing.assert_close(found.probabilities, expected)


def test_a_class_is_rare_below_half_its_share_of_the_test_images(extractor, digits):
    shares = make_reference(extractor, extract_features(extractor, fractions(digits[1]), CPU)).shares
    assert float(shares.sum()) == pytest.approx(1)
    found, reference = (extract_features(extractor, fractions(data), CPU) for data in digits)
    one = (reference.probabilities.argmax(1) == 4).nonzero()[:, 0]
    for keep, rare in ((0.4, ["4"]), (0.6, [])):
        dropped = one[int(keep * len(one)) :]
        rows = torch.arange(400)[~torch.isin(torch.arange(400), dropped)]
        left = Features(reference.features[rows], reference.probabilities[rows])
        assert compare(extractor, left, make_reference(extractor, reference))["rare classes"] == rare
    assert len(found.features) == 500


# copies


@pytest.mark.parametrize("block", [7, 5000])
def test_the_nearest_training_image_equals_that_of_a_slow_loop(block, monkeypatch):
    monkeypatch.setattr(gan_evaluation, "TRAINING_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 2, 3, 4), generator=generator, dtype=torch.uint8)
    train = ImageDataset(pixels, low=-1)  # the scaling must not matter
    images = torch.rand((9, 2, 3, 4), generator=generator)
    images[4] = pixels[33].float() / 255
    found = nearest_training_images(images, train)
    each = [[float(((x - y / 255) ** 2).mean() ** 0.5) for y in pixels.float()] for x in images]
    assert found.distances.tolist() == pytest.approx([min(row) for row in each], rel=1e-5)
    assert torch.equal(found.training, pixels[torch.tensor([np.argmin(row) for row in each])].float() / 255)
    assert found.distances[4] == 0


def test_the_nearest_of_bright_training_images_is_found():
    pixels = torch.full((3, 1, 64, 64), 255, dtype=torch.uint8)
    for number in range(3):  # they differ in one pixel
        pixels[number, 0, 0, 0] = 250 + 2 * number
    train = ImageDataset(pixels)
    found = nearest_training_images(pixels.float() / 255, train)
    assert found.distances.tolist() == [0, 0, 0]


@pytest.mark.slow
def test_the_report_is_printed_and_saved(extractor, digits, tmp_path, capsys):
    image = fractions(digits[0], torch.tensor([7]))
    report = evaluate(image, extractor, digits, 60)
    assert not capsys.readouterr().out
    keep_report(report, tmp_path, name=EVALUATION)
    results, printed = report.results, capsys.readouterr().out
    assert report.summary in printed
    assert "60 images of each kind" in printed
    rare = results["against held-out images"]["generated"]["rare classes"]
    assert len(rare) == 9
    assert f"of the samples: {', '.join(f'{name} (0.0%)' for name in rare)}\n" in printed
    assert "nearest 1% of the test images: 100.0%" in printed
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written == results
    assert written["seconds"] > 0
    for name in ("classes", "nearest"):
        picture = np.asarray(Image.open(tmp_path / "plots" / f"{name}.png").convert("L"))
        assert picture.std() > 10
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("channels", "count"), [(1, 8), (3, 1)])
def test_any_number_of_copies_is_drawn_in_grey_or_colour(channels, count, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((count, channels, 6, 9), generator=generator)
    closest = dict.fromkeys(("generated", "test images"), Nearest(images, images, torch.zeros(count)))
    distances = dict.fromkeys(closest, torch.zeros(count))  # all are copies
    plot_nearest(closest, distances, 0.0, tmp_path / "plots" / "x.png")
    picture = np.asarray(Image.open(tmp_path / "plots" / "x.png").convert("RGB")).astype(int)
    assert picture.std() > 10
    coloured = np.ptp(picture[: len(picture) // 3], axis=2).max() > 50  # above the histogram, which has colours
    assert coloured == (channels == 3)


# errors


def test_a_feature_extractor_is_loaded_from_a_finished_run(tmp_path):
    extractor = load_feature_extractor(str(finished(tmp_path)), "mnist")
    assert (extractor.classes, extractor.low, extractor.accuracy) == (("a", "b"), 0.0, 0.75)
    assert not extractor.model.training
    assert load_feature_extractor(finished(tmp_path, centred=True), "mnist").low == -1.0
    other = load_feature_extractor(finished(tmp_path, LenetLike((1, 28, 28), 2, width=2, hidden=9)), "mnist")
    assert len(extractor.fingerprint) == 64
    assert other.fingerprint != extractor.fingerprint


COMMAND = "python scripts/train_lenet.py --dataset mnist --seed 0 --name judge-mnist"


def spoil(folder: Path, name: str, text: str | None) -> Path:
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none", "none"),
        (lambda folder: finished(folder, dataset="fashion_mnist"), "fashion_mnist.* mnist"),
        (lambda folder: finished(folder, torchdl.StridedCNN((1, 28, 28), 10)), "StridedCNN.*LenetLike"),
        (lambda folder: spoil(finished(folder), "results.json", None), "finished run"),
        (lambda folder: spoil(finished(folder), "results.json", "{"), "finished run"),
        (lambda folder: spoil(finished(folder), "results.json", '{"accuracy": 1}'), "finished run"),
        (lambda folder: spoil(finished(folder), "config.json", None), "config.json"),
        (lambda folder: spoil(finished(folder), "config.json", "{}"), "None.* mnist"),
        (lambda folder: spoil(finished(folder), "architecture.json", None), "architecture.json"),
    ],
)
def test_what_is_not_a_feature_extractor_is_an_error_that_says_how_to_train_one(make, message, tmp_path):
    folder = make(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        find_extractor(folder, "mnist")
    assert COMMAND in str(raised.value)
    if folder.is_dir():
        with pytest.raises(InputError, match=message):
            load_feature_extractor(folder, "mnist")


def test_the_classifiers_that_come_with_torchdl_measure_their_own_data_sets_alone(tmp_path):
    assert default_extractor(tmp_path, "cifar10") == tmp_path / "lenet" / "judge-cifar10"
    place = default_extractor(tmp_path, "fashion_mnist")
    found = find_extractor(place, "fashion_mnist")
    weights = pretrained_folder("lenet-fashion") / "weights.safetensors"
    assert found.fingerprint == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (found.classes[9], found.low, found.accuracy) == ("Ankle boot", 0.0, pytest.approx(0.9213))
    assert describe_extractor(place, found).startswith("feature extractor: lenet-fashion, which comes with torchdl")
    for name, message in (("lenet-fashion", "fashion_mnist, not on mnist"), ("lenet", "comes with torchdl")):
        with pytest.raises(InputError, match=message):
            find_extractor(Path(f"pretrained:{name}"), "mnist")
    (tmp_path / "lenet" / "judge-mnist").mkdir(parents=True)  # one's own goes before
    assert default_extractor(tmp_path, "mnist") == tmp_path / "lenet" / "judge-mnist"


@pytest.mark.parametrize(("count", "kid_samples"), [(5, 5000), (100, 5)])
def test_too_few_images_are_not_compared(count, kid_samples, extractor, digits):
    with pytest.raises(InputError, match=r"5 images .*6"):
        evaluate(fractions(digits[0]), extractor, digits, count, kid_samples=kid_samples)


def test_images_of_another_shape_are_refused(extractor):
    with pytest.raises(InputError, match=r"\(1, 28, 28\), not \(3, 8, 8\)"):
        extract_features(extractor, torch.zeros(2, 3, 8, 8), CPU)


WITHOUT_TYRO = """
import sys
sys.modules["tyro"] = None
import torch
from torchdl.metrics import Moments, frechet_distance
from torchdl.models import LenetLike
from torchdl.recipes.gan_evaluation import FeatureExtractor, compare, extract_features, make_reference
extractor = FeatureExtractor(LenetLike((1, 8, 8), 3, width=2, depth=1, hidden=4).eval(), ("a", "b", "c"), 0.0, 1.0, "")
one, other = (extract_features(extractor, torch.rand(20, 1, 8, 8), torch.device("cpu")) for _ in range(2))
found = compare(extractor, one, make_reference(extractor, other))["Fréchet distance"]
assert found == frechet_distance(Moments([one.features]), Moments([other.features])) > 0
"""


@pytest.mark.slow
def test_a_frechet_distance_needs_no_command_line():
    subprocess.run([sys.executable, "-c", WITHOUT_TYRO], check=True)
