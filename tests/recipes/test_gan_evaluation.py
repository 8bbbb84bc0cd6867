"""Generators of which everything is known are measured by the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.extractors import finished
from PIL import Image
from torch import Tensor, nn

import torchdl
from torchdl import ImageDataset, InputError, LenetLike, load_images
from torchdl.plots import plot_nearest
from torchdl.recipes.gan_evaluation import (
    Judge,
    evaluate_generator,
    evaluate_run,
    judge_images,
    load_judge,
    make_reference,
    nearest_training_images,
)

CPU = torch.device("cpu")


class Replayed(nn.Module):
    """A generator whose image number i is the i-th of those it is given (N, C, H, W) in [0, 1], again and again."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images

    def noise(self, n: int, seed: int = 0) -> Tensor:
        return (torch.arange(n) + seed) % len(self.images)

    def forward(self, z: Tensor) -> Tensor:
        return 2 * self.images[z] - 1


@pytest.fixture(scope="module")
def digits() -> tuple[ImageDataset, ImageDataset]:
    """500 images to learn from and 400 others, of all ten classes."""
    everything = load_images("mnist_5k", "train")
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    return everything.subset(order[:500]), everything.subset(order[500:900])


@pytest.fixture(scope="module")
def judge(digits) -> Judge:
    """A small classifier that has seen the training images twelve times."""
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
    return Judge(model.eval(), train.classes, 0.0, 0.9, "0" * 64)


def fractions(data: ImageDataset, rows: Tensor | None = None) -> Tensor:
    return data.pixels(torch.arange(len(data)) if rows is None else rows).float() / 255


def evaluate(images: Tensor, judge: Judge, digits, count: int = 400, seed: int = 0, **options):
    return evaluate_generator(Replayed(images), judge, *digits, count, seed, CPU, **options)


def measured(*arguments, **options) -> dict:
    return evaluate(*arguments, **options)[0]["against held-out images"]["generated"]


def test_the_judge_of_these_tests_knows_digits(judge, digits):
    images, labels = digits[1][:400]
    assert (judge.model(images).argmax(1) == labels).double().mean() > 0.8


# generators of which it is known how good they are


def test_a_generator_of_the_held_out_images_is_perfect(judge, digits):
    results, _ = evaluate(fractions(digits[1]), judge, digits)
    found = results["against held-out images"]["generated"]
    assert found["Fréchet distance"] < 1e-6
    assert found["kernel distance"] <= 0  # of equal sets: the diagonal is missing within them, and not between them
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["rare classes"] == []
    assert found["class shares"] == results["held-out class shares"]
    assert (
        results["distance to the nearest training image"]["generated, as near as the nearest 1 % of held out"] == 0.01
    )


def test_a_generator_of_training_images_is_found_out(judge, digits):
    results, nearest = evaluate(fractions(digits[0]), judge, digits)
    scale, found = (results["against held-out images"][kind] for kind in ("training images", "generated"))
    assert found["Fréchet distance"] < 2 * scale["Fréchet distance"]  # by the features it is as good as real
    assert found["precision"] > 0.8
    near = results["distance to the nearest training image"]
    assert near["generated, as near as the nearest 1 % of held out"] == 1
    assert near["images"] == 400
    assert near["generated"] < 1e-6  # the generator's [-1, 1] rounds a little
    assert near["held out"] > near["near"] > 0.01
    torch.testing.assert_close(nearest["generated"].images, nearest["generated"].training)


def test_a_generator_of_three_classes_misses_the_others_by_name(judge, digits):
    answers = judge_images(judge, fractions(digits[0]), CPU).probabilities.argmax(1)
    few = fractions(digits[0], (answers < 3).nonzero()[:, 0])
    found = measured(few, judge, digits)
    assert found["rare classes"] == list("3456789")
    assert [found["class shares"][name] for name in "3456789"] == [0] * 7
    assert sum(found["class shares"].values()) == pytest.approx(1)
    assert found["precision"] > 0.8
    assert found["recall"] < 0.6
    assert found["coverage"] < 0.5
    assert found["inception-style score"] < 4  # its answers are of three classes, its doubts of more


def test_a_generator_of_one_image_covers_next_to_nothing(judge, digits):
    found = measured(fractions(digits[1], torch.tensor([7])), judge, digits)
    assert found["precision"] == 1  # it is a held-out image
    assert found["coverage"] < 0.1
    assert found["recall"] <= 1 / 400
    assert len(found["rare classes"]) == 9
    assert found["inception-style score"] == pytest.approx(1)
    assert found["its deviation"] == pytest.approx(0, abs=1e-9)


