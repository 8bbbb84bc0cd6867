"""Predict a column of a new table with the model of a run of train_tabular.py (lectures 15 and 16).

An older form of ``predict.py RUN FILE``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl.cli.main import name_options, run_script
from torchdl.cli.parsing import Positional, as_written
from torchdl.data.delimited_files import TableFormat
from torchdl.files import require_suffix, write_table
from torchdl.predict import ClassAnswers, TabularPredictor, load_as
from torchdl.recipes.tabular import score


@dataclass(frozen=True)
class Config:
    """Predict the target for every row of a new CSV file; if the file has the target, measure the error."""

    run: Positional[Path]
    """The folder of the run."""
    csv: Path
    """The text file. It needs the columns that the model was trained on, in any order; other columns are ignored."""
    out: Path | None = None
    """The CSV file for the predictions; if not given, they are printed."""
    missing: Literal["refuse", "fill"] | None = None
    """Missing values: an error, or numbers are replaced by the training mean and texts by no category; if not given, as
    in the training."""
    format: TableFormat = field(default_factory=TableFormat)


def main(config: Config) -> None:
    """Load the model and the table, predict, save."""
    if config.out is not None:
        require_suffix(config.out, ".csv", ".txt")
    predictor = load_as(TabularPredictor, config.run)
    rows = predictor.read(config.csv, as_written(config.format, predictor.settings.format))
    answers = predictor.predict(rows, config.missing)
    for note in answers.notes:
        print(name_options(note, Config))
    predictions = answers.to_frame()
    if isinstance(answers, ClassAnswers):
        predictions = predictions.drop(columns="confidence").rename(columns={"class": predictor.settings.target})
    if config.out is None:
        print(predictions.to_string(index=False))
    else:
        write_table(config.out, predictions)
        print(f"{len(predictions):,} predictions: {config.out}")
    print(score(predictor.settings, answers, rows))


if __name__ == "__main__":
    run_script(main, Config)
