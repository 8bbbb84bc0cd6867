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
from helpers.image_folders import CLASSES, labelled, write_folder
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

import torchdl
from torchdl import ImageDataset, InputError, LenetLike, Trainer
from torchdl.cli.run import Run, RunOptions
from torchdl.data import folder as folders
from torchdl.data.folder import DecodedLate, read_folder
from torchdl.files import CHECKPOINT
from torchdl.recipes.image_classification import DEFAULTS, ClassifierLearning, ImageOptions, fit_classifier, predict
from torchdl.training import checkpoint, classification

pytestmark = pytest.mark.usefixtures("quick")
PICTURES = ("confusion", "confusion_normalized", "misclassified")


def model(seed: int = 0, shape: tuple[int, int, int] = (1, 12, 12)) -> LenetLike:
    torch.manual_seed(seed)
    return LenetLike(shape, 3, width=4, depth=1, hidden=8)


def train(out: Path, data: ImageDataset, test: ImageDataset, images: ImageOptions | None = None, **options):
    """Train in ``out/tests/x``, or go on there; return the run, the model, the history and what was said."""
    learning = options.pop("learning", ClassifierLearning(batch_size=10, lr=1e-2))
    resume = out / "tests" / "x" if options.pop("resume", False) else None
    name = options.pop("name", "x")
    run_options = RunOptions(out=out, name=name, resume=resume, threads=1, keep_memory=False)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run = Run("tests", {"learning": asdict(learning)}, run_options, Trainer(device="cpu", **options), data)
        network = model(shape=data.image_shape)
        history = fit_classifier(run, network, data, test, images or ImageOptions(), learning)
        run.close()
    return run, network, history, said.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train for two epochs on images that are hard to tell apart, so that some answers are wrong."""
    data, test = labelled(30, spread=120), labelled(17, seed=1, spread=120)
    return (*train(tmp_path_factory.mktemp("runs"), data, test, epochs=2), test)


def counts(network: nn.Module, test: ImageDataset) -> tuple[np.ndarray, Tensor, Tensor]:
    """Count right and wrong answers one by one, true classes as rows; return the logits and labels, too."""
    with torch.no_grad():
        logits, labels = torch.cat([network.eval()(test[i][0][None]) for i in range(len(test))]), test.labels
    matrix = np.zeros((3, 3), int)
    for row, label in zip(logits, labels, strict=True):
        matrix[label, max(range(3), key=lambda k: row[k])] += 1
    return matrix, logits, labels


# settings


def test_what_is_asked_for_goes_before_a_networks_own_settings():
    own = ClassifierLearning(batch_size=32, lr=4e-3, schedule="one_cycle", flip=0.5)
    asked = ClassifierLearning(batch_size=7, weight_decay=0.0, flip=0.0)
    assert asked.over(own) == ClassifierLearning(
        7, 4e-3, "one_cycle", weight_decay=0.0, flip=0.0
    )  # a zero is an answer, too
    assert ClassifierLearning().over(own) == own
    assert ClassifierLearning().over(DEFAULTS) == DEFAULTS
    assert None not in asdict(own.over(DEFAULTS)).values()
    assert own.batch_size == 32


@pytest.mark.parametrize(
    ("learning", "sentence"),
    [
        (ClassifierLearning(batch_size=0), "batch_size must be at least 1, not 0"),
        (ClassifierLearning(lr=0.0), "the learning rate must be a positive number, not 0.0"),
        (ClassifierLearning(lr=math.nan), "the learning rate must be a positive number, not nan"),
        (ClassifierLearning(weight_decay=-1.0), "weight_decay must be 0 or more, not -1.0"),
        (ClassifierLearning(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\), not 1.0"),
        (ClassifierLearning(label_smoothing=-0.1), r"label_smoothing must be in \[0, 1\), not -0.1"),
        (ClassifierLearning(shift=1.0), r"shift must be a share of the sides in \[0, 1\), not 1.0"),
        (ClassifierLearning(flip=2.0), r"flip must be a probability in \[0, 1\], not 2.0"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing_behind(tmp_path, learning, sentence):
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, labelled(30), labelled(5), learning=learning)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# the report


def test_results_are_what_one_image_after_the_other_gives(trained):
    run, network, _, said, test = trained
    results = json.loads((run.folder / "results.json").read_text())
    matrix, logits, labels = counts(network, test)
    assert 0 < matrix.trace() < len(labels)  # or there would be nothing to see
    assert results["accuracy"] == pytest.approx(matrix.trace() / len(labels), abs=1e-12)
    assert results["loss"] == pytest.approx(F.cross_entropy(logits.double(), labels).item(), rel=1e-5)
    assert results["images"] == 51
    assert results["accuracy by class"] == {name: matrix[i, i] / matrix[i].sum() for i, name in enumerate(CLASSES)}
    assert results["parameters"] == sum(p.numel() for p in network.parameters())
    assert f"{results['accuracy']:.2%} of 51 test images right" in said
    assert str(run.folder / "plots") in said


def test_the_history_ends_with_what_the_results_say(trained):
    run, _, history, _, _ = trained
    results = json.loads((run.folder / "results.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[-1]["val/accuracy"] == pytest.approx(results["accuracy"], abs=1e-12)
    assert history[-1]["val/loss"] == pytest.approx(results["loss"], rel=1e-5)
    assert {"train/loss", "train/accuracy", "charts/learning_rate"} <= history[0].keys()
    assert (run.folder / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.usefixtures("undrawn")
def test_a_class_of_which_there_are_no_test_images_is_none_right(tmp_path):
    some = labelled(10, seed=1)
    without = ImageDataset(some.images[some.labels != 1], some.labels[some.labels != 1], classes=CLASSES)
    run, *_ = train(tmp_path, labelled(20), without, epochs=1)
    results = json.loads((run.folder / "results.json").read_text())
    assert results["accuracy by class"]["bee"] == 0
    assert results["images"] == 20


@pytest.mark.usefixtures("undrawn")
def test_learning_is_better_than_guessing_and_label_smoothing_is_in_the_loss_alone(tmp_path):
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


def test_the_model_is_left_in_evaluation_mode_and_as_it_is_kept(trained):
    run, network, *_ = trained
    assert not network.training
    kept = torchdl.load(run.folder)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", [*PICTURES, "examples", "history"])
def test_the_pictures_are_there_and_show_something(trained, name):
    with Image.open(trained[0].folder / "plots" / f"{name}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 50
        assert np.asarray(image.convert("L")).std() > 1


@pytest.mark.usefixtures("undrawn")
def test_the_mistakes_shown_are_the_surest_ones(tmp_path, monkeypatch):
    drawn, whole = {}, classification.plots.plot_answers
    monkeypatch.setattr(
        classification.plots,
        "plot_answers",
        lambda *args, **kwargs: (drawn.update(a=args, **kwargs), whole(*args, **kwargs)),
    )
    monkeypatch.setattr(classification, "SHOWN", 5)
    test = labelled(17, seed=1, spread=120, low=-1.0)
    _, network, _, _ = train(tmp_path, labelled(30, spread=120, low=-1.0), test, epochs=1)
    matrix, logits, labels = counts(network, test)
    shares, answers = logits.softmax(1), logits.argmax(1)
    wrong = [i for i in range(51) if answers[i] != labels[i]]
    assert len(wrong) > 5
    surest = sorted(wrong, key=lambda i: -float(shares[i].max()))[:5]
    pixels, true, taken, path = drawn["a"]
    torch.testing.assert_close(pixels, test.images[surest] / 255.0, atol=1e-6, rtol=0)
    assert list(true) == [CLASSES[labels[i]] for i in surest]
    assert list(taken) == [CLASSES[answers[i]] for i in surest]
    assert path.name == "misclassified.png"
    assert f"{len(wrong)} of 51 images misclassified" in drawn["title"]
    assert matrix.sum() - matrix.trace() == len(wrong)


@pytest.mark.usefixtures("undrawn")
def test_the_confusion_matrix_has_true_classes_as_rows(tmp_path, monkeypatch):
    drawn = []
    whole = classification.plots.plot_confusion
    monkeypatch.setattr(
        classification.plots,
        "plot_confusion",
        lambda m, names, path, normalize=False: (drawn.append((m, names, normalize)), whole(m, names, path, normalize)),
    )
    test = labelled(17, seed=1, spread=120)
    unequal = ImageDataset(test.images[5:], test.labels[5:], classes=CLASSES)
    _, network, _, _ = train(tmp_path, labelled(30, spread=120), unequal, epochs=1)
    expected = counts(network, unequal)[0]
    assert (expected != expected.T).any()
    assert [normalize for *_, normalize in drawn] == [False, True]
    for matrix, names, _ in drawn:
        assert np.array_equal(matrix, expected)
        assert tuple(names) == CLASSES


def test_tensorboard_has_the_pictures_and_the_first_images(trained):
    folder = trained[0].folder
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {*PICTURES, "examples"}
    for name in (*PICTURES, "examples"):
        (shown,) = events.Images(name)
        kept = np.asarray(Image.open(folder / "plots" / f"{name}.png").convert("RGB"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string)).convert("RGB")), kept)
    assert {"val/loss", "val/accuracy"} <= set(events.Tags()["scalars"])


@pytest.mark.usefixtures("undrawn")
def test_the_examples_are_the_first_training_images_as_they_are_given(tmp_path):
    data = labelled(30)
    run, *_ = train(tmp_path, data, labelled(5), epochs=1, learning=ClassifierLearning(10, shift=0.3, flip=0.5))
    shown = np.asarray(Image.open(run.folder / "plots" / "examples.png"))
    assert shown.shape == (8 * 14 + 2, 8 * 14 + 2)
    tiles = np.stack([shown[2 + 14 * r : 14 + 14 * r, 2 + 14 * c : 14 + 14 * c] for r in range(8) for c in range(8)])
    originals = {image.numpy().tobytes() for image in data.images}
    assert sum(tile.tobytes() in originals for tile in tiles) < 16  # most are moved
    assert len({tile.tobytes() for tile in tiles}) == 64


# resuming and dry runs


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("cut", [4, 9])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path, cut):
    data, test = labelled(30), labelled(8, seed=1)
    learning = ClassifierLearning(10, 1e-2, shift=0.2, flip=0.3)
    whole = train(tmp_path / "whole", data, test, learning=learning, max_steps=18)
    train(tmp_path / "cut", data, test, learning=learning, max_steps=cut)
    (tmp_path / "cut" / "tests" / "x" / "architecture.json").write_text("{")  # is written anew
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
def test_a_run_cannot_go_on_with_other_shifts_or_images(tmp_path):
    data, test = labelled(30), labelled(5, seed=1)
    train(tmp_path, data, test, max_steps=4)
    with pytest.raises(InputError, match="cannot go on with largest shift in % 10 instead of 0"):
        train(tmp_path, data, test, max_steps=8, resume=True, learning=ClassifierLearning(10, 1e-2, shift=0.1))
    with pytest.raises(InputError, match="was trained on other data"):
        train(tmp_path, labelled(30, seed=7), test, max_steps=8, resume=True)
    assert checkpoint.read(tmp_path / "tests" / "x" / CHECKPOINT)["progress"]["step"] == 4


def test_a_dry_run_does_everything_and_keeps_nothing(tmp_path):
    run, _, history, said = train(tmp_path, labelled(30), labelled(5), dry_run=True, name="")
    assert history[-1]["step"] == 2
    assert "test images right" in said
    assert said.endswith("dry run: everything ran, and nothing was kept\n")
    assert not run.folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("undrawn")
def test_with_a_monitored_metric_the_report_is_of_the_best_epoch(tmp_path):
    test = labelled(17, seed=1, spread=120)
    run, network, history, _ = train(
        tmp_path,
        labelled(10, spread=120),
        test,
        epochs=12,
        monitor="val/loss",
        learning=ClassifierLearning(10, 3e-2),
    )
    losses = [row["val/loss"] for row in history]
    results = json.loads((run.folder / "results.json").read_text())
    assert min(losses) < losses[-1]  # it overfits
    assert results["loss"] == pytest.approx(min(losses), rel=1e-5)
    assert results["accuracy"] == pytest.approx(counts(network, test)[0].trace() / 51, abs=1e-12)


# images that do not fit in memory


@pytest.fixture
def late(tmp_path, monkeypatch):
    """Write a folder whose images are decoded whenever they are asked for; return its path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "memory_for_images", lambda: 0)
    return write_folder(tmp_path / "pictures")


