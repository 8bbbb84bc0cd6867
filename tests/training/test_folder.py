from __future__ import annotations

import csv
import math
import os
import shutil
import signal
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import resuming
from helpers.faults import in_child
from helpers.resuming import EPOCH, STEPS, PowerCut, assert_as_if_uninterrupted, classifier, scalars
from torch import nn

from torchdl import ArrayDataset, BatchLoader, Callback, InputError, Supervised, Trainer
from torchdl.files import BEST, CHECKPOINT, METRICS, PREVIOUS
from torchdl.training import checkpoint, fit as fit_module
from torchdl.training.folder import in_training, opened, refuse_links, taken, was_killed_early
from torchdl.training.logging import Logger

pytestmark = pytest.mark.usefixtures("one_thread", "event_files_in_order")
fit = partial(resuming.fit, mode="max")  # every epoch's validation loss is the largest so far


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("finished")
    task = classifier()
    history = fit(task, folder)
    return folder, (task.state_dict(), history, checkpoint.read(folder / CHECKPOINT), scalars(folder))


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


# overwriting


def test_a_second_training_in_a_folder_is_refused_and_changes_nothing(copy):
    before = contents(copy)
    with pytest.raises(InputError, match=r"holds a training already .*resume=True"):
        fit(classifier(), copy)
    assert contents(copy) == before


@pytest.mark.parametrize("left", [[BEST], [METRICS], [PREVIOUS]])
def test_a_training_whose_checkpoint_was_removed_is_not_overwritten_either(copy, left):
    for path in copy.iterdir():
        if path.name not in left and path.is_file():
            path.unlink()
    with pytest.raises(InputError, match="holds a training already"):
        fit(classifier(), copy)


def test_a_folder_with_other_files_is_taken_and_they_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("data", "package.json"):
        (tmp_path / name).symlink_to(tmp_path / "notes.txt")
    fit(classifier(), tmp_path, max_steps=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


# before the first checkpoint


@pytest.mark.parametrize("where", ["nothing", "best"])
def test_a_training_that_was_killed_before_its_first_checkpoint_starts_again(finished, tmp_path, monkeypatch, where):
    write = checkpoint.write

    def cut(state, path, *previous):
        if where == "best" and path.name == BEST:
            write(state, path, *previous)
            return
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", cut)
        with pytest.raises(PowerCut):
            fit(classifier(), tmp_path)
    assert (tmp_path / BEST).exists() == (where == "best")
    assert was_killed_early(tmp_path)
    task = classifier()
    with pytest.warns(UserWarning, match="no checkpoint yet, so the training starts from the beginning"):
        history = fit(task, tmp_path, resume=True)
    assert_as_if_uninterrupted(finished[1], task, history, tmp_path)


def test_a_folder_whose_checkpoints_somebody_has_removed_was_not_killed_early(copy):
    for name in (CHECKPOINT, PREVIOUS):
        (copy / name).unlink()
    assert not was_killed_early(copy)
    with pytest.raises(InputError, match=CHECKPOINT):
        fit(classifier(), copy, resume=True)
    (copy / METRICS).unlink()
    assert was_killed_early(copy)
    (copy / "thesis.txt").touch()
    assert not was_killed_early(copy)


# the best epoch


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_kill_between_the_best_and_the_last_checkpoint_keeps_the_right_best(finished, tmp_path, monkeypatch, epoch):
    write = checkpoint.write

    def cut(state, path, *previous):
        if path.name == CHECKPOINT and state["progress"]["epoch"] == epoch:
            raise PowerCut
        write(state, path, *previous)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", cut)
        with pytest.raises(PowerCut):
            fit(classifier(), tmp_path, checkpoint_seconds=0)
    assert checkpoint.read(tmp_path / BEST)["progress"]["epoch"] == epoch  # the best one is written first
    with pytest.warns(UserWarning, match="beginning") if epoch == 1 else nullcontext():
        fit(classifier(), tmp_path, resume=True)
    assert not resuming.differences(checkpoint.read(tmp_path / BEST), checkpoint.read(finished[0] / BEST))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"x"), "older"], ids=["none", "x", "old"]
)
@pytest.mark.parametrize("made_again", [True, False])
def test_a_best_checkpoint_that_is_missing_damaged_or_older_is_made_again_or_named(copy, damage, made_again):
    good = (copy / BEST).read_bytes()
    state = checkpoint.read(copy / CHECKPOINT)
    if not made_again:  # the best epoch was an earlier one
        for name in (CHECKPOINT, PREVIOUS):
            state = checkpoint.read(copy / name)
            rows = state["progress"]["history"]
            rows.insert(0, {**rows[-1], "val/loss": rows[-1]["val/loss"] + 1})
            checkpoint.write(state, copy / name)
    if damage == "older":
        old = checkpoint.read(copy / BEST)
        old["progress"].update(step=EPOCH)
        old["progress"]["history"][-1]["val/loss"] = 9.0
        checkpoint.write(old, copy / BEST)
    else:
        damage(copy / BEST)
    if made_again:
        fit(classifier(), copy, resume=True)
        assert (copy / BEST).read_bytes() == good
    else:
        before = contents(copy)
        with pytest.raises(InputError, match=rf"{BEST} .*copy .*{CHECKPOINT} over it") as error:
            fit(classifier(), copy, resume=True)
        assert len(str(error.value).splitlines()) == 1
        assert contents(copy) == before
        shutil.copy(copy / CHECKPOINT, copy / BEST)  # the way out
        fit(classifier(), copy, resume=True)


