"""Trained models that come with torchdl: folders in ``torchdl/pretrained``, each with its card, and an index."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypedDict

import torch

from torchdl.errors import InputError, require
from torchdl.files import read_json
from torchdl.predict.base import Predictor
from torchdl.predict.loading import load_predictor

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
INDEX = "index.json"
CARD = "card.md"


class Pretrained(TypedDict):
    """What the index says of one model: a sentence, its kind and data, its figures, and the SHA-256 of its files."""

    about: str
    kind: str
    dataset: str
    figures: dict[str, float]
    files: dict[str, str]


def read_index(folder: Path = FOLDER) -> dict[str, Pretrained]:
    """Return what comes with torchdl, by name; ``folder`` holds it."""
    return dict(read_json(folder / INDEX, dict[str, Pretrained]))


def pretrained_models() -> dict[str, str]:
    """Return the names that :func:`pretrained` takes, each with a sentence on the model.

    Example:
        >>> from torchdl.predict import pretrained_models
        >>> "lenet-mnist" in pretrained_models()
        True
    """
    return {name: entry["about"] for name, entry in read_index().items()}


def model_card(name: str) -> str:
    """Return the card of a model that comes with torchdl, as Markdown: its data, licences, command, figures and limits.

    Raises:
        InputError: There is no model of this name.

    Example:
        >>> from torchdl.predict import model_card
        >>> print(model_card("lenet-mnist").splitlines()[2])
        Classifies pictures of single handwritten digits.
    """
    return (pretrained_folder(name) / CARD).read_text(encoding="utf-8")


def pretrained_folder(name: str, folder: Path = FOLDER) -> Path:
    """Return the folder of a model that comes with torchdl, after a comparison of its files with their checksums.

    Raises:
        InputError: There is no model of this name, or a file is missing or not the one that was published.
    """
    index = read_index(folder)
    if name not in index:
        raise InputError(f"no model {name!r} comes with torchdl: choose among {', '.join(sorted(index))}")
    for file, known in index[name]["files"].items():
        path = folder / name / file
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        require(found == known, f"{path} is {'damaged' if found else 'missing'}: install torchdl again")
    return folder / name


def pretrained(name: str, device: str | torch.device = "auto", batch_size: int = 500) -> Predictor[Any]:
    """Load a trained model that comes with torchdl, as something to use; it needs no network and no data set.

    Its folder has a card (``card.md``), which says how it was trained, how good it is and what it is not for.

    Args:
        name: One of :func:`torchdl.predict.pretrained_models`.
        device: auto, cpu, cuda, cuda:N or mps.
        batch_size: The number of inputs that are computed at once.

    Raises:
        InputError: There is no model of this name, or its files are damaged.

    Example:
        >>> digits = torchdl.pretrained("lenet-mnist")
        >>> digits.predict(torch.zeros(3, 28, 28, dtype=torch.uint8)).probabilities.shape
        torch.Size([3, 10])
    """
    return load_predictor(pretrained_folder(name), device, batch_size)
