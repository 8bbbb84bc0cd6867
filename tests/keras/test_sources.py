from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.figures import grids_of
from helpers.image_folders import CLASSES, write_folder
from PIL import Image

import torchdl
from torchdl import Autoencoder, InputError, LenetLike
from torchdl.keras import fit_model_cifar10, fit_model_on, make_autoencoder_model, make_lenet_model

pytestmark = pytest.mark.usefixtures("quick")
TINY = {"width": 2, "depth": 2, "hidden": 8}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Write a folder of 32x32 RGB images of three classes; return its path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHDL_DATA", raising=False)
    return write_folder(tmp_path / "pictures", train=4, test=2, size=(3, 32, 32))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Fit a tiny classifier to the digits; return the folder, the model and the history."""
    folder = tmp_path_factory.mktemp("lenet") / "some" / "where"
    return folder, *fit_model_on("mnist_5k", epochs=1, batch_size=50, folder=folder, device="cpu", **TINY)


def rows_of(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def is_drawn(path: Path) -> bool:
    return np.asarray(Image.open(path).convert("L")).std() > 1


# LenetLike


@pytest.mark.parametrize(
    ("dataset", "shape", "classes"),
    [
        ("mnist", (1, 28, 28), 10),
        ("mnist_5k", (1, 28, 28), 10),
        ("fashion_mnist", (1, 28, 28), 10),
        ("cifar10", (3, 32, 32), 10),
        ("cifar100", (3, 32, 32), 100),
    ],
)
def test_a_data_sets_name_is_enough_for_a_model_of_its_images(monkeypatch, dataset, shape, classes):
    monkeypatch.setattr("torchdl.keras.sources.load_images", None)
    model = make_lenet_model(dataset)
    assert isinstance(model, LenetLike)
    assert (model.in_shape, model.num_classes) == (shape, classes)
    assert (model.width, model.depth, model.hidden) == (32, 2, 512)
    assert model(torch.rand(2, *shape)).shape == (2, classes)
    small = make_lenet_model(dataset, **TINY)
    assert (small.width, small.depth, small.hidden) == (2, 2, 8)


def test_a_folder_decides_the_model_for_its_images(pictures):
    model = make_lenet_model(str(pictures), **TINY)
    assert (model.in_shape, model.num_classes) == ((3, 32, 32), 3)


def test_an_unknown_data_set_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"nothing.* mnist"):
        make_lenet_model("nothing")
    with pytest.raises(InputError, match=r"nothing.* mnist"):
        fit_model_on("nothing", folder=tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_fitting_writes_the_documented_files(fitted):
    folder, _, history = fitted
    assert json.loads((folder / "architecture.json").read_text())["class"] == "LenetLike"
    assert (folder / "weights.safetensors").is_file()
    assert is_drawn(folder / "plots" / "history.png")
    assert is_drawn(folder / "plots" / "misclassified.png")
    assert list(folder.glob("events.out.tfevents.*"))
    assert rows_of(folder) == history
    config = json.loads((folder / "config.json").read_text())["config"]
    chosen = {"lr": 1e-3, "schedule": "constant", "batch_size": 50}
    assert config["images"]["dataset"] == "mnist_5k"
    assert chosen.items() <= config["learning"].items()
    assert (config["trainer"]["epochs"], config["trainer"]["seed"]) == (1, 0)
    assert config.items() >= TINY.items()
    assert sorted(path.name for path in folder.parent.parent.iterdir()) == ["some"]


@pytest.mark.slow
def test_the_history_has_loss_and_accuracy_of_training_and_validation(fitted):
    _, _, history = fitted
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 90)]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "charts/learning_rate"} <= history[0].keys()
    assert history[0]["val/accuracy"] > 0.3  # chance is 0.1


@pytest.mark.slow
def test_the_returned_model_is_the_saved_and_the_evaluated_one(fitted):
    folder, model, history = fitted
    assert isinstance(model, LenetLike)
    assert not model.training
    kept = torchdl.load(folder)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in model.state_dict().items())
    images, labels = torchdl.load_images("mnist_5k", "test")[:]
    with torch.no_grad():
        logits = kept(images)
    assert (logits.argmax(1) == labels).double().mean().item() == pytest.approx(history[-1]["val/accuracy"], abs=1e-12)
    assert F.cross_entropy(logits, labels).item() == pytest.approx(history[-1]["val/loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_seed_decides_the_weights(pictures, tmp_path):
    models = [fit_model_on(str(pictures), 1, 6, tmp_path / name, seed=1, device="cpu", **TINY)[0] for name in "ab"]
    assert torch.equal(models[0].classifier[-1].weight, models[1].classifier[-1].weight)
    other, _ = fit_model_on(str(pictures), 1, 6, tmp_path / "c", seed=2, device="cpu", **TINY)
    assert not torch.equal(models[0].classifier[-1].weight, other.classifier[-1].weight)


@pytest.mark.slow
def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_is(fitted, pictures, tmp_path):
    folder = fitted[0]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="where"):
        fit_model_on("mnist_5k", epochs=1, folder=folder, **TINY)
    with pytest.raises(InputError, match="pictures"):
        fit_model_cifar10(1, folder=pictures, dataset=str(pictures))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("folder", [".", "./", "new"])
def test_an_empty_folder_is_used_wherever_it_is(pictures, tmp_path, monkeypatch, folder):
    (tmp_path / "here" / "new").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "new" if folder != "new" else tmp_path / "here")
    fit_model_on(str(pictures), 1, 6, folder, device="cpu", **TINY)
    assert (tmp_path / "here" / "new" / "weights.safetensors").is_file()


@pytest.mark.usefixtures("undrawn")
def test_the_default_folder_is_that_of_the_scripts(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_model_on(pictures.name, epochs=1, batch_size=6, data_root=pictures.parent, device="cpu", **TINY)
    (folder,) = (tmp_path / "runs" / "lenet").iterdir()
    assert torchdl.load(folder).num_classes == 3
    results = json.loads((folder / "results.json").read_text())
    assert set(results["accuracy by class"]) == set(CLASSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs.* 0"),
        ({"batch_size": 0}, "batch_size.* 0"),
        ({"depth": 9}, "depth.* 9"),
        ({"width": 0}, "width"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing_behind(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fit_model_on("mnist_5k", folder=tmp_path / "x", **{**TINY, **options})
    assert not list(tmp_path.iterdir())


# the autoencoder


def test_the_autoencoder_is_for_cifar10():
    model = make_autoencoder_model()
    assert isinstance(model, Autoencoder)
    assert (model.in_shape, model.code_size) == ((3, 32, 32), 32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.slow
def test_fitting_the_autoencoder_writes_the_documented_files(pictures, tmp_path, capsys):
    folder = tmp_path / "new"
    model, history = fit_model_cifar10(
        2, 8, visualization_size=2, verbose=True, folder=folder, dataset=str(pictures), device="cpu"
    )
    printed = capsys.readouterr().out
    assert "(1, 3, 32, 32)" in printed  # the shapes through the network
    assert "(1, 32) " in printed
    assert isinstance(model, Autoencoder)
    assert not model.training
    kept = torchdl.load(folder)
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert is_drawn(folder / "plots" / "history.png")
    grids = grids_of(folder / "plots" / "reconstructions.png", scale=2)
    assert [grid.shape for grid in grids] == [(70, 70, 3)] * 2  # 2 by 2 images
    assert rows_of(folder) == history
    assert [(row["epoch"], row["step"]) for row in history] == [(1, 2), (2, 4)]
    assert {"train/loss", "val/loss"} <= history[0].keys()
    images, _ = torchdl.load_images(pictures, "test")[:]
    with torch.no_grad():
        assert (model(images) - images).square().mean().item() == pytest.approx(history[-1]["val/loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_nothing_is_printed_unless_asked_for(pictures, tmp_path, capsys):
    fit_model_on(str(pictures), 1, 6, tmp_path / "one", device="cpu", **TINY)
    fit_model_cifar10(1, 8, folder=tmp_path / "other", dataset=str(pictures), device="cpu")
    assert capsys.readouterr().out == ""


def test_images_of_another_size_are_an_input_error_that_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError, match=r"\(3, 32, 32\).*\(1, 28, 28\)"):
        fit_model_cifar10(1, folder=tmp_path / "x", dataset="mnist_5k", device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"visualization_size": 0}, "visualization_size.* 0"),
        ({"batch_size": 0}, "batch_size.* 0"),
        ({"n_epochs": 0}, "epochs.* 0"),
    ],
)
def test_bad_settings_of_the_autoencoder_are_refused(pictures, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fit_model_cifar10(folder=tmp_path / "x", dataset=str(pictures), **options)
    assert not (tmp_path / "x").exists()
