"""What callbacks see, measure, save and stop."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

from torchdl import (
    ArrayDataset,
    BatchLoader,
    BestCheckpoint,
    BestWeights,
    Callback,
    EarlyStopping,
    InputError,
    LearningRateFinder,
    Supervised,
    Trainer,
    WeightAverage,
)
from torchdl.callbacks.best import direction
from torchdl.files import BEST, CHECKPOINT
from torchdl.training import checkpoint

pytestmark = pytest.mark.usefixtures("quick")

DATA = ArrayDataset(gaussian(10, 3), gaussian(10, 1, seed=1))
STEPS = 3  # of an epoch


def regression() -> Supervised:
    return Supervised(fill_(nn.Linear(3, 1)), F.mse_loss, optimizer=partial(torch.optim.SGD, lr=0.1))


def fit(task, *callbacks, folder=None, resume=False, validation=True, **options):
    loaders = BatchLoader(DATA, 4, shuffle=True), BatchLoader(DATA, 4) if validation else None
    options = {"epochs": 2, "device": "cpu", **options}
    return Trainer(**options).fit(task, *loaders, folder, resume, callbacks=callbacks)


class Recorder(Callback):
    """Write down each call with its place in training."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda training: self.calls.append((name[3:], training.epoch, training.step))


def test_every_method_is_called_at_its_place(tmp_path):
    recorder = Recorder()
    fit(regression(), recorder, folder=tmp_path)
    epochs = []
    for epoch in (0, 1):
        epochs += [("step_end", epoch, STEPS * epoch + step) for step in (1, 2, 3)]
        end = STEPS * (epoch + 1)
        epochs += [("validation_end", epoch, end), ("epoch_end", epoch + 1, end), ("checkpoint", epoch + 1, end)]
    first = [("validation_end", 0, 0), ("fit_start", 0, 0)]
    assert recorder.calls == [*first, *epochs, ("fit_end", 2, 6)]


def test_the_end_is_told_after_an_error_too():
    class Failing(Callback):
        def on_step_end(self, training):
            raise InputError("enough")

    recorder = Recorder()
    with pytest.raises(InputError, match="enough"):
        fit(regression(), recorder, Failing())
    assert recorder.calls[-2:] == [("step_end", 0, 1), ("fit_end", 0, 1)]


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, training):
        if training.step == self.step:
            training.stop("this is enough")


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_training_that_a_callback_stops_ends_as_if_it_were_so_long_and_goes_on_exactly(step, tmp_path):
    stopped, shorter, whole = regression(), regression(), regression()
    expected = fit(whole)
    history = fit(stopped, StopAt(step), folder=tmp_path)
    assert history == fit(shorter, max_steps=step)
    assert torch.equal(stopped.model.weight, shorter.model.weight)
    assert fit(stopped, folder=tmp_path, resume=True) == expected
    assert torch.equal(stopped.model.weight, whole.model.weight)


def test_a_stop_at_the_end_of_an_epoch_that_is_not_measured_draws_nothing(monkeypatch, capsys):
    class Stop(Callback):
        def on_epoch_end(self, training):
            training.stop("this is enough")

    monkeypatch.setattr(Supervised, "preview", lambda task: pytest.fail("drew"))
    loader = BatchLoader(DATA, 4)
    trainer = Trainer(epochs=4, device="cpu", evaluate_every=2)
    trainer.fit(regression(), loader, loader, callbacks=[Stop()], verbose=True)
    assert capsys.readouterr().out == "this is enough\n"


def test_a_warning_is_logged_and_printed_again_only_after_it_was_gone(tmp_path, capsys):
    class Warning(Callback):
        def on_validation_end(self, training):
            number = len(training.history) + 1
            if number != 3:
                training.warn(f"look at {number}% of this: {'abcd'[number - 1]}")

    loader = BatchLoader(DATA, 4)
    Trainer(epochs=4, device="cpu").fit(regression(), loader, loader, tmp_path, callbacks=[Warning()], verbose=True)
    assert re.findall("WARNING: (.*)", capsys.readouterr().out) == ["look at 1% of this: a", "look at 4% of this: d"]


