from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.figures import grids_of
from helpers.image_folders import CLASSES, labelled, write_folder
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import torchdl
from torchdl import Augmentation, ImageDataset, InputError, LenetLike, Trainer
from torchdl.cli.options import RunOptions
from torchdl.cli.parsing import rebuild
from torchdl.cli.run import Run
from torchdl.data import folder as folders
from torchdl.data.folder import DecodedLate, read_folder
from torchdl.files import CHECKPOINT
from torchdl.predict import ImageClassifier
from torchdl.recipes import image_classification
from torchdl.recipes.image_classification import (
    DEFAULTS,
    ClassifierLearning,
    ImageOptions,
    classifier_training,
    evaluate_classifier,
    example_images,
    image_classifier,
)
from torchdl.training import checkpoint

pytestmark = pytest.mark.usefixtures("quick")
PICTURES = ("confusion", "confusion_normalized", "misclassified")


def model(seed: int = 0, shape: tuple[int, int, int] = (1, 12, 12)) -> LenetLike:
    torch.manual_seed(seed)
    return LenetLike(shape, 3, width=4, depth=1, hidden=8)


def train(out: Path, data: ImageDataset, test: ImageDataset, images: ImageOptions | None = None, **options):
    """Train in ``out/tests/x``, or resume there; return the run, the model, the history and the printed text."""
    learning = options.pop("learning", ClassifierLearning(batch_size=10, lr=1e-2))
    resume = out / "tests" / "x" if options.pop("resume", False) else None
    name = options.pop("name", "x")
    run_options = RunOptions(out=out, name=name, resume=resume, threads=1, keep_memory=False)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run = Run("tests", {"learning": asdict(learning)}, run_options, Trainer(device="cpu", **options), data)
        network, images = model(shape=data.image_shape), images or ImageOptions()
        training = classifier_training(network, data, test, images, learning)
        classifier = image_classifier(network, data, images, "cpu")
        pictures = {"examples": example_images(training.train, data)}
        history = run.fit(*training, pictures=pictures, predictor=classifier)
        more = {"epoch chosen by": run.chosen_by}
        run.keep(evaluate_classifier(classifier, test, bool(learning.augmentation.horizontal_flip), more=more))
        run.close()
    return run, network, history, printed.getvalue()


