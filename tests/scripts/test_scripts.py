from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import write_pair
from helpers.figures import grids_of
from helpers.scripts import NAMES, SCRIPTS, files, stop
from PIL import Image

import torchdl
from torchdl.files import CHECKPOINT, PREVIOUS
from torchdl.training import checkpoint

SHORT = "train_gan.py --dataset mnist_5k --epochs 1"


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train for an epoch; return the folder and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(f"{SHORT} --name x --samples 9 --checkpoint-every 100", folder)
    assert done.code == 0, done.err
    return folder, done


# help


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_help_describes_every_option(run, tmp_path, name):
    done = run(f"{name} --help", tmp_path)
    assert done.code == 0, done.err
    lines = [line.strip("│ ") for line in done.out.splitlines()]
    entries: list[list[str]] = []
    for line in lines:
        if re.match(r"(--|-h|\{|[A-Z]+  )", line):
            entries.append([line])
        elif entries and line and not line.startswith(("╭", "╰", "─")):
            entries[-1].append(line)
        else:
            entries.append([])
    options = [" ".join(entry) for entry in entries if entry]
    assert len(options) >= 4
    for option in options:
        # names and values, then a sentence before the default
        described = re.sub(r"\((default: .*|required|optional)\)", "", option)
        described = re.sub(
            r"^(-\S+,? ?|\{[^}]*\}\|?|[A-Z]{2,}\b)+\s*([A-Z]{2,}\b|\{[^}]*\}(\|[A-Z]+)?)?", "", described
        )
        assert len(described.split()) >= 3, option
    assert not list(tmp_path.iterdir())


def test_a_script_takes_torchdl_from_its_own_clone():
    first = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
    for name in NAMES:  # it helps only before the first import of torchdl
        lines = (SCRIPTS / name).read_text().splitlines()
        imports = [
            place for place, line in enumerate(lines) if re.match(r"(import|from) (experiments|torchdl)\b", line)
        ]
        (place,) = (place for place, line in enumerate(lines) if line.startswith(first))
        assert place < imports[0], name


@pytest.mark.slow
def test_a_script_runs_where_python_does_not_look_beside_it(tmp_path):
    command = [sys.executable, "-I", str(SCRIPTS / "train_moore.py"), "--help"]  # -I includes -P, which is newer
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# training and generating


@pytest.mark.slow
def test_training_leaves_a_run_that_can_be_read(trained):
    folder, done = trained
    run_folder = folder / "runs" / "gan" / "x"
    assert "run: runs/gan/x" in done.out
    assert done.err == ""
    assert {path.name for path in (folder / "runs").iterdir()} == {"gan"}
    record = json.loads((run_folder / "config.json").read_text())
    assert record["config"]["trainer"]["epochs"] == 1
    assert (record["config"]["lr"], record["config"]["z_dim"]) == (3e-4, 64)
    with open(run_folder / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "140"  # 4,500 images, 32 a step
    (samples,) = grids_of(run_folder / "samples" / "final.png", scale=2)
    assert samples.shape == (3 * 30 + 2,) * 2
    assert Image.open(run_folder / "plots" / "history.png").size[0] > 100
    model = torchdl.load(run_folder)
    assert isinstance(model, torchdl.GAN)
    assert not model.training
    state = checkpoint.read(run_folder / CHECKPOINT)["task"]
    assert all((state[name] == tensor).all() for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "columns", "rows"), [("--n 10", 4, 3), ("--n 1", 1, 1), ("--n 24 --interpolate linear", 8, 3)]
)
def test_generating_draws_as_many_images_as_asked_for(run, trained, tmp_path, options, columns, rows):
    path = trained[0] / "runs" / "gan" / "x"
    pictures = []
    for name, seed in (("one.png", 0), ("again.png", 0), ("other.png", 1)):
        done = run(f"generate.py {path} {options} --out {name} --seed {seed}", tmp_path)
        assert (done.code, done.out, done.err) == (0, f"{name}\n", "")
        pictures.extend(grids_of(tmp_path / name, scale=2))
        assert pictures[-1].shape == (rows * 30 + 2, columns * 30 + 2)  # 28 pixels and 2 between, twice as large
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()


@pytest.mark.slow
def test_a_dry_run_leaves_nothing_behind(run, tmp_path):
    done = run("train_gan.py --dataset mnist_5k --dry-run --name first", tmp_path)
    assert done.code == 0, done.err
    assert "dry run: everything ran, and nothing was kept" in done.out
    temporary = Path(re.search(r"^run: (\S+)", done.out, re.MULTILINE)[1])
    assert not temporary.exists()
    assert not list(tmp_path.iterdir())


# mistakes


def truncated_mnist(folder: Path) -> None:
    raw = folder / "data" / "MNIST" / "raw"
    for split in ("train", "test"):
        write_pair(raw, np.zeros((50, 28, 28)), np.arange(50) % 10, split)
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])


def damaged_run(folder: Path) -> None:
    for name in (CHECKPOINT, PREVIOUS):
        path = folder / "runs" / "gan" / "x" / name
        path.write_bytes(path.read_bytes()[:-1])


