"""Ask trained runs, on what users have; each run is copied away from its data first."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.scripts import assert_mistake
from PIL import Image

import torchdl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(run, tmp_path_factory):
    """Train a classifier of digits; return a folder with its copy ``digits`` and some pictures."""
    folder = tmp_path_factory.mktemp("classifier")
    command = "train_lenet.py --dataset mnist_5k --max-steps 60 --width 8 --hidden 64 --name x"
    done = run(command, folder)
    assert done.code == 0, done.err
    shutil.move(folder / "runs" / "lenet" / "x", folder / "digits")
    test = torchdl.load_images("mnist_5k", "test")
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(test.images[number, 0].numpy()).save(folder / "pictures" / f"{number}.png")
    return folder


def test_pictures_are_classified_as_the_training_script_did(classifier, run):
    done = run("predict.py digits pictures --out answers.csv --top 2", classifier)
    assert (done.code, done.err) == (0, "")
    with (classifier / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [f"pictures/{number}.png" for number in range(3)]
    assert float(rows[0]["confidence"]) == float(rows[0][f"probability of {rows[0]['class']}"])
    # the training's own evaluation, by the same predictor
    test = torchdl.load_images("mnist_5k", "test")
    answers = torchdl.load_predictor(classifier / "digits", "cpu").predict(test)
    accuracy = float((answers.probabilities.argmax(1) == test.labels).double().mean())
    assert accuracy == json.loads((classifier / "digits" / "results.json").read_text())["accuracy"]
    assert answers.labels[:3] == [row["class"] for row in rows]
    done = run("predict.py digits pictures/0.png pictures/1.png --out answers.npy", classifier)
    assert np.load(classifier / "answers.npy").shape == (2, 10)
    done = run("predict.py digits pictures/2.png --out answers.json", classifier)
    assert json.loads((classifier / "answers.json").read_text())[0]["class"] == answers.labels[2]
    done = run("predict.py digits pictures/2.png", classifier)
    assert done.out.split()[-2:-1] == [answers.labels[2]]


MISTAKES = {
    "digits": "name pictures",
    "digits missing.png": "missing.png",
    "digits text.png": "text.png",
    "digits empty": "no images in empty",
    "digits --top 0 pictures": "--top must be 1 or more",
    "digits pictures --out answers.xlsx": "answers.xlsx must end in",
    "digits pictures --out answers.png": "no picture of these answers",
    "nowhere pictures": "no folder nowhere",
    "pictures pictures": "not the folder of a run",
    "old pictures": "resume the finished run",
    "begun pictures": "no model yet",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(classifier, run, command):
    (classifier / "text.png").write_text("no picture")
    (classifier / "empty").mkdir(exist_ok=True)
    for name, missing in (("old", "preprocessing.json"), ("begun", "weights.safetensors")):
        shutil.copytree(classifier / "digits", classifier / name, dirs_exist_ok=True)
        (classifier / name / missing).unlink()
    assert_mistake(run, f"predict.py {command}", classifier, MISTAKES[command])
