"""The scripts that judge a GAN and look for images among what it makes, on digits that need no download."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.extractors import finished
from helpers.scripts import assert_mistake, files
from PIL import Image

import torchdl
from torchdl.recipes.gan_evaluation import evaluate_generator, load_judge
from torchdl.recipes.sample_monitor import SampleMonitor

GAN = "train_gan.py --dataset mnist_5k --max-steps 20 --name x --samples 4"
RESULTS = ["evaluation.json", "plots/classes.png", "plots/nearest.png"]


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train a GAN for some steps, and give it a judge; return the folder."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(GAN, folder)
    assert done.code == 0, done.err
    finished(folder / "runs" / "lenet" / "judge-mnist_5k", dataset="mnist_5k", classes="0123456789")
    return folder


@pytest.fixture
def workplace(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path


def test_a_gan_is_judged_by_the_usual_judge_and_what_is_found_is_kept(run, workplace):
    before = files(workplace)
    done = run("evaluate_gan.py runs/gan/x --samples 200", workplace)
    assert (done.code, done.err) == (0, "")
    added = files(workplace)
    path = workplace / "runs" / "gan" / "x"
    new = {name.removeprefix("runs/gan/x/") for name in added.keys() - before.keys()}
    assert {name for name in new if "tfevents" not in name} == set(RESULTS)
    assert len(new) == len(RESULTS) + 1
    assert all(added[name] == content for name, content in before.items())
    results = json.loads((path / "evaluation.json").read_text())
    assert results["judge"]["accuracy"] == 0.75
    assert results["images of each kind"] == 200
    kinds = results["against held-out images"]
    distances = {kind: row["Fréchet distance"] for kind, row in kinds.items()}
    assert list(distances) == ["generated", "training images", "noise"]
    assert distances["training images"] < distances["generated"]  # 20 steps are no training
    for kind, distance in distances.items():
        assert re.search(rf"^{kind} +{distance:.3f} ± ", done.out, re.MULTILINE)
    assert results["against held-out images"]["generated"]["rare classes"]
    for name in ("classes", "nearest"):
        assert np.asarray(Image.open(path / "plots" / f"{name}.png").convert("L")).std() > 10


def test_training_is_judged_rings_alarms_and_keeps_the_best_average(run, workplace):
    options = (
        "--dataset mnist_5k --model conv --width 2 --spectral-norm True --average 0.9 --judged 60 --batch-size 500"
    )
    done = run(f"train_gan.py {options} --epochs 2 --samples 4 --name y", workplace)
    assert (done.code, done.err) == (0, "")
    path = workplace / "runs" / "gan" / "y"
    with open(path / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    shares = [[row[f"val/share_class_{digit}"] for digit in range(10)] for row in rows]
    assert [sum(of_all) for of_all in shares] == [pytest.approx(1)] * 2
    assert "ALARM: " in done.out  # this judge, whose weights are random, does not find ten classes
    best = min(row["val/frechet_distance"] for row in rows)
    assert f"the best val/frechet_distance, {best:.5g}, is the model that is kept" in done.out
    # what is kept is what was measured
    kept = torchdl.load(path)
    config = json.loads((path / "config.json").read_text())["config"]
    judge = load_judge(workplace / "runs" / "lenet" / "judge-mnist_5k", "mnist_5k")
    inspector = SampleMonitor(judge, torchdl.load_images("mnist_5k", low=-1), config["judged"])
    assert inspector.measure(kept.generate_samples(60))["frechet_distance"] == pytest.approx(best, rel=1e-3)
    assert kept.discriminator.spectral_norm


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--judge runs/gan/x", "holds a GAN: a judge is a LenetLike"),
        ("--dataset mnist_5k --width 4", "--width is of --model conv alone"),
        ("--dataset mnist_5k --average 1", r"average must be in \[0, 1\)"),
        ("--dataset mnist_5k --judged 3", "6 at least, not 3"),
        ("--dataset nothing_like_it", "nothing_like_it"),
    ],
)
def test_mistakes_of_a_judged_training_are_one_sentence(run, workplace, options, sentence):
    if "--dataset" not in options:
        options += " --dataset mnist_5k"
    assert_mistake(run, f"train_gan.py {options} --name y", workplace, sentence)


def test_another_judge_another_seed_and_fewer_pairs_are_taken(run, workplace):
    shutil.move(workplace / "runs" / "lenet" / "judge-mnist_5k", workplace / "mine")
    done = run("evaluate_gan.py runs/gan/x --judge mine --samples 50 --paired 20 --seed 3", workplace)
    assert (done.code, done.err) == (0, "")
    found = json.loads((workplace / "runs" / "gan" / "x" / "evaluation.json").read_text())
    gan, judge = torchdl.load(workplace / "runs" / "gan" / "x"), load_judge(workplace / "mine", "mnist_5k")
    data = [torchdl.load_images("mnist_5k", split) for split in ("train", "test")]
    expected, _ = evaluate_generator(gan, judge, *data, 50, 3, torch.device("cpu"), 20)
    one, other = (r["against held-out images"]["generated"] for r in (found, expected))
    assert one["of them in pairs"] == 20
    assert one["Fréchet distance"] == pytest.approx(other["Fréchet distance"], rel=1e-4)


@pytest.mark.parametrize(("count", "rows"), [(3, 2), (8, 2), (10, 4)])
def test_held_out_images_are_drawn_above_what_was_found(run, trained, tmp_path, count, rows):
    options = f"--invert --n {count} --steps 3 --restarts 2"
    done = run(f"generate.py {trained / 'runs' / 'gan' / 'x'} {options} --out x.png", tmp_path)
    assert (done.code, done.err) == (0, "")
    errors = [float(error) for error in re.findall(r"^image +\d+: (\d\.\d{4})$", done.out, re.MULTILINE)]
    assert len(errors) == count
    mean, greatest = re.search(r"of 1: (\S+) on average, (\S+) at most\nx.png\n$", done.out).groups()
    assert float(mean) == pytest.approx(np.mean(errors), abs=1e-4)
    assert float(greatest) == max(errors)
    picture = np.asarray(Image.open(tmp_path / "x.png"))
    assert picture.shape == (2 * (rows * 30 + 2), 2 * (8 * 30 + 2))  # 28 pixels and 2 between, twice as large
    cells = [
        [picture[2 * t : 2 * t + 56 : 2, 2 * s : 2 * s + 56 : 2] for s in range(2, 242, 30)]
        for t in range(2, 30 * rows, 30)
    ]
    for number, error in enumerate(errors):
        row, column = divmod(number, 8)
        above, below = (cells[2 * row + i][column].astype(float) / 255 for i in (0, 1))
        assert np.sqrt(((above - below) ** 2).mean()) == pytest.approx(error, abs=5e-3)
        assert (above == 0).mean() > 0.5  # a digit on black


MISTAKES = {
    "evaluate_gan.py runs/gan/x --judge nowhere": "there is no judge nowhere: make it with `python scripts/"
    "train_lenet.py --dataset mnist_5k --seed 0 --name judge-mnist_5k`, or name one with --judge",
    "evaluate_gan.py runs/gan/x --judge runs/gan/x": "runs/gan/x holds a GAN: a judge is a LenetLike",
    "evaluate_gan.py runs/lenet/judge-mnist_5k": "holds a LenetLike, not a GAN: name a run of train_gan.py",
    "evaluate_gan.py runs/gan/none": "runs/gan/none holds no architecture.json",
    "evaluate_gan.py runs/gan/x --samples 5": "--samples must be at least 6, not 5",
    "evaluate_gan.py runs/gan/x --paired 5": "--paired must be at least 6, not 5",
    "evaluate_gan.py runs/gan/x --device abacus": "unknown device 'abacus'",
    "evaluate_gan.py runs/gan/x --threads -1": "threads must be 0",
    "generate.py runs/gan/x --invert --interpolate linear": "--invert and --interpolate are two pictures: choose one",
    "generate.py runs/gan/x --invert --steps 0": "steps and restarts must be 1 or more, not 0 and 8",
    "generate.py runs/gan/x --invert --n 501": "only 500 images are held out: --n must be as many at most",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, workplace, command):
    assert_mistake(run, command, workplace, MISTAKES[command])


def test_a_judge_of_other_images_and_one_that_is_not_finished_are_refused(run, workplace):
    folder = workplace / "runs" / "lenet" / "judge-mnist_5k"
    (folder / "results.json").unlink()
    assert_mistake(run, "evaluate_gan.py runs/gan/x", workplace, "runs/lenet/judge-mnist_5k is no finished run")
    record = json.loads((folder / "config.json").read_text())
    record["config"]["images"]["dataset"] = "fashion_mnist"
    (folder / "config.json").write_text(json.dumps(record))
    sentence = "judge-mnist_5k knows fashion_mnist, but the images are to resemble mnist_5k"
    assert_mistake(run, "evaluate_gan.py runs/gan/x", workplace, sentence)
