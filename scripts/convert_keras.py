"""Turn a file of Keras into the folder of a run, which the other scripts take, or a run into a file of Keras."""

from __future__ import annotations

import hashlib
import math
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import torch
from torch import nn

import torchdl
from torchdl import GAN, Discriminator, Generator, InputError
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.cli.record import WORKING_FOLDER
from torchdl.data.digits import load_photographs
from torchdl.data.sources import SOURCES, data_roots, names
from torchdl.errors import kind_of, require
from torchdl.files import CONFIG, WEIGHTS, write_json
from torchdl.keras import describe_import, largest_difference, to_keras
from torchdl.keras.exporting import files_written
from torchdl.predict import ImageClassifier, ImageEmbedder, ImageGenerator, ImageInput, ImageReconstructor, Predictor
from torchdl.predict.images import DIGIT, DIGITS

CHANNELS = (1, 3)  # of pictures


@dataclass(frozen=True)
class Config:
    """Convert a network between Keras and this project; the source decides the direction."""

    source: Positional[Path]
    """A file of Keras (.h5, .keras, or weights only), or the folder of a run."""
    out: Path
    """The folder of the new run, such as runs/imported; for a run, the file to write (.keras, .h5 or .weights.h5),
    whose classifier has logits as outputs."""
    architecture: Path | None = None
    """The JSON file with the layers, for a file of Keras that holds weights only."""
    discriminator: Path | None = None
    """The file of the discriminator, to make a GAN of the generator in the first file."""
    network: str | None = None
    """The class to make, such as SequenceModel, where the same layers are several networks."""
    dataset: str = "mnist"
    """The data set that the network was trained on. It and the next four go into the run, for probes and samples."""
    classes: tuple[str, ...] = ()
    """The names of the classes of a classifier of images, in the order of its outputs; if not given, those of mnist,
    mnist_5k or fashion_mnist. Without names it can be evaluated and trained, but predict.py cannot name its answers."""
    color: bool = True
    """Whether an encoder of CPC was trained on coloured digits."""
    rescale: bool = True
    """Whether its pixels were scaled to [-1, 1], instead of [0, 1]."""
    background: Path | None = None
    """The picture on which its digits were drawn; china or flower, or both of these photographs if not given."""


def load(path: Path, architecture: Path | None = None, network: str | None = None) -> nn.Module:
    """Load the network of a file of Keras; print what to know about it, and compare it with Keras."""
    found = describe_import(path, architecture, network)
    for note in found.notes:
        print(note)
    try:
        largest, scale = largest_difference(path, found, architecture)
        print(f"largest difference from Keras on random inputs: {largest:.1e}, of outputs up to {scale:.3g}")
    except InputError as error:
        print(f"not compared with Keras: {error}")
    return found.model


def gan(generator: nn.Module, discriminator: nn.Module) -> GAN:
    """Make a GAN of its two networks, if the images are square and grey."""
    if not isinstance(generator, Generator) or not isinstance(discriminator, Discriminator):
        kinds = f"{kind_of(generator)} and {kind_of(discriminator)}"
        raise InputError(f"--discriminator makes a GAN of a Generator and a Discriminator, not of {kinds}")
    side = math.isqrt(generator.img_dim)
    require(
        side**2 == generator.img_dim, f"the generator's images of {generator.img_dim} pixels are not square and grey"
    )
    require(generator.img_dim == discriminator.in_features, "the discriminator takes images of another size")
    return GAN(generator, discriminator, (1, side, side)).eval()


def settings(config: Config, model: nn.Module) -> dict[str, Any]:
    """Return the settings that the other scripts read from a run with this network."""
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, torchdl.ImageEncoder):
        return {"dataset": config.dataset}
    digits = {"color": config.color, "rescale": config.rescale, "background": config.background}
    length = {"epochs": 10, "max_steps": 0}  # of the original, and so of a supervised encoder beside it
    return {"dataset": config.dataset, "image_size": encoder.image_size, **digits, "trainer": length}