def record(monkeypatch, name: str) -> list[tuple]:
    """Return a list that gets the positional arguments of every call of a plot function from now on."""
    calls, plot = [], getattr(image_classification, name)
    monkeypatch.setattr(image_classification, name, lambda *a, **k: (calls.append(a), plot(*a, **k))[1])
    return calls


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train for two epochs on images that are hard to tell apart, so that some predictions are wrong."""
    data, test = labelled(30, spread=120), labelled(17, seed=1, spread=120)
    return (*train(tmp_path_factory.mktemp("runs"), data, test, epochs=2), test)


def counts(network: nn.Module, test: ImageDataset) -> tuple[np.ndarray, Tensor, Tensor]:
    """Count predictions one by one, with true classes as rows; return the logits and labels, too."""
    with torch.no_grad():
        logits, labels = torch.cat([network.eval()(test[i][0][None]) for i in range(len(test))]), test.labels
    matrix = np.zeros((3, 3), int)
    for row, label in zip(logits, labels, strict=True):
        matrix[label, max(range(3), key=lambda k: row[k])] += 1
    return matrix, logits, labels


# settings


def test_given_settings_take_precedence_over_a_networks_defaults():
    defaults = ClassifierLearning(
        batch_size=32, lr=4e-3, schedule="one_cycle", augmentation=Augmentation(horizontal_flip=0.5)
    )
    given = ClassifierLearning(
        batch_size=7, weight_decay=0.0, augmentation=Augmentation(horizontal_flip=0.0)
    )  # a zero is a setting, too
    expected = ClassifierLearning(
        7, 4e-3, "one_cycle", weight_decay=0.0, augmentation=Augmentation(horizontal_flip=0.0)
    )
    assert given.with_defaults(defaults) == expected
    assert ClassifierLearning().with_defaults(defaults) == defaults
    assert ClassifierLearning().with_defaults(DEFAULTS) == DEFAULTS
    assert None not in asdict(defaults.with_defaults(DEFAULTS)).values()
    assert defaults.batch_size == 32


def test_a_run_from_before_augmentation_was_a_part_keeps_its_shifts_and_flips():
    assert rebuild(ClassifierLearning, {"lr": 0.1, "shift": 0.1, "flip": 0.5}) == ClassifierLearning(
        lr=0.1, augmentation=Augmentation(shift=0.1, horizontal_flip=0.5)
    )


@pytest.mark.parametrize(
    ("learning", "message"),
    [
        (ClassifierLearning(batch_size=0), "batch_size.* 0"),
        (ClassifierLearning(lr=0.0), "learning rate.* 0"),
        (ClassifierLearning(lr=math.nan), "learning rate.* nan"),
        (ClassifierLearning(weight_decay=-1.0), "weight_decay.* -1"),
        (ClassifierLearning(label_smoothing=1.0), "label_smoothing.* 1.0"),
        (ClassifierLearning(label_smoothing=-0.1), "label_smoothing.* -0.1"),
        (ClassifierLearning(augmentation=Augmentation(shift=1.0)), "shift.* 1.0"),
        (ClassifierLearning(augmentation=Augmentation(horizontal_flip=2.0)), "flip.* 2.0"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing_behind(tmp_path, learning, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path, labelled(30), labelled(5), learning=learning)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# the report


def test_results_equal_those_of_one_image_at_a_time(trained):
    run, network, _, printed, test = trained
    results = json.loads((run.folder / "results.json").read_text())
    matrix, logits, labels = counts(network, test)
    assert 0 < matrix.trace() < len(labels)  # otherwise the test would show nothing
    assert results["accuracy"] == pytest.approx(matrix.trace() / len(labels), abs=1e-12)
    assert results["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5)
    assert results["images"] == 51
    assert results["accuracy by class"] == {name: matrix[i, i] / matrix[i].sum() for i, name in enumerate(CLASSES)}
    assert results["parameters"] == sum(p.numel() for p in network.parameters())
    assert f"{results['accuracy']:.2%} on 51 images" in printed
    assert str(run.folder) in printed


def test_the_history_ends_with_the_results(trained):
    run, _, history, _, _ = trained
    results = json.loads((run.folder / "results.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["val/accuracy"] == pytest.approx(results["accuracy"], abs=1e-12)
    assert history[-1]["val/loss"] == pytest.approx(results["loss"], rel=1e-5)
    assert {"train/loss", "train/accuracy", "charts/learning_rate"} <= history[0].keys()
    assert (run.folder / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.usefixtures("undrawn")
def test_a_class_without_test_images_has_accuracy_0(tmp_path):
    some = labelled(10, seed=1)
    without = ImageDataset(some.images[some.labels != 1], some.labels[some.labels != 1], classes=CLASSES)
    run, *_ = train(tmp_path, labelled(20), without, epochs=1)
    results = json.loads((run.folder / "results.json").read_text())
    assert results["accuracy by class"]["bee"] == 0
    assert results["images"] == 20


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_training_beats_chance_and_label_smoothing_changes_only_the_loss(tmp_path):
    test = labelled(20, seed=1)
    run, network, history, _ = train(
        tmp_path,
        labelled(60),
        test,
        epochs=4,
        learning=ClassifierLearning(10, 1e-2, "one_cycle", 0.01, label_smoothing=0.2),
    )
    results = json.loads((run.folder / "results.json").read_text())
    assert results["accuracy"] > 0.9
    _, logits, labels = counts(network, test)
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2).item()
    assert history[-1]["val/loss"] == pytest.approx(smoothed, rel=1e-5)
    assert results["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_the_model_is_left_in_evaluation_mode_and_equals_the_saved_one(trained):
    run, network, *_ = trained
    assert not network.training
    kept = torchdl.load(run.folder)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", [*PICTURES, "examples", "history"])
def test_the_pictures_are_not_blank(trained, name):
    with Image.open(trained[0].folder / "plots" / f"{name}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 50
        assert np.asarray(image.convert("L")).std() > 1


@pytest.mark.usefixtures("undrawn")
def test_the_most_confident_mistakes_are_shown(tmp_path, monkeypatch):
    drawn = record(monkeypatch, "plot_predicted_images")
    monkeypatch.setattr(image_classification, "SHOWN", 5)
    test = labelled(17, seed=1, spread=120, low=-1.0)
    _, network, _, _ = train(tmp_path, labelled(30, spread=120, low=-1.0), test, epochs=1)
    matrix, logits, labels = counts(network, test)
    probabilities, predictions = logits.softmax(1), logits.argmax(1)
    wrong = [i for i in range(51) if predictions[i] != labels[i]]
    assert len(wrong) > 5
    most_confident = sorted(wrong, key=lambda i: -float(probabilities[i].max()))[:5]
    ((pixels, true, predicted, title),) = drawn
    torch.testing.assert_close(pixels, test.images[most_confident] / 255.0, atol=1e-6, rtol=0)
    assert list(true) == [CLASSES[labels[i]] for i in most_confident]
    assert list(predicted) == [CLASSES[predictions[i]] for i in most_confident]
    assert f"{len(wrong)} mistakes on 51" in title
    assert matrix.sum() - matrix.trace() == len(wrong)


@pytest.mark.usefixtures("undrawn")
def test_the_confusion_matrix_has_true_classes_as_rows(tmp_path, monkeypatch):
    drawn = record(monkeypatch, "plot_confusion")
    test = labelled(17, seed=1, spread=120)
    unequal = ImageDataset(test.images[5:], test.labels[5:], classes=CLASSES)
    _, network, _, _ = train(tmp_path, labelled(30, spread=120), unequal, epochs=1)
    expected = counts(network, unequal)[0]
    assert (expected != expected.T).any()
    assert len(drawn) == 2  # counts, and shares of each row
    for matrix, names in drawn:
        assert np.array_equal(matrix, expected)
        assert tuple(names) == CLASSES


def test_tensorboard_has_the_pictures_and_the_first_images(trained):
    folder = trained[0].folder
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {f"plots/{name}" for name in (*PICTURES, "examples")}
    for name in (*PICTURES, "examples"):
        (shown,) = events.Images(f"plots/{name}")
        kept = np.asarray(Image.open(folder / "plots" / f"{name}.png").convert("RGB"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")), kept)
    assert {"val/loss", "val/accuracy"} <= set(events.Tags()["scalars"])


@pytest.mark.usefixtures("undrawn")
def test_the_examples_are_the_first_augmented_training_images(tmp_path):
    data = labelled(30)
    run, *_ = train(
        tmp_path,
        data,
        labelled(5),
        epochs=1,
        learning=ClassifierLearning(10, augmentation=Augmentation(shift=0.3, horizontal_flip=0.5)),
    )
    (shown,) = grids_of(run.folder / "plots" / "examples.png", scale=1)
    assert shown.shape == (8 * 14 + 2, 8 * 14 + 2)
    tiles = np.stack([shown[2 + 14 * r : 14 + 14 * r, 2 + 14 * c : 14 + 14 * c] for r in range(8) for c in range(8)])
    originals = {image.numpy().tobytes() for image in data.images}
    assert sum(tile.tobytes() in originals for tile in tiles) < 16  # most are moved
    assert len({tile.tobytes() for tile in tiles}) == 64


# resuming and dry runs


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("cut", [4, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, cut):
    data, test = labelled(30), labelled(8, seed=1)
    learning = ClassifierLearning(10, 1e-2, augmentation=Augmentation(shift=0.2, horizontal_flip=0.3))
    whole = train(tmp_path / "whole", data, test, learning=learning, max_steps=18)
    train(tmp_path / "cut", data, test, learning=learning, max_steps=cut)
    (tmp_path / "cut" / "tests" / "x" / "architecture.json").write_text("{")  # is written again
    resumed = train(tmp_path / "cut", data, test, learning=learning, max_steps=18, resume=True)
    assert resumed[2] == whole[2]
    assert all(torch.equal(t, resumed[1].state_dict()[name]) for name, t in whole[1].state_dict().items())
    results = [(done[0].folder / "results.json").read_text() for done in (whole, resumed)]
    assert results[0] == results[1]
    torchdl.load(resumed[0].folder)


def test_a_damaged_architecture_cannot_be_loaded(trained, tmp_path):
    shutil.copytree(trained[0].folder, tmp_path / "x")
    path = tmp_path / "x" / "architecture.json"
    for text in ("", "{", "[]", path.read_text().replace("LenetLike", "Module"), path.read_text().replace("8", "-8")):
        path.write_text(text)
        with pytest.raises(InputError):
            torchdl.load(tmp_path / "x")


@pytest.mark.usefixtures("undrawn")
def test_a_run_cannot_be_resumed_with_other_shifts_or_images(tmp_path):
    data, test = labelled(30), labelled(5, seed=1)
    train(tmp_path, data, test, max_steps=4)
    with pytest.raises(InputError, match=r"shift.* 10 .*0"):
        train(
            tmp_path,
            data,
            test,
            max_steps=8,
            resume=True,
            learning=ClassifierLearning(10, 1e-2, augmentation=Augmentation(shift=0.1)),
        )
    with pytest.raises(InputError, match="other data"):
        train(tmp_path, labelled(30, seed=7), test, max_steps=8, resume=True)
    assert checkpoint.read(tmp_path / "tests" / "x" / CHECKPOINT)["progress"]["step"] == 4


@pytest.mark.slow
def test_a_dry_run_does_everything_and_keeps_nothing(tmp_path):
    run, _, history, printed = train(tmp_path, labelled(30), labelled(5), dry_run=True, name="")
    assert history[-1]["step"] == 2
    assert "test accuracy" in printed
    assert "dry run" in printed.splitlines()[-1]
    assert not run.folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_with_a_monitored_metric_the_report_is_of_the_best_epoch(tmp_path):
    test = labelled(17, seed=1, spread=120)
    run, network, history, _ = train(
        tmp_path, labelled(10, spread=120), test, epochs=12, monitor="val/loss", learning=ClassifierLearning(10, 3e-2)
    )
    losses = [row["val/loss"] for row in history]
    results = json.loads((run.folder / "results.json").read_text())
    assert min(losses) < losses[-1]  # it overfits
    assert results["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert results["accuracy"] == pytest.approx(counts(network, test)[0].trace() / 51, abs=1e-12)


# images that do not fit in memory


@pytest.fixture
def late(tmp_path, monkeypatch):
    """Return a folder of images that are decoded at each access."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "memory_for_images", lambda: 0)
    return write_folder(tmp_path / "pictures")