MISTAKES = {
    "--batch-size 0": "batch-size .* 0",
    "--batch-size 4501": "batch-size 4501 .*4500",
    "--lr nan": "learning rate .* nan",
    "--z-dim 0": "z-dim",
    "--threads -1": "threads .*-1",
    "--samples 0": "--samples .* 0",
    "--device cuda": "CUDA.*cpu",
    "--device abacus": "abacus",
    "--data-root file": "file ",
    "--dataset mnist --data-root data": "train-images-idx3-ubyte .*39,116",
    "--name ../y": "--name .*y",
    "--name ..": "--name ",
    "--name x": "runs/gan/x .*--name.*--resume runs/gan/x",
    "--monitor val/nothing": "val/nothing",
    "--resume runs/gan/none": "no folder runs/gan/none:",
    "--resume runs/gan/x": "checkpoint.previous.pt",
    "--resume runs/gan/x --model deep": "runs/gan/x .*model",
    "--resume runs/gan/x --batch-size 16": "runs/gan/x .*batch size 16 .* 32",
}


@pytest.mark.slow
@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(run, trained, tmp_path, options):
    if options == "--device cuda" and torchdl_sees_cuda():
        pytest.skip("there is a CUDA device")
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    (tmp_path / "file").touch()
    truncated_mnist(tmp_path)
    if options == "--resume runs/gan/x":
        damaged_run(tmp_path)
    before = files(tmp_path)
    rest = "" if "--resume" in options or "--dataset" in options else "--dataset mnist_5k"
    done = run(f"train_gan.py {options} {rest}", tmp_path)
    assert done.code == 2, done.err
    assert re.fullmatch(rf"train_gan\.py: .*{MISTAKES[options]}.*\n", done.err)
    assert files(tmp_path) == before


def torchdl_sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.slow
@pytest.mark.parametrize("options", ["--model unknown", "--epochs 0", "--nonsense 1", "--precision fp8"])
def test_what_cannot_be_parsed_is_explained_in_a_box(run, tmp_path, options):
    done = run(f"train_gan.py {options}", tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert options.split()[0].strip("-") in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [("{run} --n 0", "--n .* 0"), ("nowhere", "nowhere.*architecture.json"), ("{run} --out file/x.png", "file")],
)
def test_generating_explains_a_mistake_in_one_sentence(run, trained, tmp_path, options, sentence):
    (tmp_path / "file").touch()
    done = run(f"generate.py {options.format(run=trained[0] / 'runs' / 'gan' / 'x')}", tmp_path)
    assert done.code in (1, 2)
    assert re.fullmatch(rf"generate\.py: .*{sentence}.*\n", done.err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# stopping


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_say_how_to_go_on_and_that_works(run, tmp_path, number):
    watch = stop(number, r"^run: .*\n(.*\n)*epoch 1 .*\n")
    stopped = run("train_gan.py --dataset mnist_5k --name x", tmp_path, watch)
    assert stopped.code == 128 + number
    found = re.fullmatch(r"train_gan\.py: stopped after step (\d+); go on with: python (.*)\n", stopped.err)
    step, command = int(found[1]), found[2]
    assert command == f"{SCRIPTS / 'train_gan.py'} --resume runs/gan/x"
    done = run(f"{command} --max-steps {step + 3}", tmp_path)
    assert done.code == 0, done.err
    with open(tmp_path / "runs" / "gan" / "x" / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps[0] == 140
    assert steps[-1] == step + 3


# the machine


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a file system of a few kilobytes, where this may be done."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if mount is None or unmount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    try:
        yield
    finally:
        subprocess.run([unmount, str(folder)], check=True)


# full at the record of TensorBoard, at its pictures, at the checkpoint, and at the weights
@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 48, 2000, 4400])
def test_a_full_disk_is_one_sentence(run, tmp_path, kilobytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, kilobytes):
        done = run("train_gan.py --dataset mnist_5k --max-steps 200 --out disk --name x", tmp_path)
        left = {path.name for path in disk.rglob("*")}
    assert done.code == 1, done.err
    said = [line for line in done.err.splitlines() if line.startswith("train_gan.py: ")]
    assert len(said) == 1, done.err
    assert "No space left on device" in said[0]
    assert "Traceback" not in done.err
    assert not [name for name in left if name.endswith(".tmp")]


# going on


@pytest.mark.slow
def test_a_gan_goes_on_as_it_began_when_a_feature_extractor_has_come_meanwhile(run, tmp_path):
    def generator(name: str) -> dict[str, torch.Tensor]:
        return torchdl.load(tmp_path / "runs" / "gan" / name).state_dict()

    gan = "train_gan.py --dataset mnist_5k --model simple --samples 4"
    lenet = "train_lenet.py --dataset mnist_5k --width 2 --hidden 8 --max-steps 20 --name judge-mnist_5k"
    (tmp_path / "elsewhere").mkdir()
    for command, folder in (
        (f"{gan} --max-steps 6 --name whole", "."),
        (f"{gan} --max-steps 3 --name cut", "."),
        (lenet, "."),
        ("train_gan.py --resume ../runs/gan/cut --max-steps 6", "elsewhere"),  # unmonitored, as before
        (f"{gan} --evaluation-samples 50 --max-steps 3 --name measured", "."),
        ("train_gan.py --resume ../runs/gan/measured --max-steps 5", "elsewhere"),  # monitored, as before
    ):
        done = run(command, tmp_path / folder)
        assert done.code == 0, done.err
    whole, cut = generator("whole"), generator("cut")
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    recorded = json.loads((tmp_path / "runs" / "gan" / "measured" / "config.json").read_text())["config"]
    assert recorded["trainer"]["monitor"] == "samples/frechet_distance"
    assert Path(recorded["feature_extractor"]) == tmp_path / "runs" / "lenet" / "judge-mnist_5k"
    assert not list((tmp_path / "elsewhere").iterdir())
