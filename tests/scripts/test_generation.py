"""Measure a GAN, and search for test images among those that it makes, with digits that need no download."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import write_pair
from helpers.extractors import finished
from helpers.figures import grids_of
from helpers.scripts import assert_mistake, files
from PIL import Image

import torchdl
from torchdl.predict.pretrained_weights import read_index
from torchdl.recipes.gan_evaluation import evaluate_generator, load_feature_extractor
from torchdl.recipes.sample_monitor import SampleMonitor

pytestmark = pytest.mark.slow

GAN = "train_gan.py --dataset mnist_5k --max-steps 20 --name x --samples 4"
RESULTS = ["evaluation.json", "plots/classes.png", "plots/nearest.png"]


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train a GAN for some steps, and give it a feature extractor; return the folder."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(GAN, folder)
    assert done.code == 0, done.err
    finished(folder / "runs" / "lenet" / "judge-mnist_5k", dataset="mnist_5k", classes="0123456789")
    return folder


@pytest.fixture
def workplace(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    return tmp_path


def test_a_gan_is_measured_by_the_default_feature_extractor_and_the_results_are_saved(run, workplace):
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


def test_training_measures_samples_warns_and_keeps_the_best_average(run, workplace):
    options = (
        "--dataset mnist_5k --model conv --width 2 --spectral-norm True --average 0.9 --judged 60 --batch-size 500"
    )
    done = run(f"train_gan.py {options} --epochs 2 --samples 4 --name y", workplace)
    assert (done.code, done.err) == (0, "")
    path = workplace / "runs" / "gan" / "y"
    with open(path / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    shares = [[row[f"samples/share_class_{digit}"] for digit in range(10)] for row in rows]
    assert [sum(of_all) for of_all in shares] == [pytest.approx(1)] * 2
    assert "warning: " in done.out.lower()  # this feature extractor has random weights and does not find ten classes
    best = min(row["samples/frechet_distance"] for row in rows)
    assert re.search(rf"best samples/frechet_distance, {best:.5g}$", done.out, re.MULTILINE)
    # what is kept is what was measured
    kept = torchdl.load(path)
    config = json.loads((path / "config.json").read_text())["config"]
    extractor = load_feature_extractor(workplace / "runs" / "lenet" / "judge-mnist_5k", "mnist_5k")
    monitor = SampleMonitor(extractor, torchdl.load_images("mnist_5k", low=-1), config["evaluation_samples"])
    assert monitor.measure(kept.generate_samples(60))["frechet_distance"] == pytest.approx(best, rel=1e-3)
    assert kept.discriminator.spectral_norm


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--judge runs/gan/x", "runs/gan/x .*GAN.*LenetLike"),
        ("--dataset mnist_5k --width 4", "--width .*conv"),
        ("--dataset mnist_5k --average 1", r"average .*\[0, 1\)"),
        ("--dataset mnist_5k --judged 3", "6.* 3"),
        ("--dataset nothing_like_it", "nothing_like_it"),
    ],
)
def test_mistakes_of_a_measured_training_are_one_sentence(run, workplace, options, sentence):
    if "--dataset" not in options:
        options += " --dataset mnist_5k"
    assert_mistake(run, f"train_gan.py {options} --name y", workplace, sentence)


def test_another_feature_extractor_another_seed_and_fewer_kid_samples_are_used(run, workplace):
    shutil.move(workplace / "runs" / "lenet" / "judge-mnist_5k", workplace / "mine")
    done = run("evaluate_gan.py runs/gan/x --judge mine --samples 50 --paired 20 --seed 3", workplace)
    assert (done.code, done.err) == (0, "")
    found = json.loads((workplace / "runs" / "gan" / "x" / "evaluation.json").read_text())
    gan = torchdl.load(workplace / "runs" / "gan" / "x")
    extractor = load_feature_extractor(workplace / "mine", "mnist_5k")
    data = [torchdl.load_images("mnist_5k", split) for split in ("train", "test")]
    expected = evaluate_generator(gan, extractor, *data, 50, 3, torch.device("cpu"), 20).results
    one, other = (r["against held-out images"]["generated"] for r in (found, expected))
    assert one["of them in pairs"] == 20
    assert one["Fréchet distance"] == pytest.approx(other["Fréchet distance"], rel=1e-4)


def test_a_run_generates_the_samples_of_its_training_by_both_scripts(run, workplace):
    shutil.move(workplace / "runs" / "gan" / "x", workplace / "gan")  # away from its data
    picture = (workplace / "gan" / "samples" / "final.png").read_bytes()
    for command in ("predict.py gan --n 4 --out x.png", "generate.py gan --n 4 --out x.png"):
        done = run(command, workplace)
        assert (done.code, done.err, done.out) == (0, "", "x.png\n")
        assert (workplace / "x.png").read_bytes() == picture
    assert run("predict.py gan --n 5 --seed 2 --out x.npy", workplace).code == 0
    images = torchdl.load_predictor(workplace / "gan", "cpu").predict(5, 2)
    assert np.array_equal(np.load(workplace / "x.npy"), images.numpy())
    pictures = []
    for script in ("predict.py", "generate.py"):
        assert run(f"{script} gan --n 10 --seed 2 --interpolate spherical --out x.png", workplace).code == 0
        pictures.append((workplace / "x.png").read_bytes())
    assert pictures[0] == pictures[1]


def test_a_finished_run_of_an_older_version_gets_its_preprocessing_by_a_resume(run, workplace):
    path = workplace / "runs" / "gan" / "x"
    saved = (path / "preprocessing.json").read_bytes()
    (path / "preprocessing.json").unlink()
    assert run("generate.py runs/gan/x --n 4 --out x.png", workplace).code == 0  # which knows what a GAN makes
    assert_mistake(run, "predict.py runs/gan/x --n 4 --out x.png", workplace, "resume the finished run")
    done = run("train_gan.py --resume runs/gan/x", workplace)
    assert (done.code, done.err) == (0, "")
    assert (path / "preprocessing.json").read_bytes() == saved


@pytest.mark.parametrize(("count", "rows"), [(3, 2), (8, 2), (10, 4)])
def test_test_images_are_drawn_above_their_reconstructions(run, trained, tmp_path, count, rows):
    options = f"--invert --n {count} --steps 3 --restarts 2"
    done = run(f"generate.py {trained / 'runs' / 'gan' / 'x'} {options} --out x.png", tmp_path)
    assert (done.code, done.err) == (0, "")
    errors = [float(error) for error in re.findall(r"^image +\d+: (\d\.\d{4})$", done.out, re.MULTILINE)]
    assert len(errors) == count
    mean, greatest = re.search(r"\[0, 1\]: (\S+) on average, (\S+) at most\nx.png\n$", done.out).groups()
    assert float(mean) == pytest.approx(np.mean(errors), abs=1e-4)
    assert float(greatest) == max(errors)
    (picture,) = grids_of(tmp_path / "x.png", scale=2)
    assert picture.shape == (rows * 30 + 2, 8 * 30 + 2)  # 28 pixels and 2 between, twice as large
    cells = [[picture[t : t + 28, s : s + 28] for s in range(2, 242, 30)] for t in range(2, 30 * rows, 30)]
    for number, error in enumerate(errors):
        row, column = divmod(number, 8)
        above, below = (cells[2 * row + i][column].astype(float) / 255 for i in (0, 1))
        assert np.sqrt(((above - below) ** 2).mean()) == pytest.approx(error, abs=5e-3)
        assert (above == 0).mean() > 0.5  # a digit on black


MISTAKES = {
    "evaluate_gan.py runs/gan/x --judge nowhere": "nowhere.*`python scripts/train_lenet.py --dataset mnist_5k "
    "--seed 0 --name judge-mnist_5k`.*--feature-extractor",
    "evaluate_gan.py runs/gan/x --judge runs/gan/x": "runs/gan/x .*GAN.*LenetLike",
    "evaluate_gan.py runs/lenet/judge-mnist_5k": "judge-mnist_5k .*LenetLike.*GAN.*train_gan.py",
    "evaluate_gan.py runs/gan/none": "runs/gan/none .*architecture.json",
    "evaluate_gan.py runs/gan/x --samples 5": "--samples .*6.* 5",
    "evaluate_gan.py runs/gan/x --paired 5": "--kid-samples .*6.* 5",
    "evaluate_gan.py runs/gan/x --device abacus": "abacus",
    "evaluate_gan.py runs/gan/x --threads -1": "threads .*-1",
    "generate.py runs/gan/x --invert --interpolate linear": "--invert .*--interpolate",
    "generate.py runs/gan/x --invert --steps 0": "steps .* 0 ",
    "generate.py runs/gan/x --out c.npy": r"c\.npy must end in \.png",
    "generate.py runs/gan/x --out digits": r"digits must end in \.png",
    "generate.py runs/gan/x --invert --n 501": "500 .*--n",
    "predict.py runs/gan/x": "--out digits.png",
    "predict.py runs/gan/x --n 0 --out x.png": "--n must be 1 or more, not 0",
    "predict.py runs/gan/x x.png --out x.png": "takes only --n",
    "predict.py runs/gan/x --out x.csv": "must end in .png or .npy",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, workplace, command):
    assert_mistake(run, command, workplace, MISTAKES[command])


def test_a_feature_extractor_of_other_images_and_an_unfinished_one_are_refused(run, workplace):
    folder = workplace / "runs" / "lenet" / "judge-mnist_5k"
    (folder / "results.json").unlink()
    assert_mistake(run, "evaluate_gan.py runs/gan/x", workplace, "runs/lenet/judge-mnist_5k .*finished")
    record = json.loads((folder / "config.json").read_text())
    record["config"]["images"]["dataset"] = "fashion_mnist"
    (folder / "config.json").write_text(json.dumps(record))
    sentence = "judge-mnist_5k .*fashion_mnist.*mnist_5k"
    assert_mistake(run, "evaluate_gan.py runs/gan/x", workplace, sentence)


def test_digits_are_measured_by_the_classifier_that_comes_with_torchdl_if_none_was_trained(run, tmp_path):
    for split in ("train", "test"):
        data = torchdl.load_images("mnist_5k", split)
        write_pair(tmp_path / "data" / "MNIST" / "raw", data.images[:60, 0].numpy(), data.labels[:60].numpy(), split)
    options = "--data-root data --max-steps 1 --evaluation-samples 20 --samples 4 --name x"
    done = run(f"train_gan.py {options}", tmp_path)
    assert done.code == 0, done.err
    line = "feature extractor: lenet-mnist, which comes with torchdl, test accuracy 99.22 %\n"
    assert line in done.out
    config = json.loads((tmp_path / "runs" / "gan" / "x" / "config.json").read_text())["config"]
    assert config["feature_extractor"] == "pretrained:lenet-mnist"
    assert config["trainer"]["monitor"] == "samples/frechet_distance"
    (tmp_path / "runs" / "lenet" / "judge-mnist").mkdir(parents=True)  # unfinished: a resumed run goes on as it began
    done = run("train_gan.py --resume runs/gan/x --max-steps 2", tmp_path)
    assert (done.code, line in done.out) == (0, True), done.err
    done = run("evaluate_gan.py runs/gan/x --feature-extractor pretrained:lenet-mnist --samples 20", tmp_path)
    assert (done.code, line in done.out) == (0, True), done.err
    measured_by = json.loads((tmp_path / "runs" / "gan" / "x" / "evaluation.json").read_text())["judge"]
    assert measured_by["sha256"] == read_index()["lenet-mnist"]["files"]["weights.safetensors"]
    sentence = "no model 'x' comes with torchdl: choose among"
    assert_mistake(run, "evaluate_gan.py runs/gan/x --feature-extractor pretrained:x", tmp_path, sentence)
