"""Measure this project against the usual way of doing the same, alternating in one run; medians are what counts."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import _clone  # noqa: F401
import numpy as np
import torch
import tyro
from torch import Tensor, nn

import torchdl
from torchdl.data.vision import import_torchvision
from torchdl.training import process
from torchdl.training.command import run_script


@dataclass(frozen=True)
class Config:
    """Measure this project against the usual way of doing the same, and print the medians and their ratio."""

    name: tyro.conf.Positional[Literal["gan"]]
    """What to measure."""
    repeats: int = 5
    """Measurements of each side, alternating."""
    seconds: float = 10.0
    """About how long one measurement takes."""
    threads: int = 1
    """CPU threads of either side; two and more collapse where another process wants the cores, too."""
    data_root: Path | None = None
    """The folder of the data sets."""
    json: Path | None = None
    """A file to write the result to."""


def usual_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Train as tutorials do: an image at a time through torchvision, three passes of the discriminator, Adam."""
    from torch.utils.data import DataLoader, Subset
    from torch.utils.tensorboard import SummaryWriter
    from torchvision import datasets, transforms

    torch.set_num_threads(config.threads)
    digits = torchdl.load_images("mnist", root=config.data_root)
    assert digits.labels is not None
    write_idx(folder / "MNIST" / "raw", digits.images[:, 0], digits.labels)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(str(folder), transform=transform)
    disc = nn.Sequential(nn.Linear(784, 128), nn.LeakyReLU(0.1), nn.Linear(128, 1), nn.Sigmoid())
    gen = nn.Sequential(nn.Linear(64, 256), nn.LeakyReLU(0.1), nn.Linear(256, 784), nn.Tanh())
    opt_disc = torch.optim.Adam(disc.parameters(), lr=3e-4)
    opt_gen = torch.optim.Adam(gen.parameters(), lr=3e-4)
    criterion = nn.BCELoss()
    writer = SummaryWriter(str(folder / "usual"))

    def run(examples: int) -> float:
        loader = DataLoader(Subset(dataset, [i % len(dataset) for i in range(examples)]), batch_size=32, shuffle=True)
        start = time.perf_counter()
        for step, (real, _) in enumerate(loader):
            real = real.view(-1, 784)  # (B, 1, 28, 28) -> (B, 784)
            fake = gen(torch.randn(len(real), 64))
            disc_real, disc_fake = disc(real).view(-1), disc(fake.detach()).view(-1)  # (B, 1) -> (B,)
            loss_real = criterion(disc_real, torch.ones_like(disc_real))
            loss_disc = (loss_real + criterion(disc_fake, torch.zeros_like(disc_fake))) / 2
            opt_disc.zero_grad()
            loss_disc.backward()
            opt_disc.step()
            output = disc(fake).view(-1)  # (B, 1) -> (B,)
            loss_gen = criterion(output, torch.ones_like(output))
            opt_gen.zero_grad()
            loss_gen.backward()
            opt_gen.step()
            if step % 50 == 0:
                writer.add_scalar("loss/discriminator", loss_disc.item(), step)
                writer.add_scalar("loss/generator", loss_gen.item(), step)
        return time.perf_counter() - start

    return run


def our_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Train through the trainer, with its TensorBoard, metrics and checkpoints as shipped."""
    process.setup(config.threads)
    digits = torchdl.load_images("mnist", root=config.data_root, low=-1, high=1).without_labels()

    def run(examples: int) -> float:
        model = torchdl.simple_gan()
        task = torchdl.GANTask(model.generator, model.discriminator)
        trainer = torchdl.Trainer(max_steps=examples // 32, device="cpu")
        start = time.perf_counter()
        trainer.fit(task, torchdl.BatchLoader(digits, 32, shuffle=True), folder=folder / "ours")
        return time.perf_counter() - start

    return run


def write_idx(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Write the files that ``torchvision.datasets.MNIST`` reads."""
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for array, name in ((images.numpy(), "images-idx3"), (labels.numpy().astype(np.uint8), "labels-idx1")):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


#: Each measurement's two sides: (config, folder) to a function that handles so many examples and gives the seconds.
MEASUREMENTS: dict[str, dict[str, Callable[[Config, Path], Callable[[int], float]]]] = {
    "gan": {"usual": usual_gan, "ours": our_gan},
}


def serve(config: Config, side: str, folder: Path, pipe: Connection) -> None:
    """Be one side: time as many examples as asked for, until asked for none."""
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)  # the trainer's lines an epoch
    run = MEASUREMENTS[config.name][side](config, folder)
    while examples := pipe.recv():
        pipe.send(examples / run(examples))


def measure(config: Config, folder: Path) -> dict[str, Any]:
    """Run both sides in turn, each in a process of its own with its own settings; return medians and ratios."""
    import_torchvision()  # the usual side needs it: say at once where it does not work
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    rates: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for side in MEASUREMENTS[config.name]:
        pipes[side], theirs = context.Pipe()
        (folder / side).mkdir()
        context.Process(target=serve, args=(config, side, folder / side, theirs), daemon=True).start()
        theirs.close()
    for repeat in range(config.repeats + 2):
        for side, pipe in pipes.items():
            pipe.send(sizes.get(side, 3200))
            try:
                rate = pipe.recv()
            except EOFError:
                raise torchdl.InputError(f"the side {side!r} has failed: its own message is above") from None
            if repeat < 2:  # to warm up, and to learn how much fills the seconds
                sizes[side] = max(3200, int(rate * config.seconds) // 32 * 32)
            else:
                rates.setdefault(side, []).append(rate)
    for pipe in pipes.values():
        pipe.send(0)
    ratios = [ours / usual for ours, usual in zip(rates["ours"], rates["usual"], strict=True)]
    medians = {side: round(statistics.median(values)) for side, values in rates.items()}
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    return {**medians, "ratio": round(statistics.median(ratios), 2), "ratios": spread, "examples": sizes}


def main(config: Config) -> None:
    """Measure, print and save."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(config, Path(folder))
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    report = json.dumps({config.name: {**result, "repeats": config.repeats, **machine}}, indent=2)
    print(report)
    if config.json is not None:
        config.json.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main, Config)
