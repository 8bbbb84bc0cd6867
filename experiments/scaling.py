"""How time and memory grow: with processes and threads, and with ten times the data.

``python -m experiments.scaling processes`` and ``python -m experiments.scaling data`` print the tables. All
data are made up. Each measurement is a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

import torchdl
from experiments.benchmark.lenet import noise_images
from torchdl.collective import rank_and_size
from torchdl.training.device import setup_process

TURNS, STEPS = 3, {"lenet": 150, "cpc": 40}
LAYOUTS = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 processes, 1 thread each": (2, 1)}
ROWS = {"tables": 100_000, "ratings": 2_000_000, "texts": 20_000, "images": 2_000}


# processes and threads


def train(work: str, threads: int) -> None:
    """Train with a global batch of 64 images, or of 32 sequences; print the examples per second of all processes."""
    setup_process(threads)
    size, steps = rank_and_size()[1], STEPS[work]
    task: torchdl.Task
    if work == "lenet":
        (images, labels), batch = noise_images(), 64
        task = torchdl.Supervised(torchdl.LenetLike((3, 32, 32), 10), F.cross_entropy)
        loader = torchdl.BatchLoader(torchdl.ImageDataset(images, labels), batch // size, shuffle=True)
    else:
        batch, task = 32, torchdl.CPCTask(torchdl.image_cpc(), monitor="train/loss")
        loader = torchdl.BatchLoader(
            torchdl.SortedNumbers(torchdl.load_digits("train", name="mnist_5k")), batch // size
        )
    torchdl.Trainer(max_steps=5, device="cpu").fit(task, loader)
    start = time.perf_counter()
    torchdl.Trainer(max_steps=steps, device="cpu").fit(task, loader)
    if rank_and_size()[0] == 0:
        print(steps * batch / (time.perf_counter() - start))


def measure_processes() -> None:
    """Print the table of processes and threads: medians of turns."""
    print(f"| | {' | '.join(LAYOUTS)} |\n{'|---' * (1 + len(LAYOUTS))}|")
    for work in STEPS:
        rates: dict[str, list[float]] = {name: [] for name in LAYOUTS}
        for _ in range(TURNS):
            for name, (processes, threads) in LAYOUTS.items():
                launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
                command = [*(launch if processes > 1 else []), "-m", "experiments.scaling", "train", work, str(threads)]
                done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True)
                rates[name].append(float(done.stdout.split()[-1]))
        medians = [statistics.median(found) for found in rates.values()]
        print(f"| {work} | " + " | ".join(f"{rate:,.0f} ({rate / medians[0]:.2f})" for rate in medians) + " |")


# data


def write_table(path: Path, rows: int, generator: np.random.Generator) -> None:
    """Write a CSV file of 20 columns of numbers and a class."""
    values = generator.normal(size=(rows, 20)).round(3)
    label = (values[:, :3].sum(1) > 0).astype(int)
    header = ",".join([*(f"x{n}" for n in range(20)), "class"])
    np.savetxt(path, np.column_stack([values, label]), "%g", ",", header=header, comments="")


def write_ratings(path: Path, rows: int, generator: np.random.Generator) -> None:
    """Write ratings of 10,000 items by a user for each 100 ratings."""
    users, items = generator.integers(rows // 100, size=rows), generator.integers(10_000, size=rows)
    values = np.column_stack([users, items, generator.integers(1, 6, rows), np.arange(rows)])
    np.savetxt(path, values, "%d", ",", header="userId,movieId,rating,timestamp", comments="")


def write_texts(path: Path, rows: int, generator: np.random.Generator) -> None:
    """Write texts of 20 words out of 20,000, of two classes."""
    words = generator.zipf(1.3, (rows, 20)) % 20_000
    lines = (f"w{' w'.join(map(str, row))},{sum(row) % 2}" for row in words.tolist())
    path.write_text("message,kind\n" + "\n".join(lines))


def write_images(path: Path, rows: int, generator: np.random.Generator) -> None:
    """Write photographs of 64 x 64 pixels as JPEG, of ten classes."""
    from PIL import Image

    for number in range(rows):
        folder = path / ("test" if number < 10 else "train") / str(number % 10)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number}.jpg")


def load_table(path: Path) -> tuple[Any, ...]:
    """Return a network of two layers with the table's batches."""
    from torchdl.recipes import tabular

    table = torchdl.split_table(torchdl.read_table(path), "class")
    model = torchdl.MLP(len(table.columns.names), tabular.outputs(table.columns), hidden=(64, 64))
    return tabular.table_training(model, table, tabular.TableLearning(batch_size=256))


