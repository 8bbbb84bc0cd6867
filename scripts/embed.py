"""Save the embeddings of a trained run, of pictures, recordings, texts or rows, for other programs to work with."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch
import torch.nn.functional as F
from torch import Tensor

from torchdl.cli.finished_runs import find_predictor
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.data.images import at_equal_distances
from torchdl.errors import InputError, require
from torchdl.files import encodable, require_suffix, write_array, write_table
from torchdl.predict import (
    ImageClassifier,
    ImageEmbedder,
    ImageInput,
    ImageReconstructor,
    Predictor,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
)
from torchdl.predict.images import listed
from torchdl.training.logging import Logger

POINTS = 10_000  # that the projector draws without delay
THUMBNAIL, SPRITE = 64, 4096  # pixels a side of the projector's pictures, and of all of them in one


@dataclass(frozen=True)
class Config:
    """Save the embeddings of pictures, of windows of recordings, of texts, or of rows of a table."""

    run: Positional[Path]
    """The folder of the run, or pretrained:NAME for a model that comes with torchdl, such as pretrained:lenet-mnist."""
    inputs: Positional[tuple[str, ...]] = ()
    """What to embed: pictures and folders of pictures, recordings and folders of them, texts and files of texts, or a
    CSV file with rows of a table."""
    out: Path | None = None
    """The file for the embeddings: .npy (numbers alone), or .csv (names first)."""
    projector: Path | None = None
    """A new folder for TensorBoard's projector; then: tensorboard --logdir FOLDER."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def picture_names(predictor: ImageClassifier | ImageReconstructor, inputs: list[Any]) -> list[str]:
    """Return what pictures are called."""
    return [name for name, _ in listed(inputs, predictor.settings.images.shape)]


def texts(predictor: TextClassifier, inputs: list[Any]) -> list[str]:
    """Return the texts themselves."""
    return predictor.read(inputs)[0]


# what the inputs are called, where a predictor's answers are no embeddings with names; else, their numbers
NAMES: dict[type[Predictor[Any]], Callable[[Any, list[Any]], list[str]]] = {
    ImageClassifier: picture_names,
    ImageReconstructor: picture_names,
    TextClassifier: texts,
}


def embed(predictor: Any, inputs: list[Any]) -> tuple[list[str], Tensor]:
    """Return the names of the inputs (N) and their embeddings (N, D)."""
    if isinstance(predictor, (ImageEmbedder, SignalEmbedder)):
        answers = predictor.predict(inputs)
        return list(answers.inputs), answers.embeddings
    if isinstance(predictor, TabularPredictor):
        require(len(inputs) == 1, "embed the rows of one table at a time: name one CSV file")
    embeddings = predictor.embed(inputs[0] if isinstance(predictor, TabularPredictor) else inputs)
    name = NAMES.get(type(predictor))
    return list(map(str, range(len(embeddings)))) if name is None else name(predictor, inputs), embeddings


def thumbnails(images: ImageInput, inputs: list[Any], chosen: Tensor) -> Tensor:
    """Return the pictures with the indices ``chosen`` (n,), reduced if necessary: (n, C, h, w) in [0, 1]."""
    side = min(THUMBNAIL, SPRITE // math.ceil(len(chosen) ** 0.5))
    scale = min(1.0, side / max(images.height, images.width))
    size = max(1, round(scale * images.height)), max(1, round(scale * images.width))
    parts, start = [], 0
    for batch in images.batches(inputs, 500):
        own = chosen[(chosen >= start) & (chosen < start + len(batch.images))] - start
        pixels = images.unscale(batch.images[own])
        parts.append(pixels if scale == 1 else F.interpolate(pixels, size, mode="area"))
        start += len(batch.images)
    return torch.cat(parts)


def save_projector(predictor: Any, names: list[str], embeddings: Tensor, inputs: list[Any], folder: Path) -> int:
    """Write the files of TensorBoard's projector; return the number of its points."""
    chosen = at_equal_distances(len(names), min(POINTS, len(names)))
    images = getattr(predictor.settings, "images", None)
    pictures = thumbnails(images, inputs, chosen) if isinstance(images, ImageInput) else None
    with closing(Logger(folder)) as logger:
        in_lines = [encodable(" ".join(names[index].split())) for index in chosen.tolist()]  # a line each
        logger.embedding(embeddings[chosen], in_lines, pictures)
    return len(chosen)


def save(names: list[str], embeddings: Tensor, path: Path) -> None:
    """Save embeddings (N, D) as .npy, or with the names first as .csv."""
    import pandas  # imported late: it takes a second

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".csv":
        table = pandas.DataFrame(embeddings.numpy())
        table.insert(0, "input", list(map(encodable, names)))
        write_table(path, table)
    else:
        write_array(path, embeddings.numpy())


def main(config: Config) -> None:
    """Load the run, embed, and save."""
    require(config.out is not None or config.projector is not None, "name a file with --out, such as codes.npy")
    if config.out is not None:
        require_suffix(config.out, ".npy", ".csv")
    if config.projector is not None:
        empty = not config.projector.exists() or (config.projector.is_dir() and not any(config.projector.iterdir()))
        require(empty, f"{config.projector} exists already: name a new folder for --projector")
    predictor = find_predictor(config.run, config.device)
    if not hasattr(predictor, "embed"):
        raise InputError(f"{config.run} is of the kind {predictor.kind}, which makes no embeddings: name another run")
    require(len(config.inputs) > 0, f"name what {config.run} shall embed, such as a folder")
    inputs = [Path(given) if os.path.exists(given) else given for given in config.inputs]
    names, embeddings = embed(predictor, inputs)
    size = f"{len(names):,} embeddings of {embeddings.shape[1]:,} numbers"
    if config.out is not None:
        save(names, embeddings, config.out)
        print(f"{size}: {config.out}")
    if config.projector is not None:
        points = save_projector(predictor, names, embeddings, inputs, config.projector)
        print(f"{points:,} of {size}: see them with tensorboard --logdir {config.projector}")


if __name__ == "__main__":
    run_script(main, Config)
