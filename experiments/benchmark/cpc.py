"""Data and training steps of the original CPC."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.graph import replayed
from experiments.benchmark.jax_training import use_cores
from experiments.benchmark.limit import Pass, limit
from experiments.benchmark.measure import timed
from torchdl.training.device import move, setup_process


class Original:
    """Sequences as the Keras original makes them: one image at a time, in Python."""

    def __init__(self, config: Config) -> None:
        from PIL import Image
        from sklearn.datasets import load_sample_images

        found = torchdl.load_digits("train", 28, color=False, root=config.data_root)
        assert found.labels is not None
        self.images, self.labels = found.images[:, 0].numpy() / 255.0, found.labels.numpy()
        self.photograph = Image.fromarray(load_sample_images().images[0])
        self.random = np.random.default_rng(0)

    def image(self, digit: int) -> np.ndarray:
        """Make one image (64, 64, 3) in [-1, 1] of a digit."""
        from scipy.ndimage import zoom

        number = self.random.choice(np.where(self.labels == digit)[0])
        mask = np.stack([zoom(self.images[number], 64 / 28, order=1)] * 3) >= 0.5
        left, top = (int(self.random.integers(0, side - 64)) for side in self.photograph.size)
        crop = np.asarray(self.photograph.crop((left, top, left + 64, top + 64))).transpose(2, 0, 1) / 255.0
        for channel in range(3):
            crop[channel] = (crop[channel] + self.random.uniform()) / 2
        crop[mask] = 1 - crop[mask]
        return (crop * 2 - 1).transpose(1, 2, 0)

    def batch(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Make 32 sequences: contexts (32, 4, 64, 64, 3), futures of the same shape, and labels (32, 1)."""
        digits = (self.random.integers(0, 10, (32, 1)) + np.arange(8)) % 10
        digits[16:, 4:] = (digits[16:, 4:] + self.random.integers(1, 10, (16, 4))) % 10
        order = self.random.permutation(32)
        images = np.stack([[self.image(digit) for digit in row] for row in digits[order]]).astype(np.float32)
        return [images[:, :4], images[:, 4:]], (order < 16).astype(np.float32)[:, None]


def keras_backend() -> str:
    """Return the original's Keras backend: TensorFlow if it is installed, else PyTorch, which is slower in Keras."""
    return "tensorflow" if importlib.util.find_spec("tensorflow") else "torch"


def keras_model(backend: str = "") -> Any:
    """Build the original's network in Keras."""
    os.environ["KERAS_BACKEND"] = backend or keras_backend()
    try:
        import keras
    except ImportError as error:
        raise torchdl.InputError("the original runs on Keras: pip install -e '.[test]'") from error
    from keras import layers

    image = x = keras.Input((64, 64, 3))
    for layer in [layers.Conv2D(64, 3, strides=2) for _ in range(4)] + [layers.Dense(256)]:
        x = layers.Flatten()(x) if isinstance(layer, layers.Dense) else x
        x = layers.LeakyReLU()(layers.BatchNormalization()(layer(x)))
    encoder = keras.Model(image, layers.Dense(128)(x))
    context, future = keras.Input((4, 64, 64, 3)), keras.Input((4, 64, 64, 3))
    state = layers.GRU(256)(layers.TimeDistributed(encoder)(context))
    steps = [layers.Reshape((1, 128))(layers.Dense(128)(state)) for _ in range(4)]
    product = layers.Multiply()([layers.Concatenate(axis=1)(steps), layers.TimeDistributed(encoder)(future)])
    mean = layers.GlobalAveragePooling1D()(layers.Reshape((4 * 128, 1))(product))
    model = keras.Model([context, future], layers.Activation("sigmoid")(mean))
    model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
    return model


def usual_cpc_data(config: Config, folder: Path) -> Callable[[int], float]:
    """Make sequences in the original's way."""
    data = Original(config)
    return lambda examples: timed(lambda: [data.batch() for _ in range(examples // 32)])


def usual_cpc_step(config: Config, folder: Path, backend: str = "") -> Callable[[int], float]:
    """Train the original in Keras on the same batch repeatedly."""
    if backend == "jax" and config.threads:
        use_cores(config.threads)
    model, batch = keras_model(backend), Original(config).batch()
    return lambda examples: timed(lambda: [model.train_on_batch(*batch) for _ in range(examples // 32)])


def usual_cpc(config: Config, folder: Path) -> Callable[[int], float]:
    """Train the original in Keras on its own sequences."""
    model, data = keras_model(), Original(config)
    return lambda examples: timed(lambda: [model.train_on_batch(*data.batch()) for _ in range(examples // 32)])


def usual_cpc_loop(config: Config, folder: Path) -> Callable[[int], float]:
    """Train our network on a GPU as tutorials do: a batch that is moved there in each step, plain Adam."""
    device = torch.device(config.device)
    task = torchdl.CPCTask(torchdl.image_cpc(), "paired").to(device)
    batch = torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root))[:32]
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3)

    def steps(count: int) -> None:
        for _ in range(count):
            (update,) = task.losses(move(batch, device))
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()

    return lambda examples: timed(lambda: steps(examples // 32), config.device)


def our_cpc_data(config: Config, folder: Path) -> Callable[[int], float]:
    """Make sequences as our training does."""
    setup_process(config.threads or 0)
    loader = torchdl.BatchLoader(torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root)), 32)
    batches = (batch for epoch in itertools.count() for batch in loader.batches(epoch))
    return lambda examples: timed(lambda: [next(batches) and None for _ in range(examples // 32)])


def our_cpc(config: Config, folder: Path, resident: bool = False, compile: bool = False) -> Callable[[int], float]:
    """Train the original's task with the trainer; with ``resident``, on the same batch repeatedly."""
    setup_process(config.threads or 0)
    data = torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root)).to(config.device)
    if resident:
        data.__getitems__ = functools.partial(lambda batch, _: batch, data[:32])  # type: ignore[method-assign]
    task = torchdl.CPCTask(torchdl.image_cpc(), "paired", monitor="train/loss")

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // 32, device=config.device, compile=compile)
        loader = torchdl.BatchLoader(data, 32)
        return timed(lambda: trainer.fit(task, loader, folder=tempfile.mkdtemp(dir=folder)), config.device)

    return run


def graph_cpc(config: Config, folder: Path) -> Callable[[int], float]:
    """Replay a step as one CUDA graph."""
    data = torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root))
    return replayed(torchdl.CPCTask(torchdl.image_cpc(), "paired"), data[:32], 32)


def limit_cpc(config: Config, folder: Path) -> Callable[[int], float]:
    """Compute a step's convolutions, products and recurrences, and Adam's memory traffic alone."""
    setup_process(config.threads or 0)
    images = torch.rand(32, 4, 3, 64, 64)
    return limit([Pass(torchdl.image_cpc(), (images, images))], 32)
