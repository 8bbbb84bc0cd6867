"""Ask a trained run: classify pictures with it, for example. It needs the run's folder alone, and no data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np
from torch import Tensor

from torchdl import load_predictor
from torchdl.cli.main import run_script
from torchdl.cli.parsing import Positional
from torchdl.cli.printing import say
from torchdl.errors import InputError, require
from torchdl.files import replacing, require_suffix
from torchdl.pictures import save_png
from torchdl.plots.figure import save_figure
from torchdl.predict import ImageClassifier, Predictor, TextClassifier

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Config:
    """Answer with a trained run, on pictures, texts and files of them."""

    run: Positional[Path]
    """The folder of the run."""
    inputs: Positional[tuple[str, ...]] = ()
    """What to answer on: pictures and folders of pictures for a run that classifies images; texts, files with a text
    per line and tables for one that classifies texts."""
    out: Path | None = None
    """The file for the answers: .csv, .json, .npy (numbers alone) or .png (a picture); if not given, they are
    printed."""
    top: int = 1
    """Number of classes to show for each input, the most probable first."""
    text: str = ""
    """The column of texts in tables; if not given, that of the training."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


class Answer(NamedTuple):
    """What a run answers: a table, the numbers in it, and a picture or figure if there is one."""

    table: pandas.DataFrame
    numbers: np.ndarray | None = None
    picture: Tensor | Figure | None = None


def classify_pictures(predictor: ImageClassifier, config: Config) -> Answer:
    """Classify pictures."""
    require(len(config.inputs) > 0, f"{config.run} classifies images: name pictures, or folders of them")
    answers = predictor.predict(config.inputs)
    return Answer(answers.to_frame(config.top), answers.probabilities.numpy())


def classify_texts(predictor: TextClassifier, config: Config) -> Answer:
    """Classify texts."""
    require(len(config.inputs) > 0, f"{config.run} classifies texts: write some, or name files of texts")
    inputs = [Path(given) if os.path.isfile(given) else given for given in config.inputs]
    answers = predictor.predict(inputs, config.text)
    for note in answers.notes:
        say(note)
    return Answer(answers.to_frame(config.top), answers.probabilities.numpy())


ANSWERS: dict[type[Predictor[Any]], Callable[[Any, Config], Answer]] = {
    ImageClassifier: classify_pictures,
    TextClassifier: classify_texts,
}

# options for some kinds alone
OWN: dict[str, tuple[type[Predictor[Any]], ...]] = {"text": (TextClassifier,)}


def main(config: Config) -> None:
    """Load the run, answer, and print or save the answers."""
    require(config.top >= 1, f"--top must be 1 or more, not {config.top}")
    if config.out is not None:
        require_suffix(config.out, ".csv", ".json", ".npy", ".png")
    predictor = load_predictor(config.run, config.device)
    for option, kinds in OWN.items():
        unused = getattr(config, option) == getattr(Config, option) or isinstance(predictor, kinds)
        wanted = " or ".join(kind.kind for kind in kinds)
        require(unused, f"--{option} is for a run of a {wanted}, and {config.run} is one of a {predictor.kind}")
    answer = ANSWERS[type(predictor)](predictor, config)
    if config.out is None:
        shown = [name for name in answer.table.columns if not name.startswith("probability of ")]
        print(answer.table[shown].to_string(index=False))
    else:
        save(answer, config.out)
        print(f"{len(answer.table):,} answers: {config.out}")


def save(answer: Answer, path: Path) -> None:
    """Save an answer in the format that a file's name says."""
    kind, (table, numbers, picture) = path.suffix.lower(), answer
    if kind == ".png":
        if picture is None:
            raise InputError("there is no picture of these answers: choose a file that ends in .csv, .json or .npy")
        save_png(picture, path) if isinstance(picture, Tensor) else save_figure(picture, path)
        return
    if kind == ".npy" and numbers is None:
        raise InputError("these answers are not numbers: choose a file that ends in .csv or .json")
    with replacing(path) as temporary:
        if kind == ".csv":
            table.to_csv(temporary, index=False)
        elif kind == ".json":
            table.to_json(temporary, orient="records", indent=2, force_ascii=False)
        elif numbers is not None:
            with temporary.open("wb") as file:
                np.save(file, numbers, allow_pickle=False)


if __name__ == "__main__":
    run_script(main, Config)