def test_only_images_decoded_late_are_loaded_by_workers(late):
    options = ImageOptions(str(late), workers=3)
    images = options.load()[0]
    assert isinstance(images.images, DecodedLate)
    assert options.loader(images, batch_size=4).workers == 3
    assert options.loader(labelled(4), batch_size=4).workers == 0
    assert ImageOptions(str(late), workers=0).loader(images, batch_size=4).workers == 0
    with pytest.raises(InputError, match=r"workers.* -1"):
        ImageOptions(str(late), workers=-1).loader(images, batch_size=4)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_images_decoded_late_equals_training_on_images_in_memory(late, tmp_path, workers):
    ends = []
    for number, resident in enumerate((False, True)):
        options = ImageOptions(str(late), workers=workers)
        if resident:
            found = [read_folder(late, split, resident=True) for split in ("train", "test")]
            data, test = (ImageDataset(f.images, f.labels, classes=f.classes) for f in found)
        else:
            data, test = options.load()
        assert isinstance(data.images, DecodedLate) is not resident
        learning = ClassifierLearning(12, 1e-3, augmentation=Augmentation(shift=0.2, horizontal_flip=0.5))
        run, network, history, _ = train(tmp_path / str(number), data, test, options, epochs=1, learning=learning)
        ends.append((network.state_dict(), history, (run.folder / "results.json").read_text()))
    assert all(torch.equal(tensor, ends[1][0][name]) for name, tensor in ends[0][0].items())
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [True, False])
def test_a_classifier_without_mistakes_has_a_report_too(late, tmp_path, is_late):
    write_folder(tmp_path / "easy", train=20, spread=1)
    options = ImageOptions(str(tmp_path / "easy"), workers=0)
    data, test = options.load()
    if not is_late:
        data, test = labelled(20, spread=1), labelled(5, spread=1, seed=1)
    run, *_ = train(tmp_path / "runs", data, test, options, epochs=8, learning=ClassifierLearning(10, 1e-2))
    assert json.loads((run.folder / "results.json").read_text())["accuracy"] == 1
    assert (run.folder / "plots" / "misclassified.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_mirror_images_are_evaluated_too_if_training_has_mirrored(tmp_path):
    test = labelled(17, seed=1, spread=120)
    run, network, _, printed = train(
        tmp_path,
        labelled(30, spread=120),
        test,
        epochs=1,
        learning=ClassifierLearning(10, 1e-2, augmentation=Augmentation(horizontal_flip=0.5)),
    )
    pixels, labels = test[:]
    with torch.no_grad():
        predictions = (network(pixels) + network(pixels.flip(3))).argmax(1)
    accuracy = (predictions == labels).double().mean().item()
    results = json.loads((run.folder / "results.json").read_text())
    assert results["accuracy with mirror images"] == pytest.approx(accuracy)
    assert f"{accuracy:.2%} with mirror images" in printed


def test_fallback_data_for_the_test_images_alone_is_refused(tmp_path):
    data, test = labelled(6), labelled(3, seed=1)
    test.fallback = True  # a part of the real training images, then
    with pytest.raises(InputError, match="training and test data"):
        Run("tests", {}, RunOptions(out=tmp_path), Trainer(), data, test)
    assert not list(tmp_path.iterdir())


def test_a_run_records_its_test_images_and_is_resumed_with_no_others(tmp_path):
    data, test = labelled(6), labelled(3, seed=1)
    run = Run("tests", {}, RunOptions(out=tmp_path, name="x"), Trainer(), data, test)
    run.folder.mkdir(parents=True)
    run.write_record()
    record = json.loads((run.folder / "config.json").read_text())["data"]
    assert (record["fingerprint"], record["held_out_fingerprint"]) == (data.fingerprint(), test.fingerprint())
    again = RunOptions(resume=run.folder)
    Run("tests", {}, again, Trainer(), data, test)
    with pytest.raises(InputError, match="other data"):
        Run("tests", {}, again, Trainer(), data, labelled(3, seed=2))


# test images that are in the training part, too


@pytest.mark.parametrize("memory", [0, 2**30], ids=["late", "resident"])
def test_repeated_images_are_counted_and_the_accuracy_is_given_without_them_too(tmp_path, monkeypatch, memory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "memory_for_images", lambda: memory)
    root = write_folder(tmp_path / "pictures", train=4, test=3)
    for number, (name, place) in enumerate([("ant", "ant/000"), ("ant", "bee/001"), ("cow", "cow/002")]):
        shutil.copy(root / "train" / name / f"{number:03}.png", root / "test" / f"{place}.png")
    options = ImageOptions(str(root), workers=0)
    data, test = options.load()
    assert test.origin.endswith("; 3 of 9 test images are in the training part, too")
    assert "training part" not in data.origin
    logits = torch.tensor([[9.0, 0, 0]]).repeat(9, 1)  # always an ant
    classifier = image_classifier(model(), data, options, "cpu")
    report = evaluate_classifier(classifier, test, logits=logits, train=data)
    assert report.results["accuracy"] == pytest.approx(3 / 9)
    assert report.results["without duplicates"] == {"images": 6, "accuracy": pytest.approx(2 / 6)}
    assert report.summary.endswith("\n3 of 9 test images are in the training part, too; without them: accuracy 33.33%")
    other = evaluate_classifier(classifier, labelled(3, seed=5), train=labelled(3, seed=6))
    assert "without duplicates" not in other.results


# the parts


@pytest.mark.parametrize(("centred", "low"), [(True, -1.0), (False, 0.0)])
def test_pixels_are_in_the_range_that_was_asked_for(centred, low):
    for images in ImageOptions("mnist_5k").load(centred=centred):
        pixels, _ = images[:]
        assert (pixels.min(), pixels.max()) == (low, 1)


def settings_of(data: ImageDataset):
    return ImageClassifier.Settings(ImageOptions().input(data), data.classes)


def test_all_images_are_predicted_in_order_without_dropout():
    test = labelled(5, seed=1)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(144, 3)).train()
    logits, names = ImageClassifier(network, settings_of(test), "cpu", batch_size=4).logits(test)
    with torch.no_grad():
        torch.testing.assert_close(logits, network[2](test[:][0].flatten(1)))
    assert names == [str(number) for number in range(15)]
    assert network.training  # as it was
    assert not logits.requires_grad
