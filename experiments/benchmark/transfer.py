"""Training of a head on a frozen network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.lenet import noise_images
from torchdl.recipes.image_classification import ImageOptions
from torchdl.recipes.transfer import extract_features

TRANSFER_SIDE = 160  # pixels that the frozen network is given


def transfer(config: Config, folder: Path, keep: bool) -> Callable[[int], float]:
    """Train a head on a frozen network for ten epochs; ``keep`` computes the features once, not in every epoch."""
    torch.set_num_threads(config.threads or 1)
    images, labels = noise_images()
    side = TRANSFER_SIDE if config.seconds >= 1 else 32
    model = torchdl.transfer_model("efficientnet_lite0", 10, input_size=side)
    data = torchdl.ImageDataset(images, labels)

    def run(examples: int) -> float:
        part = data.subset(torch.arange(examples) % len(data))
        trainer = torchdl.Trainer(epochs=10, device="cpu")
        start = time.perf_counter()
        if keep:
            with tempfile.TemporaryDirectory(dir=folder) as cache:  # new, so that no features are cached
                features = extract_features(model, part, ImageOptions(), cache=Path(cache)).features
            network: nn.Module = model.head
            batches = torchdl.BatchLoader(torchdl.ArrayDataset(features, labels[:examples]), 64, shuffle=True)
        else:
            network = model
            batches = torchdl.BatchLoader(torchdl.ShiftedImages(part, 0.1, 0.5, 0), 64, shuffle=True)
        trainer.fit(torchdl.Supervised(network, F.cross_entropy), batches)
        return time.perf_counter() - start

    return run
