from __future__ import annotations

import signal
from functools import cache, partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.resuming import (
    EPOCH,
    STEPS,
    TASKS,
    PowerCut,
    assert_as_if_uninterrupted,
    classifier,
    cut_power,
    fit,
    interrupt,
    scalars,
    terminate,
)
from torch import nn

from torchdl import GANTask, InputError, Stopped, Supervised, simple_gan
from torchdl.files import CHECKPOINT, PREVIOUS
from torchdl.training import checkpoint
from torchdl.training.logging import Logger

QUICK = ("classifier", "simple")  # tasks whose tests take less than a second


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def quick(event_files_in_order):
    """Let one thread do these small things."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Train without a stop, once each."""

    @cache
    def train(name: str):
        folder = tmp_path_factory.mktemp(name)
        task = TASKS[name]()
        history = fit(task, folder)
        return task.state_dict(), history, checkpoint.read(folder / CHECKPOINT), scalars(folder)

    return train


# before an epoch's end, at it, after it; in the first step; in the last one (the other tasks: see below)
@pytest.mark.parametrize("step", [EPOCH - 2, EPOCH - 1, EPOCH, 0, STEPS - 1])
@pytest.mark.parametrize("name", ["classifier", slow("averaged")])
def test_training_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, uninterrupted, name, step):
    with pytest.raises(Stopped, match=f"stopped after step {step + 1}$") as stopped:
        fit(interrupt(TASKS[name](), step, terminate), tmp_path)
    assert stopped.value.signal_number == signal.SIGTERM
    assert checkpoint.read(tmp_path / CHECKPOINT)["progress"]["step"] == step + 1
    task = TASKS[name]()
    history = fit(task, tmp_path, resume=True)
    assert_as_if_uninterrupted(uninterrupted(name), task, history, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_training_can_be_stopped_again_and_again(tmp_path, uninterrupted, name):
    for number, step in enumerate((3, 8, 9)):
        with pytest.raises(Stopped):
            fit(interrupt(TASKS[name](), step, terminate), tmp_path, resume=number > 0)
    task = TASKS[name]()
    assert_as_if_uninterrupted(uninterrupted(name), task, fit(task, tmp_path, resume=True), tmp_path)


@pytest.mark.parametrize(
    ("name", "step"),
    [("classifier", 5), ("classifier", 11), ("simple", 11), *(slow(name, 11) for name in TASKS if name not in QUICK)],
)
def test_training_goes_on_from_the_last_checkpoint_after_a_crash(tmp_path, uninterrupted, name, step):
    with pytest.raises(PowerCut):
        fit(interrupt(TASKS[name](), step, cut_power), tmp_path, checkpoint_every=4)
    assert checkpoint.read(tmp_path / CHECKPOINT)["progress"]["step"] == {5: 4, 11: 8}[step]
    task = TASKS[name]()
    history = fit(task, tmp_path, resume=True, checkpoint_every=4)
    assert_as_if_uninterrupted(uninterrupted(name), task, history, tmp_path)


@pytest.mark.parametrize("logged", [False, True], ids=["before", "after"])
def test_a_crash_beside_the_last_log_loses_nothing(tmp_path, uninterrupted, monkeypatch, logged):
    log = Logger.epoch

    def crash(self, history, *others):
        if len(history) < STEPS // EPOCH or logged:
            log(self, history, *others)
        if len(history) == STEPS // EPOCH:
            raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(Logger, "epoch", crash)
        with pytest.raises(PowerCut):
            fit(classifier(), tmp_path)
    task = classifier()
    history = fit(task, tmp_path, resume=True)
    assert_as_if_uninterrupted(uninterrupted("classifier"), task, history, tmp_path)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + len(history)


def test_the_end_of_a_run_within_an_epoch_is_measured_again_where_it_is_gone_on_with(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Logger, "epoch", lambda *_: cut_power())
        with pytest.raises(PowerCut):
            fit(classifier(), tmp_path, max_steps=EPOCH - 2)
    first = fit(classifier(), tmp_path, max_steps=EPOCH - 2, resume=True)
    assert [row["step"] for row in first] == [EPOCH - 2]
    assert fit(classifier(), tmp_path, max_steps=EPOCH - 2, resume=True) == first
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_tensorboard_shows_no_step_twice_after_a_crash(tmp_path):
    with pytest.raises(PowerCut):
        fit(interrupt(classifier(), 11, cut_power), tmp_path, checkpoint_every=4, log_every=1)
    assert scalars(tmp_path)["train/loss"][-1][0] == 11  # three steps after the checkpoint
    fit(classifier(), tmp_path, resume=True, checkpoint_every=4, log_every=1)
    shown = scalars(tmp_path)
    assert [step for step, _ in shown["train/loss"]] == list(range(1, STEPS + 1))
    assert [step for step, _ in shown["val/loss"]] == [EPOCH, 2 * EPOCH, STEPS]


def test_a_checkpoints_keys_are_those_of_older_runs(tmp_path):
    stopped_run(tmp_path)
    state = checkpoint.read(tmp_path / CHECKPOINT)
    assert list(state) == ["task", "updates", "progress", "order"]
    assert state["updates"].pop("products") > 0  # older runs have none
    assert [state["order"].pop(name) for name in ("precision", "products", "clip_norm")] == ["fp32", "auto", 0]  # too
    assert {name: list(part) for name, part in state["updates"].items()} == {
        "optimizers": ["model"],
        "schedules": ["model"],
        "initial": ["group 1 of the optimizer 'model'", "the schedule of 'model'"],  # older runs have none
    }
    counters = {"epoch", "batch", "step", "history", "epoch_sums", "window_sums"}  # older runs have more
    assert state["progress"].keys() == counters
    assert state["order"] == {
        "examples": 26,
        "batch size": 4,
        "order's seed": 0,
        "shuffle": 1,
        "drop_last": 0,
        "by_length": 0,
        "seed": 0,
        "initial learning_rate": 1e-3,
        "rule of 'model'": "Adam(betas=(0.9, 0.999))",
        "schedule of 'model'": "StepLR ",
        "accumulate": 1,
        "monitor": "val/loss",
        "mode": "min",
    }
    del state["updates"]["initial"]
    checkpoint.write(state, tmp_path / CHECKPOINT)
    assert fit(classifier(), tmp_path, resume=True)[-1]["step"] == STEPS


def stopped_run(folder: Path) -> None:
    with pytest.raises(Stopped):
        fit(interrupt(classifier(), 9, terminate), folder)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_the_checkpoint_before_is_used_and_named_where_the_last_is_damaged(tmp_path, uninterrupted, capsys, damage):
    stopped_run(tmp_path)
    damage(tmp_path / CHECKPOINT)
    task = classifier()
    with pytest.warns(UserWarning, match=rf"{CHECKPOINT}.*{PREVIOUS}, is used instead") as caught:
        history = fit(task, tmp_path, resume=True)
    (warning,) = (str(one.message) for one in caught if one.category is UserWarning)
    assert str(tmp_path / CHECKPOINT) in warning
    assert str(tmp_path / PREVIOUS) in warning
    assert capsys.readouterr().out == ""
    assert_as_if_uninterrupted(uninterrupted("classifier"), task, history, tmp_path)


@pytest.mark.parametrize("damage", [flip, truncate])
def test_two_damaged_checkpoints_are_an_input_error(tmp_path, damage):
    stopped_run(tmp_path)
    for name in (CHECKPOINT, PREVIOUS):
        damage(tmp_path / name)
    with pytest.raises(InputError, match=r"checkpoint\.previous\.pt is damaged"):
        fit(classifier(), tmp_path, resume=True)


def test_a_damaged_checkpoint_without_one_before_it_is_an_input_error(tmp_path):
    with pytest.raises(Stopped):
        fit(interrupt(classifier(), 2, terminate), tmp_path)
    flip(tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match=r"checkpoint\.pt is damaged"):
        fit(classifier(), tmp_path, resume=True)


def test_nothing_to_resume_from_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"there is no run in .*nowhere: begin it with resume=False"):
        fit(classifier(), tmp_path / "nowhere", resume=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"resume must be False, True or .*, not 'yes'"):
        fit(classifier(), tmp_path, resume="yes")