def test_the_reason_of_a_stop_is_printed(capsys):
    loader = BatchLoader(DATA, 4)
    Trainer(epochs=2, device="cpu").fit(regression(), loader, callbacks=[StopAt(2)], verbose=True)
    assert "this is enough\n" in capsys.readouterr().out


class Counter(Callback):
    """Count steps, also those before a resume."""

    def __init__(self) -> None:
        self.count = 0

    def on_step_end(self, training):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_state_is_kept_and_a_callback_with_one_may_not_be_left_out(tmp_path):
    fit(regression(), Counter(), Recorder(), Counter(), folder=tmp_path, epochs=1)
    assert checkpoint.read(tmp_path / CHECKPOINT)["callbacks"] == {"Counter": {"count": 3}, "Counter 2": {"count": 3}}
    task = regression()
    before = task.model.weight.clone()
    with pytest.raises(InputError, match=r"with other callbacks: .* state of the callback Counter 2: give it to fit"):
        fit(task, Counter(), folder=tmp_path, resume=True)
    assert torch.equal(task.model.weight, before)
    counters = Counter(), Counter()
    fit(regression(), *counters, folder=tmp_path, resume=True)
    assert [counter.count for counter in counters] == [6, 6]


def test_what_a_callback_measures_is_a_metric_like_others(tmp_path):
    class Constant(Callback):
        def on_validation_end(self, training):
            training.measure({"own/accuracy": training.step / 3, "own/loss": training.row["val/loss"]})

    history = fit(regression(), Constant(), folder=tmp_path, monitor="own/accuracy")
    assert history["own/accuracy"] == [1, 2]
    assert [row["own/loss"] for row in history] == [row["val/loss"] for row in history]
    assert checkpoint.read(tmp_path / BEST)["progress"]["epoch"] == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((f"val/{name}", "max") for name in ("accuracy", "paired_accuracy", "top1", "f1_score", "MulticlassF1Score")),
        *((f"val/{name}", "max") for name in ("r2", "r2_score", "AUROC", "information", "recall", "samples/coverage")),
        *((f"val/{name}", "min") for name in ("loss", "accuracy_loss", "rmse", "brier_score", "steps_at_chance")),
        ("samples/frechet_distance", "min"),
        ("", "min"),
    ],
)
def test_whether_more_is_better_is_in_a_metrics_name(name, expected):
    assert direction(name) == expected
    assert [direction(name, mode) for mode in ("min", "max")] == ["min", "max"]


def test_a_metric_of_another_name_is_wanted():
    class Twice(Callback):
        def on_validation_end(self, training):
            training.measure({"val/loss": 1.0})

    with pytest.raises(InputError, match="measures val/loss, which are measured already"):
        fit(regression(), Twice())


def test_the_values_of_a_step_are_its_losses():
    seen = []

    class Losses(Callback):
        def on_step_end(self, training):
            seen.append(training.values["train/loss"])

    history = fit(regression(), Losses(), epochs=1)
    assert sum(seen[:2]) * 0.4 + seen[2] * 0.2 == pytest.approx(history[0]["train/loss"])  # of 4, 4 and 2 examples


def test_the_options_are_these_callbacks(tmp_path):
    options = {"monitor": "val/loss", "mode": "max", "patience": 2, "epochs": 9}
    by_options = fit(regression(), folder=tmp_path / "options", **options)
    own = BestCheckpoint("val/loss", "max"), EarlyStopping("val/loss", 2, "max")
    assert fit(regression(), *own, folder=tmp_path / "callbacks", epochs=9) == by_options
    assert len(by_options) == 3
    best = [checkpoint.read(tmp_path / name / BEST) for name in ("options", "callbacks")]
    assert best[0]["progress"] == best[1]["progress"]
    with pytest.raises(InputError, match="patience must be 1"):
        EarlyStopping("val/loss", 0)


