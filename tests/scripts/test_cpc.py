from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from helpers import write_pair
from helpers.scripts import SCRIPTS, assert_mistake, files
from PIL import Image

import torchdl
from torchdl import artifacts
from torchdl.plots import plot_sequences

SMALL = "--dataset mnist_5k --image-size 28 --no-color --code-size 8 --context-size 16"
SHORT = f"train_cpc.py {SMALL} --epochs 1 --max-steps 20"


def script(name: str) -> types.ModuleType:
    """Import a script as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(SCRIPTS))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train for twenty steps of 29 an epoch; return the folder that it was started in and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(f"{SHORT} --name x", folder)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture
def workplace(trained, tmp_path):
    """Return a folder with a run of CPC, what looks like a run of a GAN, and a file."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    gan = tmp_path / "runs" / "gan" / "y"
    torchdl.save(torchdl.simple_gan(z_dim=4), gan)
    (gan / "config.json").write_text(json.dumps({"config": {"z_dim": 4}}))
    (tmp_path / "file").touch()
    return tmp_path


# training


def test_training_leaves_a_run_that_can_be_read_and_looked_at(trained):
    folder, done = trained
    path = folder / "runs" / "cpc" / "x"
    assert done.err == ""
    assert "python scripts/probe_cpc.py runs/cpc/x" in done.out
    record = json.loads((path / "config.json").read_text())
    config = record["config"]
    assert (config["positive_samples"], config["every_term"], config["code_size"]) == (16, True, 8)  # what was used
    with open(path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "20"
    assert {"train/loss", "val/loss"} <= set(row)
    model = torchdl.load(path)
    assert isinstance(model, torchdl.CPC)
    assert (model.encoder.code_size, model.context.context_size, model.every_term) == (8, 16, True)
    assert Image.open(path / "plots" / "history.png").size[0] > 100
    assert [p.name for p in (path / "samples").iterdir()] == ["epoch-0001.png"]


def test_the_first_sequences_are_drawn(trained):
    digits = torchdl.load_digits("train", 28, color=False, name="mnist_5k")
    first = torchdl.SortedNumbers(digits)[:8]
    expected = plot_sequences(first.context, first.future, first.label, first.digits, low=-1)
    shown = np.asarray(Image.open(trained[0] / "runs" / "cpc" / "x" / "plots" / "sequences.png"))
    assert np.array_equal(shown, expected.permute(1, 2, 0).numpy())


def test_the_projector_has_the_test_digits_codes_by_the_model_that_is_kept(trained):
    path = trained[0] / "runs" / "cpc" / "x"
    named = dict(re.findall(r'(\w+_path): "(.*?)"', (path / "projector_config.pbtxt").read_text()))
    digits = torchdl.load_digits("test", 28, color=False, name="mnist_5k")
    labels = (path / named["metadata_path"]).read_text().split()
    assert [int(label) for label in labels] == digits.labels.tolist()
    codes = torch.tensor(np.loadtxt(path / named["tensor_path"]), dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(codes, torchdl.load(path).encoder(digits[:][0]), rtol=1e-4, atol=1e-4)
    sprite = np.asarray(Image.open(path / named["image_path"]).convert("L"))
    side = 23  # the least square that holds 500
    assert sprite.shape == (28 * side, 28 * side)
    assert abs(sprite[28:56, :28].astype(int) - digits.images[side, 0].numpy()).max() <= 1


def test_a_resumed_run_ends_as_one_that_was_not_stopped(run, workplace):
    shown = (workplace / "runs" / "cpc" / "x" / "plots" / "sequences.png").read_bytes()
    whole = run(f"train_cpc.py {SMALL} --epochs 1 --max-steps 35 --name whole", workplace)
    resumed = run("train_cpc.py --resume runs/cpc/x --max-steps 35", workplace)
    assert (whole.code, whole.err) == (resumed.code, resumed.err) == (0, "")
    states = [artifacts.load(workplace / "runs" / "cpc" / name).state_dict() for name in ("whole", "x")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    metrics = [(workplace / "runs" / "cpc" / name / "metrics.csv").read_text() for name in ("whole", "x")]
    assert metrics[0].splitlines()[-1] == metrics[1].splitlines()[-1]
    assert (workplace / "runs" / "cpc" / "x" / "plots" / "sequences.png").read_bytes() == shown
    assert "Embedding dir exists" not in resumed.out
    assert (workplace / "runs" / "cpc" / "x" / "projector_config.pbtxt").read_text().count("tensor_name") == 1
    config = json.loads((workplace / "runs" / "cpc" / "x" / "config.json").read_text())["config"]
    assert (config["positive_samples"], config["code_size"], config["trainer"]["max_steps"]) == (16, 8, 35)


@pytest.mark.parametrize(
    "options",
    [
        f"{SMALL} --head paired --data same",
        "--dataset mnist_5k --image-size 48 --batch-size 8 --no-rescale --background picture.png --cell lstm",
    ],
)
def test_a_dry_run_leaves_nothing_behind(run, tmp_path, options):
    Image.new("RGB", (60, 50), "red").save(tmp_path / "picture.png")
    done = run(f"train_cpc.py {options} --dry-run", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("dry run: everything ran, and nothing was kept\n")
    assert "probe_cpc.py" not in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


MISTAKES = {
    "--image-size 9": "image_size 9 is too small for 3 convolutions: 15 is the least",
    "--image-size 5": "image_size must be from 8 to 1024 pixels, not 5",
    "--positive-samples 99": "positive_samples must be from 0 to the batch's 32 sequences, not 99",
    "--positive-samples 0": "InfoNCE finds real futures: set --positive-samples to 1 or more",
    "--positive-samples -1 --head paired": "positive_samples must be from 0",
    "--batch-size 0": "batch_size must be at least 1, not 0",
    "--batch-size 188": "750 images make no batch of 188 sequences of 4 terms",
    "--batch-size 8 --positive-samples 9": "from 0 to the batch's 8 sequences, not 9",
    "--terms 0": "terms must be at least 1, not 0",
    "--predict-terms 0": "predict_terms must be at least 1, not 0",
    "--code-size 0": "code_size must be positive",
    "--color --background none.png": "none.png is no picture that can be read",
    "--color --background file": "file is no picture that can be read",
    "--color --image-size 430": "scikit-learn's picture has 640 x 427 pixels: name one of at least 430 x 430",
    "--temperature 0": "temperature",
    "--lr nan": "the learning rate must be a positive number, not nan",
    "--monitor val/nothing": "no metric 'val/nothing' to monitor",
    "--name x": "runs/cpc/x exists already",
    "--resume runs/cpc/none": "runs/cpc/none is no run of a script",
    "--resume runs/gan/y": "runs/gan/y is not a run of this script",
    "--resume runs/cpc/x --batch-size 16": "cannot go on with",
    "--resume runs/cpc/x --data same": "cannot go on with stride 0 instead of 1: give it what it was started with",
    "--resume runs/cpc/x --positive-samples 8": "cannot go on with positive_samples 8 instead of 16",
    "--resume runs/cpc/x --no-rescale": "cannot go on with rescale 0 instead of 1",
    "--resume runs/cpc/x --image-size 32": "was trained on other data",
    "--resume runs/cpc/x --code-size 16": "holds the checkpoint of another model",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, workplace, options):
    before = files(workplace)
    rest = "" if "--resume" in options else "--dataset mnist_5k "
    rest += "" if "--color" in options or "--resume" in options else "--no-color "
    rest += "" if "--image-size" in options or "--resume" in options else "--image-size 28"
    done = run(f"train_cpc.py {rest} {options}", workplace)
    assert done.code == 2, done.err
    assert re.fullmatch(rf"train_cpc\.py: .*{MISTAKES[options]}.*\n", done.err)
    assert files(workplace) == before


# probing


def test_probing_leaves_numbers_and_pictures_and_the_run_as_it_was(run, workplace):
    before = files(workplace)
    done = run("probe_cpc.py runs/cpc/x --epochs 1 --no-baselines", workplace)
    assert (done.code, done.err) == (0, "")
    after = files(workplace)
    names = {"probe.json", "confusion.png", "codes.png", "label_efficiency.png"}
    assert {name: content for name, content in after.items() if name in before} == before
    assert after.keys() - before.keys() == {f"runs/cpc/x/probe/{name}" for name in names}
    folder = workplace / "runs" / "cpc" / "x" / "probe"
    for name in names - {"probe.json"}:
        assert np.asarray(Image.open(folder / name).convert("L")).std() > 1
    report = json.loads((folder / "probe.json").read_text())
    assert (report["seed"], report["epochs"], list(report["accuracy"])) == (0, 1, ["cpc"])
    found = report["accuracy"]["cpc"]
    assert len(found["1 label a class, cluster"]) == 50
    assert all(0 <= value <= 1 for values in found.values() for value in values)
    assert found["linear"][0] > 0.3  # eight numbers of an untrained network say that much
    printed = dict(re.findall(r"^  (\S.*?) +([\d.]+) %", done.out, re.MULTILINE))
    assert {name: float(value) for name, value in printed.items()} == {
        name: pytest.approx(100 * np.mean(values), abs=0.006) for name, values in found.items()
    }


def test_probing_with_baselines_knows_supervised_from_random(run, workplace):
    done = run("probe_cpc.py runs/cpc/x --epochs 2 --seed 3", workplace)
    assert (done.code, done.err) == (0, "")
    accuracy = json.loads((workplace / "runs" / "cpc" / "x" / "probe" / "probe.json").read_text())["accuracy"]
    assert list(accuracy) == ["cpc", "random", "supervised"]
    assert accuracy["supervised"]["linear"][0] > accuracy["random"]["linear"][0] + 0.1
    assert accuracy["supervised"]["linear"][0] > 0.75
    assert accuracy["random"] != accuracy["cpc"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("nowhere", "nowhere is no run.*No such file"),
        ("file", "file is no run"),
        ("runs/gan/y", "runs/gan/y holds a GAN, not a CPC of digits: name a run of train_cpc.py"),
        ("runs/cpc/x --epochs 0", "--epochs and --views must be 1 or more"),
        ("runs/cpc/x --views 0", "--epochs and --views must be 1 or more"),
        ("runs/cpc/x --device abacus", "unknown device 'abacus'"),
        ("runs/cpc/x --threads -1", "threads must be 0"),
        ("runs/cpc/x --data-root file", "the data root file is not a folder"),
    ],
)
def test_probing_explains_a_mistake_in_one_sentence(run, workplace, options, sentence):
    assert_mistake(run, f"probe_cpc.py {options}", workplace, sentence)


def test_a_run_without_its_weights_cannot_be_probed(run, workplace):
    (workplace / "runs" / "cpc" / "x" / "weights.safetensors").unlink()
    done = run("probe_cpc.py runs/cpc/x", workplace)
    assert done.code == 2
    assert re.fullmatch(r"probe_cpc\.py: runs/cpc/x holds no weights.safetensors.*\n", done.err)


# the benchmark's other side


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = np.zeros((60, 28, 28))
    images[:, 4:24, 10:18] = 255
    for split in ("train", "test"):
        write_pair(folder / "MNIST" / "raw", images, np.arange(60) % 10, split)
    module = script("benchmark")
    return module.Original(module.Config("cpc", data_root=folder))


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
    benchmark = script("benchmark")
    monkeypatch.setenv("KERAS_BACKEND", benchmark.keras_backend())
    pytest.importorskip("keras")
    ours = torchdl.image_cpc()
    count = sum(p.numel() for p in ours.parameters())
    count += sum(b.numel() for name, b in ours.named_buffers() if "num_batches" not in name)  # Keras counts statistics
    assert benchmark.keras_model().count_params() == count
