"""Ask a trained run: classify pictures, for example. It needs the run's folder alone, and no data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np
from torch import Tensor

from torchdl.cli.finished_runs import find_predictor
from torchdl.cli.main import name_options, run_script
from torchdl.cli.parsing import Positional, as_written
from torchdl.data.delimited_files import TableFormat
from torchdl.errors import require
from torchdl.files import require_suffix, write_array, write_table
from torchdl.pictures import image_grid, pairs_grid, save_png, side_by_side
from torchdl.plots.figure import save_figure
from torchdl.predict import (
    ClassAnswers,
    DirectionForecaster,
    Forecaster,
    ImageClassifier,
    ImageEmbedder,
    ImageGenerator,
    ImageReconstructor,
    NumberAnswers,
    Predictor,
    Recommender,
    SequencePredictor,
    SignalEmbedder,
    TabularPredictor,
    TextClassifier,
)
from torchdl.recipes.tabular import score

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

COLUMNS = 8  # of pictures with reconstructions and interpolations


@dataclass(frozen=True)
class TableOptions:
    """For a run that predicts a column of a table, or classifies texts."""

    missing: Literal["refuse", "fill"] | None = None
    """Missing values: an error, or numbers are replaced by the training mean and texts by no category; if not given, as
    in the training."""
    text: str = ""
    """The column of the texts to classify; if not given, that of the training."""


@dataclass(frozen=True)
class SeriesOptions:
    """For a run that forecasts a series."""

    horizon: int | None = None
    """Number of terms to forecast; if not given, that of the training."""
    time: str = ""
    """The column of times; if not given, that of the training. none: the rows are in order."""
    date_order: Literal["day", "month"] | None = None
    """Whether the day or the month comes first in 03/04/2020; if not given, as in the training."""
    sort: bool = False
    """Sort the rows by time."""


@dataclass(frozen=True)
class RecommenderOptions:
    """For a run that recommends titles: a user or the ratings of a new one."""

    user: str = ""
    """The id of a user of the training, to whom to recommend."""
    ratings: Path | None = None
    """The ratings of a new user, a table with the columns item (ids or titles) and rating."""
    least: int = 10
    """Minimum number of ratings of a title that is similar to another one: vectors of fewer are mostly noise."""


@dataclass(frozen=True)
class GeneratorOptions:
    """For a run that generates images."""

    seed: int = 0
    """The seed of the noise."""
    interpolate: Literal["linear", "spherical"] | None = None
    """Make each row of eight lead from one image to another."""


@dataclass(frozen=True)
class Config:
    """Answer with a trained run, on pictures, recordings, texts, tables, series or sequences, as it was trained;
    recommend titles to a user; or generate images."""

    run: Positional[Path]
    """The folder of the run, or pretrained:NAME for a model that comes with torchdl, such as pretrained:lenet-mnist."""
    inputs: Positional[tuple[str, ...]] = ()
    """What to answer on: pictures and folders of pictures for a run that takes images; recordings and folders of them
    for one that takes signals; texts, files with a text per line and tables for one that classifies texts; a CSV file
    for one that predicts a column of a table or forecasts a series; an .npy file for one that reads sequences."""
    out: Path | None = None
    """The file for the answers: .csv, .json, .npy (numbers alone) or .png (a picture); if not given, they are
    printed."""
    top: int = 1
    """Number of classes or of similar inputs to show for each input, the most probable or similar first."""
    n: int | None = None
    """Number of images to generate, 64 if not given; or of titles or similar words to show, 10 if not given."""
    similar: str = ""
    """A title of a run that recommends, or a word of one that classifies texts: show those with the nearest vectors."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    table: TableOptions = field(default_factory=TableOptions)
    series: SeriesOptions = field(default_factory=SeriesOptions)
    recommender: RecommenderOptions = field(default_factory=RecommenderOptions)
    generator: GeneratorOptions = field(default_factory=GeneratorOptions)
    format: TableFormat = field(default_factory=TableFormat)


class Answer(NamedTuple):
    """What a run answers: a table, the numbers in it, a picture or figure, and sentences; as far as there are such."""

    table: pandas.DataFrame | None = None
    numbers: np.ndarray | None = None
    picture: Tensor | Figure | None = None
    notes: tuple[str, ...] = ()  # printed before the answers
    summary: str = ""  # printed after them


def predicted(answers: ClassAnswers | NumberAnswers, config: Config, summary: str = "") -> Answer:
    """Return class probabilities or numbers as an answer."""
    if isinstance(answers, ClassAnswers):
        return Answer(answers.to_frame(config.top), answers.probabilities.numpy(), None, answers.notes, summary)
    require(config.top == 1, f"--top is for classes, but {config.run} predicts numbers")
    return Answer(answers.to_frame(), answers.numbers.numpy(), None, answers.notes, summary)


def classify_pictures(predictor: ImageClassifier, config: Config) -> Answer:
    """Classify pictures."""
    require(len(config.inputs) > 0, f"{config.run} classifies images: name pictures, or folders of them")
    return predicted(predictor.predict(config.inputs), config)