def test_a_training_whose_last_step_was_within_an_epoch_and_the_best_goes_on(finished, tmp_path):
    fit(classifier(), tmp_path, max_steps=EPOCH + 2, checkpoint_every=1)
    assert checkpoint.read(tmp_path / BEST)["progress"]["step"] == EPOCH + 2
    assert fit(classifier(), tmp_path, resume=True) == finished[1][1]
    for name in (CHECKPOINT, BEST):
        assert not resuming.differences(checkpoint.read(tmp_path / name), checkpoint.read(finished[0] / name))


# checkpoints of short epochs


def test_short_epochs_share_a_checkpoint_and_an_error_loses_none(finished, tmp_path):
    class Written(Callback):
        def __init__(self, stop_at):
            self.steps, self.stop_at = [], stop_at

        def on_step_end(self, training):
            if training.step == self.stop_at:
                raise PowerCut

        def on_checkpoint(self, training):
            self.steps.append(training.step)

    for seconds, steps in ((0, [EPOCH, 2 * EPOCH, 3 * EPOCH]), (60, [EPOCH, 3 * EPOCH])):
        written = Written(0)
        fit(classifier(), tmp_path / f"{seconds}", callbacks=[written], checkpoint_seconds=seconds)
        assert written.steps == steps
    run = tmp_path / "cut"
    with pytest.raises(PowerCut):
        fit(classifier(), run, callbacks=[Written(2 * EPOCH + 2)], checkpoint_seconds=60)
    found = [checkpoint.read(run / name)["progress"]["step"] for name in (CHECKPOINT, PREVIOUS, BEST)]
    assert found == [2 * EPOCH, EPOCH, 2 * EPOCH]
    assert fit(classifier(), run, resume=True) == finished[1][1]


def test_what_waits_to_be_written_does_not_change_and_hides_no_error(tmp_path, monkeypatch):
    class Seen(Callback):
        def __init__(self):
            self.seen = {"set": set(), "array": np.zeros(1)}

        def on_epoch_end(self, training):
            self.seen["set"].add(training.epoch)
            self.seen["array"] += 1
            if training.epoch == 2:
                training.save_as("two.pt")

        def on_step_end(self, training):
            if training.step == 3 * EPOCH - 1 and self.fails:
                raise KeyError("mine")

        def state_dict(self):
            return self.seen

    for fails, folder in ((False, tmp_path / "whole"), (True, tmp_path / "failed")):
        seen = Seen()
        seen.fails = fails
        with pytest.raises(KeyError) if fails else nullcontext():
            fit(classifier(), folder, callbacks=[seen], checkpoint_seconds=60)
        state = checkpoint.read(folder / "two.pt")["callbacks"]["Seen"]
        assert (set(state["set"]), [float(value) for value in state["array"]]) == ({1, 2}, [2.0])
    write = checkpoint.write

    def full(state, path, previous=None):
        if state["progress"]["epoch"] == 2:
            raise OSError(28, "No space left on device")
        write(state, path, previous)

    seen.seen = {"set": set(), "array": np.zeros(1)}
    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.warns(UserWarning, match="not be written"), pytest.raises(KeyError):
        fit(classifier(), tmp_path / "full", callbacks=[seen], checkpoint_seconds=60)