def classes_of(config: Config, model: Any) -> tuple[str, ...]:
    """Return the names of an image classifier's classes, none if they are not known."""
    known = SOURCES.get("mnist" if config.dataset == "mnist_5k" else config.dataset)
    classes = config.classes or (known.classes if known is not None and model.in_shape == DIGIT else ())
    fits = len(classes) == model.num_classes
    outputs = f"the network has {model.num_classes} outputs"
    require(fits or not config.classes, f"{outputs}, and --classes has {len(config.classes)} names: name one for each")
    return classes if fits else ()


def predictor_of(config: Config, model: Any) -> Predictor[Any] | None:
    """Return the predictor of a network of images whose scale of pixels and classes are known; None for others."""
    encoder = getattr(model, "encoder", model)
    classifies = hasattr(model, "in_shape") and hasattr(model, "num_classes") and model.in_shape[0] in CHANNELS
    require(classifies or not config.classes, f"--classes is for classifiers of images, not for {kind_of(model)}")
    if classifies and (classes := classes_of(config, model)):
        digits = config.dataset in DIGITS and model.in_shape == DIGIT
        channels, height, width = model.in_shape
        pixels = ImageInput(channels, height, width, prepare="digit" if digits else "crop")
        return ImageClassifier(model, ImageClassifier.Settings(pixels, classes), "cpu")
    if isinstance(model, GAN) and model.image_shape[0] in CHANNELS:
        return ImageGenerator.of(model, "cpu")
    if isinstance(model, torchdl.Autoencoder) and model.in_shape[0] in CHANNELS:
        channels, height, width = model.in_shape
        digits = config.dataset in DIGITS and (channels, height, width) == DIGIT
        pixels = ImageInput(channels, height, width, prepare="digit" if digits else "crop")
        return ImageReconstructor(model, ImageReconstructor.Settings(pixels), "cpu")
    if isinstance(encoder, torchdl.ImageEncoder) and encoder.channels in CHANNELS:
        low, digits = -1.0 if config.rescale else 0.0, config.dataset in DIGITS and not config.color
        shape = (encoder.channels, encoder.image_size, encoder.image_size)
        pixels = ImageInput(*shape, low, "digit" if digits else "crop")
        return ImageEmbedder(model, ImageEmbedder.Settings(pixels), "cpu")
    return None


def main(config: Config) -> None:
    """Convert the source to the other side."""
    if (config.source / WEIGHTS).is_file():
        taken = next((path for path in files_written(config.out) if path.exists()), None)
        require(taken is None, f"{taken} exists already: choose another --out")
        for option in fields(Config)[2:]:
            of_files = f"--{option.name} is for files of Keras, and {config.source} is the folder of a run"
            require(getattr(config, option.name) == option.default, f"{of_files}: leave it out")
        print("\n".join([*to_keras(torchdl.load(config.source), config.out), str(config.out)]))
        return
    free = not config.out.exists() or (config.out.is_dir() and not any(config.out.iterdir()))
    require(free, f"{config.out} exists already: choose another --out")
    known = config.dataset in names() or any((root / config.dataset).is_dir() for root in (Path(), *data_roots()))
    require(known, f"unknown data set {config.dataset!r}: choose one of {', '.join(names())}, or a folder of images")
    load_photographs(config.background, size=1)
    model = load(config.source, config.architecture, config.network)
    if config.discriminator is not None:
        model = gan(model, load(config.discriminator, network="Discriminator"))
    predictor = predictor_of(config, model)
    torchdl.save(model, config.out)
    if predictor is not None:
        predictor.save_settings(config.out)
    digest = {"sha256": hashlib.sha256(config.source.read_bytes()).hexdigest()} if config.source.is_file() else {}
    record = {
        "config": settings(config, model),
        WORKING_FOLDER: str(Path().absolute()),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "data": {"origin": config.source, **digest},
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(config.out / CONFIG, record)
    print(f"{type(model).__name__} with {record['parameters']:,} parameters: {config.out}")


if __name__ == "__main__":
    run_script(main, Config)