@pytest.mark.parametrize("make", [BestCheckpoint, BestWeights, partial(EarlyStopping, patience=1)])
def test_a_metric_that_there_is_not_and_another_mode_are_refused(make):
    loader = BatchLoader(DATA, 4)
    with pytest.raises(InputError, match="mode must be auto, min or max, not 'Min'"):
        make("val/loss", mode="Min")
    for validation, known in ((loader, "val/loss, train/"), (None, "train/")):
        with pytest.raises(InputError, match=f"no metric 'val/los' to monitor: choose one of {known}"):
            Trainer(max_steps=1, device="cpu").fit(regression(), loader, validation, callbacks=[make("val/los")])


@pytest.mark.parametrize("stopped", [False, True])
def test_a_training_ends_with_the_weights_of_its_best_epoch(stopped, tmp_path):
    best, task = BestWeights("val/loss", "max"), regression()
    folder = None
    if stopped:  # the best epoch is in the checkpoint, not in the resumed part
        folder = tmp_path
        fit(regression(), BestWeights("val/loss", "max"), StopAt(2 * STEPS), folder=folder, epochs=4)
    history = fit(task, best, folder=folder, resume=stopped, epochs=4)
    first = regression()
    fit(first, epochs=1)
    losses = [row["val/loss"] for row in history]
    assert max(losses) == losses[0] > losses[-1]
    assert torch.equal(task.model.weight, first.model.weight)


@pytest.mark.parametrize("name", ["../best.pt", "best", "a/b.pt"])
def test_a_checkpoint_is_saved_in_the_folder_alone(name, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.pt"):
        fit(regression(), BestCheckpoint("val/loss", name=name), folder=tmp_path)


def test_what_is_no_callback_is_refused():
    with pytest.raises(InputError, match=r"instances of torchdl\.Callback"):
        fit(regression(), print)


@pytest.mark.parametrize("every", [1, 2])
def test_an_average_follows_the_weights_and_goes_on_after_a_resume(every, tmp_path):
    class Weights(Callback):
        def on_step_end(self, training):
            kept.append(training.task.model.weight.detach().clone())

    kept, task = [], regression()
    average = WeightAverage(task.model, 0.3, every)
    fit(task, average, Weights())
    expected = kept[0]
    for updates, weight in enumerate(kept[every::every], 1):
        decay = min(0.3, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average.averaged.module.weight.detach(), expected)

    task = regression()
    fit(task, WeightAverage(task.model, 0.3, every), folder=tmp_path, max_steps=4, checkpoint_every=1)
    task = regression()
    resumed = WeightAverage(task.model, 0.3, every)
    fit(task, resumed, folder=tmp_path, resume=True)
    assert torch.equal(resumed.averaged.module.weight, average.averaged.module.weight)


# the learning rate finder


def found(schedule=None) -> LearningRateFinder:
    """Return a finder after its training on 16 steps, in epochs of 3; it must give the model its weights back."""
    finder, task = LearningRateFinder(0.01, 1.0, steps=16), regression()
    task.schedule = schedule
    before = task.model.weight.clone()
    fit(task, finder, max_steps=16)
    assert torch.equal(task.model.weight, before)
    return finder


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, steps, cycle_momentum=False),
        partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
    ],
    ids=["each step", "each epoch"],
)
def test_the_finder_wins_over_a_schedule(schedule):
    alone, finder = found(), found(schedule)
    assert finder.rates == alone.rates == pytest.approx([0.01 * 100 ** (step / 15) for step in range(16)])
    assert finder.losses == alone.losses
    assert finder.ended


def test_a_training_that_is_shorter_than_the_sweep_gives_no_learning_rate():
    finder = LearningRateFinder(steps=20)
    with pytest.raises(InputError, match="there are no losses yet"):
        finder.suggestion  # noqa: B018
    with pytest.raises(InputError, match="rises for 20 steps, but the training ends after 19"):
        fit(regression(), finder, max_steps=19)
