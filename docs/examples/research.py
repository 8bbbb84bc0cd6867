"""What a researcher brings: a data set and its loader, a task with two optimizers, metrics, callbacks and loggers.

``python docs/examples/research.py FOLDER``; with the same folder it goes on. ``torchrun`` starts several processes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import RandomRotation

import torchdl
from torchdl import random
from torchdl.callbacks import Training
from torchdl.collective import rank_and_size

RATES = {"features": 0.01, "classifier": 0.05}


class Rotated(Dataset):
    """Digits, rotated anew in each epoch: the angle depends on the epoch and the digit alone."""

    def __init__(self, images: torchdl.ImageDataset) -> None:
        self.images, self.rotate, self.epoch = images, RandomRotation(20), 0

    def set_epoch(self, epoch: int) -> None:
        """Remember the epoch; the trainer says which."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, label = self.images[index]
        with random.seeded(torch.device("cpu"), 7, self.epoch, index):
            return self.rotate(pixels), label


class TwoRates(torchdl.Supervised):
    """Train the convolutions slowly and the classifier fast, each with one cycle of its learning rate."""

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Build an optimizer for each part."""
        return {name: torch.optim.SGD(getattr(self.model, name).parameters(), rate) for name, rate in RATES.items()}

    def configure_schedules(self, optimizers: dict[str, torch.optim.Optimizer], steps: int) -> dict[str, Any]:
        """Build PyTorch's own schedules."""
        cycle = torch.optim.lr_scheduler.OneCycleLR
        return {name: cycle(optimizer, RATES[name], total_steps=steps) for name, optimizer in optimizers.items()}

    def losses(self, batch: Any) -> Iterator[torchdl.Update]:
        """Yield the update of the convolutions, then that of the classifier."""
        for name in RATES:
            for update in super().losses(batch):
                yield torchdl.Update(name, update.loss, {} if name == "features" else update.metrics)


class Filters(torchdl.Callback):
    """Show the first filters after each epoch."""

    def on_epoch_end(self, training: Training) -> None:
        """Draw, and log."""
        figure = Figure()
        figure.subplots().imshow(next(training.task.model.features.parameters()).detach().flatten(1))
        training.logger.picture(f"filters-{training.epoch}", figure)


def main(folder: Path) -> None:
    """Train a small network on 400 digits, and measure its F1."""
    rank, size = rank_and_size()
    digits = torchdl.load_images("mnist_5k", "train").subset(torch.arange(0, 4400, 11))
    sampler: DistributedSampler[Any] = DistributedSampler(digits, size, rank)
    train = DataLoader(Rotated(digits), 40 // size, num_workers=1, sampler=sampler)
    test = torchdl.BatchLoader(torchdl.load_images("mnist_5k", "test"), 100)
    torch.manual_seed(0)
    model = torchdl.LenetLike((1, 28, 28), 10, width=4, hidden=16)
    f1 = torchmetrics.F1Score(task="multiclass", num_classes=10, average="macro")
    task = TwoRates(model, torch.nn.functional.cross_entropy, {"f1": f1})
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # without it, MLflow wants a server or a database
    logger = torchdl.MLflowLogger("research", tracking_uri=(folder.parent / "mlflow").absolute().as_uri())
    trainer = torchdl.Trainer(epochs=3, device="cpu", monitor="val/f1", checkpoint_every=4)
    trainer.fit(task, train, test, folder, "auto", callbacks=[Filters()], loggers=[logger], verbose=True)
    if rank == 0:
        torchdl.save(model, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
