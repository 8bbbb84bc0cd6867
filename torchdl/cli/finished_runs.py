"""Load finished runs that a script needs: a GAN, and the feature extractor that measures its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from torchdl import artifacts
from torchdl.cli.printing import say
from torchdl.cli.record import located, located_dataset
from torchdl.data import ImageDataset
from torchdl.errors import InputError, kind_of, require
from torchdl.files import CONFIG, METRICS, read_config, read_settings
from torchdl.models import GAN, Generator
from torchdl.predict import Predictor, load_predictor, pretrained
from torchdl.recipes.gan_evaluation import PRETRAINED, FeatureExtractor, load_feature_extractor, pretrained_extractor
from torchdl.recipes.run_comparison import progress, read_run
from torchdl.recipes.sample_monitor import SampleMonitor
from torchdl.training.folder import in_training

NO_EXTRACTOR = Path("none")  # instead of a feature extractor's folder: none is used

PRETRAINED_PREFIX = "pretrained:"  # before the name of a model that comes with torchdl


class OfPlace(TypedDict, total=False):
    """The setting of a run that names the folder of its data sets."""

    data_root: str | None


class OfData(TypedDict, total=False):
    """The settings of a run that name its data."""

    dataset: str
    run: OfPlace


def find_predictor(run: Path, device: str = "auto") -> Predictor[Any]:
    """Load the predictor of a run's folder, or one that comes with torchdl (:data:`PRETRAINED_PREFIX`, its name).

    If the run is still being trained, or has not been trained to its end, print so.
    """
    if name := comes_with_torchdl(run):
        return pretrained(name, device)
    predictor = load_predictor(run, device)
    if in_training(run):
        say(f"{run} is being trained at this moment: its model is that of the latest checkpoint")
    elif (run / CONFIG).is_file() and (run / METRICS).is_file():
        summary = read_run(run)
        if not summary.finished:
            say(f"{run} is not finished: its model is that of {progress(summary.settings, summary.history)}")
    return predictor


def load_gan(folder: Path) -> GAN:
    """Load the GAN of a run; raise :class:`InputError` if the run holds another model."""
    model = artifacts.load(folder)
    if not isinstance(model, GAN):
        advice = "name a run of train_gan.py"
        if isinstance(model, Generator):
            advice = "convert the generator together with its --discriminator"
        raise InputError(f"{folder} holds {kind_of(model)}, not a GAN: {advice}")
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
    name = f"judge-{Path(dataset).name}"
    return f"python scripts/train_lenet.py --dataset {dataset} --seed 0 --name {name}"


def default_extractor(runs: Path, dataset: str) -> Path:
    """Return the default feature extractor for a dataset.

    That is the folder for it within the folder of all runs, or, if that is not there, the classifier that comes with
    torchdl, written as :data:`PRETRAINED_PREFIX` and its name.
    """
    folder = runs / "lenet" / f"judge-{Path(dataset).name}"
    if not folder.is_dir() and dataset in PRETRAINED:
        return Path(f"{PRETRAINED_PREFIX}{PRETRAINED[dataset]}")
    return folder


def comes_with_torchdl(place: Path) -> str:
    """Return the name of a model that comes with torchdl, or an empty string for a folder."""
    name = str(place)
    return name.removeprefix(PRETRAINED_PREFIX) if name.startswith(PRETRAINED_PREFIX) else ""


def find_extractor(place: Path, dataset: str) -> FeatureExtractor:
    """Load a feature extractor from a run's folder, or one that comes with torchdl; an error says how to train one."""
    if name := comes_with_torchdl(place):
        return pretrained_extractor(name, dataset)
    command = f"train one with `{extractor_command(dataset)}`"
    require(place.is_dir(), f"there is no feature extractor {place}: {command}, or name one with --feature-extractor")
    try:
        return load_feature_extractor(place, dataset)
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
    if folder is None and not (place.is_dir() or comes_with_torchdl(place)):
        command = f"train one with `{extractor_command(dataset)}`"
        return None, f"samples are not measured, for there is no feature extractor {place}: {command}"
    extractor = find_extractor(place, dataset)
    return SampleMonitor(extractor, real, count), describe_extractor(place, extractor)


def describe_extractor(place: Path, extractor: FeatureExtractor) -> str:
    """Return a line that says which feature extractor is used."""
    name = comes_with_torchdl(place)
    where = f"{name}, which comes with torchdl" if name else str(place)
    return f"feature extractor: {where}, test accuracy {100 * extractor.accuracy:.2f} %"