def test_the_same_call_begins_a_training_and_goes_on_with_it(tmp_path, uninterrupted):
    with pytest.raises(Stopped):
        fit(interrupt(classifier(), 9, terminate), tmp_path / "new", resume="auto")
    task = classifier()
    history = fit(task, tmp_path / "new", resume="auto")
    assert_as_if_uninterrupted(uninterrupted("classifier"), task, history, tmp_path / "new")


@pytest.mark.parametrize("other", [lambda: classifier(width=25), lambda: Other(classifier())], ids=["model", "adam"])
def test_another_models_or_optimizers_checkpoint_is_an_input_error(tmp_path, other):
    stopped_run(tmp_path)
    task = other()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with pytest.raises(InputError, match="another model or optimizer") as caught:
        fit(task, tmp_path, resume=True)
    assert len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


class Other(Supervised):
    """The same model with its parameters in two groups."""

    def __init__(self, task: Supervised) -> None:
        super().__init__(task.model, task.loss, task.metrics, schedule=task.schedule)

    def configure_optimizers(self):
        first, *rest = self.model.parameters()
        return {"model": torch.optim.Adam([{"params": [first]}, {"params": rest}])}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch": 5}, "batch size 5 instead of 4"),
        ({"seed": 3}, "seed 3 instead of 0"),
        ({"accumulate": 2}, "accumulate 2 instead of 1"),
        ({"clip_norm": 0.5}, "clip_norm 0.5 instead of 0"),
        ({"precision": "tf32"}, "precision tf32 instead of fp32"),
        ({"monitor": "val/accuracy"}, "monitor val/accuracy instead of val/loss"),
    ],
)
def test_what_would_change_the_order_is_an_input_error(tmp_path, options, named):
    stopped_run(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match=named):
        fit(classifier(), tmp_path, resume=True, **options)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def supervised(loss):
    return Supervised(classifier().model, loss)


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (
            lambda: supervised(nn.CrossEntropyLoss()),
            lambda: supervised(nn.CrossEntropyLoss(label_smoothing=0.1)),
            "the task's loss has label_smoothing 0.1 instead of 0.0",
        ),
        (
            lambda: supervised(nn.CrossEntropyLoss(torch.tensor([1.0, 1, 1]))),
            lambda: supervised(nn.CrossEntropyLoss(torch.tensor([1.0, 1, 2]))),
            r"the task's loss has weight \[1.0, 1.0, 2.0\] instead of \[1.0, 1.0, 1.0\]",
        ),
        (
            lambda: supervised(partial(F.cross_entropy, label_smoothing=0.2)),
            lambda: supervised(partial(F.cross_entropy, label_smoothing=0.1)),
            "the task's loss has label_smoothing 0.1 instead of 0.2",
        ),
        (
            lambda: GANTask(simple_gan((1, 4, 4), 6)),
            lambda: GANTask(simple_gan((1, 4, 4), 6), loss="hinge"),
            "the task has loss hinge instead of non_saturating",
        ),
    ],
    ids=["loss", "weights", "partial", "task"],
)
def test_a_task_or_a_loss_with_another_setting_is_an_input_error(tmp_path, one, other, named):
    fit(one(), tmp_path, max_steps=2)
    with pytest.raises(InputError, match=named):
        fit(other(), tmp_path, resume=True)
    fit(one(), tmp_path, resume=True, max_steps=3)


def test_a_second_signal_acts_at_once(tmp_path, ctrl_c):
    def impatient():
        signal.raise_signal(signal.SIGINT)  # two of os.kill, which any thread may take, may come as one
        signal.raise_signal(signal.SIGINT)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        fit(interrupt(classifier(), 4, impatient), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
