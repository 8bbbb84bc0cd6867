"""The overhead of a trainer: the same steps in a bare loop, by ours and by Lightning, on batches that are ready.

Ours and Lightning log to TensorBoard every 50 steps and write checkpoints, and both have a callback. With LenetLike, an
epoch has 200 steps, after which Lightning writes a checkpoint, and ours does so after 5 seconds.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.lenet import noise_images
from experiments.benchmark.measure import timed
from torchdl.fast.products import Region, choose
from torchdl.tasks.optimizers import make_optimizer
from torchdl.training.device import setup_process

Work = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor], torchdl.ArrayDataset, int]


def empty() -> Work:
    """Return a step that computes almost nothing: a network of a single weight, the loss, data and batch size."""
    x = torch.linspace(-1, 1, 64).repeat(1000)[:, None]  # an epoch so long that neither writes a checkpoint after it
    return nn.Linear(1, 1), F.mse_loss, torchdl.ArrayDataset(x, 2 * x), 1


def lenet() -> Work:
    """Return LenetLike on 12,800 random images of CIFAR-10's shape, in batches of 64."""
    images, labels = noise_images()
    data = torchdl.ArrayDataset(images[:12_800].float() / 255, labels[:12_800])
    return torchdl.LenetLike((3, 32, 32), 10), F.cross_entropy, data, 64


def bare(config: Config, folder: Path, work: Callable[[], Work]) -> Callable[[int], float]:
    """Train in a loop of seven lines, with our loader, layout, products and optimizer."""
    setup_process(config.threads or 1)
    model, loss, data, size = work()
    optimizer, region = make_optimizer("adam", model.parameters(), 1e-3), Region(model, choose())
    loader = torchdl.BatchLoader(data, size, shuffle=True)

    def steps(count: int) -> None:
        epochs = -(-count // len(loader))
        batches = (batch for _ in range(epochs) for batch in loader)
        for _, (x, y) in zip(range(count), batches, strict=False):
            with region:
                value = loss(model(x), y)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

    return lambda examples: timed(lambda: steps(examples // size))


class Watch(torchdl.Callback):
    """Do next to nothing after each step."""

    def on_step_end(self, training: Any) -> None:
        """Remember the step."""
        self.step = training.step


def ours(config: Config, folder: Path, work: Callable[[], Work]) -> Callable[[int], float]:
    """Train with the trainer, its logs, its checkpoints and a callback."""
    setup_process(config.threads or 1)
    model, loss, data, size = work()
    task, loader = torchdl.Supervised(model, loss), torchdl.BatchLoader(data, size, shuffle=True)

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // size, device="cpu")
        return timed(lambda: trainer.fit(task, loader, folder=tempfile.mkdtemp(dir=folder), callbacks=[Watch()]))

    return run


def lightning(config: Config, folder: Path, work: Callable[[], Work]) -> Callable[[int], float]:
    """Train with Lightning, its logs, its checkpoints and a callback, with our layout, products and optimizer."""
    import lightning as L
    from lightning.pytorch.loggers import TensorBoardLogger
    from torch.utils.data import DataLoader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    setup_process(config.threads or 1)
    network, loss, data, size = work()

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.region = network, Region(network, choose())

        def training_step(self, batch: Any, index: int) -> Tensor:
            with self.region:
                value = loss(self.model(batch[0]), batch[1])
            self.log("loss", value)
            return value

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    class WatchToo(L.Callback):
        def on_train_batch_end(self, trainer: Any, *others: Any) -> None:
            self.step = trainer.global_step

    loader: DataLoader[Any] = DataLoader(data, size, shuffle=True, collate_fn=torchdl.whole_batch)

    def run(examples: int) -> float:
        trainer = L.Trainer(
            max_steps=examples // size,
            accelerator="cpu",
            logger=TensorBoardLogger(str(folder)),
            callbacks=[WatchToo()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        return timed(lambda: trainer.fit(Module(), loader))

    return run