def test_worse_images_are_further_away_and_noise_is_the_furthest(judge, digits):
    images = fractions(digits[0])
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    found = [measured(((1 - share) * images + share * noise), judge, digits) for share in (0.0, 0.3, 0.6)]
    scale = evaluate(images, judge, digits)[0]["against held-out images"]["noise"]
    for key in ("Fréchet distance", "kernel distance"):
        values = [row[key] for row in [*found, scale]]
        assert values == sorted(values)
        assert values[-1] > 5 * values[0]


# what must not matter


def test_order_and_batches_do_not_matter(judge, digits, monkeypatch):
    images = fractions(digits[0])[:400]
    expected, _ = evaluate(images, judge, digits)
    monkeypatch.setattr(generation, "BATCH", 37)
    monkeypatch.setattr(generation, "TRAINING_BLOCK", 61)
    monkeypatch.setattr("torchdl.metrics.samples.BLOCK", 90)
    results, _ = evaluate(images, judge, digits, seed=123)  # which Replayed begins at
    one, other = (r["against held-out images"]["generated"] for r in (results, expected))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert (
            value == pytest.approx(other[key], rel=1e-3, abs=1e-3) if isinstance(value, float) else value == other[key]
        )
    distances = [r["distance to the nearest training image"] for r in (results, expected)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)


def test_the_same_seed_finds_the_same(judge, digits):
    gan = torchdl.simple_gan()
    found = [evaluate_generator(gan, judge, *digits, 50, seed, CPU)[0] for seed in (0, 0, 1)]
    assert found[0] == found[1]
    rows = [results["against held-out images"] for results in found]
    assert rows[0]["generated"] != rows[2]["generated"]
    assert rows[0]["noise"] != rows[2]["noise"]
    assert rows[0]["training images"] == rows[2]["training images"]


def test_more_samples_lower_the_bias(judge, digits):
    training = fractions(digits[0])
    distances = [measured(training, judge, digits, count)["Fréchet distance"] for count in (30, 100, 400)]
    assert distances[0] > 1.5 * distances[1] > 2 * distances[2]


def test_fewer_pairs_leave_all_but_the_kernel_and_the_neighbours_as_it_is(judge, digits):
    images = fractions(digits[0])
    whole, part = (measured(images, judge, digits, paired=paired) for paired in (5000, 100))
    assert (whole["of them in pairs"], part["of them in pairs"]) == (400, 100)
    differing = {key for key in whole if whole[key] != part[key]} - {"of them in pairs"}
    assert differing == {"kernel distance", "precision", "recall", "density", "coverage"}


def test_a_judge_that_was_trained_on_centred_pixels_sees_them_so(judge, digits):
    images = fractions(digits[1])[:20]
    found = judge_images(judge._replace(low=-1.0), images, CPU)
    torch.testing.assert_close(found.features, judge.model.hidden_units(2 * images - 1).detach())
    expected = judge.model(2 * images - 1).detach().double().softmax(1)
    torch.testing.assert_close(found.probabilities, expected)


def test_a_class_is_rare_at_less_than_half_the_share_that_is_held_out(judge, digits):
    shares = make_reference(judge, judge_images(judge, fractions(digits[1]), CPU)).shares
    assert float(shares.sum()) == pytest.approx(1)
    found, reference = (judge_images(judge, fractions(data), CPU) for data in digits)
    one = (reference.probabilities.argmax(1) == 4).nonzero()[:, 0]
    for keep, rare in ((0.4, ["4"]), (0.6, [])):
        dropped = one[int(keep * len(one)) :]
        rows = torch.arange(400)[~torch.isin(torch.arange(400), dropped)]
        left = generation.Judged(reference.features[rows], reference.probabilities[rows])
        assert generation.compare(judge, left, make_reference(judge, reference))["rare classes"] == rare
    assert len(found.features) == 500


# copies


