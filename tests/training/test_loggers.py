"""Log to programs other than TensorBoard."""

from __future__ import annotations

import importlib.util
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from torch import nn

import torchdl
from torchdl import BatchLoader, ImageDataset, InputError, MLflowLogger, RunLogger, Supervised, Trainer, WandbLogger
from torchdl.cli.run import find_loggers, first_things_first
from torchdl.training import Stopped

pytestmark = pytest.mark.usefixtures("quick")


class Task(Supervised):
    """A classifier of images that shows some."""

    def preview(self):
        return {"f(x)": torch.full((2, 1, 4, 4), 0.5)}


def classifier() -> Task:
    model = fill_(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    return Task(model, F.cross_entropy, optimizer=partial(torch.optim.SGD, lr=0.1))


def fit(folder=None, resume=False, loggers=(), tensorboard=True, callbacks=(), **options):
    pixels = (128 + 40 * gaussian(10, 1, 4, 4)).clamp(0, 255).to(torch.uint8)
    loader = BatchLoader(ImageDataset(pixels, torch.arange(10) % 3), 4)
    options = {"epochs": 2, "device": "cpu", "log_every": 2, **options}
    record = {"lr": 0.1, "note": "x" * 600}
    more = {"loggers": loggers, "tensorboard": tensorboard, "callbacks": callbacks}
    return Trainer(**options).fit(classifier(), loader, loader, folder, resume, record, **more)


class Recorder(RunLogger):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def begin(self, folder):
        self.calls.append(("begin", folder))

    def scalars(self, values, step):
        self.calls.append(("scalars", step, sorted(values)))

    def picture(self, tag, pixels, step):
        self.calls.append(("picture", tag, len(pixels), pixels.dtype, step))

    def hyperparameters(self, values, metrics):
        self.calls.append(("hyperparameters", values["lr"], metrics[0]))

    def close(self, error=None):
        self.calls.append(("close", error))


@pytest.mark.parametrize("writes", [True, False])
def test_a_logger_gets_numbers_pictures_and_settings(writes, tmp_path):
    recorder, folder = Recorder(), tmp_path if writes else None
    fit(folder, loggers=[recorder], monitor="val/loss")
    during = ["charts/examples_per_second", "charts/learning_rate", "train/grad_norm", "train/loss"]
    assert recorder.calls == [
        ("begin", folder),
        ("hyperparameters", 0.1, "val/loss"),
        ("scalars", 2, during),
        ("scalars", 3, ["val/loss"]),
        ("picture", "samples", 1, torch.uint8, 3),
        ("scalars", 4, during),
        ("scalars", 6, during),
        ("scalars", 6, ["val/loss"]),
        ("picture", "samples", 1, torch.uint8, 6),
        ("close", None),
    ]


def test_an_epoch_without_a_point_in_the_log_has_one_at_its_end():
    class Losses(RunLogger):
        def __init__(self, log_every):
            self.points: dict[int, float] = {}
            self.history = fit(loggers=[self], epochs=5, log_every=log_every)

        def scalars(self, values, step):
            self.points |= {step: values["train/loss"]} if "train/loss" in values else {}

    all_steps, found = Losses(1).points, Losses(4)  # three steps an epoch
    assert list(found.points) == [3, 4, 8, 12, 15]
    assert [found.points[3], found.points[15]] == [found.history[i]["train/loss"] for i in (0, 4)]
    assert found.points[4] == all_steps[4]  # not of the steps before, too
    assert list(Losses(50).points) == [3, 6, 9, 12, 15]


def test_a_training_goes_on_without_a_logger_that_fails_and_tells_the_others_how_it_ended():
    class Lost(Recorder):
        def scalars(self, values, step):
            super().scalars(values, step)
            raise OSError("the store is gone")

    class Ending(torchdl.Callback):
        def on_fit_end(self, training):
            raise RuntimeError("enough")

    lost, recorder = Lost(), Recorder()
    with pytest.warns(UserWarning, match=r"Lost has failed.*OSError: the store is gone") as caught:
        fit(loggers=[lost, recorder], max_steps=3)
    assert len(caught) == 1
    assert [call[0] for call in lost.calls] == ["begin", "hyperparameters", "scalars"]
    assert recorder.calls[-1] == ("close", None)
    with pytest.raises(RuntimeError, match="enough") as error:
        fit(loggers=[recorder], max_steps=3, callbacks=[Ending()])
    assert recorder.calls[-1] == ("close", error.value)


def test_without_tensorboard_there_are_no_files_of_it(tmp_path):
    fit(tmp_path, tensorboard=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint.pt", "checkpoint.previous.pt", "config.json", "metrics.csv", "samples"}


def test_mlflow_has_one_run_also_after_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()

    def logger() -> MLflowLogger:
        return MLflowLogger("digits", tracking_uri=uri)

    fit(tmp_path / "first", loggers=[logger()], max_steps=4, checkpoint_every=1)
    fit(tmp_path / "first", True, [logger()])
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["lr"] == "0.1"
    assert {"val/loss", "train/loss", "charts/learning_rate"} <= run.data.metrics.keys()
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/loss")]
    assert steps == [3, 4, 6]
    names = [file.path for file in client.list_artifacts(run.info.run_id, "samples")]
    assert names == [f"samples/{step:07d}.png" for step in (3, 4, 6)]

    class Interrupted(torchdl.Callback):
        def on_step_end(self, training):
            raise self.error

    for error, status in ((OSError(), "FAILED"), (Stopped("", 2), "KILLED")):
        Interrupted.error = error
        with pytest.raises(type(error)):
            fit(tmp_path / status, loggers=[logger()], callbacks=[Interrupted()])
        runs = client.search_runs([experiment.experiment_id])
        assert [run.info.status for run in runs if run.info.run_name == status] == [status]


def test_a_store_that_mlflow_refuses_is_one_sentence(tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(InputError, match="MLflow takes no runs"):
        fit(tmp_path / "first", loggers=[MLflowLogger(tracking_uri="nonsense://x")])
    if importlib.util.find_spec("alembic") is None:
        with pytest.raises(InputError, match=r"mlflow-skinny has no databases: pip install|MLflow takes no runs"):
            fit(tmp_path / "first", loggers=[MLflowLogger(tracking_uri=f"sqlite:///{tmp_path}/x.db")])


@pytest.mark.slow
def test_weights_and_biases_log_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger("digits", "first")
    fit(tmp_path / "first", loggers=[logger])
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.endswith((tmp_path / "first" / "loggers" / "wandb.txt").read_text().strip())
    assert logger.run.config["lr"] == 0.1
    (log,) = run.glob("*.wandb")
    end = time.monotonic() + 20
    while b"val/loss" not in log.read_bytes():  # another process writes it
        assert time.monotonic() < end
        time.sleep(0.1)
    assert [path.suffix for path in (run / "files" / "media").rglob("*.png")] == [".png", ".png"]


def test_loggers_are_chosen_by_name():
    assert find_loggers("tensorboard", "lenet", "x") == ([], True)
    assert find_loggers("none", "lenet", "x") == ([], False)
    with pytest.raises(InputError, match="no logger comet: choose among tensorboard, mlflow, wandb"):
        find_loggers("tensorboard, comet", "lenet", "x")
    pytest.importorskip("mlflow")
    (logger,), tensorboard = find_loggers("tensorboard,mlflow", "lenet", "x")
    assert (logger.experiment, logger.name, tensorboard) == ("lenet", "x", True)


def test_what_matters_is_first_and_fingerprints_are_left_out():
    record = {"width": 2, "data.fingerprint": "a", "batch_size": 4, "lr": 0.1, "data.held_out_fingerprint": "b"}
    assert list(first_things_first(record).items()) == [("lr", 0.1), ("batch_size", 4), ("width", 2)]
