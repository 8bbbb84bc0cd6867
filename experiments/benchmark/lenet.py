"""Training of LenetLike on images of CIFAR-10's shape."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.graph import replayed
from experiments.benchmark.jax_training import use_cores
from experiments.benchmark.limit import Pass, limit
from experiments.benchmark.measure import clock, timed
from torchdl.tasks import accuracy
from torchdl.training.device import setup_process


def noise_images() -> tuple[Tensor, Tensor]:
    """Draw random images like CIFAR-10's, (50000, 3, 32, 32), and labels; the content does not affect the speed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (50_000,), generator=generator)


def usual_lenet(config: Config, folder: Path, from_files: bool = False) -> Callable[[int], float]:
    """Train as tutorials do: torchvision's CIFAR10 or ImageFolder, ToTensor, one image at a time, Adam."""
    from PIL import Image
    from torch.utils.data import DataLoader, Subset
    from torch.utils.tensorboard import SummaryWriter
    from torchvision import datasets, transforms

    images, labels = noise_images()
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()  # (N, C, H, W) -> (N, H, W, C), as torchvision has them
    dataset: Any
    if from_files:
        for number, (image, label) in enumerate(zip(pixels[:2_000], labels[:2_000].tolist(), strict=True)):
            (folder / "images" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "images" / str(label) / f"{number}.jpg")
        dataset = datasets.ImageFolder(str(folder / "images"), transforms.ToTensor())
    else:
        dataset = datasets.CIFAR10.__new__(datasets.CIFAR10)  # its constructor insists on the files
        dataset.data, dataset.targets = pixels, labels.tolist()
        dataset.transform, dataset.target_transform = transforms.ToTensor(), None
    stages = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    stages += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*stages, nn.Flatten(), nn.Linear(64 * 8 * 8, 512), nn.ReLU(), nn.Linear(512, 10))
    model, device = model.to(config.device), config.device
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    writer = SummaryWriter(str(folder / "usual"))

    def run(examples: int) -> float:
        loader = DataLoader(Subset(dataset, [i % len(dataset) for i in range(examples)]), batch_size=64, shuffle=True)
        start = clock(device)
        for step, (x, y) in enumerate(loader):
            x, y = x.to(device), y.to(device)
            output = model(x)
            loss = criterion(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                writer.add_scalar("loss", loss.item(), step)
                writer.add_scalar("accuracy", (output.argmax(1) == y).float().mean().item(), step)
        return clock(device) - start

    return run


def our_lenet(
    config: Config, folder: Path, precision: Literal["fp32", "tf32", "bf16"] = "fp32", compile: bool = False
) -> Callable[[int], float]:
    """Train with the trainer and its default TensorBoard logs, metrics and checkpoints."""
    setup_process(config.threads or 0)
    data = torchdl.ImageDataset(*noise_images())
    task, device = our_task(), config.device

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // 64, device=device, precision=precision, compile=compile)
        loader = torchdl.BatchLoader(data, 64, shuffle=True)
        return timed(lambda: trainer.fit(task, loader, folder=tempfile.mkdtemp(dir=folder)), config.device)

    return run


def our_task() -> torchdl.Supervised:
    """Return the task of training LenetLike."""
    return torchdl.Supervised(torchdl.LenetLike((3, 32, 32), 10), F.cross_entropy, {"accuracy": accuracy})


def graph_lenet(config: Config, folder: Path) -> Callable[[int], float]:
    """Replay a step as one CUDA graph."""
    return replayed(our_task(), (torch.rand(64, 3, 32, 32), torch.arange(64) % 10), 64)


def keras_lenet(config: Config, folder: Path) -> Callable[[int], float]:
    """Train in Keras on JAX, whose step is compiled, from arrays."""
    if config.threads:
        use_cores(config.threads)
    os.environ["KERAS_BACKEND"] = "jax"
    import keras
    from keras import layers

    images, labels = noise_images()
    x, y = images.permute(0, 2, 3, 1).numpy().astype(np.float32) / 255, labels.numpy()  # (N, H, W, C), Keras' layout
    stages = [layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    stages += [layers.Conv2D(64, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    stages += [layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *stages])
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def run(examples: int) -> float:
        index = np.arange(examples) % len(x)
        data = x[index], y[index]
        return timed(lambda: model.fit(*data, batch_size=64, verbose=0))

    return run


def limit_lenet(config: Config, folder: Path) -> Callable[[int], float]:
    """Compute a step's convolutions, products and Adam's memory traffic alone."""
    setup_process(config.threads or 0)
    return limit([Pass(torchdl.LenetLike((3, 32, 32), 10), (torch.rand(64, 3, 32, 32),))], 64)