def classify_texts(predictor: TextClassifier, config: Config) -> Answer:
    """Classify texts."""
    if config.similar:
        return similar(predictor, config, "word")
    require(config.n is None, "--n is for --similar: leave it out")
    require(len(config.inputs) > 0, f"{config.run} classifies texts: write some, or name files of texts")
    inputs = [Path(given) if os.path.isfile(given) else given for given in config.inputs]
    written = as_written(config.format, predictor.settings.format)
    return predicted(predictor.predict(inputs, config.table.text, written), config)


def predict_rows(predictor: TabularPredictor, config: Config) -> Answer:
    """Predict a column for the rows of a table; if the table has that column, measure the error."""
    path = one_file(config, "predicts rows of a table: name one CSV file")
    rows = predictor.read(path, as_written(config.format, predictor.settings.format))
    answers = predictor.predict(rows, config.table.missing)
    return predicted(answers, config, score(predictor.settings, answers, rows))


def read_sequences(predictor: SequencePredictor, config: Config) -> Answer:
    """Predict a number or a class for sequences."""
    shape = f"(sequences, terms, {predictor.settings.features})"
    path = one_file(config, f"reads sequences: name one .npy file, an array of {shape}", ".npy")
    return predicted(predictor.predict(path), config)


def one_file(config: Config, wanted: str, suffix: str = "") -> str:
    """Return the only input; raise :class:`InputError` with what is wanted if there is none, or another."""
    found = config.inputs[0] if len(config.inputs) == 1 else str(len(config.inputs))
    require(len(config.inputs) == 1 and found.lower().endswith(suffix), f"{config.run} {wanted}, not {found}")
    return found


def compare(predictor: ImageEmbedder | SignalEmbedder, config: Config) -> Answer:
    """Find the most similar of the other pictures for each, or of the other windows of recordings."""
    wanted = "recordings" if isinstance(predictor, SignalEmbedder) else "pictures"
    require(len(config.inputs) > 0, f"{config.run} compares {wanted}: name some, or folders of them")
    answers = predictor.predict(config.inputs)
    advice = "name more, or save its embedding with embed.py"
    require(len(answers) >= 2, f"{config.run} compares inputs with each other, and there is one: {advice}")
    return Answer(answers.to_frame(config.top), answers.embeddings.numpy())


def reconstruct_pictures(predictor: ImageReconstructor, config: Config) -> Answer:
    """Encode and decode pictures; the picture has each above its reconstruction."""
    require(len(config.inputs) > 0, f"{config.run} reconstructs images: name pictures, or folders of them")
    answers = predictor.predict(config.inputs)
    picture = pairs_grid(answers.originals, answers.images, min(COLUMNS, len(answers)))
    return Answer(answers.to_frame(), answers.images.numpy(), side_by_side({"input, above reconstruction": picture}))


def generate_images(predictor: ImageGenerator, config: Config) -> Answer:
    """Generate images."""
    require(not config.inputs, f"{config.run} generates images, and takes only --n and --seed, no inputs")
    require(config.out is not None, f"{config.run} generates images: name a file for them, --out digits.png or .npy")
    count, seed, way = 64 if config.n is None else config.n, config.generator.seed, config.generator.interpolate
    require(count >= 1, f"--n must be 1 or more, not {count}")
    if way:
        images, columns, caption = predictor.interpolate(count, seed, way, COLUMNS), COLUMNS, "generated, row by row"
    else:
        images, columns, caption = predictor.predict(count, seed), None, "generated"
    return Answer(numbers=images.numpy(), picture=side_by_side({caption: image_grid(images, columns)}))


def forecast_series(predictor: Forecaster, config: Config) -> Answer:
    """Forecast the next terms of a series."""
    found = predictor.predict(**series_file(predictor, config))
    wanted = config.out is not None and config.out.suffix.lower() == ".png"
    return Answer(found.to_frame(), found.values.numpy(), found.figure() if wanted else None, found.notes)


def forecast_direction(predictor: DirectionForecaster, config: Config) -> Answer:
    """Forecast whether a column of a series rises next."""
    found = predictor.predict(**series_file(predictor, config))
    return Answer(found.to_frame(), np.array([found.probability]), notes=found.notes)


def series_file(predictor: Forecaster | DirectionForecaster, config: Config) -> dict[str, Any]:
    """Return the file of a series, and how it is written where the options say so; else it is as in the training."""
    inputs = one_file(config, "forecasts a series: name one CSV file")
    options = {name: value for name, value in vars(config.series).items() if value != vars(SeriesOptions())[name]}
    return {"inputs": inputs, "format": as_written(config.format, predictor.settings.series.format), **options}