def test_a_kill_loses_no_more_than_the_seconds_since_the_last_checkpoint(finished, tmp_path):
    class Kill(Callback):
        def on_step_end(self, training):
            if training.step == 2 * EPOCH + 2:
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: fit(classifier(), tmp_path, callbacks=[Kill()], checkpoint_seconds=60)) == -9
    assert checkpoint.read(tmp_path / CHECKPOINT)["progress"]["step"] == EPOCH
    assert fit(classifier(), tmp_path, resume=True) == finished[1][1]
    for name in (CHECKPOINT, BEST):
        assert not resuming.differences(checkpoint.read(tmp_path / name), checkpoint.read(finished[0] / name))
    assert {tag: sorted(set(points)) for tag, points in scalars(tmp_path).items()} == finished[1][3]


# logs


@pytest.mark.parametrize("where", ["preview", "scalars", "before", "flush", "table"])
def test_an_error_in_a_preview_or_a_log_comes_after_the_epochs_checkpoint(finished, tmp_path, monkeypatch, where):
    """And a resume logs what is missing."""
    calls = []

    def fail(*_args, **_options):
        calls.append(1)
        if len(calls) == at:
            raise OSError(28, "No space left on device")
        return original(*_args, **_options)

    owner, name, at = {
        "preview": (Supervised, "preview", 2),
        "scalars": (Logger, "epoch", 2),
        "before": (torch.utils.tensorboard.SummaryWriter, "flush", 3),  # of the second epoch's four
        "flush": (torch.utils.tensorboard.SummaryWriter, "flush", 4),
        "table": (csv.DictWriter, "writerows", 2),
    }[where]
    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        with pytest.raises(OSError, match="No space"):
            fit(classifier(), tmp_path, checkpoint_seconds=0)
    assert checkpoint.read(tmp_path / CHECKPOINT)["progress"]["epoch"] == 2
    task = classifier()
    history = fit(task, tmp_path, resume=True)
    shown = scalars(tmp_path)
    twice = {tag: sorted(set(points)) for tag, points in shown.items()}
    assert twice == {tag: sorted(set(points)) for tag, points in finished[1][3].items()}
    assert history == finished[1][1]
    assert (tmp_path / METRICS).read_bytes() == (finished[0] / METRICS).read_bytes()


def test_an_error_in_an_evaluation_loses_no_step(finished, tmp_path, monkeypatch):
    evaluate, calls = fit_module.evaluate, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 3:  # after the second epoch; the first call is before training
            raise ZeroDivisionError
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "evaluate", fail)
        with pytest.raises(ZeroDivisionError):
            fit(classifier(), tmp_path)
    assert checkpoint.read(tmp_path / CHECKPOINT)["progress"]["step"] == 2 * EPOCH
    task = classifier()
    assert_as_if_uninterrupted(finished[1], task, fit(task, tmp_path, resume=True), tmp_path)


def test_an_error_in_the_last_log_is_made_good_by_a_resume(finished, tmp_path, monkeypatch):
    log = Logger.epoch

    def fail(self, history, *others):
        if len(history) == STEPS // EPOCH:
            raise PowerCut
        log(self, history, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Logger, "epoch", fail)
        with pytest.raises(PowerCut):
            fit(classifier(), tmp_path)
    for _ in range(2):  # the second time nothing is missing
        fit(classifier(), tmp_path, resume=True)
        assert scalars(tmp_path) == finished[1][3]
        assert (tmp_path / METRICS).read_bytes() == (finished[0] / METRICS).read_bytes()


# several at once