def test_images_decoded_late_are_taken_by_workers_and_others_are_not(late):
    options = ImageOptions(str(late), workers=3)
    images = options.load()[0]
    assert isinstance(images.images, DecodedLate)
    assert options.loader(images, batch_size=4).workers == 3
    assert options.loader(labelled(4), batch_size=4).workers == 0
    assert ImageOptions(str(late), workers=0).loader(images, batch_size=4).workers == 0
    with pytest.raises(InputError, match="workers must be 0 or more, not -1"):
        ImageOptions(str(late), workers=-1).loader(images, batch_size=4)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("workers", [0, 1])
def test_training_on_images_decoded_late_equals_training_on_those_held_in_memory(late, tmp_path, workers):
    ends = []
    for number, resident in enumerate((False, True)):
        options = ImageOptions(str(late), workers=workers)
        if resident:
            found = [read_folder(late, split, resident=True) for split in ("train", "test")]
            data, test = (ImageDataset(f.images, f.labels, classes=f.classes) for f in found)
        else:
            data, test = options.load()
        assert isinstance(data.images, DecodedLate) is not resident
        learning = ClassifierLearning(12, 1e-3, shift=0.2, flip=0.5)
        run, network, history, _ = train(tmp_path / str(number), data, test, options, epochs=1, learning=learning)
        ends.append((network.state_dict(), history, (run.folder / "results.json").read_text()))
    assert all(torch.equal(tensor, ends[1][0][name]) for name, tensor in ends[0][0].items())
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.parametrize("is_late", [True, False])
def test_a_classifier_that_makes_no_mistakes_has_a_report_too(late, tmp_path, is_late):
    write_folder(tmp_path / "easy", train=20, spread=1)
    options = ImageOptions(str(tmp_path / "easy"), workers=0)
    data, test = options.load()
    if not is_late:
        data, test = labelled(20, spread=1), labelled(5, spread=1, seed=1)
    run, *_ = train(tmp_path / "runs", data, test, options, epochs=8, learning=ClassifierLearning(10, 1e-2))
    assert json.loads((run.folder / "results.json").read_text())["accuracy"] == 1
    assert (run.folder / "plots" / "misclassified.png").is_file()


