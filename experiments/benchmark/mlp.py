"""Training of an MLP 784-1024-1024-10 on MNIST, in batches of 64."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.graph import replayed
from experiments.benchmark.jax_training import training, use_cores
from experiments.benchmark.limit import Pass, limit
from experiments.benchmark.measure import clock, timed
from torchdl.training.device import setup_process

WIDTH, BATCH = 1024, 64


def digits(config: Config) -> tuple[Tensor, Tensor]:
    """Return MNIST's training images (N, 784) in [0, 1] and labels (N,)."""
    found = torchdl.load_images("mnist", root=config.data_root)
    assert found.labels is not None
    return found.images.flatten(1).float() / 255, found.labels


def usual_mlp(config: Config, folder: Path) -> Callable[[int], float]:
    """Train as tutorials do: tensors in a DataLoader, plain Adam."""
    from torch.utils.data import DataLoader, Subset, TensorDataset
    from torch.utils.tensorboard import SummaryWriter

    torch.set_num_threads(config.threads or 1)
    data = TensorDataset(*digits(config))
    layers = nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)
    model, criterion, device = nn.Sequential(*layers).to(config.device), nn.CrossEntropyLoss(), config.device
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    writer = SummaryWriter(str(folder / "usual"))

    def run(examples: int) -> float:
        loader = DataLoader(Subset(data, [i % len(data) for i in range(examples)]), batch_size=BATCH, shuffle=True)
        start = clock(device)
        for step, (x, y) in enumerate(loader):
            loss = criterion(model(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                writer.add_scalar("loss", loss.item(), step)
        return clock(device) - start

    return run


def our_mlp(config: Config, folder: Path, compile: bool = False) -> Callable[[int], float]:
    """Train with the trainer and its default TensorBoard logs, metrics and checkpoints."""
    setup_process(config.threads or 1)
    data = torchdl.ArrayDataset(*digits(config))
    task = our_task()

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // BATCH, device=config.device, compile=compile)
        loader = torchdl.BatchLoader(data, BATCH, shuffle=True)
        return timed(lambda: trainer.fit(task, loader, folder=tempfile.mkdtemp(dir=folder)), config.device)

    return run


def our_task() -> torchdl.Supervised:
    """Return the task of training the network."""
    return torchdl.Supervised(torchdl.MLP(784, 10, (WIDTH, WIDTH), dropout=0.0), F.cross_entropy)


def graph_mlp(config: Config, folder: Path) -> Callable[[int], float]:
    """Replay a step as one CUDA graph."""
    return replayed(our_task(), (torch.randn(BATCH, 784), torch.arange(BATCH) % 10), BATCH)


def jax_mlp(config: Config, folder: Path) -> Callable[[int], float]:
    """Train with JAX: the whole step compiled, Adam of optax, the data in its memory."""
    use_cores(config.threads or 1)
    import jax
    import jax.numpy as jnp
    import optax

    x, y = (jnp.asarray(values.numpy()) for values in digits(config))
    keys = jax.random.split(jax.random.key(0), 3)
    sizes = (784, WIDTH, WIDTH, 10)
    weights = [
        (jax.random.normal(key, (rows, columns)) / rows**0.5, jnp.zeros(columns))
        for key, rows, columns in zip(keys, sizes, sizes[1:], strict=False)
    ]
    optimizer = optax.adam(1e-3)

    def loss(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array, y: jax.Array) -> jax.Array:
        for weight, bias in weights[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ weights[-1][0] + weights[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(carried: Any, index: Any, number: Any) -> Any:
        weights, state = carried
        value, gradients = jax.value_and_grad(loss)(weights, x[index], y[index])
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(weights, updates), state), value

    return training(step, (weights, optimizer.init(weights)), len(x), BATCH)


def limit_mlp(config: Config, folder: Path) -> Callable[[int], float]:
    """Compute a step's products and Adam's memory traffic alone."""
    setup_process(config.threads or 1)
    model = torchdl.MLP(784, 10, (WIDTH, WIDTH), dropout=0.0)
    return limit([Pass(model, (torch.randn(BATCH, 784),))], BATCH)
