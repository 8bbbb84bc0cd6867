"""Training of the notes' GAN."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import torchdl
from experiments.benchmark.config import Config
from experiments.benchmark.graph import replayed
from experiments.benchmark.jax_training import training, use_cores
from experiments.benchmark.limit import Pass, limit
from experiments.benchmark.measure import clock, timed
from torchdl.training.device import setup_process


def usual_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Train as tutorials do: one image at a time through torchvision, three discriminator passes, Adam."""
    from torch.utils.data import DataLoader, Subset
    from torch.utils.tensorboard import SummaryWriter
    from torchvision import datasets, transforms

    torch.set_num_threads(config.threads or 1)
    digits = torchdl.load_images("mnist", root=config.data_root)
    assert digits.labels is not None
    write_idx(folder / "MNIST" / "raw", digits.images[:, 0], digits.labels)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(str(folder), transform=transform)
    device = config.device
    disc = nn.Sequential(nn.Linear(784, 128), nn.LeakyReLU(0.1), nn.Linear(128, 1), nn.Sigmoid()).to(device)
    gen = nn.Sequential(nn.Linear(64, 256), nn.LeakyReLU(0.1), nn.Linear(256, 784), nn.Tanh()).to(device)
    opt_disc = torch.optim.Adam(disc.parameters(), lr=3e-4)
    opt_gen = torch.optim.Adam(gen.parameters(), lr=3e-4)
    criterion = nn.BCELoss()
    writer = SummaryWriter(str(folder / "usual"))

    def run(examples: int) -> float:
        loader = DataLoader(Subset(dataset, [i % len(dataset) for i in range(examples)]), batch_size=32, shuffle=True)
        start = clock(device)
        for step, (real, _) in enumerate(loader):
            real = real.view(-1, 784).to(device)  # (B, 1, 28, 28) -> (B, 784)
            fake = gen(torch.randn(len(real), 64).to(device))
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
        return clock(device) - start

    return run


def our_gan(config: Config, folder: Path, compile: bool = False) -> Callable[[int], float]:
    """Train with the trainer and its default TensorBoard logs, metrics and checkpoints."""
    setup_process(config.threads or 1)
    digits = torchdl.load_images("mnist", root=config.data_root, low=-1, high=1).without_labels()

    def run(examples: int) -> float:
        model = torchdl.simple_gan()
        task = torchdl.GANTask(model)
        trainer = torchdl.Trainer(max_steps=examples // 32, device=config.device, compile=compile)
        loader = torchdl.BatchLoader(digits, 32, shuffle=True)
        return timed(lambda: trainer.fit(task, loader, folder=tempfile.mkdtemp(dir=folder)), config.device)

    return run


def jax_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Train with JAX: both updates in one compiled step, Adam of optax, the data in its memory."""
    use_cores(config.threads or 1)
    import jax
    import jax.numpy as jnp
    import optax

    digits = jnp.asarray(torchdl.load_images("mnist", root=config.data_root).images.flatten(1).numpy())  # (N, 784)

    def layers(key: Any, *sizes: int) -> list[tuple[Any, Any]]:
        pairs = list(itertools.pairwise(sizes))
        keys = jax.random.split(key, len(pairs))
        return [(jax.random.normal(k, pair) / pair[0] ** 0.5, jnp.zeros(pair[1])) for k, pair in zip(keys, pairs)]  # noqa: B905

    def forward(layers: list[tuple[Any, Any]], x: Any) -> Any:
        (first, bias), (second, last) = layers
        return jax.nn.leaky_relu(x @ first + bias, 0.1) @ second + last

    def generate(layers: list[tuple[Any, Any]], noise: Any) -> Any:
        return jnp.tanh(forward(layers, noise))

    def discriminator_loss(layers: list[tuple[Any, Any]], real: Any, fake: Any) -> Any:
        logits = forward(layers, jnp.concatenate([real, fake]))
        return (jax.nn.softplus(-logits[:32]).mean() + jax.nn.softplus(logits[32:]).mean()) / 2

    adam = optax.adam(3e-4)
    keys = jax.random.split(jax.random.key(0), 2)
    generator, discriminator = layers(keys[0], 64, 256, 784), layers(keys[1], 784, 128, 1)
    carried: Any = (generator, discriminator, adam.init(generator), adam.init(discriminator))

    @jax.jit
    def step(carried: Any, index: Any, number: Any) -> Any:
        generator, discriminator, of_generator, of_discriminator = carried
        real = digits[index] / 127.5 - 1
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(1), number), (32, 64))
        fake, backward = jax.vjp(lambda layers: generate(layers, noise), generator)
        loss, gradients = jax.value_and_grad(discriminator_loss)(discriminator, real, fake)
        updates, of_discriminator = adam.update(gradients, of_discriminator)
        discriminator = optax.apply_updates(discriminator, updates)
        other, at_fake = jax.value_and_grad(lambda x: jax.nn.softplus(-forward(discriminator, x)).mean())(fake)
        updates, of_generator = adam.update(backward(at_fake)[0], of_generator)
        generator = optax.apply_updates(generator, updates)
        return (generator, discriminator, of_generator, of_discriminator), loss, other

    return training(step, carried, len(digits), 32)


def limit_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Compute a step's products and Adam's memory traffic alone."""
    setup_process(config.threads or 1)
    generator, discriminator = torchdl.Generator(), torchdl.Discriminator()
    real, fake = torch.randn(64, 1, 28, 28), torch.randn(32, 1, 28, 28)
    passes = [
        Pass(generator, (torch.randn(32, 64),)),
        Pass(discriminator, (real,), "logits"),
        Pass(discriminator, (fake,), "logits", of_weights=False, of_inputs=True),
    ]
    return limit(passes, 32)


def graph_gan(config: Config, folder: Path) -> Callable[[int], float]:
    """Replay a step as one CUDA graph."""
    return replayed(torchdl.GANTask(torchdl.simple_gan()), torch.rand(32, 1, 28, 28) * 2 - 1, 32)


def write_idx(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Write the files that ``torchvision.datasets.MNIST`` reads."""
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for array, name in ((images.numpy(), "images-idx3"), (labels.numpy().astype(np.uint8), "labels-idx1")):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
