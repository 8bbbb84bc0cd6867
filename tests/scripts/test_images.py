from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.figures import grids_of, is_drawn
from helpers.image_folders import CLASSES, write_folder
from helpers.scripts import assert_mistake, files, same_weights, stop
from PIL import Image

import torchdl

pytestmark = pytest.mark.slow

LENET = "train_lenet.py --width 2 --hidden 8 --batch-size 12"
CODER = "train_autoencoder.py --width 4 --depth 2 --code-size 24 --batch-size 12 --visualization-size 2"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Write a folder of 16x16 grey images of three classes, 36 to train and 12 to test; return its path."""
    return write_folder(tmp_path_factory.mktemp("data") / "pictures", train=12, test=4, size=(1, 16, 16))


@pytest.fixture(scope="module")
def trained(run, pictures, tmp_path_factory):
    """Train a classifier and an autoencoder for four steps of six; return the folder and what each said."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(pictures, folder / "pictures", copy_function=shutil.copy2)
    done = [
        run(f"{command} --dataset pictures --max-steps 4 --name x", folder)
        for command in (LENET, f"{CODER} --schedule constant --noise 0.1 --summary")
    ]
    assert [d.code for d in done] == [0, 0], done[0].err + done[1].err
    return folder, *done


@pytest.fixture
def workplace(trained, tmp_path):
    """Return a folder with both runs, their images and a file."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    (tmp_path / "file").write_text("x")
    return tmp_path


# classifiers


def test_training_a_classifier_leaves_a_run_that_can_be_read_and_looked_at(trained):
    folder, done, _ = trained
    path = folder / "runs" / "lenet" / "x"
    assert done.err == ""
    assert "run: runs/lenet/x" in done.out
    config = json.loads((path / "config.json").read_text())["config"]
    assert (config["width"], config["images"]["dataset"], config["learning"]["batch_size"]) == (2, "pictures", 12)
    with open(path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["3", "4"]
    results = json.loads((path / "results.json").read_text())
    assert results["accuracy"] == pytest.approx(float(rows[-1]["val/accuracy"]))
    assert set(results["accuracy by class"]) == set(CLASSES)
    model = torchdl.load(path)
    assert (model.in_shape, model.num_classes, model.width, model.hidden) == ((1, 16, 16), 3, 2, 8)
    for name in ("history", "examples", "confusion", "confusion_normalized", "misclassified"):
        assert is_drawn(path / "plots" / f"{name}.png")


@pytest.mark.parametrize(
    ("model", "name", "learning"),
    [
        ("mlp", "MLP", {"batch_size": 32, "schedule": "constant"}),
        ("cnn", "StridedCNN", {"batch_size": 32, "schedule": "constant"}),
        ("cnn_wide", "StridedCNN", {"batch_size": 32, "schedule": "constant"}),
        ("lstm", "RowReader", {"batch_size": 32, "schedule": "constant"}),
        ("vgg --width 2 --flip 0.5", "VGGLike", {"schedule": "one_cycle", "horizontal_flip": 0.5, "shift": 0.1}),
    ],
)
def test_every_network_is_trained_with_its_own_defaults(run, pictures, tmp_path, model, name, learning):
    done = run(f"train_cnn.py --model {model} --dataset {pictures} --max-steps 2 --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "runs" / "cnn" / "x"
    recorded = json.loads((path / "config.json").read_text())["config"]["learning"]
    recorded |= recorded["augmentation"]
    assert {key: recorded[key] for key in learning} == learning
    assert recorded["shift"] == learning.get("shift")
    kept = torchdl.load(path)
    assert type(kept).__name__ == name
    assert getattr(kept, "width", 2) == 2
    if model == "cnn_wide":
        assert (kept.hidden, kept.dropout) == (1024, (0.5, 0.2))
    assert json.loads((path / "results.json").read_text())["parameters"] == sum(p.numel() for p in kept.parameters())


def test_the_course_networks_learn_the_patterns(run, pictures, tmp_path):
    done = run(f"train_cnn.py --model cnn --batch-size 12 --dataset {pictures} --epochs 6 --name x", tmp_path)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "runs" / "cnn" / "x" / "results.json").read_text())["accuracy"] > 0.9


@pytest.mark.parametrize(
    "command",
    [
        f"{LENET} --schedule one_cycle --shift 0.1 --flip 0.5 --weight-decay 0.1 --label-smoothing 0.1 --centred True",
        f"{CODER} --rotation-range 20 --zoom-range 0.8 1.1 --fill-mode constant --brightness-range 0.5 1.5",
        f"{LENET} --depth 0 --schedule cosine --precision bf16",
        "train_cnn.py --model vgg --width 2 --batch-size 12",
        CODER,
        "train_autoencoder.py --dataset mnist_5k --width 2 --code-size 2 --noise 0.3",
    ],
)
def test_a_dry_run_leaves_nothing_behind(run, pictures, tmp_path, command):
    dataset = "" if "--dataset" in command else f"--dataset {pictures}"
    done = run(f"{command} {dataset} --dry-run", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("dry run: everything ran, and nothing was kept\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("folder", "script"), [("lenet", "train_lenet.py"), ("autoencoder", "train_autoencoder.py")])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run, workplace, folder, script):
    command = LENET if folder == "lenet" else f"{CODER} --schedule constant --noise 0.1"
    whole = run(f"{command} --dataset pictures --max-steps 7 --name whole", workplace)
    path = workplace / "runs" / folder
    (path / "x" / "architecture.json").write_text("{")  # damaged: it is written anew
    resumed = run(f"{script} --resume runs/{folder}/x --max-steps 7", workplace)
    assert (whole.code, whole.err) == (resumed.code, resumed.err) == (0, "")
    assert same_weights(path / "whole", path / "x")
    for name in ("metrics.csv", "results.json"):
        assert (path / "whole" / name).read_text().splitlines()[-1] == (path / "x" / name).read_text().splitlines()[-1]
    assert json.loads((path / "x" / "config.json").read_text())["config"]["trainer"]["max_steps"] == 7


def test_a_classifier_that_sigterm_stopped_goes_on_along_its_schedule(run, pictures, tmp_path):
    options = f"--dataset {pictures} --width 2 --hidden 8 --batch-size 12 --schedule one_cycle --epochs 30"
    options += " --rotation-range 20 --zoom-range 0.8 1.2 --width-shift-range 0.1 --horizontal-flip 0.5"
    stopped = run(f"train_lenet.py {options} --name cut", tmp_path, stop(signal.SIGTERM, "^epoch 1 "))
    assert stopped.code == 128 + signal.SIGTERM
    again = re.fullmatch(r"train_lenet\.py: stopped after step (\d+); go on with: python (.*)\n", stopped.err)
    assert 3 <= int(again[1]) < 90
    longer = run(f"{again[2]} --epochs 31", tmp_path)
    assert longer.code == 2
    assert re.fullmatch(r"train_lenet\.py: runs/lenet/cut .*schedule.*\n", longer.err)
    resumed = run(again[2], tmp_path)
    whole = run(f"train_lenet.py {options} --name whole", tmp_path)
    assert (resumed.code, resumed.err) == (whole.code, whole.err) == (0, "")
    assert same_weights(tmp_path / "runs" / "lenet" / "cut", tmp_path / "runs" / "lenet" / "whole")
    results = [(tmp_path / "runs" / "lenet" / name / "results.json").read_text() for name in ("cut", "whole")]
    assert results[0] == results[1]


LEARNING = {
    "--dataset nothing": "'nothing'.*mnist, .*train/<class>/",
    "--dataset file": "'file'",
    "--dataset runs": "runs/train.*<class>",
    "--dataset mnist_5k --image-size 20": "--image-size",
    "--image-size 0": "image.size .* 0",
    "--batch-size 0": "batch-size .* 0",
    "--lr 0": "learning rate .* 0.0",
    "--lr -1": "learning rate .* -1.0",
    "--lr nan": "learning rate .* nan",
    "--weight-decay -1": "weight-decay .* -1.0",
    "--label-smoothing 1": r"label-smoothing .*\[0, 1\).* 1.0",
    "--shift 1": r"shift .*\[0, 1\).* 1.0",
    "--zoom-range 2": "--zoom-range .* 2.0",
    "--flip 2": r"flip .*\[0, 1\].* 2.0",
    "--monitor val/nothing": "val/nothing",
    "--device abacus": "abacus",
    "--threads -1": "threads .*-1",
}
MISTAKES = {
    **{f"train_lenet.py {options}": sentence for options, sentence in LEARNING.items()},
    "train_lenet.py --depth 9": "depth .*4.*16x16.* 9",
    "train_lenet.py --width 0": "width",
    "train_lenet.py --name x": "runs/lenet/x .*--name.*--resume",
    "train_lenet.py --resume runs/lenet/none": "no folder runs/lenet/none:",
    "train_lenet.py --resume runs/autoencoder/x": "runs/autoencoder/x ",
    "train_lenet.py --resume runs/lenet/x --batch-size 6": "runs/lenet/x .*batch size 6 .* 12",
    "train_lenet.py --resume runs/lenet/x --flip 0.5": "runs/lenet/x .*flip.* 50 .* 0",
    "train_lenet.py --resume runs/lenet/x --width 3": "runs/lenet/x .*model",
    "train_lenet.py --resume runs/lenet/x --schedule cosine --max-steps 9": "runs/lenet/x .*schedule",
    "train_lenet.py --resume runs/lenet/x --dataset mnist_5k": "runs/lenet/x .*data",
    "train_cnn.py --model cnn --width 8": "--width .*vgg.*airbench",
    "train_cnn.py --model airbench --dropout 0.1": "--dropout .*vgg",
    "train_cnn.py --model vgg --width 0": "width",
    "train_cnn.py --model cnn --image-size 14": "StridedCNN.*15.*14x14",
    "train_cnn.py --dataset nothing": "'nothing'",
    "train_cnn.py --resume runs/lenet/x": "runs/lenet/x ",
    "train_autoencoder.py --dataset nothing": "'nothing'",
    "train_autoencoder.py --depth 9": "depth .*4.*16x16.* 9",
    "train_autoencoder.py --depth 0": "depth .*4.*16x16.* 0",
    "train_autoencoder.py --code-size 0": "code-size",
    "train_autoencoder.py --lr 0": "learning rate .* 0.0",
    "train_autoencoder.py --noise -1": "noise .* -1.0",
    "train_autoencoder.py --name x": "runs/autoencoder/x .*--resume",
    "train_autoencoder.py --resume runs/autoencoder/x --schedule one_cycle": "runs/autoencoder/x .*schedule",
    "train_autoencoder.py --resume runs/autoencoder/x --width 5": "runs/autoencoder/x .*model",
    "train_autoencoder.py --resume runs/lenet/x": "runs/lenet/x ",
    "generate.py runs/lenet/x": "runs/lenet/x",
    "show_activations.py --steps -1": "--steps .*-1",
    "show_activations.py --steps 3 --dataset nothing": "'nothing'",
    "show_activations.py --threads -1": "threads .*-1",
    "show_convolution.py --size 0": "--size .*31.* 0",
    "show_convolution.py --picture none.png": "none.png",
    "show_convolution.py --picture file": "file ",
    "show_convolution.py --size 999": "--size .*31.* 999",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, workplace, command):
    given = "--dataset" in command or "--resume" in command or not command.startswith("train")
    assert_mistake(run, command if given else f"{command} --dataset pictures", workplace, MISTAKES[command])


def test_a_mistake_in_an_empty_folder_leaves_it_empty(run, pictures, tmp_path):
    for script in ("train_lenet.py", "train_cnn.py", "train_autoencoder.py"):
        assert_mistake(run, f"{script} --dataset {pictures} --lr 0", tmp_path, "learning rate")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train_lenet.py --schedule falling", "falling"),
        ("train_cnn.py --schedule falling", "falling"),
        ("train_cnn.py --model resnet", "resnet"),
        ("train_lenet.py --epochs 0", "epochs"),
        ("train_autoencoder.py --schedule falling", "falling"),
        ("train_autoencoder.py --batch-size 0", "batch_size"),
        ("train_autoencoder.py --visualization-size 0", "visualization_size"),
        ("train_autoencoder.py --visualization-size 33", "33"),
        ("show_convolution.py --size nine", "nine"),
    ],
)
def test_what_cannot_be_parsed_is_explained_and_nothing_is_left(run, tmp_path, command, said):
    done = run(command, tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert said in " ".join(done.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"class": "LenetLike", "arguments": {"width": 2}}'])
def test_a_run_with_a_damaged_architecture_cannot_be_loaded(workplace, text):
    (workplace / "runs" / "lenet" / "x" / "architecture.json").write_text(text)
    with pytest.raises(torchdl.InputError, match="runs/lenet/x"):
        torchdl.load(workplace / "runs" / "lenet" / "x")
    with pytest.raises(torchdl.InputError, match=r"pictures.*architecture\.json"):
        torchdl.load(workplace / "pictures")


# folders with something wrong


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("script", ["train_lenet.py", "train_cnn.py", "train_autoencoder.py"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_image_that_cannot_be_read_is_named(run, workplace, script, split):
    corrupt(workplace / "pictures" / split / "bee" / "001.png")
    where = f"pictures/{split}/bee/001.png .*--skip-corrupt"
    assert_mistake(run, f"{script} --dataset pictures --dry-run", workplace, where)


@pytest.mark.parametrize("script", [LENET, CODER])
def test_an_image_that_cannot_be_read_is_left_out_if_asked_for(run, workplace, script):
    corrupt(workplace / "pictures" / "train" / "bee" / "001.png")
    for _ in range(2):  # the second time what was decoded is known already
        done = run(f"{script} --dataset pictures --skip-corrupt --dry-run", workplace)
        assert (done.code, done.err) == (0, "")
        assert re.search(r"^data: 35 images .* 1 unreadable .*\(pictures/train/bee/001.png\)$", done.out, re.MULTILINE)
    assert_mistake(run, f"{script} --dataset pictures --dry-run", workplace, "001.png ")


@pytest.mark.parametrize("script", [LENET, CODER])
def test_images_of_several_sizes_need_one_to_be_chosen(run, workplace, script):
    Image.new("L", (20, 17), 99).save(workplace / "pictures" / "train" / "cow" / "002.png")
    sentence = "pictures/train/cow/002.png .*17x20.* 16x16.*--image-size"
    assert_mistake(run, f"{script} --dataset pictures --dry-run", workplace, sentence)
    done = run(f"{script} --dataset pictures --image-size 12 --dry-run", workplace)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("script", [LENET, CODER])
def test_a_class_without_images_or_of_one_part_alone_is_named(run, workplace, script):
    (workplace / "pictures" / "train" / "yak").mkdir()
    assert_mistake(run, f"{script} --dataset pictures", workplace, "pictures.*yak")
    (workplace / "pictures" / "test" / "yak").mkdir()
    assert_mistake(run, f"{script} --dataset pictures", workplace, "pictures/train/yak")


# the autoencoder


def test_training_an_autoencoder_leaves_a_run_that_can_be_read_and_looked_at(trained):
    folder, _, done = trained
    path = folder / "runs" / "autoencoder" / "x"
    assert done.err == ""
    assert "(1, 1, 16, 16)" in done.out  # what --summary prints
    assert "(1, 24)" in done.out
    results = json.loads((path / "results.json").read_text())
    assert (results["images"], results["numbers a code"], results["numbers an image"]) == (12, 24, 256)
    assert (results["noise"], results["mse of noisy images"]) == (0.1, pytest.approx(0.01))
    assert re.search(rf"^autoencoder +{results['mse']:.5f} ", done.out, re.MULTILINE)
    model = torchdl.load(path)
    assert (model.in_shape, model.width, model.depth, model.code_size) == ((1, 16, 16), 4, 2, 24)
    images, _ = torchdl.load_images(folder / "pictures", "test")[:]
    with torch.no_grad():
        assert (model(images) - images).square().mean().item() == pytest.approx(results["mse"], rel=1e-4)
    for name in ("history", "reconstructions", "retrieval", "codes"):
        assert is_drawn(path / "plots" / f"{name}.png")


def test_pictures_are_reconstructed_by_a_copied_run(trained, run, tmp_path):
    path = shutil.copytree(trained[0] / "runs" / "autoencoder" / "x", tmp_path / "run")
    shutil.copytree(trained[0] / "pictures" / "test", tmp_path / "test")
    done = run("predict.py run test --out x.csv", tmp_path)
    assert (done.code, done.err) == (0, "")
    with (tmp_path / "x.csv").open(newline="") as file:
        errors = [float(row["mean squared error"]) for row in csv.DictReader(file)]
    assert np.mean(errors) == json.loads((path / "results.json").read_text())["mse"]
    assert run("predict.py run test --out x.npy", tmp_path).code == 0
    assert run("predict.py run test --out x.png", tmp_path).code == 0
    answers = torchdl.load_predictor(path, "cpu").predict(tmp_path / "test")
    images = np.load(tmp_path / "x.npy")
    assert np.array_equal(images, answers.images)
    (picture,) = grids_of(tmp_path / "x.png", scale=2)
    assert picture.shape == (4 * 18 + 2, 8 * 18 + 2)  # twelve pictures in two rows, each above its reconstruction
    assert np.array_equal(picture[2:18, 20:36], answers.originals[1, 0])
    assert np.array_equal(picture[20:36, 20:36], images[1, 0])
    assert np.array_equal(picture[56:72, 2:18], images[8, 0])
    assert_mistake(run, "predict.py run", tmp_path, "name pictures")


def test_printing_the_shapes_changes_nothing_of_the_training(run, trained, tmp_path):
    command = f"{CODER} --schedule constant --noise 0.1 --dataset {trained[0] / 'pictures'} --max-steps 4 --name x"
    done = run(command, tmp_path)
    assert done.code == 0, done.err
    assert "[12, 1, 16, 16]" not in done.out
    assert same_weights(tmp_path / "runs" / "autoencoder" / "x", trained[0] / "runs" / "autoencoder" / "x")


@pytest.mark.parametrize("options", ["--max-steps 1", "--max-steps 3", "--depth 4 --code-size 1 --max-steps 2"])
def test_short_trainings_and_the_smallest_codes_have_a_report(run, pictures, tmp_path, options):
    done = run(f"{CODER} --dataset {pictures} --name x {options}", tmp_path)
    assert done.code == 0, done.err
    assert "Traceback" not in done.err
    assert (tmp_path / "runs" / "autoencoder" / "x" / "results.json").is_file()


# what only shows


def test_activations_are_drawn_and_what_dies_is_measured(run, pictures, tmp_path):
    done = run(f"show_activations.py --steps 3 --dataset {pictures} --out shown", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "shown").iterdir()} == {"activations.png", "dying.png", "dying.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["shown"]
    for name in ("activations", "dying"):
        assert is_drawn(tmp_path / "shown" / f"{name}.png")
    found = json.loads((tmp_path / "shown" / "dying.json").read_text())
    assert found.pop("learning rates") == [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert set(found) == {"relu", "leaky_relu"}
    for name, measured in found.items():
        for key in ("silent", "accuracy"):
            assert len(measured[key]) == 5
            assert all(0 <= share <= 1 for share in measured[key])
            printed = re.search(rf"^{name} +(\S.*%) +{key}$", done.out, re.MULTILINE)[1].split()
            assert printed == [f"{share:.1%}" for share in measured[key]]
    assert found["relu"]["silent"][-1] > found["relu"]["silent"][0]  # the largest steps kill


def test_activations_can_be_drawn_alone(run, tmp_path):
    done = run("show_activations.py --steps 0", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert list(files(tmp_path)) == ["runs/activations/activations.png"]
    assert "runs/activations/activations.png" in done.out


@pytest.mark.parametrize("options", ["", "--picture picture.png --size 1", "--picture picture.png --size 4"])
def test_convolutions_agree_and_are_drawn(run, tmp_path, options):
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    done = run(f"show_convolution.py --out shown {options}", tmp_path)
    assert (done.code, done.err) == (0, "")
    differences = re.findall(r"^(\S.*\S) +differs by (\S+)$", done.out, re.MULTILINE)
    assert len(differences) == 10  # three ways in three modes, and the loops
    assert all(float(largest) < 1e-12 for _, largest in differences)
    for mode, shape in (("valid", (10, 7)), ("same", (12, 10)), ("full", (14, 13))):
        assert re.search(rf"^{mode} .*give {re.escape(str(shape))}$", done.out, re.MULTILINE)
    assert set(files(tmp_path)) == {"picture.png", "shown/convolution.json", "shown/convolution.png"}
    written = json.loads((tmp_path / "shown" / "convolution.json").read_text())
    assert written["largest"] == max(written["differences"].values())
    assert is_drawn(tmp_path / "shown" / "convolution.png")
