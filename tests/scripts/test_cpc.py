from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake, files
from PIL import Image

import torchdl
from torchdl import artifacts
from torchdl.plots import plot_sequences

pytestmark = pytest.mark.slow

SMALL = "--dataset mnist_5k --image-size 28 --no-color --code-size 8 --context-size 16"
SHORT = f"train_cpc.py {SMALL} --epochs 1 --max-steps 20"


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train for 20 of the 29 steps of an epoch; return the folder and what was printed."""
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
    imported = tmp_path / "runs" / "imported"
    shutil.copytree(tmp_path / "runs" / "cpc" / "x", imported, ignore=lambda *_: {"checkpoint.pt", "metrics.csv"})
    record = json.loads((imported / "config.json").read_text())
    (imported / "config.json").write_text(json.dumps(record | {"data": {"origin": "encoder.h5"}}))
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


def test_the_first_sequences_are_drawn(trained, tmp_path):
    digits = torchdl.load_digits("train", 28, color=False, name="mnist_5k")
    first = torchdl.SortedNumbers(digits)[:8]
    expected = tmp_path / "expected.png"
    plot_sequences(first.context, first.future, first.label, first.digits, -1, expected)
    path = trained[0] / "runs" / "cpc" / "x" / "plots" / "sequences.png"
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(expected)))
    assert is_drawn(path)


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


def test_raw_digits_are_embedded_as_those_of_the_projector(trained, run, tmp_path):
    path = shutil.copytree(trained[0] / "runs" / "cpc" / "x", tmp_path / "run")
    (tensors,) = path.rglob("tensors.tsv")
    codes = torch.tensor(np.loadtxt(tensors), dtype=torch.float32)
    raw = torchdl.load_images("mnist_5k", "test").images
    torch.testing.assert_close(torchdl.load_predictor(path, "cpu").embed(raw), codes, rtol=1e-4, atol=1e-4)
    for number in (0, 1, 7):
        Image.fromarray(raw[number, 0].numpy()).save(tmp_path / f"{number}.png")
    done = run("predict.py run 0.png 1.png 7.png --out x.npy", tmp_path)
    assert (done.code, done.err) == (0, "")
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), codes[[0, 1, 7]], rtol=1e-4, atol=1e-4)
    done = run("predict.py run 0.png 1.png 7.png --top 2", tmp_path)
    assert done.out.splitlines()[1].split()[0] == "0.png"
    assert {"1.png", "7.png"} < set(done.out.splitlines()[1].split())
    assert_mistake(run, "predict.py run 0.png", tmp_path, "there is one")
    assert_mistake(run, "predict.py run", tmp_path, "compares pictures: name some")
    assert_mistake(run, "predict.py run 0.png 1.png --n 3", tmp_path, "--n is for runs of the kind image generator")


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


def test_as_given_is_the_original_to_the_letter_but_for_what_is_chosen(run, tmp_path):
    small = "--dataset mnist_5k --image-size 28 --code-size 8 --context-size 16 --max-steps 2"
    done = run(f"train_cpc.py {small} --as-given --gate sigmoid --no-batch-statistics --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "runs" / "cpc" / "x"
    model = torchdl.load(path)
    assert (model.separate_passes, model.batch_statistics, model.every_term) == (True, False, False)
    assert (model.context.gate, model.context.reset_after, model.encoder.center_images) == ("sigmoid", False, False)
    config = json.loads((path / "config.json").read_text())["config"]
    assert (config["head"], config["background"], config["gate"]) == ("paired", "flower", "sigmoid")
    with open(path / "metrics.csv", newline="") as file:
        assert float(next(csv.DictReader(file))["val/steps_at_chance"]) == 2


def test_as_given_takes_a_cell_without_gates(run, tmp_path):
    small = "--dataset mnist_5k --image-size 28 --code-size 8 --context-size 16"
    done = run(f"train_cpc.py {small} --as-given --cell rnn --dry-run", tmp_path)
    assert (done.code, done.err) == (0, "")


MISTAKES = {
    "--image-size 9": "image-size.*15.* 9",
    "--image-size 5": "image-size .*8.*1024.* 5",
    "--positive-samples 99": "positive-samples.*32.*99",
    "--positive-samples 0": "InfoNCE.*--positive-samples",
    "--positive-samples -1 --head paired": "positive-samples.* 0",
    "--batch-size 0": "batch-size .*0",
    "--batch-size 1": "--batch-size .*2",
    "--positive-samples 0 --head paired": "paired.*--positive-samples .*1 to 31.* 0",
    "--positive-samples 32 --head paired": "paired.*--positive-samples .*1 to 31.* 32",
    "--no-color --background flower": "--background .*--no-color",
    "--batch-size 188": "750 .*188 .*4",
    "--batch-size 8 --positive-samples 9": "positive-samples .*8.* 9",
    "--terms 0": "terms .* 0",
    "--predict-terms 0": "predict-terms .* 0",
    "--code-size 0": "code-size",
    "--color --background none.png": "no picture none.png.*flower",
    "--color --background file": "file ",
    "--color --image-size 430": "640 x 427.* 430 x 430",
    "--temperature 0": "temperature",
    "--lr nan": "learning rate.* nan",
    "--monitor val/nothing": "val/nothing",
    "--name x": "runs/cpc/x .*--resume runs/cpc/x",
    "--resume runs/cpc/none": "no folder runs/cpc/none:",
    "--resume runs/gan/y": "runs/gan/y ",
    "--resume runs/cpc/x --batch-size 16": "runs/cpc/x .* 16 .* 32",
    "--resume runs/cpc/x --data same": "runs/cpc/x .*stride 0 .* 1",
    "--resume runs/cpc/x --positive-samples 8": "runs/cpc/x .*positive-samples 8 .* 16",
    "--resume runs/cpc/x --no-rescale": "runs/cpc/x .*rescale 0 .* 1",
    "--resume runs/cpc/x --image-size 32": "runs/cpc/x .*data",
    "--resume runs/cpc/x --code-size 16": "runs/cpc/x .*model",
    "--resume runs/cpc/x --separate-passes": "runs/cpc/x .*model.*--separate-passes",
    "--resume runs/cpc/x --gate hard_sigmoid": "runs/cpc/x .*model",
    "--resume runs/cpc/x --as-given": "resumed.*--as-given",
    "--resume runs/imported": "runs/imported .*no training",
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
        ("nowhere", "there is no folder nowhere: "),
        ("file", "no folder file:"),
        ("runs/gan/y", "runs/gan/y .*GAN.*CPC.*train_cpc.py"),
        ("runs/cpc/x --epochs 0", "--epochs .*1"),
        ("runs/cpc/x --views 0", "--views .*1"),
        ("runs/cpc/x --device abacus", "abacus"),
        ("runs/cpc/x --threads -1", "threads .*-1"),
        ("runs/cpc/x --data-root file", "file "),
    ],
)
def test_probing_explains_a_mistake_in_one_sentence(run, workplace, options, sentence):
    assert_mistake(run, f"probe_cpc.py {options}", workplace, sentence)


def test_a_run_without_its_weights_cannot_be_probed(run, workplace):
    (workplace / "runs" / "cpc" / "x" / "weights.safetensors").unlink()
    done = run("probe_cpc.py runs/cpc/x", workplace)
    assert done.code == 2
    assert re.fullmatch(r"probe_cpc\.py: .*runs/cpc/x.*weights.safetensors.*\n", done.err)
