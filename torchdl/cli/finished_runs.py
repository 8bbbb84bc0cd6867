"""Finished runs that scripts start from: a GAN, and the feature extractor that measures its samples."""

from __future__ import annotations

from pathlib import Path

from torchdl import artifacts
from torchdl.data import ImageDataset
from torchdl.errors import InputError, require
from torchdl.files import read_config
from torchdl.models import GAN
from torchdl.recipes.gan_evaluation import FeatureExtractor, load_feature_extractor
from torchdl.recipes.sample_monitor import SampleMonitor


def load_gan(folder: Path) -> GAN:
    """Load the GAN of a run; :class:`InputError` where it holds another model."""
    model = artifacts.load(folder)
    if not isinstance(model, GAN):
        raise InputError(f"{folder} holds a {type(model).__name__}, not a GAN: name a run of train_gan.py")
    return model


def dataset_of(folder: Path) -> str:
    """Return the name of the images that a run's GAN was trained on."""
    return str(read_config(folder).get("config", {}).get("dataset"))


def extractor_command(dataset: str) -> str:
    """Return the command that trains the default feature extractor of a data set."""
    return (
        f"python scripts/train_lenet.py --dataset {dataset} --seed 0 --name {default_extractor(Path(), dataset).name}"
    )


def default_extractor(runs: Path, dataset: str) -> Path:
    """Return the folder of a data set's default feature extractor, among all runs."""
    return runs / "lenet" / f"judge-{Path(dataset).name}"


def find_extractor(folder: Path | None, runs: Path, dataset: str) -> FeatureExtractor:
    """Load a feature extractor, the default one of ``runs`` if none is named; an error says how to train it."""
    folder = folder or default_extractor(runs, dataset)
    command = f"train one with `{extractor_command(dataset)}`"
    require(folder.is_dir(), f"there is no feature extractor {folder}: {command}, or name one by --feature-extractor")
    try:
        return load_feature_extractor(folder, dataset)
    except InputError as error:
        raise InputError(f"{error}; {command}") from error


def find_sample_monitor(
    folder: Path | None, runs: Path, dataset: str, real: ImageDataset, count: int
) -> tuple[SampleMonitor | None, str]:
    """Make a sample monitor if there is a feature extractor; return it with a sentence on which one it uses."""
    place = folder or default_extractor(runs, dataset)
    if folder is None and not place.is_dir():
        return None, f"samples are not measured: there is no feature extractor {place}; `{extractor_command(dataset)}`"
    found = find_extractor(folder, runs, dataset)
    return SampleMonitor(found, real, count), f"feature extractor: {place}, test accuracy {found.accuracy:.2%}"