@pytest.mark.usefixtures("undrawn")
def test_mirror_images_are_asked_too_where_training_has_mirrored(tmp_path):
    test = labelled(17, seed=1, spread=120)
    run, network, _, said = train(
        tmp_path, labelled(30, spread=120), test, epochs=1, learning=ClassifierLearning(10, 1e-2, flip=0.5)
    )
    pixels, labels = test[:]
    with torch.no_grad():
        answers = (network(pixels) + network(pixels.flip(3))).argmax(1)
    share = (answers == labels).double().mean().item()
    results = json.loads((run.folder / "results.json").read_text())
    assert results["accuracy with mirror images"] == pytest.approx(share)
    assert f"({share:.2%} with their mirror images beside them)" in said


def test_stand_ins_for_the_test_images_alone_are_refused(tmp_path):
    data, test = labelled(6), labelled(3, seed=1)
    test.fallback = True  # a part of the real training images, then
    with pytest.raises(InputError, match=r"do not belong together .*: fetch both"):
        Run("tests", {}, RunOptions(out=tmp_path), Trainer(), data, test)
    assert not list(tmp_path.iterdir())


def test_a_run_names_the_images_that_it_is_measured_on_and_goes_on_with_no_others(tmp_path):
    data, test = labelled(6), labelled(3, seed=1)
    run = Run("tests", {}, RunOptions(out=tmp_path, name="x"), Trainer(), data, test)
    run.folder.mkdir(parents=True)
    run.write_record()
    record = json.loads((run.folder / "config.json").read_text())["data"]
    assert (record["fingerprint"], record["held_out_fingerprint"]) == (data.fingerprint(), test.fingerprint())
    again = RunOptions(resume=run.folder)
    Run("tests", {}, again, Trainer(), data, test)
    with pytest.raises(InputError, match="trained on other data"):
        Run("tests", {}, again, Trainer(), data, labelled(3, seed=2))


# the parts


@pytest.mark.parametrize(("centred", "low"), [(True, -1.0), (False, 0.0)])
def test_images_are_given_from_low_to_one(centred, low):
    for images in ImageOptions("mnist_5k").load(centred=centred):
        pixels, _ = images[:]
        assert (pixels.min(), pixels.max()) == (low, 1)


def test_predictions_are_of_every_image_in_order_without_dropout():
    test = labelled(5, seed=1)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(144, 3)).train()
    logits, labels = predict(network, ImageOptions().loader(test, batch_size=4), torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(logits, network[2](test[:][0].flatten(1)))
    assert torch.equal(labels, test.labels)
    assert not network.training
    assert not logits.requires_grad
