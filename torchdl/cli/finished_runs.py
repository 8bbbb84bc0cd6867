"""Load finished runs that a script needs: a GAN, and the feature extractor that measures its samples."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from torchdl import artifacts
from torchdl.cli.record import located, located_dataset
from torchdl.data import ImageDataset
from torchdl.errors import InputError, require
from torchdl.files import read_config, read_settings
from torchdl.models import GAN, Generator
from torchdl.recipes.gan_evaluation import FeatureExtractor, load_feature_extractor
from torchdl.recipes.sample_monitor import SampleMonitor

NO_EXTRACTOR = Path("none")  # instead of a feature extractor's folder: none is used


class OfPlace(TypedDict, total=False):
    """The setting of a run that names the folder of its data sets."""

    data_root: str | None


class OfData(TypedDict, total=False):
    """The settings of a run that name its data."""

    dataset: str
    run: OfPlace


def load_gan(folder: Path) -> GAN:
    """Load the GAN of a run; raise :class:`InputError` if the run holds another model."""
    model = artifacts.load(folder)
    if not isinstance(model, GAN):
        advice = "name a run of train_gan.py"
        if isinstance(model, Generator):
            advice = "convert the generator together with its --discriminator"
        raise InputError(f"{folder} holds a {type(model).__name__}, not a GAN: {advice}")
    return model


def dataset_of(folder: Path) -> str:
    """Return the name of the dataset that a run was trained on; a folder's, as it is reached from here."""
    name = str(read_settings(folder, OfData).get("dataset"))
    return located_dataset(name, folder, read_config(folder))


def data_root_of(folder: Path) -> Path | None:
    """Return the folder of the data sets in which a run found its data, if it has recorded one and that is there."""
    root = read_settings(folder, OfData).get("run", {}).get("data_root")
    place = None if root is None else Path(located(root, folder, read_config(folder)))
    return place if place is not None and place.is_dir() else None


def extractor_command(dataset: str) -> str:
    """Return the command that trains the default feature extractor for a dataset."""
    name = default_extractor(Path(), dataset).name
    return f"python scripts/train_lenet.py --dataset {dataset} --seed 0 --name {name}"


def default_extractor(runs: Path, dataset: str) -> Path:
    """Return the folder of the default feature extractor for a dataset, within the folder of all runs."""
    return runs / "lenet" / f"judge-{Path(dataset).name}"


def find_extractor(folder: Path | None, runs: Path, dataset: str) -> FeatureExtractor:
    """Load the feature extractor in ``folder``, or the default one in ``runs``; an error says how to train it."""
    folder = folder or default_extractor(runs, dataset)
    command = f"train one with `{extractor_command(dataset)}`"
    require(folder.is_dir(), f"there is no feature extractor {folder}: {command}, or name one with --feature-extractor")
    try:
        return load_feature_extractor(folder, dataset)
    except InputError as error:
        raise InputError(f"{error}; {command}") from error


def find_sample_monitor(
    folder: Path | None, runs: Path, dataset: str, real: ImageDataset, count: int
) -> tuple[SampleMonitor | None, str]:
    """Return a sample monitor and a line on its feature extractor.

    There is no monitor if ``folder`` is :data:`NO_EXTRACTOR`, or if it is None and there is no default extractor.
    """
    if folder == NO_EXTRACTOR:
        return None, "samples are not measured"
    place = folder or default_extractor(runs, dataset)
    if folder is None and not place.is_dir():
        command = f"train one with `{extractor_command(dataset)}`"
        return None, f"samples are not measured, for there is no feature extractor {place}: {command}"
    extractor = find_extractor(folder, runs, dataset)
    line = f"feature extractor: {place}, test accuracy {100 * extractor.accuracy:.2f} %"
    return SampleMonitor(extractor, real, count), line
