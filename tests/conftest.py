from __future__ import annotations

import os
import signal

import pytest
import torch
from helpers.downloads import isolated, server  # noqa: F401  (fixtures)
from helpers.scripts import run  # noqa: F401

from torchdl import pictures

os.environ.pop("PYTHONUNBUFFERED", None)  # scripts print as in a user's shell, where it is not set
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # each worker has its own core


def pytest_addoption(parser):
    help_text = "write the reference pictures of tests/plots again: look at each before you commit it"
    parser.addoption("--write-references", action="store_true", help=help_text)


@pytest.fixture(scope="session", autouse=True)
def unflushed():
    """Leave it to the system when files reach the disk: no test cuts the power, and flushing is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def quick():
    """Use one thread, which is faster for small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt, even if a shell has started these tests in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def undrawn(monkeypatch):
    """Save blank pictures instead of figures, whose drawing would take longer than the training."""
    blank = torch.zeros(3, 1, 1, dtype=torch.uint8)
    for module in ("torchdl.plots.figure", "torchdl.recipes.report"):
        monkeypatch.setattr(f"{module}.save_figure", lambda figure, path: pictures.save_png(blank, path))


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread for the fixtures of a module, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def event_files_in_order(monkeypatch):
    """Let TensorBoard's files of one second be read in their order: that of a number as text, 10 before 9."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@pytest.fixture(scope="session")
def keras(tmp_path_factory):
    """Return Keras on PyTorch, without the user's settings; skip the test if it is not installed."""
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
