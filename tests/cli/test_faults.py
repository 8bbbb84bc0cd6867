"""Trainings that are killed, or meet a full or broken disk, at every change that they make in their folder."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import faults, gaussian, resuming
from helpers.scripts import same_weights
from tensorboard.summary.writer import event_file_writer
from torch import nn

from torchdl import MLP, ArrayDataset, BatchLoader, Supervised, Trainer, pictures
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.files import BEST, CHECKPOINT, CONFIG, METRICS, PLOTS, RESULTS
from torchdl.recipes.report import Report
from torchdl.training import checkpoint

PICTURE = torch.zeros(1, 2, 2, dtype=torch.uint8)
NUMBERS = itertools.count(1000, 10)  # files of events of one second are read in the order of their number, as text

AFTER_AN_EXPORT = """
import torch
from helpers import faults

torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
torch.ones((), requires_grad=True).backward()
raise SystemExit(faults.in_child(torch.ones((), requires_grad=True).backward))
"""


class WithPreview(Supervised):
    def preview(self) -> dict[str, torch.Tensor]:
        return {"ones": torch.ones(1, 1, 2, 2)}


def train(out: Path, resume: bool) -> None:
    """Do what a script does: two epochs of which the second is the best, an evaluation, a picture."""
    event_file_writer._global_uid = event_file_writer.AtomicCounter(next(NUMBERS))
    data = ArrayDataset(gaussian(8, 4), torch.arange(8) % 3)
    trainer = Trainer(epochs=2, device="cpu", monitor="train/loss", log_every=1)
    options = RunOptions(resume=out / "x" / "a") if resume else RunOptions(out=out, name="a")
    run = Run("x", {}, options, trainer, data, verbose=False)
    torch.manual_seed(0)
    task = WithPreview(MLP(4, 3, (4,)), nn.functional.cross_entropy)
    run.fit(task, BatchLoader(data, 4, shuffle=True), BatchLoader(data, 8), pictures={"examples": PICTURE})
    weights = sum(float(p.detach().sum()) for p in task.model.parameters())
    run.keep(Report({"sum of the weights": weights}, figures={"confusion": PICTURE}))


def go_on(out: Path) -> None:
    """Do what a user does: resume the run; if it did not get as far as its configuration, start it again."""
    train(out, resume=(out / "x" / "a" / CONFIG).exists())


def count(out: Path, flushes: bool) -> int:
    """Return the number of changes that a training makes."""
    with faults.watching(out, 0, faults.kill, flushes) as seen:
        train(out, resume=False)
    return len(seen)


def assert_same(folder: Path, other: Path) -> None:
    assert {path.name for path in folder.iterdir() if not path.name.startswith("events")} == {
        path.name for path in other.iterdir() if not path.name.startswith("events")
    }
    assert same_weights(folder, other)
    for name in (BEST, CHECKPOINT):
        assert not resuming.differences(checkpoint.read(folder / name), checkpoint.read(other / name))
    for name in (METRICS, RESULTS):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    for path in (*folder.glob(f"{PLOTS}/*"), *folder.glob("samples/*")):
        assert path.stat().st_size > 0
        assert (other / path.relative_to(folder)).exists()
    shown, expected = resuming.scalars(folder), resuming.scalars(other)
    assert {tag: sorted(set(points)) for tag, points in shown.items()} == expected
    assert json.loads((folder / CONFIG).read_text())["parameters"] > 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_thread):
    """Train without a fault; return the folder."""
    out = tmp_path_factory.mktemp("whole")
    train(out, resume=False)
    return out / "x" / "a"


@pytest.fixture(autouse=True)
def plain_history(monkeypatch, undrawn):
    """Draw nothing, not even what is not saved."""
    monkeypatch.setattr("torchdl.plots.plot_history", lambda _, path: pictures.save_png(PICTURE, path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(cannot be read|holds no checkpoint yet)")
def test_a_run_killed_at_any_change_of_its_folder_goes_on_as_if_it_had_not_been(whole, tmp_path):
    changes = count(tmp_path / "count", flushes=False)
    assert changes > 20
    for number in range(1, changes + 1):
        out = tmp_path / str(number)
        with faults.watching(out, number, faults.kill):
            assert faults.in_child(lambda out=out: train(out, resume=False)) == -9, number
        go_on(out)
        assert_same(out / "x" / "a", whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # in TensorBoard's thread
@pytest.mark.filterwarnings("ignore:.*(cannot be read|holds no checkpoint yet)")
def test_an_error_at_any_change_of_a_runs_folder_is_no_success_and_loses_nothing(whole, tmp_path):
    changes = count(tmp_path / "count", flushes=True)
    for number in range(1, changes + 1, 2):
        out = tmp_path / str(number)
        act = (faults.full, faults.broken, faults.read_only)[number % 3]
        with pytest.raises(OSError), faults.watching(out, number, act, flushes=True):  # noqa: PT011  # of three kinds
            train(out, resume=False)
        go_on(out)
        assert_same(out / "x" / "a", whole)


@pytest.mark.slow
def test_a_forked_process_trains_after_an_export():
    tests = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", AFTER_AN_EXPORT], check=True, cwd=tests)
