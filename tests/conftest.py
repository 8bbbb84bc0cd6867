from __future__ import annotations

import os
import signal

import pytest
import torch
from helpers.downloads import isolated, server  # noqa: F401  (fixtures)
from helpers.scripts import run  # noqa: F401

from torchdl import pictures

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # each worker has a core of its own


@pytest.fixture
def quick():
    """Let one thread do these small things."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt, also where a shell has started these tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def undrawn(monkeypatch):
    """Leave figures undrawn, which takes longer than to train what is compared; others look at them."""
    blank = torch.zeros(3, 1, 1, dtype=torch.uint8)
    for module in ("torchdl.plots.figure", "torchdl.recipes.report"):
        monkeypatch.setattr(f"{module}.save_figure", lambda figure, path: pictures.save_png(blank, path))


@pytest.fixture(scope="module")
def one_thread():
    """Let one thread do what the fixtures of a module do, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """Keras on PyTorch, with none of the user's own settings; the test is skipped where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:  # both are read at the first import
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        return pytest.importorskip("keras")


@pytest.fixture
def figures(monkeypatch):
    """Return a list of the figures that are saved from now on."""
    from matplotlib.figure import Figure

    saved = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), savefig(self, *a, **k)))
    return saved