def similar(predictor: Recommender | TextClassifier, config: Config, name: str, **options: int) -> Answer:
    """Find the titles or words with the nearest vectors."""
    import pandas  # imported late: it takes a second

    require(not config.inputs, "--similar needs no inputs: leave them out")
    found = predictor.similar(config.similar, 10 if config.n is None else config.n, **options)
    return Answer(pandas.DataFrame(found, columns=[name, "similarity"]), np.array([value for _, value in found]))


def recommend(predictor: Recommender, config: Config) -> Answer:
    """Recommend titles to a user of the training, or to a new one."""
    user, ratings = config.recommender.user, config.recommender.ratings
    if config.similar and not user and ratings is None:
        return similar(predictor, config, "title", least=config.recommender.least)
    one = (user != "") != (ratings is not None) and not config.inputs
    wanted = "name --user ID, --ratings FILE or --similar TITLE, and nothing else"
    require(one and not config.similar, f"{config.run} recommends titles: {wanted}")
    answers = predictor.predict(ratings or user, 10 if config.n is None else config.n)
    require(len(answers) > 0, f"there is nothing to recommend: {ratings or user} has rated everything")
    return Answer(answers.to_frame(), answers.ratings.numpy())


ANSWERS: dict[type[Predictor[Any]], Callable[[Any, Config], Answer]] = {
    ImageClassifier: classify_pictures,
    ImageEmbedder: compare,
    ImageReconstructor: reconstruct_pictures,
    SignalEmbedder: compare,
    ImageGenerator: generate_images,
    TabularPredictor: predict_rows,
    TextClassifier: classify_texts,
    Forecaster: forecast_series,
    DirectionForecaster: forecast_direction,
    Recommender: recommend,
    SequencePredictor: read_sequences,
}
TABLES = (".csv", ".json", ".npy")
#: The endings of files for the answers of a kind of runs; :data:`TABLES` for others.
FORMATS: dict[type[Predictor[Any]], tuple[str, ...]] = {
    Forecaster: (*TABLES, ".png"),
    ImageGenerator: (".png", ".npy"),
    ImageReconstructor: (*TABLES, ".png"),
}
#: The options that only some kinds of runs take.
OPTIONS: dict[str, tuple[type[Predictor[Any]], ...]] = {
    "top": (ImageClassifier, ImageEmbedder, SequencePredictor, SignalEmbedder, TabularPredictor, TextClassifier),
    "n": (ImageGenerator, Recommender, TextClassifier),
    "similar": (Recommender, TextClassifier),
    "missing": (TabularPredictor,),
    "text": (TextClassifier,),
    "horizon": (Forecaster,),
    **dict.fromkeys(("time", "date_order", "sort"), (DirectionForecaster, Forecaster)),
    **dict.fromkeys(("user", "ratings", "least"), (Recommender,)),
    **dict.fromkeys(("seed", "interpolate"), (ImageGenerator,)),
    **{each.name: (DirectionForecaster, Forecaster, TabularPredictor, TextClassifier) for each in fields(TableFormat)},
}


def given(config: Any, default: Any) -> Iterator[str]:
    """Yield the names of the options that are not the defaults."""
    for each in fields(config):
        value, usual = getattr(config, each.name), getattr(default, each.name)
        if is_dataclass(value):
            yield from given(value, usual)
        elif value != usual:
            yield each.name


def main(config: Config) -> None:
    """Load the run, answer, and print or save the answers."""
    require(config.top >= 1, f"--top must be 1 or more, not {config.top}")
    predictor = find_predictor(config.run, config.device)
    if config.out is not None:
        require_suffix(config.out, *FORMATS.get(type(predictor), TABLES))
    for name in given(config, Config(config.run)):
        kinds = OPTIONS.get(name, (Predictor,))
        wanted = " or ".join(kind.kind for kind in kinds if kind is not Predictor)
        option = "--" + name.replace("_", "-")
        known = f"{option} is for runs of the kind {wanted}, and {config.run} is of the kind {predictor.kind}"
        require(isinstance(predictor, kinds), known)
    answer = ANSWERS[type(predictor)](predictor, config)
    for note in answer.notes:
        print(
            name_options(note, Config), file=sys.stderr if config.out is None else sys.stdout
        )  # not among printed answers
    if config.out is not None:
        save(answer, config.out)
        print(config.out if answer.table is None else f"{len(answer.table):,} answers: {config.out}")
    elif answer.table is not None:
        shown = [name for name in answer.table.columns if not name.startswith("probability of ")]
        print(answer.table[shown or answer.table.columns].to_string(index=False))
    if answer.summary:
        print(answer.summary)


def save(answer: Answer, path: Path) -> None:
    """Save an answer in the format that a file's name says, which is one of :data:`FORMATS`."""
    kind, (table, numbers, picture) = path.suffix.lower(), answer[:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".png" and picture is not None:
        save_png(picture, path) if isinstance(picture, Tensor) else save_figure(picture, path)
    elif kind in (".csv", ".json") and table is not None:
        write_table(path, table)
    elif numbers is not None:
        write_array(path, numbers)


if __name__ == "__main__":
    run_script(main, Config)