def test_a_folder_in_which_somebody_trains_is_known(tmp_path):
    assert not in_training(tmp_path)
    with taken(tmp_path):
        assert in_training(tmp_path)
        with pytest.raises(OSError, match="No such file"):
            in_training(tmp_path / "missing")
    assert not in_training(tmp_path)
    with taken(tmp_path):  # the question has left no lock
        pass


def test_a_folder_is_taken_by_one_training_at_a_time(tmp_path):
    said = []

    def other() -> None:
        with pytest.raises(InputError) as error, taken(tmp_path):
            pass
        said.append(str(error.value))

    with taken(tmp_path), taken(tmp_path):  # nested calls are one
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another training is running in" in said[0]
    with taken(tmp_path):
        pass


def test_a_forked_process_does_not_keep_the_folder(tmp_path):
    begun, end = os.pipe(), os.pipe()
    with taken(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(end[1])
            os.write(begun[1], b"x")
            os.read(end[0], 1)  # until the other end is closed
            os._exit(0)
        os.read(begun[0], 1)
    try:
        with taken(tmp_path):
            pass
    finally:
        os.close(end[1])
        os.waitpid(child, 0)
        for descriptor in (*begun, end[0]):
            os.close(descriptor)


# links


@pytest.mark.parametrize(
    "name",
    ["plots", "samples", "00000", "probe", "metrics.csv", "checkpoint.pt", "best.pt", "events.out.tfevents.1.x.2.0"],
)
def test_a_run_folder_with_a_link_is_refused_and_nothing_is_written_elsewhere(copy, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "history.png").write_text("precious")
    path = copy / name
    if path.exists():
        path.rename(elsewhere / name)
    path.symlink_to(elsewhere if "." not in name else elsewhere / name)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=rf"{name} is a link") as error:
        fit(classifier(), copy, resume=True)
    assert len(str(error.value).splitlines()) == 1
    assert contents(tmp_path) == before


def test_a_link_within_a_folder_and_a_device_are_refused_too(copy):
    (copy / "plots").mkdir()
    (copy / "plots" / "history.png").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match=r"history\.png is a link"):
        refuse_links(copy)
    (copy / "plots" / "history.png").unlink()
    refuse_links(copy)
    os.mkfifo(copy / "results.json")  # a reader would wait for ever
    with pytest.raises(InputError, match=r"results\.json is a link or a device"):
        refuse_links(copy)


def test_temporary_files_of_killed_processes_are_removed_by_a_resume(copy):
    left = [copy / ".checkpoint.pt.123.tmp", copy / ".0f.tmp", copy / "plots" / ".x.tmp", copy / "samples" / ".y.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    other = copy / "thesis.tmp"
    other.touch()
    fit(classifier(), copy, resume=True)
    assert [path.exists() for path in (*left, other)] == [False] * 4 + [True]


def test_nothing_is_opened_without_a_folder():
    with opened(None, False) as resumable:
        assert not resumable


# values of other types


def test_settings_of_numpys_types_give_files_that_can_be_read_and_resumed(tmp_path):
    data = ArrayDataset(torch.linspace(-1, 1, 12)[:, None], torch.linspace(1, 2, 12)[:, None])

    def train(number, real, resume=False):
        torch.manual_seed(0)
        task = Supervised(
            nn.Linear(1, 1),
            nn.functional.mse_loss,
            optimizer=lambda p: torch.optim.Adam(p, real(0.25), betas=(real(0.5), real(0.75))),
        )
        loader = BatchLoader(data, batch_size=number(4), shuffle=True, seed=number(3))
        trainer = Trainer(epochs=number(2), clip_norm=real(0.5), seed=number(1), log_every=number(1), device="cpu")
        return trainer.fit(task, loader, folder=tmp_path, resume=resume)

    history = train(np.int64, np.float64)
    state = checkpoint.read(tmp_path / CHECKPOINT)
    group = state["updates"]["optimizers"]["model"]["param_groups"][0]
    assert type(group["lr"]) is float
    assert type(state["order"]["batch size"]) is int
    assert train(int, float, resume=True) == history  # the settings are the same
    assert not math.isnan(history[-1]["train/loss"])
