"""Small trainings that are interrupted, and what a resumed one must equal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import Dataset

import torchdl
from helpers import fill_, gaussian
from torchdl import BatchLoader, CPCTask, GANTask, ImageDataset, Supervised, Task, Trainer
from torchdl.files import CHECKPOINT
from torchdl.tasks import Schedule, accuracy
from torchdl.training import checkpoint

STEPS, EPOCH = 21, 7  # three epochs of seven steps, the last of each ragged
PIXELS = (128 + 50 * gaussian(31, 1, 4, 4)).clamp(0, 255).to(torch.uint8)


IMAGES = ImageDataset(PIXELS, torch.arange(31) % 3, -1, 1)


def classifier(width: int = 24) -> Supervised:
    layers = nn.Flatten(), nn.Linear(16, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 3)
    step_lr = partial(torch.optim.lr_scheduler.StepLR, step_size=5)
    return Supervised(
        fill_(nn.Sequential(*layers)),
        F.cross_entropy,
        {"accuracy": accuracy},
        schedule=lambda optimizer, _: Schedule(step_lr(optimizer), every="step"),
    )


def gan(pair: Callable[..., torchdl.GAN], average: float = 0.0, **options) -> GANTask:
    torch.manual_seed(0)
    model = pair((1, 4, 4), z_dim=6, **options)
    return GANTask(model, average=average)


def contrastive(head: str, every_term: bool) -> CPCTask:
    torch.manual_seed(0)
    return CPCTask(torchdl.image_cpc(15, 3, 6, 8, 2, every_term=every_term), head)


def sequences(count: int) -> torchdl.SortedNumbers:
    """Make sequences of coloured images, half of them with a false future."""
    pixels = (128 + 50 * gaussian(4 * count, 15, 15)).clamp(0, 255).to(torch.uint8)
    digits = torchdl.Digits(pixels, torch.arange(4 * count) % 10, 15)
    return torchdl.SortedNumbers(digits, terms=4, predict_terms=2, batch_size=2)


TASKS: dict[str, Callable[[], Task]] = {
    "classifier": classifier,
    "simple": lambda: gan(torchdl.simple_gan),
    "deep": lambda: gan(torchdl.deep_gan),
    "averaged": lambda: gan(torchdl.conv_gan, average=0.9, spectral_norm=True),
    "infonce": lambda: contrastive("infonce", every_term=True),
    "paired": lambda: contrastive("paired", every_term=False),
}


def fit(task: Task, folder: Path, resume: bool = False, batch: int = 4, log_every: int = 2, callbacks=(), **options):
    train: Dataset
    held_out: Dataset
    if isinstance(task, CPCTask):
        train, held_out = sequences(26), sequences(6)
    elif isinstance(task, Supervised):
        train, held_out = ImageDataset(PIXELS[:26], IMAGES.labels[:26], -1, 1), Rows(IMAGES[26:])
    else:
        train = ImageDataset(PIXELS[:26], IMAGES.labels[:26], -1, 1).without_labels()
        held_out = Rows(IMAGES.without_labels()[26:])
    monitor = "train/generator_loss" if isinstance(task, GANTask) else "val/loss"
    options = {"epochs": 3, "log_every": log_every, "monitor": monitor, "device": "cpu", **options}
    whole = isinstance(task, CPCTask)  # batches of sequences cannot be mixed
    loaders = BatchLoader(train, batch, shuffle=not whole), BatchLoader(held_out, 2 if whole else 3)
    return Trainer(**options).fit(task, *loaders, folder, resume=resume, callbacks=callbacks)


class Rows(Dataset):
    """A batch as a data set."""

    def __init__(self, batch: Tensor | tuple[Tensor, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 5

    def __getitems__(self, index: Tensor):
        return self.batch[index] if isinstance(self.batch, Tensor) else tuple(part[index] for part in self.batch)


def interrupt(task: Task, step: int, how: Callable[[], None]) -> Task:
    """Have ``how`` called in the middle of a step."""
    losses = task.losses

    def interrupted(batch):
        for number, update in enumerate(losses(batch)):
            yield update
            if (task.step_info.step, number) == (step, 0):
                how()

    task.losses = interrupted
    return task


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class PowerCut(Exception):
    pass


def cut_power() -> None:
    raise PowerCut


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the scalars that TensorBoard shows, except those that depend on the time."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def differences(one: object, other: object, path: str = "") -> list[str]:
    """Return every place where two nested states are not bitwise equal."""
    if isinstance(one, Tensor):
        return [] if isinstance(other, Tensor) and torch.equal(one, other) else [path]
    if isinstance(one, (dict, list, tuple)):
        if type(one) is not type(other) or len(one) != len(other):
            return [path]
        pairs = one.items() if isinstance(one, dict) else enumerate(one)
        if isinstance(one, dict) and one.keys() != other.keys():
            return [path]
        return [found for key, value in pairs for found in differences(value, other[key], f"{path}/{key}")]
    return [] if one == other else [f"{path}: {one} {other}"]


def assert_as_if_uninterrupted(expected, task: Task, history, folder: Path) -> None:
    state, rows, saved, shown = expected
    assert not differences(dict(task.state_dict()), dict(state))
    assert not differences(history, rows)
    assert not differences(checkpoint.read(folder / CHECKPOINT), saved)  # optimizers, schedules, progress
    assert not differences(scalars(folder), shown)