@pytest.mark.parametrize("block", [7, 5000])
def test_the_nearest_training_image_is_that_of_a_slow_loop(block, monkeypatch):
    monkeypatch.setattr(generation, "TRAINING_BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 2, 3, 4), generator=generator, dtype=torch.uint8)
    train = ImageDataset(pixels, low=-1)  # whatever they are scaled to
    images = torch.rand((9, 2, 3, 4), generator=generator)
    images[4] = pixels[33].float() / 255
    found = nearest_training_images(images, train)
    each = [[float(((x - y / 255) ** 2).mean() ** 0.5) for y in pixels.float()] for x in images]
    assert found.distances.tolist() == pytest.approx([min(row) for row in each], rel=1e-5)
    assert torch.equal(found.training, pixels[torch.tensor([np.argmin(row) for row in each])].float() / 255)
    assert found.distances[4] == 0


def test_the_report_is_read_by_people_and_programs(judge, digits, tmp_path, capsys):
    image = fractions(digits[0], torch.tensor([7]))
    results = evaluate_run(tmp_path, Replayed(image), judge, *digits, 60, 0, "cpu")
    said = capsys.readouterr().out
    assert "60 of each, against held-out images" in said
    rare = results["against held-out images"]["generated"]["rare classes"]
    assert len(rare) == 9
    assert f"of the samples: {', '.join(f'{name} (0.0%)' for name in rare)}\n" in said
    assert "as near to one as the nearest 1% of the held-out images: 100.0% of the samples" in said
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written == results
    assert written["seconds"] > 0
    for name in ("classes", "nearest"):
        picture = np.asarray(Image.open(tmp_path / "plots" / f"{name}.png").convert("L"))
        assert picture.std() > 10
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("channels", "count"), [(1, 8), (3, 1)])
def test_copies_are_drawn_of_any_number_and_colour(channels, count, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((count, channels, 6, 9), generator=generator)
    closest = {kind: generation.Nearest(images, images, torch.zeros(count)) for kind in ("generated", "held out")}
    distances = dict.fromkeys(closest, torch.zeros(count))  # copies all of them
    plot_nearest(closest, distances, 0.0, tmp_path / "plots" / "x.png")
    picture = np.asarray(Image.open(tmp_path / "plots" / "x.png").convert("RGB")).astype(int)
    assert picture.std() > 10
    coloured = np.ptp(picture[: len(picture) // 3], axis=2).max() > 50  # above the histogram, which has colours
    assert coloured == (channels == 3)


# what cannot be judged


def test_a_finished_run_is_a_judge(tmp_path):
    judge = load_judge(finished(tmp_path), "mnist")
    assert (judge.classes, judge.low, judge.accuracy) == (("a", "b"), 0.0, 0.75)
    assert not judge.model.training
    assert load_judge(finished(tmp_path, centred=True), "mnist").low == -1.0
    other = load_judge(finished(tmp_path, LenetLike((1, 28, 28), 2, width=2, hidden=9)), "mnist")
    assert len(judge.fingerprint) == 64
    assert other.fingerprint != judge.fingerprint


RECIPE = "python scripts/train_lenet.py --dataset mnist --seed 0 --name judge-mnist"


def spoil(folder: Path, name: str, text: str | None) -> Path:
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: folder / "none",
            f"there is no judge .*none: make it with `{RECIPE}`, or name one with --judge",
        ),
        (lambda folder: finished(folder, dataset="fashion_mnist"), "knows fashion_mnist, but .* resemble mnist"),
        (
            lambda folder: finished(folder, torchdl.StridedCNN((1, 28, 28), 10)),
            f"holds a StridedCNN.*LenetLike.*{RECIPE}",
        ),
        (lambda folder: spoil(finished(folder), "results.json", None), f"is no finished run: .*{RECIPE}"),
        (lambda folder: spoil(finished(folder), "results.json", "{"), "is no finished run"),
        (lambda folder: spoil(finished(folder), "results.json", '{"accuracy": 1}'), "is no finished run"),
        (lambda folder: spoil(finished(folder), "config.json", None), "config.json cannot be read"),
        (lambda folder: spoil(finished(folder), "config.json", "{}"), "knows None, but"),
        (lambda folder: spoil(finished(folder), "architecture.json", None), "holds no architecture.json"),
    ],
)
def test_what_is_no_judge_is_said_in_one_sentence(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_judge(make(tmp_path), "mnist")


@pytest.mark.parametrize(("count", "paired"), [(5, 5000), (100, 5)])
def test_too_few_images_are_not_compared(count, paired, judge, digits):
    with pytest.raises(InputError, match="only 5 images of each kind to compare: 6 are the least"):
        evaluate(fractions(digits[0]), judge, digits, count, paired=paired)


def test_images_of_another_shape_are_not_judged(judge):
    with pytest.raises(InputError, match=r"takes images of \(channels, height, width\) \(1, 28, 28\), not \(3, 8, 8\)"):
        judge_images(judge, torch.zeros(2, 3, 8, 8), CPU)
