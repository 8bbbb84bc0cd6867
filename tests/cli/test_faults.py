"""Trainings that are killed, or meet a full or broken disk, at every change that they make in their folder."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import faults, gaussian, resuming
from helpers.scripts import same_weights
from tensorboard.summary.writer import event_file_writer
from torch import nn

from torchdl import MLP, ArrayDataset, BatchLoader, Supervised, Trainer
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.files import BEST, CHECKPOINT, CONFIG, METRICS, PLOTS, RESULTS
from torchdl.recipes.report import Report
from torchdl.training import checkpoint

PICTURE = torch.zeros(1, 2, 2, dtype=torch.uint8)
NUMBERS = itertools.count(100)  # files of events of one second are read in the order of this number, as text


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


def go_on(out: Path) -> int:
    """Do what a user does: resume the run; if it did not get as far as its configuration, start it again."""
    folder = out / "x" / "a"
    return faults.in_child(lambda: train(out, resume=(folder / CONFIG).exists()))


def faulted(out: Path, number: int, act: Callable[[], None], openings: bool = False) -> int:
    """Train until a change of the folder is reached; return the exit status."""

    def work() -> None:
        faults.watch(out, number, act, openings)
        train(out, resume=False)

    return faults.in_child(work)


def count(out: Path, openings: bool) -> int:
    """Return the number of changes that a training makes."""

    def work() -> None:
        seen = faults.watch(out, 0, faults.kill, openings)
        train(out, resume=False)
        os.mkdir(out / f"changes-{len(seen)}")

    assert faults.in_child(work) == 0
    (path,) = out.glob("changes-*")
    return int(path.name.rpartition("-")[2])


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
    """Train without a fault, and in this process, whose forks then need no imports; return the folder."""
    out = tmp_path_factory.mktemp("whole")
    train(out, resume=False)
    return out / "x" / "a"


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_killed_at_any_change_of_its_folder_goes_on_as_if_it_had_not_been(whole, tmp_path):
    changes = count(tmp_path / "count", openings=False)
    assert changes > 40
    for number in range(1, changes + 1):
        out = tmp_path / str(number)
        assert faulted(out, number, faults.kill) == -9, number
        assert go_on(out) == 0, number
        assert_same(out / "x" / "a", whole)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_error_at_any_change_of_a_runs_folder_is_no_success_and_loses_nothing(whole, tmp_path):
    changes = count(tmp_path / "count", openings=True)
    for number in range(1, changes + 1, 2):
        out = tmp_path / str(number)
        act = (faults.full, faults.broken, faults.read_only)[number % 3]
        assert faulted(out, number, act, openings=True) == 1, number
        assert go_on(out) == 0, number
        assert_same(out / "x" / "a", whole)
