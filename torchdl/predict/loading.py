"""Load the predictor of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, TypeVar

import msgspec
import torch

from torchdl import artifacts
from torchdl.data.arrays import require_whole
from torchdl.errors import InputError, require
from torchdl.files import CONFIG, PREPROCESSING, WEIGHTS, PathLike, read_json, require_run
from torchdl.predict.base import Predictor
from torchdl.predict.direction_forecaster import DirectionForecaster
from torchdl.predict.forecaster import Forecaster
from torchdl.predict.image_classifier import ImageClassifier
from torchdl.predict.image_embedder import ImageEmbedder
from torchdl.predict.image_generator import ImageGenerator
from torchdl.predict.image_reconstructor import ImageReconstructor
from torchdl.predict.recommender import Recommender
from torchdl.predict.sequence_predictor import SequencePredictor
from torchdl.predict.signal_embedder import SignalEmbedder
from torchdl.predict.tabular import TabularPredictor
from torchdl.predict.text_classifier import TextClassifier
from torchdl.training.device import find_device

KINDS: dict[str, type[Predictor[Any]]] = {
    each.kind: each
    for each in (
        DirectionForecaster,
        Forecaster,
        ImageClassifier,
        ImageEmbedder,
        ImageGenerator,
        ImageReconstructor,
        Recommender,
        SequencePredictor,
        SignalEmbedder,
        TabularPredictor,
        TextClassifier,
    )
}

PredictorT = TypeVar("PredictorT", bound=Predictor[Any])


class Saved(TypedDict):
    """What ``preprocessing.json`` holds."""

    kind: str
    settings: dict[str, Any]


def load_predictor(folder: PathLike, device: str | torch.device = "auto", batch_size: int = 500) -> Predictor[Any]:
    """Load a trained run as something to use: its model, with what is between raw inputs and answers.

    No data set is needed, and no code of the folder is run: a stranger's folder is data. What a predictor takes and
    returns depends on what was trained; see its ``predict``.

    Args:
        folder: The folder of a run, or one that :meth:`Predictor.save` has written.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: The number of inputs that are computed at once.

    Raises:
        InputError: A file is missing, damaged or not torchdl's, or the files do not match.

    Example:
        >>> import tempfile
        >>> from torchdl.predict import ImageClassifier, ImageInput
        >>> folder = tempfile.mkdtemp()
        >>> settings = ImageClassifier.Settings(ImageInput(3, 32, 32), ("cat", "dog"))
        >>> ImageClassifier(torchdl.LenetLike((3, 32, 32), 2), settings).save(folder)
        >>> torchdl.load_predictor(folder).predict(torch.zeros(3, 40, 50)).inputs
        ['0']
    """
    folder, device = Path(folder), find_device(device)
    require_whole("batch_size", batch_size)
    require_run(folder)
    advice = "wait for the first checkpoint of its training, train again, or save a predictor there (predictor.save)"
    if not (folder / PREPROCESSING).is_file():
        trained = (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file()
        require(trained, f"{folder} is not the folder of a run: it holds no {PREPROCESSING}")
        require((folder / WEIGHTS).is_file(), f"{folder} holds no model yet: {advice}")
        raise InputError(
            f"{folder} holds no {PREPROCESSING}, which says how raw inputs become tensors: save a predictor there "
            "(predictor.save), or, if an older version trained it, resume the finished run where its data is, which "
            "only writes what is missing"
        )
    saved = read_json(folder / PREPROCESSING, Saved)
    cls = KINDS.get(saved["kind"])
    known = ", ".join(KINDS)
    if cls is None:
        raise InputError(f"{folder / PREPROCESSING} is of the unknown kind {saved['kind']!r}, not one of {known}")
    require((folder / WEIGHTS).is_file(), f"{folder} holds no model yet: {advice}")
    model, more = artifacts.load(folder), cls.read_more(folder)
    try:
        settings = msgspec.convert(saved["settings"], cls.Settings)
        return cls(model, settings, device, batch_size, **more)
    except (msgspec.ValidationError, InputError) as error:
        raise InputError(f"{folder / PREPROCESSING} is damaged or another model's: {error}") from error


def load_as(
    cls: type[PredictorT], folder: PathLike, device: str | torch.device = "auto", batch_size: int = 500
) -> PredictorT:
    """Load the predictor of a run that must be of the class ``cls``.

    Args:
        cls: The class, such as :class:`torchdl.predict.ImageClassifier`.
        folder, device, batch_size: As for :func:`load_predictor`.

    Raises:
        InputError: As :func:`load_predictor`, or the run's predictor is of another class.

    Example:
        >>> import tempfile
        >>> from torchdl.predict import Forecaster, ImageGenerator, load_as
        >>> folder = tempfile.mkdtemp()
        >>> ImageGenerator.of(torchdl.simple_gan()).save(folder)
        >>> load_as(ImageGenerator, folder).predict(2).shape
        torch.Size([2, 1, 28, 28])
        >>> load_as(Forecaster, "nowhere")
        Traceback (most recent call last):
            ...
        torchdl.errors.InputError: there is no folder nowhere: name that of a run
    """
    require(isinstance(cls, type), f"name the class of a predictor, such as torchdl.predict.Forecaster, not {cls!r}")
    return of_kind(cls, load_predictor(folder, device, batch_size), folder)


def of_kind(cls: type[PredictorT], predictor: Predictor[Any], folder: PathLike) -> PredictorT:
    """Return the predictor of a run, which must be of the class ``cls``; raise :class:`InputError` if it is not."""
    if not isinstance(predictor, cls):
        raise InputError(f"{folder} is the run of another kind, {predictor.kind}, not {cls.kind}: name another run")
    return predictor