def load_ratings(path: Path) -> tuple[Any, ...]:
    """Return a factorization with the ratings' batches."""
    from torchdl.recipes import recommendation

    split = torchdl.split_ratings(torchdl.read_ratings(path), 0.2)
    model = torchdl.MatrixFactorization(len(split.users), len(split.items), split.mean, dim=16)
    return recommendation.rating_training(model, split, recommendation.DEFAULTS)


def load_texts(path: Path) -> tuple[Any, ...]:
    """Return a bag of words with the texts' batches."""
    from torchdl.recipes import text_classification as recipe

    train, test = torchdl.read_texts(path, text="message", label="kind").split(0.2, seed=0)
    vocabulary = torchdl.Vocabulary.learn(train.texts, most=20_000, unknown=True, least=1)
    data, test_data = (part.numbered(vocabulary) for part in (train, test))
    return recipe.text_training(torchdl.TextCNN(len(vocabulary), 1), train, data, test_data, recipe.TextLearning())


def load_pictures(path: Path) -> tuple[Any, ...]:
    """Return a small convolutional network with the images' batches."""
    images = torchdl.load_images(str(path), image_size=32)
    task = torchdl.Supervised(torchdl.LenetLike(images.image_shape, len(images.classes), width=8), F.cross_entropy)
    return task, torchdl.BatchLoader(images, 64, shuffle=True)


KINDS: dict[str, tuple[str, Callable[..., None], Callable[[Path], tuple[Any, ...]]]] = {
    "tables": ("table.csv", write_table, load_table),
    "ratings": ("ratings.csv", write_ratings, load_ratings),
    "texts": ("texts.csv", write_texts, load_texts),
    "images": ("images", write_images, load_pictures),
}


def load_and_train(kind: str, path: str) -> None:
    """Load the data and train for an epoch; print the seconds of both, and the peak memory in MiB."""
    setup_process(1)
    start = time.perf_counter()
    task, *loaders = KINDS[kind][2](Path(path))
    loaded = time.perf_counter()
    torchdl.Trainer(epochs=1, device="cpu").fit(task, *loaders)
    trained = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(json.dumps([loaded - start, trained - loaded, peak]))


def measure_data() -> None:
    """Print the table of data: each kind at two sizes.

    Another process writes the data, because a process counts what its parent held when it was started as its own peak.
    """
    print("| | rows | load, s | an epoch, s | peak memory, MiB |\n|---|---|---|---|---|")
    module = [sys.executable, "-m", "experiments.scaling"]
    for kind, (name, *_) in KINDS.items():
        for rows in (ROWS[kind], 10 * ROWS[kind]):
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / name)
                subprocess.run([*module, "write", kind, path, str(rows)], check=True)
                environment = {**os.environ, "XDG_CACHE_HOME": folder}  # so that nothing is decoded already
                load = [*module, "load", kind, path]
                done = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            loading, epoch, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"| {kind} | {rows:,} | {loading:.1f} | {epoch:.1f} | {peak:,.0f} |", flush=True)


def main(what: str = "", *arguments: str) -> None:
    """Measure, or do what a measurement asks of its processes."""
    if what == "train":
        train(arguments[0], int(arguments[1]))
    elif what == "write":
        kind, path, rows = arguments
        KINDS[kind][1](Path(path), int(rows), np.random.default_rng(0))
    elif what == "load":
        load_and_train(*arguments)
    elif what in ("processes", "data"):
        {"processes": measure_processes, "data": measure_data}[what]()
    else:
        sys.exit("usage: python -m experiments.scaling processes|data")


if __name__ == "__main__":
    main(*sys.argv[1:])
